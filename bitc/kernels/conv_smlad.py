"""Convolution of int8 or int16 codes with int8 weights on Armv7E-M: SMLAD multiplies two pairs of 16-bit numbers.

The windows of two pixels are gathered, as halfwords less the zero point, in the order of use; padding is 0 there, so
that no border is left. Four outputs times two pixels are summed in registers: two channels of eight sums take 12
instructions (templates/isa/int8_dsp.j2 says how). Dense layers have one pixel: its bytes are unpacked by each block of
eight outputs, 31 instructions for 32 products. Pixels of 1x1 convolutions are taken so too, one by one, where the
halfwords of two would not fit the RAM.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bitc.ir.dtypes import INT8, INT16, UINT8
from bitc.ir.graph import Array, Node
from bitc.kernels import overlap
from bitc.kernels.bounds import product_range
from bitc.kernels.epilogues import summed_epilogue
from bitc.kernels.geometry import Geometry, geometry
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, over_x, scratch
from bitc.kernels.windows import GROUP, in_one_run, numbers, runs
from bitc.kernels.work import Work, put, windows
from bitc.ops.epilogue import Levels
from bitc.ops.linear import Conv2D
from bitc.target import Target

PIXELS = 2
OUTPUTS = 8
"""Outputs of a block where there is one pixel."""
HALVES = (0, 2, 1, 3)
"""Elements of a word in the order in which SXTB16 makes halfwords of them."""
PRICES: Work = {
    **{f"{PIXELS}x{size} units": 4.0 + 2.0 * size for size in (1, 2, 4)},
    **{f"{PIXELS}x{size} wide units": 3.0 + 3.0 * size for size in (2, 4)},
    **{f"1x{size} units": 3.0 + 3.5 * size for size in (1, 2, 4, 8)},
    **{f"1x{size} wide units": 3.0 + 5.0 * size for size in (2, 4, 8)},
    **{f"{pixels}x{size}{wide} blocks": 40.0 for pixels in (1, 2) for size in (1, 2, 4, 8) for wide in ("", " wide")},
    **{f"put {epilogue}": 10.0 for epilogue in ("raw", "requant", "affine", "threshold", "ternthreshold")},
    "pixels": 20.0,
    "runs": 10.0,
    "words": 6.0,
    "elements": 6.0,
    "edge elements": 3.0,
    "bytes": 5.0,
}
"""Instructions for each term of the work, roughly."""


def pack_pairs(w: Array, order: Array, wide: bool, largest: int) -> Array:
    """Weights ``[O, K]`` in the order of use: blocks of `largest`, then fewer outputs (see `_sizes`). Per block and
    pair of products the words of its pairs of outputs; four products of a single output in one word."""
    padded = np.concatenate([w.astype(np.int32), np.zeros((len(w), 1), np.int32)], axis=1)[:, order]  # -1: zeros
    blocks, at = [], 0
    for size in _sizes(len(w), largest):
        rows = padded[at : at + size]
        at += size
        blocks.append(_single(rows[0]) if size == 1 else _pairs(rows, wide))
    return np.concatenate(blocks).view("<u4").astype(np.uint32)


def _sizes(outputs: int, largest: int) -> list[int]:
    """Blocks of outputs: powers of two."""
    sizes = [largest] * (outputs // largest)
    while largest := largest // 2:
        sizes += [largest] * (outputs & largest > 0)
    return sizes


def _pairs(rows: Array, wide: bool) -> Array:
    """``[pairs of channels, pairs of outputs, 2]``: 256 * a + b, or the byte a above the byte b."""
    a, b = rows[0::2], rows[1::2]
    halves = 256 * a + (b & 255 if wide else b)
    return np.ascontiguousarray(halves.reshape(len(a), -1, 2).transpose(1, 0, 2)).astype("<i2").reshape(-1)


def _single(row: Array) -> Array:
    """Halfwords: bytes {0, 2} of a word are its first pair of channels, {1, 3} the second."""
    groups = np.pad(row, (0, -len(row) % 4)).reshape(-1, 4)
    return np.ascontiguousarray(groups[:, [0, 2, 1, 3]]).astype(np.int8).reshape(-1).view("<i2")


def is_wide(node: Node, bias: Array) -> bool:
    """Whether weights of two outputs do not combine to halfwords, or 256 times a sum exceeds int32."""
    op, w = node.op, node.input(1)
    assert isinstance(op, Conv2D)
    low, high = product_range(node)
    far = np.maximum(abs(low + bias), abs(high + bias)).max() >= 2**23
    per_group = w.shape[0] // op.group
    flat = w.array.reshape(-1, per_group, w.type.size // w.shape[0]).astype(np.int32)
    pairs = 256 * flat[:, 0 : per_group // 2 * 2 : 2] + flat[:, 1::2]
    return bool(far or (abs(pairs) >= 2**15).any())


def accepts(node: Node, target: Target) -> str:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    dtype = x.type.dtype
    return first_reason(
        ("dsp" in target.features, "no DSP instructions"),
        (dtype in (INT8, UINT8, INT16), f"activations are {dtype}, neither int8 nor int16"),
        (w.type.dtype is INT8, f"weights are {w.type.dtype}, not int8"),
        (w.is_const, "weights are computed"),
        (not isinstance(op.epilogue, Levels), "outputs are planes"),
        (dtype is not INT16 or not op.x_zero, "int16 with a zero point"),
    )


def build(node: Node, target: Target) -> tuple[Step, ...]:
    return _build_ones(node, target) if one_by_one(node, target) else _build_pairs(node, target)


def one_by_one(node: Node, target: Target) -> bool:
    """Whether each pixel is taken by itself: of a dense layer, or of a 1x1 convolution whose working memory would
    exceed the RAM."""
    op, x, w = node.op, node.input(0).type, node.input(1)
    assert isinstance(op, Conv2D)
    if op.group > 1 or x.dtype is INT16:
        return False
    geo, ram = geometry(op.pixels(x), op.window, op.planar), target.memory.ram
    room = ram is None or 2 * PIXELS * w.type.size // w.shape[0] <= ram
    return geo.pixels == 1 or (not room and _is_point(op, geo))


def _build_ones(node: Node, target: Target) -> tuple[Step, ...]:
    """Bytes as they are, eight outputs at once; the zero point goes to where the sums start."""
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    geo, found = runs(node)
    e, params, bias = summed_epilogue(node, *product_range(node), target)
    wide, outputs, k = is_wide(node, bias), w.shape[0], found.elements
    flat = w.array.reshape(outputs, k)
    index = np.array(found.index)
    order = np.pad(index, (0, -k % GROUP), constant_values=-1).reshape(-1, GROUP)[:, HALVES].reshape(-1)
    direct = len(order) == k and in_one_run(node, geo, found)
    start = bias - op.x_zero * flat.astype(np.int64).sum(axis=1)
    args = [out(node), Arg("x", x), Arg("w", Packed(pack_pairs(flat, order, wide, OUTPUTS))), *params]
    if start.any():
        args.append(Arg("init", Packed(_init(start, wide), "bias")))
    if not direct:
        args.append(scratch("patch", len(order), x.type.dtype.carrier.type))
    context: dict[str, Any] = {
        **numbers(node, geo, found),
        "e": e,
        "x_zero": op.x_zero,
        "x_signed": x.type.dtype is INT8,
        "direct": direct,
        "outputs": outputs,
        "wide": wide,
        "has_init": bool(start.any()),
        "units": len(order) // GROUP,
        "used": k,
        "padding": len(order) - k,
        "pixels": geo.pixels,
        "y_row": node.output.type.row_step,
        "code_bits": 0,
    }
    sign = "signed" if x.type.dtype is INT8 else "unsigned"
    parts = [
        f"isa/int8_dsp.j2#1 {s} {'wide' if wide and s > 1 else 'plain'} {sign}" for s in set(_sizes(outputs, OUTPUTS))
    ]
    rounds = overlap.singly(geo)
    over = over_x(overlap.by_pixels(geo, x.type, node.output.type, rounds, not direct, op.planar))
    return (
        Step(
            "dense_smlad",
            "kernels/dense_smlad.j2",
            tuple(args),
            context,
            ("bitc_defs.h", *sorted(parts)),
            over,
        ),
    )


def _build_pairs(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w, y = node.op, node.input(0), node.input(1), node.output.type
    assert isinstance(op, Conv2D)
    geo, found = runs(node)
    e, params, bias = summed_epilogue(node, *product_range(node), target)
    outputs, per_group = w.shape[0], w.shape[0] // op.group
    wide = is_wide(node, bias)
    k = found.elements
    order = found.order(2, (0, 1, 2, 3) if x.type.dtype is INT16 else HALVES)
    length = len(order) + len(order) % GROUP * (per_group % 2)  # single outputs take four at once
    packed = [pack_pairs(g.reshape(per_group, -1), order, wide, 4) for g in np.split(w.array, op.group)]
    args = [out(node), Arg("x", x), Arg("w", Packed(np.concatenate(packed))), *params]
    if bias.any():
        init = np.concatenate([_init(b, wide) for b in np.split(np.broadcast_to(bias, outputs), op.group)])
        args.append(Arg("init", Packed(init, "bias")))
    args.append(scratch("patch", PIXELS * length // 2, np.uint32))
    minus = -op.x_zero & 0xFFFF
    context: dict[str, Any] = {
        **numbers(node, geo, found),
        "e": e,
        "x_t": x.type.dtype.c_type,
        "x_zero": op.x_zero,
        "widen": {INT8: "s8", UINT8: "u8", INT16: "s16"}[x.type.dtype],
        "minus": minus << 16 | minus,
        "groups": op.group,
        "outputs": outputs,
        "per_group": per_group,
        "pixels": geo.pixels,
        "pixels_odd": geo.pixels % PIXELS,
        "wide": wide,
        "suffix": "_wide" if wide else "",
        "has_init": bool(bias.any()),
        "units": -(-k // 2),
        "units_of_one": -(-k // 4),
        "used": k,
        "padding": length - k,
        "y_row": y.row_step,
        "code_bits": 0,
    }
    sizes = sorted(set(_sizes(per_group, 4)))
    parts = [f"isa/int8_dsp.j2#2 {size} {'wide' if wide and size > 1 else 'plain'} signed" for size in sizes]
    uses = ("bitc_defs.h", *parts)
    pairs = overlap.singly(geo, 2)
    over = overlap.by_pixels(geo, x.type, y, pairs, reads_first=op.group == 1, planar=op.planar)
    return (Step(VARIANT.name, "kernels/conv_smlad.j2", tuple(args), context, uses, over_x(over)),)


def _is_point(op: Conv2D, geo: Geometry) -> bool:
    """Whether every output pixel is made of the input pixel at its place."""
    return (geo.taps, geo.sy, geo.sx, op.group) == (1, 1, 1, 1) and not geo.border and not op.planar


def _init(bias: Array, wide: bool) -> Array:
    """What sums of a group start at."""
    result = bias.astype(np.int64)
    pairs = len(result) // 2 * 2
    if not wide:
        result[0:pairs:2] = 256 * result[0:pairs:2] + result[1:pairs:2]
    return (result & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


def work(node: Node, target: Target) -> Work:
    """Units of the inner loops, calls of them, elements gathered, and outputs put."""
    op, w = node.op, node.input(1)
    assert isinstance(op, Conv2D)
    geo, found = runs(node)
    outputs, k = w.shape[0], found.elements
    one, per_group = one_by_one(node, target), outputs // op.group
    wide = " wide" if is_wide(node, np.zeros(1, np.int64)) else ""
    terms: dict[str, float] = {"call": 1, put(node): geo.pixels * outputs}
    tiles = geo.pixels if one else -(-geo.pixels // PIXELS) * op.group
    for size in _sizes(per_group, OUTPUTS if one else 4):
        name = f"{1 if one else PIXELS}x{size}{wide if size > 1 else ''}"
        terms[f"{name} blocks"] = terms.get(f"{name} blocks", 0) + tiles
        units = tiles * -(-k // (GROUP if one or size == 1 else 2))
        terms[f"{name} units"] = terms.get(f"{name} units", 0) + units
    if one:
        return terms | {"bytes": 0 if k % GROUP == 0 and in_one_run(node, geo, found) else k * geo.pixels}
    pixels = geo.pixels * op.group
    inside = windows(geo).inside / geo.pixels
    return terms | {
        "pixels": pixels,
        "runs": pixels * found.count,
        "words": pixels * found.count * found.whole,
        "elements": pixels * found.count * found.rest,
        "edge runs": pixels * found.count * (1 - inside),
        "edge elements": pixels * found.elements * (1 - inside),
    }


def cost(node: Node, target: Target) -> float:
    return sum(n * PRICES.get(term, 1.0) for term, n in work(node, target).items())


VARIANT = Variant("conv_smlad", (Conv2D,), accepts, build, cost, work, apart="xy")
