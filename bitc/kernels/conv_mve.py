"""Convolution of int8 codes with Helium: VMLADAVA sums 16 products of bytes into a register.

The window of a pixel, gathered into adjacent bytes where it is not already, is multiplied with the weights of four
outputs at once; the zero point is taken from where sums start, and stands for padding. Codes are finished four at a
time. Bits can be bytes too: ±1 times ±1 in int8 takes 5 to 6 instructions for 32 products, and eight times the flash;
so can ±1 and trits as weights of codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bitc.ir.dtypes import BIT1, INT8, TERN, UINT8
from bitc.ir.graph import Array, Node
from bitc.kernels import overlap
from bitc.kernels.bounds import product_range
from bitc.kernels.epilogues import conv_epilogue, summed_epilogue
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, over_x, scratch
from bitc.kernels.windows import in_one_run, numbers, runs
from bitc.kernels.work import Work, put, windows
from bitc.ops.linear import Conv2D, units
from bitc.target import Target

BLOCK = 4
VECTOR = 16


def pack_blocks(w: Array) -> Array:
    """Weights ``[O, K]`` in blocks of four outputs, the last of those that are left: vectors of all its outputs side by
    side, then what fills no vector."""
    whole = w.shape[1] // VECTOR * VECTOR
    parts = []
    for at in range(0, len(w), BLOCK):
        rows = w[at : at + BLOCK]
        parts += [
            rows[:, :whole].reshape(len(rows), -1, VECTOR).swapaxes(0, 1).reshape(-1),
            rows[:, whole:].reshape(-1),
        ]
    return np.concatenate(parts).astype(np.int8)


def accepts(node: Node, target: Target) -> str:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    bits = x.type.dtype is BIT1 and w.type.dtype is BIT1
    return first_reason(
        ("mve" in target.features, "no Helium"),
        (bits or x.type.dtype in (INT8, UINT8), f"activations are {x.type.dtype}, not of 8 bits"),
        (w.type.dtype in (INT8, BIT1, TERN), f"weights are {w.type.dtype}, neither int8 nor packed"),
        (w.is_const, "weights are computed"),
        (not bits or (x.type.channels % VECTOR == 0 and op.group == 1 and not op.planar), "bits do not fill vectors"),
    )


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w, y = node.op, node.input(0), node.input(1), node.output.type
    assert isinstance(op, Conv2D)
    geo, found = runs(node)
    bits, outputs, per_group = x.type.dtype is BIT1, w.shape[0], w.shape[0] // op.group
    k, flip = found.elements, 128 if x.type.dtype is UINT8 else 0
    e, params, bias = (
        (*conv_epilogue(node), np.zeros(1)) if bits else summed_epilogue(node, *product_range(node), target)
    )
    flat = units(w.array).reshape(outputs, -1)[:, np.array(found.index)]
    zero = op.x_zero - flip
    start = np.broadcast_to(bias, outputs).astype(np.int64) - zero * flat.astype(np.int64).sum(axis=1)
    packed = [pack_blocks(g) for g in np.split(flat, op.group)]
    args = [out(node), Arg("x", x), Arg("w", Packed(np.concatenate(packed))), *params]
    if start.any():
        args.append(Arg("start", Packed(start.astype(np.int32), "bias")))
    one = geo.pixels == 1 and not geo.border and in_one_run(node, geo, found)
    direct = (
        not bits and not flip and op.group == 1 and not op.planar and (one or (geo.taps == 1 and geo.h == 1 == geo.sx))
    )
    if not direct:
        args.append(scratch("patch", k, np.int8))
    context: dict[str, Any] = {
        **numbers(node, geo, found),
        "e": e,
        "bits": bits,
        "x_row": x.type.row_step if bits else numbers(node, geo, found)["x_row"],
        "x_image": geo.h * geo.w * x.type.row_step if bits else numbers(node, geo, found)["x_image"],
        "tap": 1 if op.planar else w.shape[3],
        "flip": flip,
        "fill": 0 if bits else zero,
        "direct": direct,
        "window_step": x.type.row_step,
        "groups": op.group,
        "outputs": outputs,
        "per_group": per_group,
        "vectors": k // VECTOR,
        "rest": k % VECTOR,
        "has_start": bool(start.any()),
        "y_row": y.row_step,
    }
    gathered = not direct and op.group == 1
    over = over_x(overlap.by_pixels(geo, x.type, y, overlap.singly(geo), gathered, op.planar))
    return (
        Step(
            VARIANT.name,
            "kernels/conv_mve.j2",
            tuple(args),
            context,
            ("bitc_defs.h", "isa/mve.j2"),
            over,
        ),
    )


def work(node: Node, target: Target) -> Work:
    """Vectors multiplied, blocks of outputs, and taps gathered."""
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    geo, found = runs(node)
    per_group, k = w.shape[0] // op.group, found.elements
    blocks = geo.pixels * op.group * -(-per_group // BLOCK)
    kind = "bits" if x.type.dtype is BIT1 else "codes"
    terms: Work = {
        "call": 1,
        "pixels": geo.pixels * op.group,
        "ends": blocks * bool(k % VECTOR),
        "tails": geo.pixels * w.shape[0] * bool(k % VECTOR),
        f"{kind} {put(node)}": geo.pixels * w.shape[0],
        f"{kind} blocks": blocks if per_group > 32 else 0,  # fewer are unrolled
        f"{kind} steps": blocks * (k // VECTOR),
        f"{kind} vectors": geo.pixels * w.shape[0] * (k // VECTOR),
    }
    if geo.taps == 1 and op.group == 1 and x.type.dtype is INT8:
        return terms
    by_taps = geo.pixels if found.split or x.type.dtype is BIT1 else windows(geo).border
    length = 1 if op.planar else w.shape[3]
    how = "planar" if op.planar else kind
    taps, rows = by_taps * op.group * k // length, (geo.pixels - by_taps) * found.count
    return terms | {
        f"{how} taps": taps,
        f"{how} copied": taps * -(-length // VECTOR) + rows * -(-found.length // VECTOR),
        "rows": rows,
    }


def cost(node: Node, target: Target) -> float:
    geo, found = runs(node)
    w = node.input(1)
    return geo.pixels * (20.0 + 3.0 * found.elements / VECTOR + w.shape[0] * (8.0 + found.elements / 8))


VARIANT = Variant("conv_mve", (Conv2D,), accepts, build, cost, work, apart="xy")
