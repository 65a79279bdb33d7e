"""Convolution of codes with weights of four bits: the nibbles of a word are the weights of eight outputs for one
channel. Otherwise as `conv_dense`, and about as fast, with half the flash: a signed bit field is extracted in one
instruction on Armv7-M, in two on Armv6-M, where otherwise a byte is loaded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitc.ir.dtypes import INT8, INT16, UINT8
from bitc.ir.graph import Array, Node
from bitc.kernels import conv_codebook, conv_dense
from bitc.kernels.step import Packed, Step, Variant, first_reason
from bitc.ops.linear import Conv2D
from bitc.target import Target

LEAST, MOST = -8, 7


def pack_nibbles(w: Array, group: int) -> Array:
    """Weights ``[O, kh, kw, C]`` as words of each block of eight outputs, ``[K]``; the first output in the lowest
    bits."""
    flat = w.reshape(w.shape[0], -1).astype(np.uint32) & 15
    shifts = (4 * np.arange(conv_dense.BLOCK, dtype=np.uint32))[:, None]
    blocks = [flat[start:stop] << shifts[: stop - start] for start, stop in conv_dense.blocks(w.shape[0], group)]
    return np.concatenate([np.bitwise_or.reduce(b, axis=0) for b in blocks]).astype(np.uint32)


def accepts(node: Node, target: Target) -> str:
    x, w = node.input(0), node.input(1)
    if not w.is_const or w.type.dtype.is_packed or not w.type.dtype.is_integer:
        return "weights are no constant integers"
    low, high = int(w.array.min()), int(w.array.max())
    return first_reason(
        (x.type.dtype in (INT8, UINT8, INT16), f"activations are {x.type.dtype}, not codes"),
        (low >= LEAST and high <= MOST, f"weights reach from {low} to {high}, not from {LEAST} to {MOST}"),
        (target.memory.flash is not None, "flash is not counted"),
        ("mve" not in target.features, "Helium multiplies bytes far faster"),
        (bool(conv_codebook.accepts_pairs(node, target)), "codebook_smlad decodes them for DSP instructions"),
    )


def build(node: Node, target: Target) -> tuple[Step, ...]:
    (step,) = conv_dense.build(node, target)
    op, w = node.op, node.input(1)
    assert isinstance(op, Conv2D)
    packed = Packed(pack_nibbles(w.array, op.group))
    args = tuple(replace(a, operand=packed) if a.name == "w" else a for a in step.args)
    context = step.context | {"nibbles": True, "w_t": "uint32_t"}
    return (replace(step, kernel=VARIANT.name, args=args, context=context),)


def cost(node: Node, target: Target) -> float:
    op = node.op
    assert isinstance(op, Conv2D)
    return op.macs(node.input(0).type, node.input(1).type) * PER_MAC


PER_MAC = 3.0
"""Instructions for one product, roughly."""
VARIANT = Variant("conv_nibbles", (Conv2D,), accepts, build, cost, apart="xy")
