"""Importers of operators that read between the elements of an image: neighbours by computed indices, and weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product as combinations
from math import prod

import numpy as np

from bitc.frontend.context import Context, Refused, Table
from bitc.frontend.indexing import integers
from bitc.frontend.linear import Slide, convolve, window_of
from bitc.frontend.movement import reshaped, sliced
from bitc.ir import FLOAT32, INT32, Value
from bitc.ops import binary as b
from bitc.ops import unary as u
from bitc.ops.indexing import GatherND, Take
from bitc.ops.linear import MatMul
from bitc.ops.movement import Concat, Transpose
from bitc.ops.reduce import ReduceMax, ReduceMean

CUBIC = -0.75
"""The parameter of Keys' kernel."""


@dataclass(frozen=True)
class Axis:
    """One axis of an image: its length, what lies outside ("zeros", "border" or "reflection"), and whether the first
    and last elements, rather than their outer edges, are the mirrors."""

    size: int
    padding: str = "zeros"
    aligned: bool = False

    def placed(self, ctx: Context, at: Value) -> Value:
        """Positions moved inside as the padding says."""
        if self.padding == "border":
            return ctx.emit(u.Clip(0.0, self.size - 1.0), at)
        return self.mirrored(ctx, at) if self.padding == "reflection" else at

    def mirrored(self, ctx: Context, at: Value) -> Value:
        """``low + t`` with t, the distance from the lower mirror, folded into the space between the two."""
        low, span = (0.0, self.size - 1.0) if self.aligned else (-0.5, float(self.size))
        if span == 0:
            return ctx.emit(b.Mul(), at, ctx.const(0.0))
        away = ctx.emit(u.Abs(), ctx.emit(b.Sub(), at, ctx.const(low)))
        t = ctx.emit(b.Mod(True), away, ctx.const(2 * span))
        back = ctx.emit(b.Sub(), ctx.const(2 * span), t)
        return ctx.emit(b.Add(), ctx.emit(b.Min(), t, back), ctx.const(low))

    def taps(self, ctx: Context, at: Value, mode: str) -> list[tuple[Value, Value | None]]:
        """The elements to read for each position, as int32 indices, with their weights."""
        if mode == "nearest":
            near = self.placed(ctx, ctx.emit(u.Round(), at))
            return [self._tap(ctx, near, None)]
        if mode == "linear":  # a cubic moves its neighbours alone
            at = self.placed(ctx, at)
        low = ctx.emit(u.Floor(), at)
        t = ctx.emit(b.Sub(), at, low)
        if mode == "linear":
            weights = [ctx.emit(b.Sub(), ctx.const(1.0), t), t]
            return [self._tap(ctx, _plus(ctx, low, i), w) for i, w in enumerate(weights)]
        weights = [_keys(ctx, _distance(ctx, t, i), far=i in (-1, 2)) for i in (-1, 0, 1, 2)]
        return [self._tap(ctx, _plus(ctx, low, i), w) for i, w in zip((-1, 0, 1, 2), weights, strict=True)]

    def _tap(self, ctx: Context, place: Value, weight: Value | None) -> tuple[Value, Value | None]:
        if self.padding == "zeros":
            above = ctx.emit(b.GreaterOrEqual(), place, ctx.const(0.0))
            inside = ctx.emit(b.And(), above, ctx.emit(b.LessOrEqual(), place, ctx.const(self.size - 1.0)))
            mask = ctx.cast(inside, FLOAT32)
            weight = mask if weight is None else ctx.emit(b.Mul(), weight, mask)
        if self.padding == "reflection":
            place = self.mirrored(ctx, place)
        return ctx.cast(ctx.emit(u.Clip(0.0, self.size - 1.0), place), INT32), weight


def _plus(ctx: Context, x: Value, i: int) -> Value:
    return ctx.emit(b.Add(), x, ctx.const(float(i))) if i else x


def _distance(ctx: Context, t: Value, i: int) -> Value:
    """``|t - i|`` for 0 <= t < 1."""
    if i < 1:
        return _plus(ctx, t, -i)
    return ctx.emit(b.Sub(), ctx.const(float(i)), t)


def _keys(ctx: Context, d: Value, far: bool) -> Value:
    """Keys' cubic kernel at distances up to 1, or (`far`) from 1 to 2."""
    a = CUBIC
    polynomial = (a, -5 * a, 8 * a, -4 * a) if far else (a + 2, -(a + 3), 0.0, 1.0)
    y = ctx.emit(b.Mul(), d, ctx.const(polynomial[0]))
    for c in polynomial[1:-1]:
        y = ctx.emit(b.Mul(), ctx.emit(b.Add(), y, ctx.const(c)), d)
    return ctx.emit(b.Add(), y, ctx.const(polynomial[-1]))


def sampled(ctx: Context, x: Value, axes: Sequence[Axis], positions: Sequence[Value], mode: str) -> list[Value]:
    """The weighted neighbours ``[N, P, C]`` of P positions in x ``[N, C, spatial...]``; their sum is the sample. The
    positions, ``[N, ...]`` per axis, broadcast to each other."""
    n, c = x.shape[:2]
    space = prod(x.shape[2:])
    rows = reshaped(ctx, ctx.emit(Transpose((0, *range(2, x.type.rank), 1)), x), (n, space, c))
    parts = []
    for taps in combinations(*(axis.taps(ctx, at, mode) for axis, at in zip(axes, positions, strict=True))):
        flat: Value | None = None
        for (index, _), axis in zip(taps, axes, strict=True):
            stepped = index
            if flat is not None:
                stepped = ctx.emit(b.Add(), ctx.emit(b.Mul(), flat, ctx.const(np.array(axis.size, np.int32))), index)
            flat = stepped
        assert flat is not None
        count = prod(flat.shape[1:])
        found = ctx.emit(GatherND(1), rows, reshaped(ctx, flat, (n, count, 1)))
        weights = [w for _, w in taps if w is not None]
        if weights:
            weight = reduce(lambda p, q: ctx.emit(b.Mul(), p, q), weights)
            found = ctx.emit(b.Mul(), found, reshaped(ctx, weight, (n, count, 1)))
        parts.append(found)
    return parts


def _sum(ctx: Context, parts: Sequence[Value]) -> Value:
    return reduce(lambda p, q: ctx.emit(b.Add(), p, q), parts)


def grid_sample(ctx: Context) -> Value:
    """x ``[N, C, spatial...]`` at the positions of a grid ``[N, out..., axes]``, in [-1, 1], last axis of x first."""
    x, grid = ctx.floats(0), ctx.floats(1)
    axes = x.type.rank - 2
    mode = ctx.attrs.str_("mode", "linear")
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    padding, aligned = ctx.attrs.str_("padding_mode", "zeros"), ctx.attrs.flag("align_corners")
    if mode not in ("nearest", "linear", "cubic") or padding not in ("zeros", "border", "reflection"):
        raise ctx.invalid(f"mode {mode!r}, padding {padding!r}")
    if axes < 1 or grid.shape[-1] != axes or grid.type.rank != x.type.rank or grid.shape[0] != x.shape[0]:
        raise ctx.invalid(f"a grid {grid.type} of {x.type}")
    out = grid.shape[1:-1]
    positions = []
    for a, size in enumerate(x.shape[2:]):
        ranges = [(0, d, 1) for d in grid.shape]
        ranges[-1] = (axes - 1 - a, axes - a, 1)
        g = reshaped(ctx, sliced(ctx, grid, ranges), (x.shape[0], prod(out)))
        up = ctx.emit(b.Add(), g, ctx.const(1.0))
        if aligned:
            positions.append(ctx.emit(b.Mul(), up, ctx.const((size - 1) / 2)))
        else:
            wide = ctx.emit(b.Sub(), ctx.emit(b.Mul(), up, ctx.const(float(size))), ctx.const(1.0))
            positions.append(ctx.emit(b.Mul(), wide, ctx.const(0.5)))
    total = _sum(ctx, sampled(ctx, x, [Axis(d, padding, aligned) for d in x.shape[2:]], positions, mode))
    return reshaped(ctx, ctx.emit(Transpose((0, 2, 1)), total), (*x.shape[:2], *out))


def roi_align(ctx: Context) -> Value:
    """Regions ``[R, 4]`` (x1, y1, x2, y2) of images ``[N, C, H, W]``, as ``[R, C, height, width]``: the mean, or the
    largest, of `sampling_ratio` squared samples per bin."""
    x, rois, batch = ctx.floats(0), ctx.floats(1), integers(ctx, 2)
    half = ctx.attrs.str_("coordinate_transformation_mode", "half_pixel" if ctx.opset >= 16 else "output_half_pixel")
    mode, ratio = ctx.attrs.str_("mode", "avg"), ctx.attrs.int_("sampling_ratio", 0)
    out = ctx.attrs.int_("output_height", 1), ctx.attrs.int_("output_width", 1)
    scale, count = ctx.attrs.float_("spatial_scale", 1.0), rois.shape[0]
    if mode not in ("avg", "max") or half not in ("half_pixel", "output_half_pixel") or min(out) < 1:
        raise ctx.invalid(f"mode {mode!r}, coordinates {half!r}, output {out}")
    if x.type.rank != 4 or rois.shape != (count, 4) or batch.shape != (count,):
        raise ctx.invalid(f"regions {rois.type} of {x.type}, images {batch.type}")
    if ratio < 1:
        raise Refused("the number of samples depends on the size of each region", "set sampling_ratio, e.g. to 2")
    images = ctx.emit(Take(0), x, batch)
    positions, masks = [], []
    for a, bins in enumerate(out):
        corners = [_corner(ctx, rois, c, scale, 0.5 if half == "half_pixel" else 0.0) for c in (1 - a, 3 - a)]
        size = ctx.emit(b.Sub(), corners[1], corners[0])
        size = size if half == "half_pixel" else ctx.emit(u.Clip(lo=1.0), size)
        steps = ((np.arange(bins * ratio) + 0.5) / (bins * ratio)).astype(np.float32)
        at = ctx.emit(b.Add(), corners[0], ctx.emit(b.Mul(), size, ctx.const(steps[None])))
        above = ctx.emit(b.GreaterOrEqual(), at, ctx.const(-1.0))
        inside = ctx.emit(b.And(), above, ctx.emit(b.LessOrEqual(), at, ctx.const(float(x.shape[2 + a]))))
        shape = (count, bins * ratio, 1) if a == 0 else (count, 1, bins * ratio)
        positions.append(reshaped(ctx, at, shape))
        masks.append(reshaped(ctx, ctx.cast(inside, FLOAT32), shape))
    parts = sampled(ctx, images, [Axis(d, "border") for d in x.shape[2:]], positions, "linear")
    mask = reshaped(ctx, ctx.emit(b.Mul(), *masks), (count, prod(out) * ratio * ratio, 1))
    # The largest is that of the weighted neighbours, as the standard has it.
    best = reduce(lambda p, q: ctx.emit(b.Max(), p, q), parts) if mode == "max" else _sum(ctx, parts)
    bins_of = (count, out[0], ratio, out[1], ratio, x.shape[1])
    samples = reshaped(ctx, ctx.emit(b.Mul(), best, mask), bins_of)
    kind = ReduceMax if mode == "max" else ReduceMean
    return ctx.emit(Transpose((0, 3, 1, 2)), ctx.emit(kind((2, 4), False), samples))


def _corner(ctx: Context, rois: Value, column: int, scale: float, shift: float) -> Value:
    """One coordinate of each region ``[R, 1]`` on the image."""
    value = sliced(ctx, rois, [(0, rois.shape[0], 1), (column, column + 1, 1)])
    return ctx.emit(b.Sub(), ctx.emit(b.Mul(), value, ctx.const(scale)), ctx.const(shift))


def deform_conv(ctx: Context) -> Value:
    """A convolution whose taps are shifted by `offset` ``[N, groups * taps * 2, OH, OW]`` and scaled by `mask`."""
    x, w, offset = ctx.floats(0), ctx.floats(1), ctx.floats(2)
    ctx.attrs.ignore("kernel_shape")
    group, shifts = ctx.attrs.int_("group", 1), ctx.attrs.int_("offset_group", 1)
    if x.type.rank != 4:
        raise Refused(f"a deformable convolution of {x.type}", "only two spatial axes are supported")
    n, c = x.shape[:2]
    kernel, taps = w.shape[2:], prod(w.shape[2:])
    strides, pads, dilations = window_of(ctx, x.shape[2:], kernel)
    out = [
        (d + pads[a] + pads[2 + a] - dilations[a] * (k - 1) - 1) // strides[a] + 1
        for a, (d, k) in enumerate(zip(x.shape[2:], kernel, strict=True))
    ]
    if shifts < 1 or c % shifts or min(out) < 1 or offset.shape != (n, shifts * taps * 2, *out):
        raise ctx.invalid(f"offsets {offset.type} in {shifts} groups of {x.type}")
    mask = ctx.floats(4) if ctx.optional(4) is not None else None
    split = reshaped(ctx, offset, (n, shifts, taps, 2, prod(out)))
    parts = []
    for g in range(shifts):
        positions = []
        for a in range(2):
            ranges = [(0, n, 1), (g, g + 1, 1), (0, taps, 1), (a, a + 1, 1), (0, prod(out), 1)]
            moved = reshaped(ctx, sliced(ctx, split, ranges), (n, taps * prod(out)))
            at = np.indices((*kernel, *out))
            regular = at[a] * dilations[a] + at[2 + a] * strides[a] - pads[a]
            positions.append(ctx.emit(b.Add(), moved, ctx.const(regular.reshape(1, -1).astype(np.float32))))
        size = c // shifts
        channels = sliced(ctx, x, [(0, n, 1), (g * size, (g + 1) * size, 1), *((0, d, 1) for d in x.shape[2:])])
        found = _sum(ctx, sampled(ctx, channels, [Axis(d) for d in x.shape[2:]], positions, "linear"))
        if mask is not None:
            if mask.shape != (n, shifts * taps, *out):
                raise ctx.invalid(f"a mask {mask.type} in {shifts} groups of {taps} taps")
            own = sliced(ctx, mask, [(0, n, 1), (g * taps, (g + 1) * taps, 1), *((0, d, 1) for d in out)])
            found = ctx.emit(b.Mul(), found, reshaped(ctx, own, (n, taps * prod(out), 1)))
        parts.append(ctx.emit(Transpose((0, 2, 1)), found))
    columns = parts[0] if len(parts) == 1 else ctx.emit(Concat(1), *parts)
    columns = reshaped(ctx, columns, (n, c * taps, *out))
    weights = reshaped(ctx, w, (w.shape[0], w.shape[1] * taps, 1, 1))
    return convolve(ctx, columns, weights, ctx.optional(3), Slide((1, 1), (0,) * 4, (1, 1)), group)


def affine_grid(ctx: Context) -> Value:
    """Where the pixels of an image of the given size lie in another one, by an affine map of each:
    ``theta @ (x, y, 1)`` or ``theta @ (x, y, z, 1)``. Images reach from -1 to 1: from centre to centre of their outer
    pixels if they are `align_corners`, else from edge to edge."""
    theta, size = ctx.floats(), ctx.ints(1, "the size")
    n, _, *image = size if len(size) in (4, 5) else (0, 0)
    rank = len(image)
    if theta.shape != (n, rank, rank + 1) or min(size, default=0) < 1:
        raise ctx.invalid(f"maps {theta.type} for a size of {list(size)}")
    ctx.check_elements((*image, rank + 1))
    aligned = ctx.attrs.flag("align_corners")
    lines = []
    for d in image:
        step = np.float32(2 / max(d - 1, 1) if aligned else 2 / d)
        start = np.float32(-1 if aligned else -1 + 1 / d)
        lines.append(start + np.arange(d, dtype=np.float32) * step)
    places = [p.reshape(-1) for p in np.meshgrid(*lines, indexing="ij")][::-1]
    points = ctx.const(np.stack([*places, np.ones(prod(image), np.float32)], -1))
    return reshaped(ctx, ctx.emit(MatMul(), points, ctx.emit(Transpose((0, 2, 1)), theta)), (n, *image, rank))


TABLE: Table = {
    ("", "AffineGrid"): affine_grid,
    ("", "GridSample"): grid_sample,
    ("", "RoiAlign"): roi_align,
    ("", "DeformConv"): deform_conv,
}
