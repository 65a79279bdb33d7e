"""Depthwise convolution of int8 codes with Helium, neighbouring channels side by side: for images so small, or windows
so large, that most of a window is padding or runs of outputs (`depthwise_mve`) do not fill vectors.

Taps outside the image are skipped, so the zero point is subtracted from inputs. Blocks of channels share pointers and
loops; the last one may overlap the one before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bitc.ir.dtypes import INT8, UINT8
from bitc.ir.graph import Node
from bitc.kernels.bounds import product_range
from bitc.kernels.epilogues import summed_epilogue
from bitc.kernels.geometry import geometry
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out
from bitc.kernels.work import Work, put, windows
from bitc.ops.epilogue import Affine, Requant
from bitc.ops.linear import Conv2D
from bitc.target import Target

LANES = 4
MOST = 4
"""Vectors of sums."""


def accepts(node: Node, target: Target) -> str:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    return first_reason(
        ("mve" in target.features, "no Helium"),
        (op.group == op.pixels(x.type).channels == w.shape[0], "not depthwise with one output per channel"),
        (not op.planar, "planes of an image"),
        (x.type.dtype in (INT8, UINT8), f"activations are {x.type.dtype}, not of 8 bits"),
        (w.type.dtype is INT8, f"weights are {w.type.dtype}, not int8"),
        (w.is_const, "weights are computed"),
        (w.shape[0] >= LANES, f"fewer than {LANES} channels"),
        (op.epilogue is None or isinstance(op.epilogue, Affine | Requant), "outputs are packed"),
    )


def _vectors(channels: int) -> int:
    """Vectors of a block of channels: so that blocks overlap little."""
    return min(range(1, min(MOST, channels // LANES) + 1), key=lambda v: -(-channels // (LANES * v)) * (5 * v + 3))


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    channels, dtype = x.type.channels, x.type.dtype
    e, params, bias = summed_epilogue(node, *product_range(node), target)
    starts = np.broadcast_to(bias, channels)
    args = [out(node), Arg("x", x), Arg("w", Packed(w.array.reshape(channels, -1).T.reshape(-1))), *params]
    if starts.any():
        args.append(Arg("start", Packed(starts.astype(np.int32), "bias")))
    context: dict[str, Any] = {
        **geometry(x.type, op.window).context,
        "e": e,
        "x_t": dtype.c_type,
        "unsigned": dtype is UINT8,
        "x_zero": op.x_zero,
        "has_start": bool(starts.any()),
        "channels": channels,
        "vectors": _vectors(channels),
    }
    uses = ("bitc_defs.h", "isa/mve.j2", "isa/saturate.j2")
    return (Step(VARIANT.name, "kernels/depthwise_channels.j2", tuple(args), context, uses),)


def work(node: Node, target: Target) -> Work:
    """Blocks of channels, their rows and columns of taps inside the image, products of vectors, outputs put."""
    op, channels = node.op, node.input(1).shape[0]
    assert isinstance(op, Conv2D)
    found, vectors = windows(geometry(node.input(0).type, op.window)), _vectors(channels)
    blocks = -(-channels // (LANES * vectors))
    return {
        "call": 1,
        "pixels": found.pixels,
        "blocks": found.pixels * blocks,
        "rows": found.rows * blocks,
        "taps": found.taps * blocks,
        "products": found.taps * blocks * vectors,
        put(node): found.pixels * blocks * vectors,
    }


def cost(node: Node, target: Target) -> float:
    prices = {"pixels": 25.0, "blocks": 20.0, "rows": 10.0, "taps": 3.0, "products": 5.0}
    return sum(n * prices.get(term, 8.0 if term.startswith("put") else 1.0) for term, n in work(node, target).items())


VARIANT = Variant("depthwise_channels", (Conv2D,), accepts, build, cost, work)
