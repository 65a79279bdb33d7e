"""Importer of ConvTranspose: a convolution with mirrored weights over the input with zeros between its elements."""

from __future__ import annotations

from collections.abc import Sequence

from bitc.frontend.context import Context, Table
from bitc.frontend.linear import Slide, convolve, crop
from bitc.frontend.movement import reshaped, sliced
from bitc.ir import Value
from bitc.ops.movement import Pad, Transpose


def _numbers(ctx: Context, name: str, count: int, least: int) -> list[int]:
    """A per-axis attribute, `least` by default."""
    values = list(ctx.attrs.ints(name) or [least] * count)
    if len(values) != count or min(values) < least or max(values) > 1 << 16:
        raise ctx.invalid(f"attribute {name!r} is {values} for {count} spatial axes")
    return values


def _pads(ctx: Context, strides: Sequence[int], full: Sequence[int]) -> list[int]:
    """Pads (all begins, then all ends) taken off the full output, whose size without pads is `full`."""
    axes = len(full)
    given = list(ctx.attrs.ints("pads") or [0] * 2 * axes)
    shape = ctx.attrs.ints("output_shape")
    auto = ctx.attrs.str_("auto_pad", "NOTSET")
    if len(given) != 2 * axes or min(given) < 0 or (shape is not None and len(shape) < axes):
        raise ctx.invalid(f"pads {given} for {axes} spatial axes")
    if auto == "VALID":
        given = [0] * 2 * axes
    if shape is None and auto not in ("SAME_UPPER", "SAME_LOWER"):
        return given
    size = ctx.input().shape[2:]
    wanted = [d * s for d, s in zip(size, strides, strict=True)] if shape is None else shape[-axes:]
    total = [f - w for f, w in zip(full, wanted, strict=True)]
    begin = [t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in total]
    return [*begin, *(t - x for t, x in zip(total, begin, strict=True))]


def conv_transpose(ctx: Context) -> Value:
    """Weights are ``[C, O / group, kernel...]``."""
    x, w, group = ctx.floats(0), ctx.floats(1), ctx.attrs.int_("group", 1)
    ctx.attrs.ignore("kernel_shape")
    axes = x.type.rank - 2
    if axes < 1 or w.type.rank != x.type.rank or group < 1 or x.shape[1] != w.shape[0] or x.shape[1] % group:
        raise ctx.invalid(f"{group} groups of an input {x.type} do not fit weights {w.type}")
    strides, dilations = _numbers(ctx, "strides", axes, 1), _numbers(ctx, "dilations", axes, 1)
    extra = _numbers(ctx, "output_padding", axes, 0)
    reach = [(k - 1) * d for k, d in zip(w.shape[2:], dilations, strict=True)]
    full = [(d - 1) * s + r + 1 + e for d, s, r, e in zip(x.shape[2:], strides, reach, extra, strict=True)]
    pads = _pads(ctx, strides, full)
    if min(f - pads[a] - pads[axes + a] for a, f in enumerate(full)) < 1:
        raise ctx.invalid(f"pads {pads} leave nothing of the output")
    before = [r - pads[a] for a, r in enumerate(reach)]
    after = [r - pads[axes + a] + extra[a] for a, r in enumerate(reach)]
    spaced, left = crop(ctx, zeros_between(ctx, x, strides), before + after)
    slide = Slide((1,) * axes, tuple(left), tuple(dilations))
    return convolve(ctx, spaced, mirrored(ctx, w, group), ctx.optional(2), slide, group)


def zeros_between(ctx: Context, x: Value, strides: Sequence[int]) -> Value:
    """x ``[N, C, spatial...]`` with stride - 1 zeros between neighbours."""
    if set(strides) == {1}:
        return x
    size = x.shape[2:]
    cells = reshaped(ctx, x, (*x.shape[:2], *(n for d in size for n in (d, 1))))
    after = (0, 0, *(n for s in strides for n in (0, s - 1)))
    padded = ctx.emit(Pad((0,) * len(after), after), cells)
    wide = reshaped(ctx, padded, (*x.shape[:2], *(d * s for d, s in zip(size, strides, strict=True))))
    stops = [(d - 1) * s + 1 for d, s in zip(size, strides, strict=True)]
    return sliced(ctx, wide, [*((0, d, 1) for d in x.shape[:2]), *((0, stop, 1) for stop in stops)])


def mirrored(ctx: Context, w: Value, group: int) -> Value:
    """Weights ``[C, O / group, kernel...]`` as those of the convolution, ``[O, C / group, kernel...]``."""
    c, per_group, *kernel = w.shape
    flipped = sliced(ctx, w, [(0, c, 1), (0, per_group, 1), *((k - 1, -1, -1) for k in kernel)])
    split = reshaped(ctx, flipped, (group, c // group, per_group, *kernel))
    swapped = ctx.emit(Transpose((0, 2, 1, *range(3, w.type.rank + 1))), split)
    return reshaped(ctx, swapped, (group * per_group, c // group, *kernel))


TABLE: Table = {("", "ConvTranspose"): conv_transpose}
