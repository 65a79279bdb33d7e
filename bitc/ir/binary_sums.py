"""Numbers that are sums of a few scales with signs:  m = |sum_i s_i * a_i|,  s_i in {-1, +1}."""

from __future__ import annotations

from functools import cache
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
MOST = 4
"""Scales that are looked for at most."""


@cache
def patterns(count: int) -> Doubles:
    """All signs of `count` scales, the first one +: ``[2**(count - 1), count]``."""
    return np.array([(1.0, *signs) for signs in product((1.0, -1.0), repeat=count - 1)])


def magnitudes(row: Doubles, tolerance: float) -> Doubles | None:
    """The distinct magnitudes of a row, where those within `tolerance` times the largest one are one; None if there are
    more than sums of `MOST` scales have, or 0 is one."""
    size = np.sort(np.abs(row))
    first = np.concatenate([[True], np.diff(size) > 2 * tolerance * size[-1]])
    if not size[0] or first.sum() > 1 << (MOST - 1):
        return None
    group = np.cumsum(first) - 1
    found = np.bincount(group, size) / np.bincount(group)
    return None if (np.abs(size - found[group]) > tolerance * size[-1]).any() else found


def scales(sizes: Doubles, tolerance: float) -> Doubles | None:
    """The fewest scales, falling and not negative, of which all `sizes` (distinct, positive) are sums with signs, up to
    `tolerance` times the largest one; None if more than `MOST` are needed."""
    for count in range(1, MOST + 1):
        if len(sizes) > 1 << (count - 1):
            continue
        if len(sizes) == 1 << (count - 1) and _fits(found := _from_all(sizes, count), sizes, tolerance):
            return found
        if len(sizes) <= count:
            continue  # any numbers would do
        for a in _from_some(sizes, count):
            if _fits(a, sizes, tolerance):
                return np.asarray(-np.sort(-np.abs(a)))
    return None


def signs(values: Doubles, a: Doubles) -> Doubles:
    """Signs ``[count, n]`` whose sums with the scales `a` are next to the values ``[n]``."""
    half = patterns(len(a))
    table = np.concatenate([half, -half])
    sums = table @ a
    order = np.argsort(sums, kind="stable")
    middle = (sums[order][1:] + sums[order][:-1]) / 2
    return np.asarray(table[order[np.searchsorted(middle, values)]].T)


def _fits(a: Doubles, sizes: Doubles, tolerance: float) -> bool:
    sums = np.abs(patterns(len(a)) @ a)
    return bool(np.abs(sums[:, None] - sizes).min(axis=0).max() <= tolerance * sizes.max())


def _from_all(sizes: Doubles, count: int) -> Doubles:
    """Scales from all their sums. The distances of all sums from the largest one are those of all sums of some of
    the ``2 * a_i``: the least that is no sum of smaller ones is the next."""
    distances = list(np.sort(sizes.max() - np.concatenate([sizes, -sizes])))
    sums, found = [0.0], list[float]()
    distances.pop(0)
    while len(found) < count:
        d = distances[0]
        for s in list(sums):
            sums.append(s + d)
            distances.pop(int(np.argmin(np.abs(np.array(distances) - (s + d)))))
        found.append(d / 2)
    return np.array(found[::-1])


def _from_some(sizes: Doubles, count: int) -> Doubles:
    """Candidates ``[n, count]`` where some sums are missing: the largest sizes are sums with any signs."""
    largest = np.sort(sizes)[-count:]
    targets = largest * np.array(list(product((1.0, -1.0), repeat=count)))
    return np.asarray(np.einsum("nij,tj->nti", _inverses(count), targets).reshape(-1, count))


@cache
def _inverses(count: int) -> Doubles:
    rows = np.array(list(permutations(range(1 << (count - 1)), count)))
    systems = patterns(count)[rows]
    return np.asarray(np.linalg.inv(systems[np.abs(np.linalg.det(systems)) > 0.5]))
