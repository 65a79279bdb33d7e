"""Importer of ConvTranspose: a convolution with mirrored weights over the input with zeros between its elements."""

from __future__ import annotations

from collections.abc import Sequence

from bitc.frontend.context import Context, Table
from bitc.frontend.linear import crop, image, plain, to_nchw, to_nhwc
from bitc.frontend.movement import reshaped
from bitc.ir import Value
from bitc.ops import binary as b
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Pad, Slice, Transpose
from bitc.ops.window import Window


def _pair(ctx: Context, name: str, count: int, default: int) -> list[int]:
    """A per-axis attribute over two spatial axes; one axis is the width."""
    values = list(ctx.attrs.ints(name) or [default] * count)
    if len(values) != count or min(values) < default or max(values) > 1 << 16:
        raise ctx.invalid(f"attribute {name!r} is {values} for {count} spatial axes")
    return [default] * (2 - count) + values


def _pads(ctx: Context, axes: int, full: Sequence[int]) -> list[int]:
    """Pads (top, left, bottom, right) taken off the full output, whose size without pads is `full`."""
    given = list(ctx.attrs.ints("pads") or [0] * 2 * axes)
    shape = ctx.attrs.ints("output_shape")
    auto = ctx.attrs.str_("auto_pad", "NOTSET")
    if len(given) != 2 * axes or min(given) < 0 or (shape is not None and len(shape) < axes):
        raise ctx.invalid(f"pads {given} for {axes} spatial axes")
    skip = 2 - axes
    pads = [0] * skip + given[:axes] + [0] * skip + given[axes:]
    if auto == "VALID":
        pads = [0] * 4
    if shape is None and auto not in ("SAME_UPPER", "SAME_LOWER"):
        return pads
    strides = _pair(ctx, "strides", axes, 1)
    x = [1] * skip + list(ctx.input().shape[2:])
    wanted = [x[a] * strides[a] for a in range(2)] if shape is None else [1] * skip + list(shape[-axes:])
    for a in range(skip, 2):
        total = full[a] - wanted[a]
        begin = total // 2 if auto == "SAME_UPPER" else total - total // 2
        pads[a], pads[2 + a] = begin, total - begin
    return pads


def conv_transpose(ctx: Context) -> Value:
    """Weights are ``[C, O / group, kernel...]``."""
    x, w, group = ctx.floats(0), ctx.floats(1), ctx.attrs.int_("group", 1)
    ctx.attrs.ignore("kernel_shape")
    rank = x.type.rank
    if w.type.rank != rank or group < 1 or x.shape[1] != w.shape[0] or x.shape[1] % group:
        raise ctx.invalid(f"{group} groups of an input {x.type} do not fit weights {w.type}")
    x4, w4 = image(ctx, x), image(ctx, w)
    axes = rank - 2
    strides, dilations = _pair(ctx, "strides", axes, 1), _pair(ctx, "dilations", axes, 1)
    extra = _pair(ctx, "output_padding", axes, 0)
    reach = [(k - 1) * d for k, d in zip(w4.shape[2:], dilations, strict=True)]
    full = [(x4.shape[2 + a] - 1) * strides[a] + reach[a] + 1 + extra[a] for a in range(2)]
    pads = _pads(ctx, axes, full)
    spaced = zeros_between(ctx, x4, strides)
    before = [reach[a] - pads[a] for a in range(2)]
    after = [reach[a] - pads[2 + a] + extra[a] for a in range(2)]
    spaced, left = crop(ctx, spaced, before + after)
    window = Window(
        (w4.shape[2], w4.shape[3]), (1, 1), (left[0], left[1], left[2], left[3]), (dilations[0], dilations[1])
    )
    if min(full[a] - pads[a] - pads[2 + a] for a in range(2)) < 1:
        raise ctx.invalid(f"pads {pads} leave nothing of the output")
    y = ctx.emit(Conv2D(window, group), to_nhwc(ctx, spaced), mirrored(ctx, w4, group))
    if ctx.optional(2) is not None:
        y = ctx.emit(b.Add(), y, ctx.input(2))
    return plain(ctx, to_nchw(ctx, y), rank)


def zeros_between(ctx: Context, x: Value, strides: list[int]) -> Value:
    """x ``[N, C, H, W]`` with stride - 1 zeros between neighbours."""
    n, c, h, w = x.shape
    if strides == [1, 1]:
        return x
    cells = reshaped(ctx, x, (n, c, h, 1, w, 1))
    padded = ctx.emit(Pad((0,) * 6, (0, 0, 0, strides[0] - 1, 0, strides[1] - 1)), cells)
    wide = reshaped(ctx, padded, (n, c, h * strides[0], w * strides[1]))
    stops = (n, c, (h - 1) * strides[0] + 1, (w - 1) * strides[1] + 1)
    return wide if stops == wide.shape else ctx.emit(Slice((0,) * 4, stops, (1,) * 4), wide)


def mirrored(ctx: Context, w: Value, group: int) -> Value:
    """Weights ``[C, O / group, kh, kw]`` as those of the convolution, ``[O, kh, kw, C / group]``."""
    c, per_group, kh, kw = w.shape
    flipped = ctx.emit(Slice((0, 0, kh - 1, kw - 1), (c, per_group, -1, -1), (1, 1, -1, -1)), w)
    split = reshaped(ctx, flipped, (group, c // group, per_group, kh, kw))
    return reshaped(ctx, ctx.emit(Transpose((0, 2, 3, 4, 1)), split), (group * per_group, kh, kw, c // group))


TABLE: Table = {("", "ConvTranspose"): conv_transpose}
