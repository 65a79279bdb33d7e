"""Importers of reductions, arg-reductions and softmax."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from bitc.frontend.context import Context, Importer, Table
from bitc.frontend.movement import axes_of, reshaped
from bitc.ir import BOOL, UINT8, Value
from bitc.ops import binary as b
from bitc.ops import reduce as r
from bitc.ops import unary as u

Kind = Callable[[tuple[int, ...], bool], r.Reduce]


def reduced(ctx: Context, kind: Kind, x: Value, since: int = 18) -> Value:
    """Reduce `x` over the node's axes, which are an attribute before opset `since` and an input from then on."""
    given = axes_of(ctx, 1, since)
    keepdims = ctx.attrs.flag("keepdims", True)
    noop = ctx.attrs.flag("noop_with_empty_axes")  # read even where it does not matter: dynamo always writes it
    if noop and not given:
        return x
    axes = ctx.axes(given, x.type.rank) if given else tuple(range(x.type.rank))
    if prod(x.shape[a] for a in axes) == 0 and kind is r.ReduceMean:
        raise ctx.invalid(f"reduces no elements of {x.type}")
    return ctx.emit(kind(axes, keepdims), x)


def reduction(kind: Kind, before: u.Unary | None = None, after: u.Unary | None = None, since: int = 18) -> Importer:
    """A reduction with an elementwise function before and after it."""

    def run(ctx: Context) -> Value:
        x = ctx.number() if after is None else ctx.floats()
        x = x if before is None else ctx.emit(before, x)
        y = reduced(ctx, kind, x, since)
        return y if after is None else ctx.emit(after, y)

    return run


def extreme(kind: Kind) -> Importer:
    """Of bools, the largest is whether any is true, the smallest whether all are."""

    def run(ctx: Context) -> Value:
        x = ctx.input()
        y = reduced(ctx, kind, ctx.cast(x, UINT8) if x.type.dtype is BOOL else x)
        return ctx.cast(y, x.type.dtype)

    return run


def square(ctx: Context) -> Value:
    return ctx.emit(b.Mul(), ctx.number(), ctx.number())


def sum_square(ctx: Context) -> Value:
    return reduced(ctx, r.ReduceSum, square(ctx))


def l2(ctx: Context) -> Value:
    ctx.floats()
    return ctx.emit(u.Sqrt(), reduced(ctx, r.ReduceSum, square(ctx)))


def log_sum_exp(ctx: Context) -> Value:
    """``log(sum(exp(x - max))) + max``."""
    x = ctx.floats()
    given = axes_of(ctx, 1, 18)
    axes = ctx.axes(given, x.type.rank) if given else tuple(range(x.type.rank))
    if ctx.attrs.flag("noop_with_empty_axes") and not given:
        return x
    top = ctx.emit(r.ReduceMax(axes), x)
    y = reduced(ctx, r.ReduceSum, ctx.emit(u.Exp(), ctx.emit(b.Sub(), x, top)))
    return ctx.emit(b.Add(), ctx.emit(u.Log(), y), reshaped(ctx, top, y.shape))


def arg(kind: Callable[[int, bool, bool], r.ArgMax | r.ArgMin]) -> Importer:
    def run(ctx: Context) -> Value:
        x = ctx.number()
        axis = ctx.axis(ctx.attrs.int_("axis", 0), x.type.rank)
        last = ctx.attrs.flag("select_last_index")
        return ctx.emit(kind(axis, ctx.attrs.flag("keepdims", True), last), x)

    return run


def softmax(kind: Callable[[int], r.Softmax]) -> Importer:
    """Before opset 13 softmax runs over all axes from `axis` on (by default 1) as one."""

    def run(ctx: Context) -> Value:
        x, old = ctx.floats(), ctx.opset < 13
        axis = ctx.axis(ctx.attrs.int_("axis", 1 if old else -1), x.type.rank)
        if not old or prod(x.shape[axis + 1 :]) == 1:
            return ctx.emit(kind(axis), x)
        flat = reshaped(ctx, x, (prod(x.shape[:axis]), prod(x.shape[axis:])))
        return reshaped(ctx, ctx.emit(kind(1), flat), x.shape)

    return run


TABLE: Table = {
    ("", "ReduceMean"): reduction(r.ReduceMean),
    ("", "ReduceSum"): reduction(r.ReduceSum, since=13),
    ("", "ReduceProd"): reduction(r.ReduceProd),
    ("", "ReduceMax"): extreme(r.ReduceMax),
    ("", "ReduceMin"): extreme(r.ReduceMin),
    ("", "ReduceL1"): reduction(r.ReduceSum, before=u.Abs()),
    ("", "ReduceL2"): l2,
    ("", "ReduceSumSquare"): sum_square,
    ("", "ReduceLogSum"): reduction(r.ReduceSum, after=u.Log()),
    ("", "ReduceLogSumExp"): log_sum_exp,
    ("", "ArgMax"): arg(r.ArgMax),
    ("", "ArgMin"): arg(r.ArgMin),
    ("", "Softmax"): softmax(r.Softmax),
    ("", "LogSoftmax"): softmax(r.LogSoftmax),
}
