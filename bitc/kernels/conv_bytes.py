"""Convolution of int8 codes with one multiplication after the other, for cores without vectors.

The windows of two pixels are gathered, unless they lie side by side, and multiplied with the weights of four outputs:
two loads of activations and four of weights for eight products. The zero point is taken from where sums start, and
stands for padding.

Armv6-M can not multiply and add in one instruction, and has few registers. There (`packed`) activations and weights are
bytes from 0 to 255, and one multiplication by a weight makes the products of two pixels, in the halves of a word:
``(u + 2**16 * v) * w = u * w + 2**16 * v * w`` with ``u * w < 2**16``. What adding 128 to weights changes is taken away
in the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bitc.ir.dtypes import INT8, UINT8
from bitc.ir.graph import Array, Node
from bitc.kernels import overlap
from bitc.kernels.bounds import product_range
from bitc.kernels.epilogues import summed_epilogue
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, over_x, scratch
from bitc.kernels.windows import numbers, runs
from bitc.kernels.work import Work, put, windows
from bitc.ops.epilogue import Levels
from bitc.ops.linear import Conv2D
from bitc.target import Target

PIXELS = 2
MAX_PACKED = 2**16
"""Products of bytes that an unsigned sum of 32 bits holds."""


def block_sizes(target: Target) -> tuple[int, ...]:
    return (4, 2, 1) if target.has_long_multiply else (2, 1)


def pack_columns(w: Array, sizes: tuple[int, ...]) -> Array:
    """Weights ``[O, K]`` in blocks of so many outputs, each ``[K, block]``."""
    blocks, at = [], 0
    for size in sizes:
        while len(w) - at >= size:
            blocks.append(w[at : at + size].T.reshape(-1))
            at += size
    return np.concatenate(blocks)


def accepts(node: Node, target: Target) -> str:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    products = w.type.size // w.shape[0]
    return first_reason(
        (target.vector_bytes < 16, "vectors are wider"),
        (x.type.dtype in (INT8, UINT8), f"activations are {x.type.dtype}, not of 8 bits"),
        (w.type.dtype is INT8, f"weights are {w.type.dtype}, not int8"),
        (w.is_const, "weights are computed"),
        (not isinstance(op.epilogue, Levels), "outputs are planes"),
        (products < MAX_PACKED or target.has_long_multiply, f"{MAX_PACKED} products or more"),
    )


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w, y = node.op, node.input(0), node.input(1), node.output.type
    assert isinstance(op, Conv2D)
    geo, found = runs(node)
    packed, sizes = not target.has_long_multiply, block_sizes(target)
    outputs, per_group, k = w.shape[0], w.shape[0] // op.group, found.elements
    e, params, bias = summed_epilogue(node, *product_range(node), target)
    flat = w.array.reshape(outputs, -1)[:, np.array(found.index)]
    offset = 128 if packed and x.type.dtype is INT8 else 0
    start = np.broadcast_to(bias, outputs) - (op.x_zero + offset) * flat.astype(np.int64).sum(axis=1)
    weights = (flat.astype(np.int16) + 128).astype(np.uint8) if packed else flat
    blocks = [pack_columns(g, sizes) for g in np.split(weights, op.group)]
    args = [out(node), Arg("x", x), Arg("w", Packed(np.concatenate(blocks))), *params]
    if start.any():
        args.append(Arg("start", Packed(start.astype(np.int32), "bias")))
    direct = not packed and is_direct(node)
    if not direct:
        kind = np.uint32 if packed else x.type.dtype.carrier.type
        args.append(scratch("patch", k if packed else PIXELS * k, kind))
    context: dict[str, Any] = {
        **numbers(node, geo, found),
        "e": e,
        "packed": packed,
        "sizes": sizes,
        "x_t": x.type.dtype.c_type,
        "x_zero": op.x_zero,
        "offset": offset,
        "direct": direct,
        "groups": op.group,
        "outputs": outputs,
        "per_group": per_group,
        "pixels": geo.pixels,
        "pixels_odd": geo.pixels % PIXELS,
        "used": k,
        "has_start": bool(start.any()),
        "y_row": y.row_step,
    }
    gathered, pairs = not direct and op.group == 1, overlap.singly(geo, PIXELS)
    over = over_x(overlap.by_pixels(geo, x.type, y, pairs, gathered, op.planar))
    return (
        Step(
            VARIANT.name,
            "kernels/conv_bytes.j2",
            tuple(args),
            context,
            ("bitc_defs.h", "isa/bytes.j2"),
            over,
        ),
    )


def is_direct(node: Node) -> bool:
    """Whether windows lie one after the other, an even number of them."""
    op, x = node.op, node.input(0).type
    assert isinstance(op, Conv2D)
    geo, found = runs(node)
    flat = geo.taps == 1 and geo.h == 1 == geo.sx and not op.planar and op.group == 1
    return flat and geo.pixels % PIXELS == 0 and geo.pixels * found.elements == x.size


def work(node: Node, target: Target) -> Work:
    """Steps of the inner loops, calls of them, and elements gathered."""
    op, w = node.op, node.input(1)
    assert isinstance(op, Conv2D)
    geo, found = runs(node)
    per_group, k = w.shape[0] // op.group, found.elements
    tiles = -(-geo.pixels // PIXELS) * op.group
    sizes = block_sizes(target)
    terms: Work = {"call": 1, "tiles": tiles, put(node): geo.pixels * w.shape[0]}
    left = per_group
    for size in sizes:
        count, left = divmod(left, size)
        terms |= {f"blocks{size}": tiles * count, f"steps{size}": tiles * count * k}
    gathered = 0 if target.has_long_multiply and is_direct(node) else geo.pixels * op.group
    form = "planar " if op.planar else ""
    return terms | {
        f"{form}taps": gathered * (k if op.planar else geo.taps),
        "elements": 0 if op.planar else gathered * k,
        "border": gathered * geo.taps * (1 - windows(geo).inside / geo.pixels),
    }


def cost(node: Node, target: Target) -> float:
    prices = {"steps4": 16.0, "steps2": 12.0, "steps1": 8.0, "elements": 3.0, "taps": 10.0, "planar taps": 10.0}
    return sum(n * prices.get(term, 15.0) for term, n in work(node, target).items())


VARIANT = Variant("conv_bytes", (Conv2D,), accepts, build, cost, work, apart="xy")
