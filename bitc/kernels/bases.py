"""Sums of two accumulators per output (`Bases`) compared with thresholds: factors of few bits that decide the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bitc.ir.graph import Array

SHORT = 2**15 - 1
"""Largest factor of 16 bits."""
REACH = 2**30
"""Sums and thresholds of 32 bits stay below, so that twice a sum is of 32 bits, too."""
MARGIN = 8
"""By as much may magnitudes exceed those of accumulators, all together: in counters that start above 0."""


@dataclass(frozen=True)
class FewBits:
    """``sum_i factor[i] * acc_i >= t`` with sums and thresholds of 32 bits."""

    factor: Array
    """``[2, O]``: int16 if all fit, else int32."""
    limits: tuple[Array, ...]
    """int32 ``[O]`` for each threshold."""


def few_bits(factor: Array, limits: Sequence[Array], most: Array, step: int = 1) -> FewBits | None:
    """Smaller factors, not negative, and thresholds with which every comparison gives the same for all accumulators
    from ``-most[i, o]`` to ``most[i, o]`` in steps of `step`; None if some channel has none."""
    if len(factor) != 2:
        return None
    order = np.argsort(-factor, axis=0, kind="stable")
    m, reach = (np.take_along_axis(a.astype(np.int64), order, axis=0) for a in (factor, most))
    found = [_channel(*row, step) for row in zip(m.T, np.stack(limits, axis=1).astype(np.int64), reach.T, strict=True)]
    chosen = [c for c in found if c is not None]
    if len(chosen) < len(found):
        return None
    small = np.empty_like(m)
    np.put_along_axis(small, order, np.array([n for n, _ in chosen]).T, axis=0)
    kind = np.int16 if small.max() <= SHORT else np.int32
    return FewBits(small.astype(kind), tuple(np.array([t for _, t in chosen], np.int32).T))


def _channel(m: Array, limits: Array, most: Array, step: int) -> tuple[Array, list[int]] | None:
    """Factors and thresholds of one channel, the larger factor first: the largest of 16 bits that do, else of 32."""
    cap = int(REACH // (most.sum() + MARGIN))
    near = [n for n in convergents(int(m[0]), int(m[1])) if n[0] <= cap]
    for n in sorted(near, key=lambda n: (n[0] > SHORT, -n[0])):
        small = np.array(n)
        turned = [limit(m, small, int(t), most, step) for t in limits]
        if None not in turned:
            return small, [t for t in turned if t is not None]
    return None


def convergents(a: int, b: int) -> Iterator[tuple[int, int]]:
    """The best approximations of the ratio ``a : b`` (a >= b >= 0), by continued fractions: q : p with an error below
    1 / q**2. They end with the ratio itself."""
    if not a:
        yield 0, 0
        return
    (q, last_q), (p, last_p) = (1, 0), (0, 1)
    while True:
        yield q, p
        if not b:
            return
        whole, rest = divmod(a, b)
        a, b = b, rest
        q, last_q = whole * q + last_q, q
        p, last_p = whole * p + last_p, p


def limit(m: Array, n: Array, t: int, most: Array, step: int) -> int | None:
    """The threshold for factors n that does what t does for factors m, the larger one first.

    For each value b of the smaller base there is a least a with ``m[0] * a + m[1] * b >= t``. Factors n do the same if
    some threshold is above ``n[0] * (a - step) + n[1] * b`` and not above ``n[0] * a + n[1] * b`` for each b, as far as
    there are such accumulators.
    """
    if not m[0]:
        return int(t > 0)
    b = np.arange(-most[1], most[1] + 1, step)
    turn = -((m[1] * b - t) // m[0])
    turn += (turn - most[0]) % step
    least, last = np.maximum(turn, -most[0]), np.minimum(turn - step, most[0])
    beyond = int((n * most).sum()) + 1
    highest = (n[0] * least + n[1] * b)[least <= most[0]].min(initial=beyond)
    lowest = (n[0] * last + n[1] * b)[last >= -most[0]].max(initial=-beyond)
    return int(highest) if lowest < highest else None
