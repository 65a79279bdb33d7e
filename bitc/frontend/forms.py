"""Weights as sums of codes times a scale per output channel: ``W[o, k] = sum_t codes_t[o, k] * scale_t[o]``.

The scales are such that every product and sum is exact in float32: a file that holds the terms gives the same weights
as one that holds their sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Codes = NDArray[np.int8]
DIGITS = 16
"""Binary digits of a scale whose multiples are added or multiplied by codes of up to 8 bits."""


@dataclass(frozen=True)
class Term:
    """`codes` [O, K] of `bits` bits, `scale` [O]. One bit is -1 or +1; more bits are signed integers."""

    codes: Codes
    scale: Floats
    bits: int

    @property
    def value(self) -> Floats:
        """``[O, K]``."""
        return np.asarray(self.codes * self.scale[:, None], np.float32)


def summed(terms: tuple[Term, ...]) -> Floats:
    """The weights ``[O, K]`` that terms stand for."""
    return np.asarray(sum(t.value for t in terms), np.float32)


def terms(w: Floats) -> tuple[Term, ...]:
    """Weights ``[O, K]`` as one binary or ternary term, two binary ones, or a ternary one and the few others at 8 bits;
    empty if they have none of these forms. `summed` is within 2**-15 of each weight, and equal for one term."""
    w = np.asarray(w, np.float32)
    sizes = [np.unique(np.abs(row[row != 0])) for row in w]
    most, full = max((len(s) for s in sizes), default=0), bool((w != 0).all())
    if not most:
        return ()
    if most == 1:
        scale = np.array([s[0] if len(s) else 1 for s in sizes], np.float32)
        return (Term(np.sign(w).astype(np.int8), scale, 1 if full else 2),)
    if most == 2 and full:
        p, q = (_short(np.array([s[i] for s in sizes], np.float32)) for i in (-1, 0))
        first = np.sign(w).astype(np.int8)
        second = np.where(np.abs(w) > (p + q)[:, None] / 2, first, -first).astype(np.int8)
        alone = p == q
        second[alone] = first[alone]
        low = np.where(alone, p / 2, (p - q) / 2)
        return Term(first, (p - low).astype(np.float32), 1), Term(second, low.astype(np.float32), 1)
    return _salient(w)


def _salient(w: Floats) -> tuple[Term, ...]:
    """The weights of most frequent magnitude in each row, and the others as multiples of 1/127 of the largest."""
    rows = len(w)
    main, step = np.ones(rows, np.float32), np.ones(rows, np.float32)
    others = np.zeros(w.shape, np.bool_)
    for i, row in enumerate(np.abs(w)):
        sizes, counts = np.unique(row[row > 0], return_counts=True)
        if len(sizes):
            main[i] = sizes[counts.argmax()]
        others[i] = (row != main[i]) & (row > 0)
        if others[i].any():
            step[i] = row[others[i]].max() / 127
    step = _short(step)
    codes = np.where(others, np.rint(w / step[:, None]), 0).astype(np.int8)
    found = (Term(np.where(others, 0, np.sign(w)).astype(np.int8), main, 2), Term(codes, step, 8))
    small = np.abs(w - summed(found)) <= np.abs(w) * 2.0 ** (1 - DIGITS)
    return found if small.all() and others.mean() <= 0.5 else ()


def _short(scale: Floats) -> Floats:
    """Rounded to `DIGITS` binary digits."""
    mantissa, exponent = np.frexp(scale)
    return np.ldexp(np.rint(mantissa * 2.0**DIGITS) / 2.0**DIGITS, exponent).astype(np.float32)
