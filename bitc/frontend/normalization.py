"""Importers of normalizations over run-time statistics, as compositions."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from bitc.frontend.context import Context, Refused, Table
from bitc.frontend.linear import per_channel
from bitc.frontend.movement import reshaped, sliced
from bitc.ir import Value
from bitc.ops import binary as b
from bitc.ops import unary as u
from bitc.ops.movement import Pad
from bitc.ops.reduce import ReduceMean, ReduceSum


def standardized(ctx: Context, x: Value, axes: Sequence[int], epsilon: float) -> Value:
    """``(x - mean) / sqrt(mean((x - mean)^2) + epsilon)`` over `axes`."""
    mean = ctx.emit(ReduceMean(tuple(axes)), x)
    centred = ctx.emit(b.Sub(), x, mean)
    return scaled(ctx, centred, axes, epsilon)


def scaled(ctx: Context, x: Value, axes: Sequence[int], epsilon: float) -> Value:
    """``x / sqrt(mean(x^2) + epsilon)`` over `axes`."""
    power = ctx.emit(ReduceMean(tuple(axes)), ctx.emit(b.Mul(), x, x))
    deviation = ctx.emit(u.Sqrt(), ctx.emit(b.Add(), power, ctx.const(epsilon)))
    return ctx.emit(b.Div(), x, deviation)


def affine(ctx: Context, x: Value, scale: Value, bias: Value | None) -> Value:
    y = ctx.emit(b.Mul(), x, scale)
    return y if bias is None else ctx.emit(b.Add(), y, bias)


def layer_normalization(ctx: Context) -> Value:
    if ctx.wanted(1) or ctx.wanted(2):
        raise Refused("its mean or deviation is used", "only the normalized output is supported")
    x = ctx.floats()
    ctx.attrs.ignore("stash_type")
    first = ctx.axis(ctx.attrs.int_("axis", -1), x.type.rank)
    y = standardized(ctx, x, range(first, x.type.rank), ctx.attrs.float_("epsilon", 1e-5))
    return affine(ctx, y, ctx.floats(1), ctx.optional(2))


def rms_normalization(ctx: Context) -> Value:
    x = ctx.floats()
    ctx.attrs.ignore("stash_type")
    first = ctx.axis(ctx.attrs.int_("axis", -1), x.type.rank)
    y = scaled(ctx, x, range(first, x.type.rank), ctx.attrs.float_("epsilon", 1e-5))
    return ctx.emit(b.Mul(), y, ctx.floats(1))


def instance_normalization(ctx: Context) -> Value:
    x = ctx.floats()
    y = standardized(ctx, x, range(2, x.type.rank), ctx.attrs.float_("epsilon", 1e-5))
    return affine(ctx, y, per_channel(ctx, ctx.floats(1), x), per_channel(ctx, ctx.floats(2), x))


def group_normalization(ctx: Context) -> Value:
    """Scale and bias are per channel from opset 21, per group before."""
    x, groups = ctx.floats(), ctx.attrs.int_("num_groups")
    ctx.attrs.ignore("stash_type")
    n, c = x.shape[:2]
    if groups < 1 or c % groups:
        raise ctx.invalid(f"{groups} groups of {x.type}")
    grouped = reshaped(ctx, x, (n, groups, prod(x.shape[1:]) // groups))
    y = standardized(ctx, grouped, (2,), ctx.attrs.float_("epsilon", 1e-5))
    scale, bias = ctx.floats(1), ctx.floats(2)
    if ctx.opset < 21:
        y = affine(ctx, y, per_channel(ctx, scale, grouped), per_channel(ctx, bias, grouped))
        return reshaped(ctx, y, x.shape)
    return affine(ctx, reshaped(ctx, y, x.shape), per_channel(ctx, scale, x), per_channel(ctx, bias, x))


def lrn(ctx: Context) -> Value:
    """``x / (bias + alpha / size * (sum of squares of `size` channels around))^beta``."""
    x, size = ctx.floats(), ctx.attrs.int_("size")
    if x.type.rank < 3 or not 1 <= size <= 2 * x.shape[1]:
        raise ctx.invalid(f"{size} channels of {x.type}")
    before, after = [0] * x.type.rank, [0] * x.type.rank
    before[1], after[1] = (size - 1) // 2, size // 2
    squares = ctx.emit(b.Mul(), x, x)
    padded = ctx.emit(Pad(tuple(before), tuple(after)), squares) if size > 1 else squares
    total: Value | None = None
    for start in range(size):
        ranges = [(0, d, 1) for d in x.shape]
        ranges[1] = (start, start + x.shape[1], 1)
        part = sliced(ctx, padded, ranges)
        total = part if total is None else ctx.emit(b.Add(), total, part)
    assert total is not None
    alpha, beta = ctx.attrs.float_("alpha", 1e-4), ctx.attrs.float_("beta", 0.75)
    scaled_sum = ctx.emit(b.Mul(), total, ctx.const(alpha / size))
    base = ctx.emit(b.Add(), scaled_sum, ctx.const(ctx.attrs.float_("bias", 1.0)))
    return ctx.emit(b.Div(), x, ctx.emit(b.Pow(), base, ctx.const(beta)))


def lp_normalization(ctx: Context) -> Value:
    """x divided by its norm along an axis; 0 where that is 0."""
    x, p = ctx.floats(), ctx.attrs.int_("p", 2)
    axis = ctx.axis(ctx.attrs.int_("axis", -1), x.type.rank)
    if p not in (1, 2):
        raise ctx.invalid(f"p is {p}")
    if p == 1:
        norm = ctx.emit(ReduceSum((axis,)), ctx.emit(u.Abs(), x))
    else:
        norm = ctx.emit(u.Sqrt(), ctx.emit(ReduceSum((axis,)), ctx.emit(b.Mul(), x, x)))
    zero = ctx.emit(b.Equal(), norm, ctx.const(0.0))
    return ctx.emit(b.Where(), zero, ctx.const(0.0), ctx.emit(b.Div(), x, norm))


TABLE: Table = {
    ("", "LRN"): lrn,
    ("", "LpNormalization"): lp_normalization,
    ("", "LayerNormalization"): layer_normalization,
    ("", "RMSNormalization"): rms_normalization,
    ("", "InstanceNormalization"): instance_normalization,
    ("", "GroupNormalization"): group_normalization,
}
