"""Convolution of float32 with the zeros of its weights left out, on the FPU of Armv7E-M and Armv8-M.

A tile of up to 16 pixels lies column by column in working memory, so that one instruction loads eight of them; each
weight multiplies those of its column, whose sums stay in registers. With products and sums apart a weight takes 37
instructions for 16 pixels: dense layers take 40 (`conv_products`). Processors with double precision add a product in
one instruction at no loss; on others that takes longer than the two. Weights are stored, and products added, as in
`conv_sparse`, but for steps, which lead on from behind the column before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bitc.ir.dtypes import FLOAT32
from bitc.ir.graph import Node
from bitc.kernels import conv_sparse
from bitc.kernels.epilogues import conv_epilogue
from bitc.kernels.geometry import geometry
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, scratch
from bitc.kernels.work import Work, put
from bitc.ops.linear import Conv2D
from bitc.target import Target

TILES = (16, 8, 4)
"""Pixels at a time."""
PRICES = {"call": 100.0, "columns": 3.0, "windows": 4.0, "rows": 30.0, "steps": 6.0, "products": 2.1, "put": 8.0}
"""Instructions for each term of the work, roughly."""


def accepts(node: Node, target: Target) -> str:
    x = node.input(0).type.dtype
    return (
        first_reason(
            (target.isa == "arm-m" and {"fpu", "unaligned"} <= target.features, "no such FPU"),
            ("mvefp" not in target.features, "vectors are wider"),
            (x is FLOAT32, f"activations are {x}, not float32"),
        )
        or conv_sparse.stored(node)
        or first_reason((bool(conv_sparse.tiles(node, target, TILES)), "few pixels, or long columns"))
    )


def plan(node: Node, target: Target) -> int:
    """The tile that needs the fewest instructions."""
    return min(conv_sparse.tiles(node, target, TILES), key=lambda tile: _priced(_work(node, tile, _joined(target))))


def _joined(target: Target) -> bool:
    """Whether a product is added in one instruction."""
    return "fpu64" in target.features


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    geo, tile, found = geometry(x.type, op.window), plan(node, target), conv_sparse.stream_of(node)
    e, params = conv_epilogue(node)
    starts = np.cumsum(found.counts, dtype=np.int64) - found.counts
    behind = np.ones(found.steps.size, np.uint8)
    behind[starts[found.counts > 0]] = 0
    steps = found.steps - behind if found.counts.any() else found.steps
    args = (
        out(node),
        Arg("x", x),
        Arg("w", Packed(found.values)),
        Arg("steps", Packed(steps, "steps")),
        Arg("counts", Packed(found.counts, "counts")),
        *params,
        scratch("columns", tile * conv_sparse.column(node), x.type.dtype.carrier.type),
    )
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "tile": tile,
        "transposes": False,
        "codes": False,
        "x_t": "float",
        "zero_of_x": "0.0f",
        "pixels": geo.pixels,
        "channels": w.shape[3],
        "outputs": w.shape[0],
    }
    uses = ("bitc_defs.h", f"isa/sparse_fpu.j2#{tile} {'joined' if _joined(target) else 'apart'}")
    return (Step(VARIANT.name, "kernels/conv_sparse_fpu.j2", args, context, uses),)


def _work(node: Node, tile: int, joined: bool) -> Work:
    op, x, outputs = node.op, node.input(0).type, node.input(1).shape[0]
    assert isinstance(op, Conv2D)
    geo = geometry(x, op.window)
    tiles = -(-geo.pixels // tile)
    passed = tiles * conv_sparse.stream_of(node).steps.size
    filled = "columns" if geo.taps == geo.sy == geo.sx == 1 else "windows"
    return {
        "call": 1,
        filled: tiles * tile * conv_sparse.column(node),
        "rows": tiles * outputs,
        "steps": passed,
        f"{'joined ' if joined else ''}products": passed * tile,
        put(node): tiles * tile * outputs,
    }


def work(node: Node, target: Target) -> Work:
    """Per tile its columns are filled and all weights passed; per weight and pixel a product; per output sums put."""
    return _work(node, plan(node, target), _joined(target))


def _priced(work: Work) -> float:
    """Instructions of the work, roughly."""
    prices = PRICES | {"joined products": 1.1}
    return sum(n * prices.get(term, prices["put"]) for term, n in work.items())


def cost(node: Node, target: Target) -> float:
    return _priced(work(node, target))


VARIANT = Variant("conv_sparse_fpu", (Conv2D,), accepts, build, cost, work)
