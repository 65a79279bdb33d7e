"""Convolution of codes with the zeros of its weights left out, on Helium: vectors of four neighbouring pixels.

A tile of up to 16 pixels lies column by column in working memory, as bytes; each weight multiplies those of its column,
which become 32 bits as they are loaded, and adds to sums in registers. The zero point goes to where sums start. Weights
are stored as in `conv_sparse`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bitc.ir.dtypes import INT8, UINT8
from bitc.ir.graph import Node
from bitc.kernels import conv_sparse
from bitc.kernels.bounds import product_range
from bitc.kernels.conv_sparse_dsp import wrapped
from bitc.kernels.epilogues import summed_epilogue
from bitc.kernels.geometry import geometry
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, scratch
from bitc.kernels.work import Work, put
from bitc.ops.linear import Conv2D
from bitc.target import Target

TILES = (16, 8, 4)
"""Pixels at a time."""
PRICES = {"call": 100.0, "columns": 0.5, "windows": 4.0, "rows": 20.0, "steps": 4.0, "products": 0.5, "put": 2.5}
"""Instructions for each term of the work, roughly."""


def accepts(node: Node, target: Target) -> str:
    x = node.input(0).type.dtype
    return (
        first_reason(
            ("mve" in target.features, "no Helium vectors"),
            (x in (INT8, UINT8), f"activations are {x}"),
        )
        or conv_sparse.stored(node)
        or first_reason((bool(conv_sparse.tiles(node, target, TILES)), "few pixels, or long columns"))
    )


def plan(node: Node, target: Target) -> int:
    """The tile that needs the fewest instructions."""
    return min(conv_sparse.tiles(node, target, TILES), key=lambda tile: _priced(_work(node, tile)))


def _point(node: Node) -> bool:
    """Whether windows are the pixels as they lie; offsets of eight of them have 16 bits."""
    op, x = node.op, node.input(0).type
    assert isinstance(op, Conv2D)
    geo = geometry(x, op.window)
    return geo.taps == geo.sy == geo.sx == 1 and not geo.border and 7 * x.channels < 2**16


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    geo, tile, found = geometry(x.type, op.window), plan(node, target), conv_sparse.stream_of(node)
    e, params, bias = summed_epilogue(node, *product_range(node), target)
    start = bias - op.x_zero * w.array.reshape(w.shape[0], -1).sum(axis=1, dtype=np.int64)
    args: tuple[Arg, ...] = (
        out(node),
        Arg("x", x),
        Arg("w", Packed(found.values)),
        Arg("steps", Packed(found.steps, "steps")),
        Arg("counts", Packed(found.counts, "counts")),
        *params,
    )
    if start.any():
        args += (Arg("start", Packed(wrapped(start), "start", is_weight=False)),)
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "tile": tile,
        "point": _point(node),
        "vector_put": e.get("upper") is not None and e["out_t"] in ("int8_t", "uint8_t"),
        "has_start": bool(start.any()),
        "transposes": False,
        "codes": False,
        "x_t": x.type.dtype.c_type,
        "zero_of_x": op.x_zero,
        "pixels": geo.pixels,
        "channels": w.shape[3],
        "outputs": w.shape[0],
    }
    args += (scratch("columns", tile * conv_sparse.column(node), x.type.dtype.carrier.type),)
    return (Step(VARIANT.name, "kernels/conv_sparse_mve.j2", args, context, ("bitc_defs.h", "isa/mve.j2")),)


def _work(node: Node, tile: int) -> Work:
    op, x, outputs = node.op, node.input(0).type, node.input(1).shape[0]
    assert isinstance(op, Conv2D)
    tiles = -(-geometry(x, op.window).pixels // tile)
    passed = tiles * conv_sparse.stream_of(node).steps.size
    return {
        "call": 1,
        "columns" if _point(node) else "windows": tiles * tile * conv_sparse.column(node),
        "rows": tiles * outputs,
        "steps": passed,
        "products": passed * tile,
        put(node): tiles * tile * outputs,
    }


def work(node: Node, target: Target) -> Work:
    """Per tile its columns are filled and all weights passed; per weight and pixel a product; per output sums put."""
    return _work(node, plan(node, target))


def _priced(work: Work) -> float:
    """Instructions of the work, roughly."""
    return sum(n * PRICES.get(term, PRICES["put"]) for term, n in work.items())


def cost(node: Node, target: Target) -> float:
    return _priced(work(node, target))


VARIANT = Variant("conv_sparse_mve", (Conv2D,), accepts, build, cost, work)
