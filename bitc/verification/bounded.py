"""A value with a bound on how far any float32 evaluation of it may be from it, and the arithmetic of such bounds.

After Higham, Accuracy and Stability of Numerical Algorithms (2nd ed.): u = 2^-24 is the unit roundoff of float32, one
operation has fl(a op b) = (a op b)(1 + d), |d| <= u (2.4); a sum of n products in any order, with or without fused
multiply-add, has |fl(s) - s| <= gamma_n * sum |x||w| with gamma_n = n u / (1 - n u) (3.5, section 4.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bitc.ir.graph import Array

U = 2.0**-24
TINY = 2.0**-126
"""Largest error of a result that is flushed to zero, or rounded to a subnormal."""
SLACK = 8
"""Roundings beyond those of the sum itself: scales and batch norms that compilers fold into weights, bias, casts."""


@dataclass(frozen=True)
class Bounded:
    """`value` in float64 (integers and bools as they are) and `err`, its bound, float64 of the same shape; infinite
    where nothing is known. `constant`: the value of a constant, which a compiler may have folded with others."""

    value: Array
    err: Array
    constant: bool = False

    @property
    def is_float(self) -> bool:
        return self.value.dtype.kind == "f"

    @property
    def size(self) -> Array:
        """Largest magnitude that an evaluation may have."""
        return np.asarray(np.abs(self.value.astype(np.float64)) + self.err)


def exact(value: Array) -> Bounded:
    """A value that every evaluation agrees on."""
    value = np.asarray(value)
    value = value.astype(np.float64) if value.dtype.kind == "f" else value
    return Bounded(value, np.zeros(value.shape))


def bounded(value: Array, err: Array | float) -> Bounded:
    value = np.asarray(value)
    err = np.where(np.isnan(err), np.inf, err)
    return Bounded(value, np.broadcast_to(err, value.shape).astype(np.float64))


def gamma(n: int) -> float:
    return n * U / (1 - n * U)


def folded(x: Bounded) -> Bounded:
    """An operand of arithmetic. A constant may be the product of folding others, in another order than here: a few
    roundings, unless it has at most 12 significant bits and so was written that way (2, 0.5, -1.25)."""
    if not x.constant or not x.is_float:
        return x
    mantissa = np.frexp(x.value)[0] * 4096
    return bounded(x.value, np.where(mantissa == np.rint(mantissa), 0.0, 4 * U * np.abs(x.value)))


def rounded(value: Array, err: Array) -> Bounded:
    """The result of one operation whose operands cause the error `err`: its own rounding is added, which is none where
    the operands are exact and the result is a float32, and none for integers."""
    value = np.asarray(value)
    if value.dtype.kind != "f":
        return bounded(value, err)
    with np.errstate(all="ignore"):
        same = (value.astype(np.float32) == value) & (err == 0)
    return bounded(value, np.where(same, 0.0, err + U * (np.abs(value) + err) + TINY))


def spread(function: Callable[[Array], Array], x: Bounded) -> Bounded:
    """A monotone function (steps included), from its values at the ends of the interval around x. No rounding of its
    own."""
    y = np.asarray(function(x.value))
    if not x.err.any():
        return bounded(y, 0.0)
    # The float64 arithmetic of the ends themselves rounds: step outside.
    reach = np.where(np.isfinite(x.err), x.err, 0) * (1 + 2.0**-40)
    middle = x.value.astype(np.float64)
    ends = [np.asarray(function(_like(middle + s * reach, x.value, s))).astype(np.float64) for s in (-1, 1)]
    err = np.maximum(np.abs(ends[0] - y), np.abs(ends[1] - y))
    err = np.where(np.isfinite(x.err), err, np.inf)
    return bounded(y, np.where(x.err == 0, 0.0, err))


def _like(x: Array, value: Array, side: int) -> Array:
    if value.dtype.kind == "f":
        return x
    if value.dtype.kind == "b":
        return np.asarray(x > 0.5)
    info = np.iinfo(value.dtype)
    return np.clip(np.ceil(x) if side > 0 else np.floor(x), float(info.min), float(info.max)).astype(value.dtype)


def grid(x: Array) -> float:
    """The largest power of two of which all (float32) values are multiples; 0 if they are not float32."""
    values = x[x != 0].astype(np.float64)
    if not values.size:
        return 2.0**100
    if not np.isfinite(values).all():
        return 0.0
    mantissa, exponent = np.frexp(values)
    scaled = mantissa * 2.0**24
    if (scaled != np.rint(scaled)).any():
        return 0.0
    whole = np.abs(scaled).astype(np.int64)
    return float(np.exp2(np.min(np.log2((whole & -whole).astype(np.float64)) + exponent - 24)))


def sums_exactly(x: Bounded, w: Bounded, magnitude: Array) -> bool:
    """Whether every partial sum of products of exact x and w, in any order, is a float32: all are multiples of one
    power of two and none needs more than 24 bits. `magnitude`: the sums of |x||w|."""
    if x.err.any() or w.err.any():
        return False
    unit = grid(x.value) * grid(w.value)
    return unit > 0 and float(np.max(magnitude, initial=0.0)) <= unit * 2**24
