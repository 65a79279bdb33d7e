"""Importers of Resize and Upsample: each axis gathers its neighbours by constant indices and weighs them."""

from __future__ import annotations

import numpy as np

from bitc.frontend.context import Context, Refused, Table
from bitc.ir import Value
from bitc.ir.graph import Array
from bitc.ops import binary as b
from bitc.ops.movement import Gather

_HINT = "use nearest or linear with half_pixel, asymmetric, align_corners or pytorch_half_pixel coordinates"


def positions(mode: str, size: int, out: int, scale: float) -> Array:
    """Where each output element lies on the input axis (float32, as onnxruntime computes it)."""
    x, s = np.arange(out, dtype=np.float32), np.float32(scale)
    half = np.float32(0.5)
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and out > 1):
        return np.asarray((x + half) / s - half)
    if mode == "pytorch_half_pixel":
        return np.zeros(out, np.float32)
    if mode == "asymmetric":
        return np.asarray(x / s)
    if mode == "align_corners":
        return np.asarray(x * np.float32(size - 1) / np.float32(max(out - 1, 1)))
    raise Refused(f"coordinates {mode!r}", _HINT)


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
    at = np.clip(at, 0, x.shape[axis] - 1)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    shape = [1] * x.type.rank
    shape[axis] = len(at)
    f = (at - low.astype(np.float32)).astype(np.float32).reshape(shape)
    left = ctx.emit(b.Mul(), ctx.emit(Gather(axis), x, ctx.const(low)), ctx.const(np.float32(1) - f))
    right = ctx.emit(b.Mul(), ctx.emit(Gather(axis), x, ctx.const(high)), ctx.const(f))
    return ctx.emit(b.Add(), left, right)


def _scales(ctx: Context, x: Value, where: str) -> tuple[list[int], list[float]]:
    """Output sizes and scales per axis, from the node's scales or sizes."""
    rank, index = x.type.rank, 1 if ctx.opset < 11 else 2
    scales = ctx.optional_array(index, "the scales")
    axes = ctx.attrs.ints("axes")
    axes = tuple(range(rank)) if axes is None else tuple(ctx.axis(a, rank) for a in axes)
    out, factor = list(x.shape), [1.0] * rank
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
    if ctx.attrs.str_("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Refused("keeps the aspect ratio", "give the sizes themselves")
    for a, s in zip(axes, sizes, strict=True):
        factor[a], out[a] = s / x.shape[a], s
    return out, factor


def resize(ctx: Context) -> Value:
    x = ctx.input()
    ctx.attrs.ignore("cubic_coeff_a", "exclude_outside", "extrapolation_value", "keep_aspect_ratio_policy")
    mode = ctx.attrs.str_("mode", "nearest")
    where = ctx.attrs.str_("coordinate_transformation_mode", "half_pixel" if ctx.opset >= 11 else "asymmetric")
    rounding = ctx.attrs.str_("nearest_mode", "round_prefer_floor" if ctx.opset >= 11 else "floor")
    if ctx.attrs.flag("antialias"):
        raise Refused("resizes with antialiasing", _HINT)
    out, factor = _scales(ctx, x, where)
    return resized(ctx, x, mode, where, rounding, out, factor)


def resized(ctx: Context, x: Value, mode: str, where: str, rounding: str, out: list[int], factor: list[float]) -> Value:
    if mode not in ("nearest", "linear", "bilinear"):
        raise Refused(f"mode {mode!r}", _HINT)
    ctx.check_elements(out, 4)
    for axis, size in enumerate(out):
        if size == x.shape[axis] and factor[axis] == 1:
            continue
        at = positions(where, x.shape[axis], size, factor[axis])
        x = nearest(ctx, x, axis, at, rounding) if mode == "nearest" else linear(ctx, x, axis, at)
    return x


def upsample(ctx: Context) -> Value:
    """Scales are an attribute before opset 9, an input after."""
    x = ctx.input()
    scales = ctx.attrs.floats("scales") if ctx.opset < 9 else tuple(ctx.array(1, "the scales").reshape(-1).tolist())
    if scales is None or len(scales) != x.type.rank or not all(0 < s < 1e6 for s in scales):
        raise ctx.invalid(f"scales {scales} of {x.type}")
    out = [int(np.floor(np.float32(d) * np.float32(s))) for d, s in zip(x.shape, scales, strict=True)]
    return resized(ctx, x, ctx.attrs.str_("mode", "nearest"), "asymmetric", "floor", out, list(scales))


TABLE: Table = {("", "Resize"): resize, ("", "Upsample"): upsample}
