"""Convolution of bytes with one-bit weights through tables.

Of every four consecutive inputs a, b, c, d of a window, all sixteen sums ±a ±b ±c ±d are tabulated once per pixel, each
from an earlier one with one subtraction; an output then costs one lookup per four products. Sums are exact integers,
so their order does not matter. (T-MAC does the same for matrix-vector products.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bitc.ir.dtypes import BIT1, INT8, UINT8
from bitc.ir.graph import Array, Node
from bitc.ir.program import c_type
from bitc.kernels.epilogues import epilogue
from bitc.kernels.geometry import geometry
from bitc.kernels.pack import pack_bits
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, scratch
from bitc.ops.linear import Conv2D
from bitc.target import Target

CHUNK = 128
"""Inputs whose tables are held at a time: 1 KiB of tables."""


def pack_nibbles(w: Array) -> Array:
    """Bit weights ``[O, kh, kw, C]`` as chunks of K, each ``[O, bytes]``: four bits per table, low nibble first."""
    flat = w.reshape(w.shape[0], -1)
    chunks = [flat[:, start : start + CHUNK] for start in range(0, flat.shape[1], CHUNK)]
    return np.concatenate([pack_bits(c, 8).reshape(-1) for c in chunks])


def _accepts(node: Node, target: Target) -> str:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    return first_reason(
        (x.type.dtype in (INT8, UINT8), f"activations are {x.type.dtype}, not bytes"),
        (w.type.dtype is BIT1 and w.is_const, "weights are not constant bits"),
        (op.group == 1, "groups"),
    )


def _build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    pixels = op.pixels(x.type)
    geo = geometry(pixels, op.window, op.planar)
    outputs, k = w.shape[0], w.type.size // w.shape[0]
    full, rest = divmod(k, CHUNK)
    e, params = epilogue(op.epilogue, node.inputs[2:], op.accumulator(x.type, w.type), node.output.type)
    several = full + bool(rest) > 1
    direct = geo.taps == 1 and not geo.border and not op.planar
    args = [out(node), Arg("x", x), Arg("w", Packed(pack_nibbles(w.array))), *params]
    if not direct:
        args.append(scratch("patch", k, x.type.dtype.carrier.type))
    args.append(scratch("table", min(-(-k // 4), CHUNK // 4) * 16, np.int16))
    if several:
        args.append(scratch("sums", outputs, np.int32))
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "x_t": c_type(x.type),
        "channels": pixels.channels,
        "x_row": 1 if op.planar else pixels.channels,
        "x_step": geo.h * geo.w if op.planar else 1,
        "k": k,
        "chunk": CHUNK,
        "full": full,
        "rest": rest,
        "several": several,
        "direct": direct,
        "outputs": outputs,
        "y_row": node.output.type.row_words if e["word"] else outputs,
    }
    return (Step(VARIANT.name, "kernels/conv_lut.j2", tuple(args), context, ("bitc_defs.h",)),)


def _cost(node: Node, target: Target) -> float:
    w, pixels = node.input(1), node.output.type.rows
    k = w.type.size // w.shape[0]
    return pixels * k * (12.0 + w.shape[0])


VARIANT = Variant("conv_lut", (Conv2D,), _accepts, _build, _cost)
