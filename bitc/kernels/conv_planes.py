"""Convolution of small numbers in bit planes with bits, trits or small integers: XOR and popcount per pair of planes.

With activations ``x = sum 2**i * p[i]`` and weights in planes of bits s (1 for -1) and, for trits, n (nonzero):

    sum p[i] * w  =  popcount((p[i] ^ s) & n) - popcount(s & n)

since a nonzero weight of -1 sees ``1 - p`` where it should see ``-p``. What is taken back depends on the weights alone:
one number per output, and with it ``x_zero`` times their sum. So activations need no mask; taps in the padding hold the
code of zero. Weights beyond one plane count 1, 2, 4 ... as in `conv_bits`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bitc.ir.dtypes import INT8
from bitc.ir.graph import Array, Node
from bitc.kernels import overlap
from bitc.kernels.conv_bits import (
    LARGEST,
    gather,
    kernel_word,
    pack_weights,
    patch_words,
    tap_bits,
    weight_planes,
)
from bitc.kernels.epilogues import conv_epilogue
from bitc.kernels.geometry import geometry
from bitc.kernels.isa import bit_isa
from bitc.kernels.pack import WORDS
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, over_x, scratch
from bitc.kernels.work import Work, convolution
from bitc.ops.linear import Conv2D
from bitc.target import Target


def accepts(node: Node, target: Target) -> str:
    x, w = node.input(0), node.input(1)
    small = w.is_const and w.type.dtype is INT8 and abs(w.array.astype(np.int32)).max(initial=0) <= LARGEST
    return first_reason(
        (bool(x.type.dtype.digits), f"activations are {x.type.dtype}, not numbers in planes"),
        (w.is_const, "weights are computed"),
        (w.type.dtype.is_packed or small, f"weights are {w.type.dtype}, neither packed nor small integers"),
    )


def offsets(parts: Sequence[Array], w: Array, digits: int, x_zero: int) -> Array:
    """What is taken back from the counts, for each output, in the narrowest type."""
    total = np.zeros(len(w), np.int64)
    for part in parts:
        minus = part if part.dtype.kind == "b" else part < 0
        total = 2 * total + np.count_nonzero(minus.reshape(len(w), -1), axis=1)
    signs = 1 - 2 * w.astype(np.int64) if w.dtype.kind == "b" else w.astype(np.int64)
    total = total * (2**digits - 1) + x_zero * signs.reshape(len(w), -1).sum(axis=1)
    narrow: Array = total.astype(np.result_type(np.min_scalar_type(total.min()), np.min_scalar_type(total.max())))
    return narrow


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    isa, geo, digits = bit_isa(target), geometry(x.type, op.window), x.type.dtype.digits
    word = kernel_word(x.type, geo.taps, op.group, isa)
    k = patch_words(x.type, geo.taps, op.group, word)
    e, params = conv_epilogue(node)
    parts = weight_planes(w.array)
    zeros = parts[0].dtype.kind != "b"
    direct = geo.taps == 1 and op.group == 1 and not geo.border and x.type.layout.word == word
    offset = offsets(parts, w.array, digits, op.x_zero)
    args = [
        out(node),
        Arg("x", x),
        Arg("w", Packed(pack_weights(parts, x.type, op.group, word, isa.lanes))),
        *params,
        Arg("offset", Packed(offset, "offset", is_weight=False)),
    ]
    if not direct:
        args.append(scratch("patch", digits * k, WORDS[word]))
    per_group, units = w.shape[0] // op.group, gather(x.type, op.group, word)
    unit = units["unit"]
    channels = w.shape[3]
    context: dict[str, Any] = {
        **geo.context,
        **units,
        "e": e,
        "word_t": f"uint{word}_t",
        "word_bits": word,
        "k": k,
        "digits": digits,
        "lanes": isa.lanes,
        "groups": op.group,
        "outputs": w.shape[0],
        "per_group": per_group,
        "blocks": per_group // isa.lanes,
        "rest": per_group % isa.lanes,
        "channels": channels,
        "x_zero": op.x_zero,
        "parts": len(parts),
        "zeros": zeros,
        "plane_words": 2 * k if zeros else k,
        "patch_units": k * word // unit if unit else 0,
        "pad_units": k * word // unit - geo.taps * units["tap_units"] if unit else 0,
        "tail_at": channels // unit if unit else 0,
        "tail_bits": channels % unit if unit else 0,
        "direct": direct,
        "y_row": node.output.type.row_step,
    }
    gathered = not direct and op.group == 1
    over = over_x(overlap.by_pixels(geo, x.type, node.output.type, overlap.singly(geo), gathered))
    return (
        Step(
            VARIANT.name,
            "kernels/conv_planes.j2",
            tuple(args),
            context,
            ("bitc_defs.h", isa.template),
            over,
        ),
    )


def cost(node: Node, target: Target) -> float:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    macs, parts = op.macs(x.type, w.type), weight_planes(w.array)
    if op.group > 1 and tap_bits(x.type, op.group) % 8:
        return macs * 12.0 * x.type.dtype.digits  # gathered bit by bit
    pairs = len(parts) * x.type.dtype.digits * (1.0 if parts[0].dtype.kind == "b" else 1.25)
    return macs / 32 * bit_isa(target).cost * pairs


def work(node: Node, target: Target) -> Work:
    """Steps as in `conv_bits`, for every pair of planes."""
    terms, found = convolution(node)
    op, x, w = node.op, node.input(0).type, node.input(1)
    assert isinstance(op, Conv2D)
    isa, taps, digits = bit_isa(target), w.shape[1] * w.shape[2], x.dtype.digits
    word = kernel_word(x, taps, op.group, isa)
    k = patch_words(x, taps, op.group, word)
    parts, bits = weight_planes(w.array), tap_bits(x, op.group)
    blocks, rest = divmod(w.shape[0] // op.group, isa.lanes)
    kind = "bits " if parts[0].dtype.kind == "b" else "trits "
    pairs = found.pixels * op.group * len(parts) * digits
    terms |= {kind + term: pairs * blocks * n for term, n in isa.steps(k, word).items()}
    terms |= {"digits": pairs * (blocks + bool(rest)), f"{kind}rest words": pairs * rest * k}
    whole = taps == 1 and op.group == 1 and not found.border and x.layout.word == word
    if not whole:
        unit = gather(x, op.group, word)["unit"]
        copied = found.pixels * taps * op.group * digits
        terms |= {"taps": copied, "units": copied * bits // unit if unit else 0, "bits": 0 if unit else copied * bits}
    return terms


VARIANT = Variant("conv_planes", (Conv2D,), accepts, build, cost, work, sums_bases=True, apart="xy")
