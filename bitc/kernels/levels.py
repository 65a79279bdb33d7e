"""Accumulators to few levels: a multiplication where a line gives every code exactly, else a search of the thresholds.

    code = #{ i : acc >= t[i] } = clip(acc * m + b >> s, 0, L)

The thresholds of a uniform quantizer lie on a line but for rounding. Integers m and b are right where, for all i,

    m * t[i] + b >= i * 2**s        m * (t[i] - 1) + b <= i * 2**s - 1

as far as t[i] and t[i] - 1 are sums that the channel can have. Two such lines, one a lower bound on b and one an upper
bound, leave room for b where ``m * (q - p) <= (j - i) * 2**s - 1``: bounds on m. So a pair is found if there is one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitc.ir.graph import Array

SHIFTS = range(24, 3, -1)
"""Binary digits behind the point that are tried, more of them first."""
NONE = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Line:
    """`slope` and `start`, int32 ``[O]``: ``code = clip(acc * slope + start >> shift, 0, L)`` without overflow."""

    slope: Array
    start: Array
    shift: int


def line(t: Array, low: Array, high: Array) -> Line | None:
    """The line for integer thresholds ``[L, O]``, ascending along axis 0, of sums from `low` to `high` ``[O]``; None if
    there is none in 32 bits."""
    t, low, high = (a.astype(np.int64) for a in (t, low, high))
    reached = t <= high
    lower = np.where(reached, np.maximum(t, low), NONE)  # sums whose code is at least i
    upper = np.where(t > low, np.minimum(t - 1, high), NONE)  # sums whose code is less than i
    for shift in SHIFTS:
        found = _fit(lower, upper, shift)
        if found is None:
            return None  # nor with fewer digits
        slope, start = found
        ends = np.abs(np.stack([slope * low + start, slope * high + start]))
        if max(int(a.max(initial=0)) for a in (ends, np.abs(start), np.abs(slope))) < 2**31:
            return Line(slope.astype(np.int32), start.astype(np.int32), shift)
    return None


def _fit(lower: Array, upper: Array, shift: int) -> tuple[Array, Array] | None:
    """Slope and start per channel for bounds ``[L, O]``."""
    step = np.int64(1) << shift
    level = np.arange(1, len(lower) + 1, dtype=np.int64)
    least, most = np.full(lower.shape[1], -(2**40)), np.full(lower.shape[1], 2**40)
    for i, p in zip(level, lower, strict=True):
        for j, q in zip(level, upper, strict=True):
            used = (p != NONE) & (q != NONE)
            d, room = np.where(used, q - p, 0), (j - i) * step - 1
            if (used & (d == 0)).any() and room < 0:
                return None
            divisor = np.where(d == 0, 1, d)
            most = np.where(d > 0, np.minimum(most, room // divisor), most)
            least = np.where(d < 0, np.maximum(least, -(room // -divisor)), least)
    slope = np.where(least <= 0, np.where(most >= 0, 0, most), np.where(most < 2**40, (least + most) // 2, least))
    if (least > most).any():
        return None
    at_least = np.where(lower != NONE, level[:, None] * step - slope * lower, -(2**60)).max(axis=0)
    at_most = np.where(upper != NONE, level[:, None] * step - 1 - slope * upper, 2**60).min(axis=0)
    start = np.where(at_least == -(2**60), np.minimum(at_most, 0), np.where(at_most == 2**60, np.maximum(at_least, 0),
                     (at_least + at_most) // 2))  # fmt: skip
    return None if (at_least > at_most).any() else (slope, start)


def steps(t: Array) -> Array:
    """Thresholds ``[L, O]`` as rows for a binary search, ``[O, 2**k - 1]``: the last one fills a row."""
    size = (1 << len(t).bit_length()) - 1
    return np.ascontiguousarray(np.concatenate([t, np.repeat(t[-1:], size - len(t), axis=0)]).T)
