"""Convolution with shared weights: they lie in flash as indices of 2, 4 or 8 bits into a codebook (Han et al., "Deep
Compression", 2016, on storage).

Each register tile of outputs is decoded into working memory once, before it passes over all pixels. The arithmetic is
that of `conv_products`; of `conv_smlad` for int8 with DSP instructions, whose words are halfwords of two weights each:
16 weights make 256 of these, which have indices, and all are decoded before the first pixel; those of a dense layer
block by block of outputs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitc.ir.graph import Array, Node
from bitc.kernels import conv_products, conv_smlad
from bitc.kernels.pack import pack_bits
from bitc.kernels.step import Arg, Packed, Step, Variant, scratch
from bitc.kernels.windows import GROUP
from bitc.kernels.work import Work
from bitc.ops.linear import Conv2D
from bitc.target import Target

SHARE = 4
"""Part of the RAM that decoded weights may take."""
WORTH = 0.8
"""Bytes of indices and codebook, relative to those of the weights, up to which the row is offered."""


def accepts(node: Node, target: Target) -> str:
    if reason := conv_products.accepts(node, target):
        return reason
    w = _packed(conv_products.build(node, target))
    book = np.unique(w)
    if len(book) > 256:
        return f"more than 256 different weights ({len(book)})"
    saved = indices(w, book).nbytes + book.nbytes <= WORTH * w.nbytes
    return "" if saved else "indices and codebook are no smaller than the weights"


def width(book: Array) -> int:
    """Bits of an index."""
    return next(bits for bits in (2, 4, 8) if len(book) <= 1 << bits)


def indices(w: Array, book: Array) -> Array:
    """Flat weights as bytes of indices, the first in the lowest bits."""
    bits = width(book)
    found = np.searchsorted(book, w.reshape(-1)).astype(np.uint8)
    return pack_bits(((found[:, None] >> np.arange(bits)) & 1).astype(np.bool_).reshape(1, -1), 8).reshape(-1)


def build(node: Node, target: Target) -> tuple[Step, ...]:
    steps = conv_products.build(node, target)
    w = _packed(steps)
    book, plan = np.unique(w), conv_products.plan(node, target)
    decoded = plan.block_outputs * plan.runs * plan.run * plan.isa.depth
    args = (
        *(a for a in steps[0].args if a.name != "w"),
        Arg("codes", Packed(indices(w, book))),
        Arg("book", Packed(book, "book")),
        scratch("decoded", decoded, w.dtype.type),
    )
    context = steps[0].context | {"code_bits": width(book)}
    return (replace(steps[0], kernel=VARIANT.name, args=args, context=context),)


def _packed(steps: tuple[Step, ...]) -> Array:
    operand = next(a.operand for a in steps[0].args if a.name == "w")
    assert isinstance(operand, Packed)
    return operand.data


def cost(node: Node, target: Target) -> float:
    assert isinstance(node.op, Conv2D)
    return conv_products.cost(node, target) + DECODE * node.input(1).type.size


def work(node: Node, target: Target) -> Work:
    return conv_products.work(node, target) | {"decoded": node.input(1).type.size}


DECODE = 8.0
"""Instructions for one weight, roughly."""
VARIANT = Variant("conv_codebook", (Conv2D,), accepts, build, cost, work, apart="xy")


def _halves(steps: tuple[Step, ...]) -> Array:
    return _packed(steps).astype("<u4").view("<u2").astype(np.uint16)


def accepts_pairs(node: Node, target: Target) -> str:
    if reason := conv_smlad.accepts(node, target):
        return reason
    w = _halves(conv_smlad.build(node, target))
    size = _decoded(node, target, w) * 4
    if conv_smlad.one_by_one(node, target) and node.output.type.rows > 1:
        return "pixels one by one"
    if target.memory.ram is not None and size > target.memory.ram // SHARE:
        return f"{size} bytes of decoded weights"
    book = np.unique(w)
    if len(book) > 256:
        return f"more than 256 different pairs of weights ({len(book)})"
    saved = indices(w, book).nbytes + book.nbytes <= WORTH * w.nbytes
    return "" if saved else "indices and codebook are no smaller than the weights"


def _decoded(node: Node, target: Target, packed: Array) -> int:
    """Words of decoded weights: all, or those of a block of outputs."""
    w = node.input(1)
    if not conv_smlad.one_by_one(node, target):
        return packed.size // 2
    return min(conv_smlad.OUTPUTS, w.shape[0]) * -(-(w.type.size // w.shape[0]) // GROUP)


def build_pairs(node: Node, target: Target) -> tuple[Step, ...]:
    steps = conv_smlad.build(node, target)
    w = _halves(steps)
    book = np.unique(w)
    args = (
        *(a for a in steps[0].args if a.name != "w"),
        Arg("codes", Packed(indices(w, book))),
        Arg("book", Packed(book, "book")),
        scratch("decoded", _decoded(node, target, w), np.uint32),
    )
    context = steps[0].context | {"code_bits": width(book), "codes": w.size}
    return (replace(steps[0], kernel=PAIRS.name, args=args, context=context),)


def cost_pairs(node: Node, target: Target) -> float:
    one = conv_smlad.one_by_one(node, target)
    return conv_smlad.cost(node, target) + (DECODE_PAIR_OF_ONE if one else DECODE_PAIR) / 2 * node.input(1).type.size


def work_pairs(node: Node, target: Target) -> Work:
    what = "decoded singly" if conv_smlad.one_by_one(node, target) else "decoded"
    return dict(conv_smlad.work(node, target)) | {what: node.input(1).type.size}


DECODE_PAIR = 4.0
"""Instructions for one halfword, roughly."""
DECODE_PAIR_OF_ONE = 3.5
"""The same, of a dense layer."""
PAIRS = Variant("codebook_smlad", (Conv2D,), accepts_pairs, build_pairs, cost_pairs, work_pairs, apart="xy")
