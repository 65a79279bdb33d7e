"""Importers of Resize and Upsample: each axis gathers its neighbours by constant indices and weighs them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitc.frontend.context import Context, Refused, Table
from bitc.ir import Value
from bitc.ir.graph import Array
from bitc.ops import binary as b
from bitc.ops.movement import Gather

_HINT = "use half_pixel, asymmetric, align_corners or pytorch_half_pixel coordinates"


def positions(mode: str, size: int, out: int, scale: float, roi: tuple[float, float]) -> Array:
    """Where each output element lies on the input axis (float32, as onnxruntime computes it)."""
    x, s = np.arange(out, dtype=np.float32), np.float32(scale)
    half = np.float32(0.5)
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and out > 1):
        return np.asarray((x + half) / s - half)
    if mode == "half_pixel_symmetric":
        offset = np.float32(size) / 2 * (1 - np.float32(out) / (s * np.float32(size)))
        return np.asarray(offset + (x + half) / s - half, np.float32)
    if mode == "pytorch_half_pixel":
        return np.zeros(out, np.float32)
    if mode == "asymmetric":
        return np.asarray(x / s)
    if mode == "align_corners":
        return np.asarray(x * np.float32(size - 1) / np.float32(max(out - 1, 1)))
    if mode == "tf_crop_and_resize":
        start, end = roi
        if out == 1:
            return np.array([0.5 * (start + end) * (size - 1)], np.float32)
        return np.asarray(start * (size - 1) + x * ((end - start) * (size - 1) / (out - 1)), np.float32)
    raise Refused(f"coordinates {mode!r}", _HINT)


@dataclass(frozen=True)
class How:
    """The attributes of a resize."""

    mode: str
    where: str
    rounding: str = "floor"
    antialias: bool = False
    cubic: float = -0.75
    exclude_outside: bool = False
    extrapolation: float = 0.0

    def along(self, ctx: Context, x: Value, axis: int, at: Array, scale: float) -> Value:
        """Resize one axis to elements at the positions `at`."""
        if self.mode == "nearest":
            return nearest(ctx, x, axis, at, self.rounding)
        inside = np.clip(at, 0, x.shape[axis] - 1)
        if self.mode == "linear" and not self.antialias:
            return linear(ctx, x, axis, inside)
        return weighted(ctx, x, axis, *self._taps(at, x.shape[axis], scale))

    def _taps(self, at: Array, size: int, scale: float) -> tuple[Array, Array]:
        """Input elements and their weights, ``[out, taps]``: the filter around each position, stretched where it
        shrinks with antialiasing. Positions beyond the border read the element there."""
        shrink = min(scale, 1.0) if self.antialias else 1.0
        radius = 1 if self.mode == "linear" else 2
        low = int(np.floor(-radius / shrink)) + 1
        offsets = np.arange(low, radius - low + (radius == 1)) if self.antialias else np.arange(1 - radius, radius + 1)
        whole = np.floor(at)
        whole = np.where(whole == at, whole - 1, whole)[:, None]
        distance = np.abs((offsets - (at[:, None] - whole)) * shrink).astype(np.float64)
        weights = np.clip(1 - distance, 0, 1) if radius == 1 else _cubic(distance, self.cubic)
        index = (whole + offsets).astype(np.int64)
        if self.exclude_outside:
            weights = np.where((index >= 0) & (index < size), weights, 0)
        if self.antialias or self.exclude_outside:
            weights = weights / weights.sum(axis=1, keepdims=True)
        return np.clip(index, 0, size - 1), weights.astype(np.float32)


def _cubic(distance: Array, a: float) -> Array:
    """Keys' cubic convolution kernel."""
    d = distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def nearest(ctx: Context, x: Value, axis: int, at: Array, rounding: str) -> Value:
    rules = {
        "round_prefer_floor": np.ceil(at - np.float32(0.5)),
        "round_prefer_ceil": np.floor(at + np.float32(0.5)),
        "floor": np.floor(at),
        "ceil": np.ceil(at),
    }
    if rounding not in rules:
        raise ctx.invalid(f"nearest_mode is {rounding!r}")
    index = np.clip(rules[rounding], 0, x.shape[axis] - 1).astype(np.int64)
    return ctx.emit(Gather(axis), x, ctx.const(index))


def linear(ctx: Context, x: Value, axis: int, at: Array) -> Value:
    """``x[i] * (1 - f) + x[i + 1] * f``."""
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    f = (at - low.astype(np.float32)).astype(np.float32)
    return weighted(ctx, x, axis, np.stack([low, high], 1), np.stack([np.float32(1) - f, f], 1))


def weighted(ctx: Context, x: Value, axis: int, index: Array, weights: Array) -> Value:
    """The sum over taps of the elements `index` along `axis` times `weights`, both ``[out, taps]``."""
    shape = [1] * x.type.rank
    shape[axis] = len(index)
    total: Value | None = None
    for tap in range(index.shape[1]):
        part = ctx.emit(Gather(axis), x, ctx.const(np.ascontiguousarray(index[:, tap])))
        part = ctx.emit(b.Mul(), part, ctx.const(weights[:, tap].reshape(shape)))
        total = part if total is None else ctx.emit(b.Add(), total, part)
    assert total is not None
    return total


def _scales(ctx: Context, x: Value, where: str) -> tuple[list[int], list[float]]:
    """Output sizes and scales per axis, from the node's scales or sizes."""
    rank, index = x.type.rank, 1 if ctx.opset < 11 else 2
    scales = ctx.optional_array(index, "the scales")
    axes = _axes(ctx, rank)
    out, factor = list(x.shape), [1.0] * rank
    policy = ctx.attrs.str_("keep_aspect_ratio_policy", "stretch")
    if scales is not None and scales.size:
        given = [float(s) for s in scales.reshape(-1)]
        if len(given) != len(axes) or not all(0 < s < 1e6 for s in given):
            raise ctx.invalid(f"scales {given} for {len(axes)} axes")
        for a, s in zip(axes, given, strict=True):
            size = np.float32(x.shape[a]) * np.float32(s)
            factor[a], out[a] = s, int(np.floor(size))
            if where == "align_corners" and size != out[a]:  # the corner of what: the standard and onnxruntime disagree
                raise Refused(f"align_corners to {size:g} elements", "give sizes, or scales that make whole numbers")
        return out, factor
    sizes = ctx.ints(3, "the sizes")
    if len(sizes) != len(axes) or min(sizes, default=1) < 1:
        raise ctx.invalid(f"sizes {sizes} for {len(axes)} axes")
    ratios = [s / x.shape[a] for a, s in zip(axes, sizes, strict=True)]
    if policy not in ("stretch", "not_larger", "not_smaller"):
        raise ctx.invalid(f"keep_aspect_ratio_policy is {policy!r}")
    for a, s, ratio in zip(axes, sizes, ratios, strict=True):
        if policy == "stretch":
            factor[a], out[a] = ratio, s
        else:  # one scale for all, sizes rounded half up
            factor[a] = min(ratios) if policy == "not_larger" else max(ratios)
            out[a] = int(np.floor(factor[a] * x.shape[a] + 0.5))
    return out, factor


def _axes(ctx: Context, rank: int) -> tuple[int, ...]:
    axes = ctx.attrs.ints("axes")
    return tuple(range(rank)) if axes is None else tuple(ctx.axis(a, rank) for a in axes)


def _roi(ctx: Context, x: Value) -> list[tuple[float, float]]:
    """Start and end of the region per axis, in [0, 1]."""
    axes, found = _axes(ctx, x.type.rank), [(0.0, 1.0)] * x.type.rank
    given = ctx.array(1, "the region of interest").reshape(-1).tolist()
    if len(given) != 2 * len(axes):
        raise ctx.invalid(f"a region {given} of {len(axes)} axes")
    for i, a in enumerate(axes):
        found[a] = (given[i], given[len(axes) + i])
    return found


def resize(ctx: Context) -> Value:
    x = ctx.input()
    where = ctx.attrs.str_("coordinate_transformation_mode", "half_pixel" if ctx.opset >= 11 else "asymmetric")
    how = How(
        ctx.attrs.str_("mode", "nearest"),
        where,
        ctx.attrs.str_("nearest_mode", "round_prefer_floor" if ctx.opset >= 11 else "floor"),
        ctx.attrs.flag("antialias"),
        ctx.attrs.float_("cubic_coeff_a", -0.75),
        ctx.attrs.flag("exclude_outside"),
        ctx.attrs.float_("extrapolation_value", 0.0),
    )
    out, factor = _scales(ctx, x, where)
    roi = _roi(ctx, x) if where == "tf_crop_and_resize" else [(0.0, 1.0)] * x.type.rank
    return resized(ctx, x, how, out, factor, roi)


def resized(
    ctx: Context, x: Value, how: How, out: list[int], factor: list[float], roi: list[tuple[float, float]]
) -> Value:
    if how.mode not in ("nearest", "linear", "cubic"):
        raise ctx.invalid(f"mode is {how.mode!r}")
    ctx.check_elements(out, 4)
    source, beyond = x, np.zeros([1] * x.type.rank, np.bool_)
    if how.mode != "nearest" and not x.type.dtype.is_float:
        raise Refused(f"interpolates {x.type.dtype}", "cast to float before, and back with the rounding you want")
    for axis, size in enumerate(out):
        length = source.shape[axis]
        if size == length and factor[axis] == 1 and roi[axis] == (0, 1):
            continue
        at = positions(how.where, length, size, factor[axis], roi[axis])
        x = how.along(ctx, x, axis, at, factor[axis])
        if how.where == "tf_crop_and_resize":
            shape = [1] * x.type.rank
            shape[axis] = size
            beyond = beyond | ((at < 0) | (at > length - 1)).reshape(shape)
    if beyond.any():
        x = ctx.emit(b.Where(), ctx.const(beyond), ctx.scalar(how.extrapolation, x), x)
    return x


def upsample(ctx: Context) -> Value:
    """Scales are an attribute before opset 9, an input after."""
    x = ctx.input()
    scales = ctx.attrs.floats("scales") if ctx.opset < 9 else tuple(ctx.array(1, "the scales").reshape(-1).tolist())
    if scales is None or len(scales) != x.type.rank or not all(0 < s < 1e6 for s in scales):
        raise ctx.invalid(f"scales {scales} of {x.type}")
    out = [int(np.floor(np.float32(d) * np.float32(s))) for d, s in zip(x.shape, scales, strict=True)]
    mode = {"bilinear": "linear"}.get(ctx.attrs.str_("mode", "nearest"), ctx.attrs.str_("mode", "nearest"))
    return resized(ctx, x, How(mode, "asymmetric"), out, list(scales), [(0.0, 1.0)] * x.type.rank)


TABLE: Table = {("", "Resize"): resize, ("", "Upsample"): upsample}
