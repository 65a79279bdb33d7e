"""Weights as sums of codes times a scale per output channel: ``W[o, k] = sum_t codes_t[o, k] * scale_t[o]``.

The scales are such that every product and sum is exact in float32: a file that holds the terms gives the same weights
as one that holds their sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitc.ir.binary_sums import magnitudes, scales, signs

Floats = NDArray[np.float32]
Codes = NDArray[np.int8]
DIGITS = 16
"""Binary digits of a scale whose multiples are added or multiplied by codes of up to 8 bits."""
FINE = 22
"""Binary digits of the sum of several scales, with two more for parts of the last one: float32 adds them exactly."""


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
    """Weights ``[O, K]`` as one binary or ternary term, up to four binary ones, or a ternary one and few others at 8
    bits; empty if they have none of these forms. `summed` is within 2**-15 of the largest weight of a
    row, and equal for one term."""
    w = np.asarray(w, np.float32)
    sizes = [np.unique(np.abs(row[row != 0])) for row in w]
    most, full = max((len(s) for s in sizes), default=0), bool((w != 0).all())
    if not most:
        return ()
    if most == 1:
        scale = np.array([s[0] if len(s) else 1 for s in sizes], np.float32)
        return (Term(np.sign(w).astype(np.int8), scale, 1 if full else 2),)
    return (_residual(w) if full else ()) or _salient(w)


def _residual(w: Floats) -> tuple[Term, ...]:
    """Sums of up to four binary terms, whose scales are multiples of 2**-`FINE` of the power of two above
    their sum."""
    rows, found = w.astype(np.float64), list[NDArray[np.float64]]()
    for row in rows:
        sizes = magnitudes(row, 2.0 ** (-2 - DIGITS))
        a = None if sizes is None else scales(sizes, 2.0**-DIGITS)
        if a is None:
            return ()
        found.append(a)
    count = max(map(len, found))
    alpha, codes = np.zeros((count, len(w))), np.ones((count, *w.shape), np.int8)
    for o, (row, a) in enumerate(zip(rows, found, strict=True)):
        codes[: len(a), o] = s = signs(row, a)
        fitted = np.linalg.lstsq(s.T, row, rcond=None)[0]
        exponent = np.frexp(fitted.sum())[1]
        alpha[: len(a), o] = np.ldexp(np.rint(np.ldexp(fitted, FINE - exponent)), exponent - FINE)
        if len(a) < count:  # a term of scale 0 is none: the last one in parts
            parts = alpha[len(a) - 1, o] / 2 ** np.arange(1, count - len(a) + 1)
            alpha[len(a) - 1 :, o] = [*parts, parts[-1]]
            codes[len(a) :, o] = codes[len(a) - 1, o]
    found_terms = tuple(Term(c, a.astype(np.float32), 1) for c, a in zip(codes, alpha, strict=True))
    small = np.abs(w - summed(found_terms)) <= np.abs(w).max(axis=1, keepdims=True) * 2.0 ** (1 - DIGITS)
    return found_terms if small.all() and (alpha > 0).all() else ()


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
