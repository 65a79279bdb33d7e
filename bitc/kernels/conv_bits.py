"""Convolution of packed activations with weights in bit planes: XOR and popcount.

The window of a pixel is gathered into one run of words (`patch`), then compared with the weights of each output:
``dot = valid - 2 * popcount((patch ^ w) & mask)``. The mask is absent for bits away from the border, marks the taps
inside the input at the border, and is the nonzero plane for trits; `valid` is the number of ones in it.

Weights that are trits have a sign plane s and a nonzero plane z. With `plus` and `minus` the planes of the activations
that are +1 and -1 (neither: outside, or zero), each nonzero weight sees ``plus ^ s`` minus ``minus ^ s``:
``dot = popcount((plus ^ s) & z) - popcount((minus ^ s) & z)``. Where all activations are ±1, the first count is the
number of nonzero weights less the second; taps outside count as +1, and the sums of their weights are taken back.

Small integers are planes with weights 1, 2, 4: of signs if all are odd (``-3, -1, 1, 3`` is ``±2 ±1``), else of trits
(sign and magnitude). Their counts add up to the same two counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bitc.ir.dtypes import BIT1, INT8
from bitc.ir.graph import Array, Node
from bitc.ir.types import TensorType
from bitc.kernels import overlap
from bitc.kernels.epilogues import conv_epilogue
from bitc.kernels.geometry import geometry
from bitc.kernels.isa import BitIsa, bit_isa
from bitc.kernels.pack import WORDS, pack_bits, planes, storage
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, over_x, scratch
from bitc.kernels.work import Work, convolution
from bitc.ops.linear import Conv2D
from bitc.target import Target

LARGEST = 8
"""Magnitude up to which integer weights are taken: three planes, or four for 8."""


def tap_bits(x: TensorType, group: int) -> int:
    """Bits of one tap in the patch: whole layout words of a row, or just the channels of a group."""
    return x.words_per_plane * x.layout.word if group == 1 else x.channels // group


def patch_words(x: TensorType, taps: int, group: int, word: int) -> int:
    return -(-taps * tap_bits(x, group) // word)


def kernel_word(x: TensorType, taps: int, group: int, isa: BitIsa) -> int:
    """The widest word of the ISA that does not lengthen the patch by much."""
    bits = taps * tap_bits(x, group)
    wide = patch_words(x, taps, group, isa.word) * isa.word
    return isa.word if isa.word == 32 or wide <= bits * 1.05 else 32


def pack_weights(w: Sequence[Array], x: TensorType, group: int, word: int, lanes: int) -> Array:
    """Weights (see `weight_planes`), each ``[O, kh, kw, C]``, in the order of the patch: blocks of `lanes` outputs of a
    group, interleaved word by word, plane after plane; the last block of a group holds the outputs that are left."""
    (outputs, kh, kw, channels), bits = w[0].shape, tap_bits(x, group)
    taps = kh * kw
    packed = []
    for plane in (p for codes in w for p in planes(codes)):
        padded = np.zeros((outputs, taps, bits), np.bool_)
        padded[:, :, :channels] = plane.reshape(outputs, taps, -1)
        packed.append(pack_bits(padded.reshape(outputs, taps * bits), word))
    per_group = outputs // group
    blocks = [
        words[start : min(start + lanes, g + per_group)].T.reshape(-1)
        for g in range(0, outputs, per_group)
        for start in range(g, g + per_group, lanes)
        for words in packed
    ]
    return np.concatenate(blocks)


def weight_planes(w: Array) -> list[Array]:
    """Weights as bits or trits times 1, 2, 4 ..., the most significant first: ``w = sum 2**i * plane[i]``."""
    if w.dtype.kind == "b":
        return [w]
    whole = w.astype(np.int32)
    magnitude = np.abs(whole)
    count = int(magnitude.max(initial=1)).bit_length()
    if count > 1 and (whole % 2).all():
        digits = (whole + 2**count - 1) // 2  # of ones, that stand for +1
        return [(digits >> i & 1) == 0 for i in reversed(range(count))]
    return [(np.sign(whole) * (magnitude >> i & 1)).astype(np.int8) for i in reversed(range(count))]


def accepts(node: Node, target: Target) -> str:
    x, w = node.input(0), node.input(1)
    small = w.is_const and w.type.dtype is INT8 and abs(w.array.astype(np.int32)).max(initial=0) <= LARGEST
    return first_reason(
        (storage(x.type.dtype) in ("bit", "tern"), f"activations are {x.type.dtype}, neither bits nor trits"),
        (w.type.dtype.is_packed or small, f"weights are {w.type.dtype}, neither packed nor small integers"),
        (w.is_const, "weights are computed"),
    )


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    isa, geo = bit_isa(target), geometry(x.type, op.window)
    word = kernel_word(x.type, geo.taps, op.group, isa)
    k = patch_words(x.type, geo.taps, op.group, word)
    e, params = conv_epilogue(node)
    parts = weight_planes(w.array)
    zeros = parts[0].dtype.kind != "b"
    ternary, tabulated = x.type.dtype.planes == 2, zeros or len(parts) > 1
    direct = geo.taps == 1 and op.group == 1 and not geo.border and x.type.layout.word == word
    direct = direct and not (ternary and tabulated)  # the plane of +1 is computed in the copy
    masked = ternary or (geo.border and not tabulated)
    tap_sums = tabulated and geo.border and not ternary
    args = [out(node), Arg("x", x), Arg("w", Packed(pack_weights(parts, x.type, op.group, word, isa.lanes))), *params]
    if tabulated and not ternary:
        args.append(Arg("largest", Packed(_largest(parts), "largest", is_weight=False)))
    if tap_sums:
        args.append(Arg("tap_sums", Packed(_tap_sums(w.array), "tap_sums", is_weight=False)))
        args.append(scratch("outside", w.shape[0] // op.group, np.int32))
    if not direct:
        args.append(scratch("patch", k, WORDS[word]))
        if masked:
            args.append(scratch("mask", k, WORDS[word]))
    per_group = w.shape[0] // op.group
    context: dict[str, Any] = {
        **geo.context,
        **gather(x.type, op.group, word),
        "e": e,
        "word_t": f"uint{word}_t",
        "word_bits": word,
        "k": k,
        "lanes": isa.lanes,
        "groups": op.group,
        "outputs": w.shape[0],
        "per_group": per_group,
        "blocks": per_group // isa.lanes,
        "rest": per_group % isa.lanes,
        "channels": w.shape[3],
        "ternary": ternary,
        "tabulated": tabulated,
        "zeros": zeros,
        "weight_planes": len(parts),
        "plane_words": 2 * k if zeros else k,
        "tap_sums": tap_sums,
        "masked": masked,
        "direct": direct,
        "y_row": node.output.type.row_step,
    }
    gathered = not direct and op.group == 1
    over = over_x(overlap.by_pixels(geo, x.type, node.output.type, overlap.singly(geo), gathered))
    return (
        Step(
            VARIANT.name,
            "kernels/conv_bits.j2",
            tuple(args),
            context,
            ("bitc_defs.h", isa.template),
            over,
        ),
    )


def _largest(parts: Sequence[Array]) -> Array:
    """Per output the sum of its planes' nonzero weights, each times its plane's 1, 2, 4 ..."""
    total: Array = np.zeros(len(parts[0]), np.int64)
    for part in parts:
        nonzero = np.ones_like(part) if part.dtype.kind == "b" else part
        total = 2 * total + np.count_nonzero(nonzero.reshape(len(part), -1), axis=1)
    narrow: Array = total.astype(np.min_scalar_type(total.max()))
    return narrow


def _tap_sums(w: Array) -> Array:
    """Sum of the weights of each tap ``[taps, O]``."""
    sums: Array = w.sum(axis=3, dtype=np.int64).reshape(len(w), -1).T
    narrow: Array = sums.astype(np.min_scalar_type(-np.abs(sums).max() - 1))
    return narrow


def gather(x: TensorType, group: int, word: int) -> dict[str, Any]:
    """How rows are copied into the patch: in units of whole words where the taps allow, else bit by bit."""
    bits = tap_bits(x, group)
    widest = min(x.layout.word, word)
    unit = next((u for u in (64, 32, 16, 8) if u <= widest and bits % u == 0), 0)
    return {
        "unit": unit,
        "unit_t": f"bitc_u{unit or x.layout.word}",
        "x_word": x.layout.word,
        "tap_units": bits // unit if unit else 0,
        "row_units": x.row_step * x.layout.word // (unit or x.layout.word),
        "plane_units": x.words_per_plane * x.layout.word // (unit or x.layout.word),
        "tap_bits": bits,
    }


def cost(node: Node, target: Target) -> float:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    if op.group > 1 and tap_bits(x.type, op.group) % 8:
        return op.macs(x.type, w.type) * 12.0  # gathered bit by bit
    macs = op.macs(x.type, w.type)
    if w.type.dtype is BIT1:
        return macs / 32 * bit_isa(target).cost
    parts = weight_planes(w.array)
    counts = len(parts) * x.type.dtype.planes * (1.0 if parts[0].dtype.kind == "b" else 1.25)
    return macs / 32 * bit_isa(target).cost * counts


def work(node: Node, target: Target) -> Work:
    """Masked windows (border, trits) and plain ones differ in each step; so do whole blocks of outputs and the rest."""
    terms, found = convolution(node)
    op, x, w = node.op, node.input(0).type, node.input(1).type
    assert isinstance(op, Conv2D)
    isa, taps = bit_isa(target), w.shape[1] * w.shape[2]
    word = kernel_word(x, taps, op.group, isa)
    k = patch_words(x, taps, op.group, word)
    blocks, rest = divmod(w.shape[0] // op.group, isa.lanes)
    masked = found.pixels if x.dtype.planes == 2 else 0 if w.dtype is not BIT1 else found.border
    bits = tap_bits(x, op.group)
    unit = gather(x, op.group, word)["unit"]
    kind = f"{x.dtype}*{w.dtype} "
    for name, windows in ((f"{kind}plain ", found.pixels - masked), (f"{kind}masked ", masked)):
        windows *= op.group
        terms |= {name + term: windows * blocks * n for term, n in isa.steps(k, word).items()}
        terms |= {f"{name}rest words": windows * rest * k, f"{name}rest outputs": windows * rest}
    if op.group > 1:
        terms["groups"] = found.pixels * op.group
    whole = taps == 1 and op.group == 1 and not found.border and x.layout.word == word
    if not whole:
        copied = found.taps * op.group
        terms |= {f"{kind}taps": copied, f"{kind}units": copied * bits // unit if unit else 0}
        terms |= {f"{kind}border words": found.border * op.group * k}
        if not unit:
            terms |= {f"{kind}bits": copied * bits, f"{kind}walked": found.pixels * op.group * taps}
    return terms


VARIANT = Variant("conv_bits", (Conv2D,), accepts, build, cost, work, sums_bases=True, apart="xy")
