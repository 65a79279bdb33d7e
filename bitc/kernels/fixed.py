"""Requantization by the upper word of one product:  code = clip(((v * m >> 32) + half) >> j) + zero,  v = acc + bias.

This is ``v * f`` rounded to the nearest integer, with halves up, for ``f = m / 2**(32 + j)``. A `Requant` is a step
function of v with at most as many steps as there are codes. So a multiplier m is right if and only if it puts each step
at the same v as the definition does: that is checked here, for every channel and code, in exact integers. Mostly f has
24 significant bits and m holds it exactly; where channels differ so much that it can not, or where sums can lie right
between two codes (which the definition rounds to even), m may still be right.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bitc.ir.dtypes import DType
from bitc.ir.graph import Array
from bitc.ops.epilogue import Requant
from bitc.ops.quantized import AddRequant

MOST = 20
"""Most bits that are shifted out of the upper word."""


@dataclass(frozen=True)
class Halves:
    """``(v * (m >> bits) + (v * (m & 2**bits - 1) >> bits) + add) >> after``, where no product exceeds 32 bits: for
    chips that multiply no wider. Rounding down twice is rounding down once."""

    multiplier: Array
    bits: int
    after: int
    add: int
    limit: int
    """Magnitude to which v is limited first, beyond which the result is that of the limit; 0: it never exceeds it."""


@dataclass(frozen=True)
class UpperWord:
    """``(((v << before) * multiplier >> 32) + add) >> after``, then limits."""

    multiplier: Array
    """int32, of one element or one per channel."""
    before: int
    after: int
    add: int
    """Half of a step, and the zero point."""
    halves: Halves | None
    """The same in 32 bits."""


def upper_word(op: Requant, bias: Array, multiplier: Array, shift: Array, low: Array, high: Array) -> UpperWord | None:
    """The same function of sums ``low <= acc <= high``, or None. Arrays have one element, or one per channel."""
    return _upper_word(op, *(np.asarray(p, np.int64).tobytes() for p in (bias, multiplier, shift, low, high)))


@lru_cache(maxsize=4096)
def _upper_word(op: Requant, *given: bytes) -> UpperWord | None:
    """As `upper_word`, for the bytes of the arrays: a layer asks again for each form of its rows."""
    b, m, s, lo, hi = np.broadcast_arrays(*(np.frombuffer(p, np.int64) for p in given))
    if op.hi == op.lo or not m.any():
        return None
    lo, hi = lo + b, hi + b
    room = 31 - int(max(abs(lo).max(), abs(hi).max(), 1)).bit_length()
    factor = float((m / 2.0**s).max())
    exponent = min(int(np.floor(-np.log2(factor))) - 2, MOST)  # the largest multiplier has 30 or 31 bits
    if factor * 2.0 ** (33 + exponent) < 2**31:
        exponent = min(exponent + 1, MOST)
    after, before = max(exponent, 1), max(1 - exponent, 0)
    if before > room:
        return None
    codes = np.arange(op.lo - op.zero + 1, op.hi - op.zero + 1)  # in steps, those above the lowest
    if int(abs(2 * codes - 1).max()).bit_length() + max(int(s.max()), after + 31) > 62:
        return None
    # v * m / 2**s rounds to n or more if it exceeds n - 1/2, or equals that and n is even.
    steps = _steps(2 * m, (2 * codes - 1) << s[:, None], codes % 2 == 0, lo, hi)
    limits = np.broadcast_to((2 * codes - 1) << (after + 31), steps.shape)
    found = np.rint(m.astype(np.float64) * 2.0 ** (32 + after - before - s)).astype(np.int64)
    for nudge in (0, -1, 1):
        candidate = found + nudge
        wrong = (_steps(candidate << before, limits, np.array(True), lo, hi) != steps).any(axis=1)
        if nudge == 0:
            best, bad = candidate.copy(), wrong
        else:
            best, bad = np.where(bad & ~wrong, candidate, best), bad & wrong
    if bad.any() or best.max() >= 2**31 or best.min() < 0:
        return None
    add = (op.zero << after) + (1 << (after - 1))
    reach = int(max(abs(lo).max(), abs(hi).max())) << before
    if abs(add) + (reach * int(best.max()) >> 32) + 1 >= 2**31:
        return None
    single = best[:1] if (best == best[0]).all() else best
    halves = _halves(single << before, after, add, steps, lo, hi)
    return UpperWord(single.astype(np.int32), before, after, add, halves)


def _halves(m: Array, after: int, add: int, steps: Array, lo: Array, hi: Array) -> Halves | None:
    """In 32 bits, if the steps are near enough to 0."""
    common = int(np.bitwise_or.reduce(m))
    zeros = (common & -common).bit_length() - 1
    bits = (common.bit_length() - zeros + 1) // 2
    scale = 32 - zeros - bits
    upper = int(m.max()) >> (zeros + bits)
    limit = min((2**31 - 1) // (2**bits), (2**31 - 1 - abs(add << max(scale, 0))) // (upper + 1))
    if scale < 0 or scale + after > 31 or limit < 1:
        return None
    reach = max(int(abs(lo).max()), int(abs(hi).max()))
    reachable = (steps > lo[:, None]) & (steps <= hi[:, None])
    if (reachable & ((steps > limit) | (steps <= -limit))).any():
        return None
    return Halves((m >> zeros).astype(np.int32), bits, scale + after, add << scale, limit if reach > limit else 0)


@dataclass(frozen=True)
class WeightedSum:
    """``(x * a + start + y * b) >> shift`` in int32, for two codes x and y; then limits."""

    a: int
    b: int
    start: int
    shift: int


def weighted_sum(op: AddRequant, x: DType, y: DType) -> WeightedSum | None:
    """The same function of two codes of 8 bits, or None. The factors lose their last bits where they have too many; all
    pairs of codes are tried."""
    left, right = (np.arange(int(t.min), int(t.max) + 1, dtype=np.int64) for t in (x, y))
    left = left[:, None]
    (wanted,) = op.reference(left, right)
    for drop in range(op.shift + 1):
        a, b = (round(m / 2**drop) for m in (op.a_multiplier, op.b_multiplier))
        shift = op.shift - drop
        start = (op.out.zero << shift) + (1 << shift >> 1) - op.a_zero * a - op.b_zero * b
        first = left * a + start
        total = first + right * b
        if max(abs(part).max() for part in (left * a, right * b, first, total)) >= 2**31:
            continue
        same = (np.clip(total >> shift, op.out.lo, op.out.hi) == wanted).all()
        return WeightedSum(a, b, start, shift) if same else None
    return None


def _steps(factor: Array, limits: Array, equal: Array, lo: Array, hi: Array) -> Array:
    """The least v in lo ... hi with ``v * factor > limit``, or ``>=`` where `equal`; hi + 1 if there is none. Int64:
    ``[channels]``, and limits ``[channels, codes]``."""
    divisor = np.maximum(factor, 1)[:, None]
    v = np.where(equal, -(-limits // divisor), limits // divisor + 1)
    v = np.where(factor[:, None] > 0, v, np.where(limits < 0, lo[:, None], hi[:, None] + 1))
    return np.clip(v, lo[:, None], hi[:, None] + 1)
