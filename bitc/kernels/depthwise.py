"""Depthwise convolution of packed activations with bits: all channels of a word at once.

The products that are -1 are counted in bit-sliced counters: plane p holds bit p of the counts of all channels of a
word. ``dot = valid - 2 * count``; for trits the nonzero products of each channel are counted in the same way.
"""

from __future__ import annotations

from typing import Any

from bitc.ir.dtypes import BIT1
from bitc.ir.graph import Array, Node
from bitc.kernels import overlap
from bitc.kernels.epilogues import conv_epilogue
from bitc.kernels.geometry import geometry
from bitc.kernels.pack import pack_bits, storage
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, over_x
from bitc.kernels.work import Work, convolution
from bitc.ops.linear import Conv2D
from bitc.target import Target


def pack_depthwise(w: Array, word: int) -> Array:
    """Bit weights ``[C, kh, kw, 1]`` as packed rows of channels, one per tap."""
    return pack_bits(w.reshape(w.shape[0], -1).T, word).reshape(-1)


def _accepts(node: Node, target: Target) -> str:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    return first_reason(
        (op.group == x.type.channels == w.shape[0], "not depthwise with one output per channel"),
        (storage(x.type.dtype) in ("bit", "tern"), f"activations are {x.type.dtype}, neither bits nor trits"),
        (w.type.dtype is BIT1 and w.is_const, "weights are not constant bits"),
    )


def _build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    geo, word = geometry(x.type, op.window), x.type.layout.word
    e, params = conv_epilogue(node)
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "word": word,
        "word_t": f"uint{word}_t",
        "words": x.type.words_per_plane,
        "x_row": x.type.row_step,
        "channels": x.type.channels,
        "planes": geo.taps.bit_length(),
        "ternary": storage(x.type.dtype) == "tern",
        "y_row": node.output.type.row_step,
    }
    args = (out(node), Arg("x", x), Arg("w", Packed(pack_depthwise(w.array, word))), *params)
    over = over_x(overlap.by_pixels(geo, x.type, node.output.type, overlap.singly(geo), False))
    return (Step(BITS.name, "kernels/depthwise_bits.j2", args, context, ("bitc_defs.h",), over),)


def _cost(node: Node, target: Target) -> float:
    x, w = node.input(0).type, node.input(1).type
    per_word = w.size // w.shape[0] * 10 + x.layout.word * 10
    return node.output.type.rows * x.words_per_plane * per_word


def _work(node: Node, target: Target) -> Work:
    terms, found = convolution(node)
    x, w = node.input(0).type, node.input(1).type
    planes = (w.size // w.shape[0]).bit_length()
    kind = f"{x.dtype} {x.layout.word} "
    return terms | {
        f"{kind}words": found.pixels * x.words_per_plane,
        f"{kind}taps": found.taps * x.words_per_plane,
        f"{kind}carries": found.taps * x.words_per_plane * planes,
        f"{kind}counts": found.pixels * x.channels * planes,
    }


BITS = Variant("depthwise_bits", (Conv2D,), _accepts, _build, _cost, _work, apart="xy")
