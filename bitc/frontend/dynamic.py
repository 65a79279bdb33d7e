"""Importers of operators whose results are as long as the data says (see `bitc.frontend.extents`)."""

from __future__ import annotations

import numpy as np

from bitc.frontend.context import Context, Refused, Table
from bitc.frontend.extents import ragged
from bitc.frontend.movement import reshaped
from bitc.ir import BOOL, Value
from bitc.ops.dynamic import NonMaxSuppression, NonZero, Unique
from bitc.ops.indexing import Take
from bitc.ops.movement import Gather


def non_zero(ctx: Context) -> Value:
    x = ctx.input()
    if not x.type.rank:
        raise Refused("of a scalar", "give it a dimension")
    indices, count = ctx.emit_all(NonZero(), x)
    return ragged(ctx, indices, 1, count, zeroed=True)


def compress(ctx: Context) -> Value:
    """The elements, or slices along `axis`, where a condition is true."""
    x, condition = ctx.input(), ctx.input(1)
    flat = "axis" not in ctx.attrs
    axis = 0 if flat else ctx.axis(ctx.attrs.int_("axis"), x.type.rank)
    source = reshaped(ctx, x, (x.type.size,)) if flat else x
    if condition.type.rank != 1 or condition.type.dtype is not BOOL or condition.type.size > source.shape[axis]:
        raise ctx.invalid(f"a condition {condition.type} on axis {axis} of {source.type}")
    if condition.is_const:
        return ctx.emit(Gather(axis), source, ctx.const(np.flatnonzero(condition.array).astype(np.int64)))
    indices, count = ctx.emit_all(NonZero(), condition)
    return ragged(ctx, ctx.emit(Take(axis), source, reshaped(ctx, indices, condition.shape)), axis, count)


def unique(ctx: Context) -> list[Value]:
    """The different elements, or slices along `axis`; where each stands first, the number of each, and how often it
    occurs."""
    x, ordered = ctx.input(), ctx.attrs.flag("sorted", True)
    flat = "axis" not in ctx.attrs
    axis = 0 if flat else ctx.axis(ctx.attrs.int_("axis"), x.type.rank)
    source = reshaped(ctx, x, (x.type.size,)) if flat else x
    first, inverse, times, count = ctx.emit_all(Unique(axis, ordered), source)
    y = ctx.emit(Take(axis), source, first)
    found = [ragged(ctx, v, at, count, zeroed) for v, at, zeroed in ((y, axis, False), (first, 0, True))]
    return [*found, inverse, ragged(ctx, times, 0, count, zeroed=True)]


def non_max_suppression(ctx: Context) -> Value:
    boxes, scores = ctx.floats(0), ctx.floats(1)
    most, overlap, least = (ctx.optional(i) for i in (2, 3, 4))
    center = ctx.attrs.flag("center_point_box")
    if boxes.type.rank != 3 or scores.type.rank != 3 or boxes.shape != (scores.shape[0], scores.shape[2], 4):
        raise ctx.invalid(f"boxes {boxes.type} and scores {scores.type}")
    if any(v is not None and v.type.size != 1 for v in (most, overlap, least)):
        raise ctx.invalid("a threshold has several elements")
    limit = boxes.shape[1]
    if most is None or most.is_const:  # the default is to take none
        limit = min(limit, 0 if most is None else max(int(most.array.reshape(-1)[0]), 0))
        most = None
    if limit < 1:
        return ctx.const(np.zeros((0, 3), np.int64))
    indices, count = ctx.emit_all(NonMaxSuppression(limit, center), boxes, scores, most, overlap, least)
    return ragged(ctx, indices, 0, count, zeroed=True)


TABLE: Table = {
    ("", "NonZero"): non_zero,
    ("", "Compress"): compress,
    ("", "Unique"): unique,
    ("", "NonMaxSuppression"): non_max_suppression,
}
