"""Convolution with one multiplication per product, vectorised over a block of outputs.

Activations of any type, weights of any dense type, or bits or trits for dense activations (two bits per trit). Each
output's products are added in the order ky, kx, channel, from 0, as the reference does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bitc.ir.dtypes import FLOAT32, INT8, TERN, DType
from bitc.ir.graph import Array, Node
from bitc.ir.program import c_type
from bitc.kernels import overlap
from bitc.kernels.epilogues import conv_epilogue
from bitc.kernels.geometry import geometry
from bitc.kernels.pack import pack_bits, planes, storage
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, over_x
from bitc.kernels.work import Work, convolution
from bitc.ops.linear import Conv2D
from bitc.target import Target

UNROLLED = 4
"""Channels up to which compilers unroll the loop over them."""
BLOCK = 8
"""Outputs per block: one byte of weight bits."""


def pack_dense(w: Array, group: int) -> Array:
    """Weights ``[O, kh, kw, C]`` as blocks ``[K, <= BLOCK]`` of each group's outputs, one after the other."""
    flat = w.reshape(w.shape[0], -1)
    return np.concatenate([flat[start:stop].T.reshape(-1) for start, stop in blocks(w.shape[0], group)])


def pack_signs(w: Array, group: int) -> Array:
    """Weights of bits or trits as blocks of K bytes per plane; bit j of a byte belongs to output j of the block."""
    rows = np.stack([p.reshape(w.shape[0], -1) for p in planes(w)], axis=2)  # [O, K, planes]
    return np.concatenate([pack_bits(rows[i:j].T.swapaxes(0, 1), 8).reshape(-1) for i, j in blocks(w.shape[0], group)])


def blocks(outputs: int, group: int) -> list[tuple[int, int]]:
    """First and last output, exclusive, of each block."""
    size = outputs // group
    return [(s, min(s + BLOCK, g + size)) for g in range(0, outputs, size) for s in range(g, g + size, BLOCK)]


def stored(node: Node, target: Target) -> DType:
    """The type in which weights lie in memory: where flash is not counted, trits are numbers, which multiply faster
    than two bits unpack."""
    x, w = node.input(0).type.dtype, node.input(1).type.dtype
    if w is not TERN or target.memory.flash is not None:
        return w
    return FLOAT32 if x.is_float else INT8


def accepts(node: Node, target: Target) -> str:
    x, w = node.input(0), node.input(1)
    return first_reason(
        (w.is_const, "weights are computed"),
        (not (x.type.dtype.is_packed and w.type.dtype.is_packed), "both operands are packed"),
    )


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    pixels, acc = op.pixels(x.type), op.accumulator(x.type, w.type)
    geo = geometry(pixels, op.window, op.planar)
    kind = stored(node, target)
    signs, weights = kind.is_packed, w.array.astype(kind.carrier)
    e, params = conv_epilogue(node)
    packed = pack_signs(weights, op.group) if signs else pack_dense(weights, op.group)
    per_group = w.shape[0] // op.group
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "x_kind": storage(x.type.dtype),
        "x_planes": x.type.dtype.planes,
        "x_t": c_type(x.type),
        "x_word": x.type.layout.word,
        "x_words": x.type.words_per_plane if x.type.layout.word else 0,
        "x_row": 1 if op.planar else x.type.row_step,
        "x_step": geo.h * geo.w if op.planar else 1,
        "x_image": x.type.size // x.type.shape[0] if op.planar else geo.h * geo.w * x.type.row_step,
        "x_zero": op.x_zero,
        "x_cast": x.type.dtype is not acc.dtype,
        "w_cast": kind is not acc.dtype,
        "w_t": packed.dtype.name + "_t" if packed.dtype.kind in "iu" else "float",
        "signs": signs,
        "nibbles": False,
        "trits": kind is TERN,
        "acc_t": acc.dtype.c_type,
        "float_acc": acc.dtype.is_float,
        "groups": op.group,
        "outputs": w.shape[0],
        "per_group": per_group,
        "blocks": per_group // BLOCK,
        "block": BLOCK,
        "rest": per_group % BLOCK,
        "channels": w.shape[3],
        "y_row": node.output.type.row_step,
    }
    args = (out(node), Arg("x", x), Arg("w", Packed(packed)), *params)
    over = over_x(overlap.by_pixels(geo, x.type, node.output.type, overlap.singly(geo), False, op.planar))
    return (Step(VARIANT.name, "kernels/conv_dense.j2", args, context, ("bitc_defs.h",), over),)


def cost(node: Node, target: Target) -> float:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    is_float = op.accumulator(x.type, w.type).dtype.is_float
    per_mac = 60.0 if is_float and "fpu" not in target.features else (3.0, 6.0, 8.0)[stored(node, target).planes]
    vectors = (
        max(target.vector_bytes / 8, 1.0)
        if op.window.kernel == (1, 1) or stored(node, target) is not w.type.dtype
        else 1.0
    )
    if x.type.dtype.is_packed:
        vectors, per_mac = 1.0, per_mac + x.type.dtype.planes  # digits are picked out for every block of outputs
    return op.macs(x.type, w.type) * per_mac / vectors


def work(node: Node, target: Target) -> Work:
    """Per tap and block of outputs a loop over channels; its steps differ by what is multiplied."""
    terms, found = convolution(node)
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    channels, per_group = w.shape[3], w.shape[0] // op.group
    blocks, rest = divmod(per_group, BLOCK)
    taps = found.taps * op.group
    form = f"{' planar' if op.planar else ''}{' few' if channels <= UNROLLED else ''}"
    what = f"{x.type.dtype}*{stored(node, target)}{form}"
    return terms | {
        "blocks": found.pixels * op.group * (blocks + bool(rest)),
        "taps": taps * (blocks + bool(rest)),
        f"{what} steps": taps * channels * blocks,
        f"{what} rest": taps * channels * bool(rest),
        f"{what} rest products": taps * channels * rest,
    }


VARIANT = Variant("conv_dense", (Conv2D,), accepts, build, cost, work, apart="xy")
