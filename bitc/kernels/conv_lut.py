"""Convolution of bytes with weights of bits or trits through tables.

Of every four consecutive inputs a, b, c, d of a window, all sixteen sums ±a ±b ±c ±d are tabulated once per pixel, each
from an earlier one with one subtraction; an output then costs one lookup per four products. Sums are exact integers,
so their order does not matter. (T-MAC does the same for matrix-vector products.)

For trits a table has all 3**n sums of n inputs, each ±a, 0 ...; the digits of a byte in base 3 say which, so that five
weights take a byte. Longer tables make shorter loops over outputs, and take longer to fill.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bitc.ir.dtypes import INT8, TERN, UINT8
from bitc.ir.graph import Array, Node
from bitc.ir.program import c_type
from bitc.kernels import overlap
from bitc.kernels.epilogues import conv_epilogue
from bitc.kernels.geometry import geometry
from bitc.kernels.pack import pack_bits
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, over_x, scratch
from bitc.kernels.work import Work, convolution
from bitc.ops.linear import Conv2D
from bitc.target import Target

CHUNK = 128
"""Inputs whose tables are held at a time: 1 KiB of tables."""
TRITS = {3: 18, 4: 6, 5: 4}
"""Trits per byte, and how many of their tables are held at a time: 1 to 2 KiB."""


def pack_nibbles(w: Array) -> Array:
    """Bit weights ``[O, kh, kw, C]`` as chunks of K, each ``[O, bytes]``: four bits per table, low nibble first."""
    flat = w.reshape(w.shape[0], -1)
    chunks = [flat[:, start : start + CHUNK] for start in range(0, flat.shape[1], CHUNK)]
    return np.concatenate([pack_bits(c, 8).reshape(-1) for c in chunks])


def pack_trits(w: Array, per_byte: int, chunk: int) -> Array:
    """Trits ``[O, kh, kw, C]`` as chunks of K, each ``[O, bytes]``: digits 0, 1, 2 for 0, +1, -1, lowest first."""
    flat = w.reshape(w.shape[0], -1) % 3
    octets = []
    for start in range(0, flat.shape[1], chunk):
        part = flat[:, start : start + chunk]
        part = np.pad(part, ((0, 0), (0, -part.shape[1] % per_byte))).reshape(len(part), -1, per_byte)
        octets.append((part * 3 ** np.arange(per_byte)).sum(axis=2).astype(np.uint8).reshape(-1))
    return np.concatenate(octets)


def _trits_per_byte(outputs: int) -> int:
    """The length of table that takes the least work per input."""
    return min(TRITS, key=lambda n: _trit_cost(n, outputs))


def _trit_cost(per_byte: int, outputs: int) -> float:
    """Instructions per input on a Cortex-M4: filling the table, and a lookup per output."""
    return (3.6 * float(3**per_byte) + 4.0 * outputs) / per_byte


def _accepts(node: Node, target: Target) -> str:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    return first_reason(
        (x.type.dtype in (INT8, UINT8), f"activations are {x.type.dtype}, not bytes"),
        (w.type.dtype.is_packed and w.is_const, "weights are no constant bits or trits"),
        (op.group == 1, "groups"),
        (op.x_zero == 0, "activations have a zero point"),
    )


def _build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    pixels = op.pixels(x.type)
    geo = geometry(pixels, op.window, op.planar)
    outputs, k = w.shape[0], w.type.size // w.shape[0]
    trits = _trits_per_byte(outputs) if w.type.dtype is TERN else 0
    length = 3**trits if trits else 16
    chunk = trits * TRITS[trits] if trits else CHUNK
    packed = pack_trits(w.array, trits, chunk) if trits else pack_nibbles(w.array)
    full, rest = divmod(k, chunk)
    e, params = conv_epilogue(node)
    several = full + bool(rest) > 1
    direct = geo.taps == 1 and not geo.border and not op.planar
    args = [out(node), Arg("x", x), Arg("w", Packed(packed)), *params]
    if not direct:
        args.append(scratch("patch", k, x.type.dtype.carrier.type))
    args.append(scratch("table", -(-min(k, chunk) // (trits or 4)) * length, np.int16))
    if several:
        args.append(scratch("sums", outputs, np.int32))
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "x_t": c_type(x.type),
        "channels": pixels.channels,
        "x_row": 1 if op.planar else x.type.row_step,
        "x_image": geo.h * geo.w * (pixels.channels if op.planar else x.type.row_step),
        "x_step": geo.h * geo.w if op.planar else 1,
        "k": k,
        "chunk": chunk,
        "trits": trits,
        "length": length,
        "full": full,
        "rest": rest,
        "several": several,
        "direct": direct,
        "outputs": outputs,
        "y_row": node.output.type.row_step,
    }
    over = over_x(overlap.by_pixels(geo, x.type, node.output.type, overlap.singly(geo), True, op.planar))
    return (Step(VARIANT.name, "kernels/conv_lut.j2", tuple(args), context, ("bitc_defs.h",), over),)


def _cost(node: Node, target: Target) -> float:
    w, pixels = node.input(1), node.output.type.rows
    k = w.type.size // w.shape[0]
    if w.type.dtype is TERN:
        return pixels * k * _trit_cost(_trits_per_byte(w.shape[0]), w.shape[0])
    return pixels * k * (12.0 + w.shape[0])


def _work(node: Node, target: Target) -> Work:
    terms, found = convolution(node)
    w = node.input(1)
    outputs, k = w.shape[0], w.type.size // w.shape[0]
    if w.type.dtype is TERN:
        per_byte = _trits_per_byte(outputs)
        tables = -(-k // per_byte)
        return terms | {
            "copied": found.pixels * k,
            "trit sums": found.pixels * tables * 3**per_byte,
            "trit lookups": found.pixels * outputs * tables,
            "chunks": found.pixels * outputs * (-(-tables // TRITS[per_byte]) - 1),
        }
    tables, chunks = -(-k // 4), -(-k // CHUNK)
    return terms | {
        "copied": found.pixels * k,
        "tables": found.pixels * tables,
        "lookups": found.pixels * outputs * tables,
        "chunks": found.pixels * outputs * (chunks - 1),
    }


VARIANT = Variant("conv_lut", (Conv2D,), _accepts, _build, _cost, _work, apart="xy")
