"""Convolution with one multiplication per product, vectorised over a block of outputs.

Activations of any type, weights of any dense type, or bits for dense activations. Each output's products are added in
the order ky, kx, channel, from 0, as the reference does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bitc.ir.dtypes import BIT1, TERN
from bitc.ir.graph import Array, Node
from bitc.ir.program import c_type
from bitc.kernels.epilogues import epilogue
from bitc.kernels.geometry import geometry
from bitc.kernels.pack import pack_bits
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out
from bitc.ops.linear import Conv2D
from bitc.target import Target

BLOCK = 8
"""Outputs per block: one byte of weight bits."""


def pack_dense(w: Array, group: int) -> Array:
    """Weights ``[O, kh, kw, C]`` as blocks ``[K, <= BLOCK]`` of each group's outputs, one after the other."""
    flat = w.reshape(w.shape[0], -1)
    return np.concatenate([flat[start:stop].T.reshape(-1) for start, stop in _blocks(w.shape[0], group)])


def pack_signs(w: Array, group: int) -> Array:
    """Bit weights as blocks of K bytes; bit j of a byte belongs to output j of the block."""
    flat = w.reshape(w.shape[0], -1)
    return np.concatenate([pack_bits(flat[start:stop].T, 8).reshape(-1) for start, stop in _blocks(w.shape[0], group)])


def _blocks(outputs: int, group: int) -> list[tuple[int, int]]:
    size = outputs // group
    return [(s, min(s + BLOCK, g + size)) for g in range(0, outputs, size) for s in range(g, g + size, BLOCK)]


def accepts(node: Node, target: Target) -> str:
    x, w = node.input(0), node.input(1)
    return first_reason(
        (w.is_const, "weights are computed"),
        (w.type.dtype is not TERN, "weights are trits"),
        (not (x.type.dtype.is_packed and w.type.dtype is BIT1), "both operands are bits"),
    )


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    pixels, acc = op.pixels(x.type), op.accumulator(x.type, w.type)
    geo = geometry(pixels, op.window, op.planar)
    signs = w.type.dtype is BIT1
    e, params = epilogue(op.epilogue, node.inputs[2:], acc, node.output.type)
    packed = pack_signs(w.array, op.group) if signs else pack_dense(w.array, op.group)
    per_group = w.shape[0] // op.group
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "x_kind": ("dense", "bit", "tern")[x.type.dtype.planes],
        "x_t": c_type(x.type),
        "x_word": x.type.layout.word,
        "x_words": x.type.words_per_plane if x.type.layout.word else 0,
        "x_row": 1 if op.planar else x.type.row_words if x.type.layout.word else x.type.channels,
        "x_step": geo.h * geo.w if op.planar else 1,
        "x_image": x.type.size // x.type.shape[0] if not x.type.layout.word else geo.h * geo.w * x.type.row_words,
        "x_cast": x.type.dtype is not acc.dtype,
        "w_cast": w.type.dtype is not acc.dtype,
        "w_t": packed.dtype.name + "_t" if packed.dtype.kind in "iu" else "float",
        "signs": signs,
        "acc_t": acc.dtype.c_type,
        "float_acc": acc.dtype.is_float,
        "groups": op.group,
        "outputs": w.shape[0],
        "per_group": per_group,
        "blocks": per_group // BLOCK,
        "block": BLOCK,
        "rest": per_group % BLOCK,
        "channels": w.shape[3],
        "y_row": node.output.type.row_words if e["word"] else w.shape[0],
    }
    args = (out(node), Arg("x", x), Arg("w", Packed(packed)), *params)
    return (Step(VARIANT.name, "kernels/conv_dense.j2", args, context, ("bitc_defs.h",)),)


def cost(node: Node, target: Target) -> float:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    is_float = op.accumulator(x.type, w.type).dtype.is_float
    per_mac = 60.0 if is_float and "fpu" not in target.features else 6.0 if w.type.dtype is BIT1 else 3.0
    vectors = max(target.vector_bytes / 4, 1.0) if op.window.kernel == (1, 1) else 1.0
    return op.macs(x.type, w.type) * per_mac / vectors


VARIANT = Variant("conv_dense", (Conv2D,), accepts, build, cost)
