"""Rounding bounds of operators with computed indices, and of running sums (see `bitc.verification.rules`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from bitc.ir.graph import Op
from bitc.ops import dynamic, indexing
from bitc.verification.bounded import Bounded, bounded, gamma

if TYPE_CHECKING:
    from bitc.verification.rules import Site


def indexed(site: Site, x: Bounded, indices: Bounded) -> Bounded:
    """Elements as they are; anything where an index is not certain."""
    (value,) = site.op.reference(x.value, indices.value)
    return bounded(value, np.inf if indices.err.any() else site.op.reference(x.err, indices.value)[0])


def scatter(site: Site, x: Bounded, indices: Bounded, updates: Bounded) -> Bounded:
    op = site.op
    assert isinstance(op, indexing.ScatterElements | indexing.ScatterND)
    (value,) = op.reference(x.value, indices.value, updates.value)
    if indices.err.any():
        return bounded(value, np.inf)
    rounding = gamma(updates.value.size) if x.is_float else 0.0
    if op.reduction == "mul":
        return bounded(value, np.inf if x.err.any() or updates.err.any() else rounding * np.abs(value))
    (err,) = op.reference(x.err, indices.value, updates.err)
    if op.reduction == "add":
        (size,) = op.reference(np.abs(x.value), indices.value, np.abs(updates.value))
        err = err + rounding * size
    if op.reduction in ("max", "min"):  # whichever wins
        err = np.full(err.shape, max(x.err.max(initial=0), updates.err.max(initial=0)))
    return bounded(value, err)


def arg_top(site: Site, x: Bounded) -> Bounded:
    (value,) = site.op.reference(x.value)
    return bounded(value, np.inf if x.err.any() else 0.0)


def cumulate(site: Site, x: Bounded) -> Bounded:
    op = site.op
    assert isinstance(op, indexing.Cumulate)
    (value,) = op.reference(x.value)
    rounding = gamma(x.value.shape[op.axis]) if x.is_float else 0.0
    if op.product:
        return bounded(value, np.inf if x.err.any() else rounding * np.abs(value))
    (err,), (size,) = op.reference(x.err), op.reference(np.abs(x.value))
    return bounded(value, err + rounding * size)


def by_data(site: Site, *args: Bounded | None) -> Bounded:
    """What is there, and in which order, is certain only where the operands are."""
    (value, *_) = site.op.reference(*(None if a is None else a.value for a in args))
    return bounded(value, np.inf if any(a is not None and a.err.any() for a in args) else 0.0)


def fill_tail(site: Site, x: Bounded, count: Bounded) -> Bounded:
    op = site.op
    assert isinstance(op, dynamic.FillTail)
    (value,) = op.reference(x.value, count.value)
    if count.err.any():
        return bounded(value, np.inf)
    return bounded(value, dynamic.FillTail(op.axis).reference(x.err, count.value)[0])


RULES: dict[type[Op], Callable[..., Bounded]] = {
    indexing.Take: indexed, indexing.GatherElements: indexed, indexing.GatherND: indexed,
    indexing.ScatterElements: scatter, indexing.ScatterND: scatter, indexing.ArgTop: arg_top,
    indexing.Cumulate: cumulate, dynamic.NonZero: by_data, dynamic.Unique: by_data,
    dynamic.NonMaxSuppression: by_data, dynamic.FillTail: fill_tail,
}  # fmt: skip
