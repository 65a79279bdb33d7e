"""Finding the loops in a long list of calls: what repeats, with pointers that move on by the same steps, is a loop."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

LONGEST = 384
"""Items that the body of a loop may have."""


@dataclass(frozen=True)
class Once:
    """One call: `key` says which, `at` where each of its pointers stands."""

    key: Hashable
    at: tuple[int, ...]
    alive: int = field(default=0, compare=False)
    """Bytes that are needed after it."""


@dataclass(frozen=True)
class Again:
    """`body`, `count` times. `steps` is how far each pointer of the body moves per iteration, in the order of `at`."""

    count: int
    body: tuple[Folded, ...]
    steps: tuple[int, ...]

    @property
    def key(self) -> Hashable:
        return self.count, self.steps, tuple(i.key for i in self.body)

    @property
    def at(self) -> tuple[int, ...]:
        return tuple(a for i in self.body for a in i.at)

    @property
    def alive(self) -> int:
        return self.body[-1].alive if self.body else 0


Folded = Once | Again


def fold(items: Sequence[Folded]) -> list[Folded]:
    """The same calls in the same order with repetitions as loops, short ones first, so that loops nest."""
    numbers: dict[Hashable, int] = {}
    found = list(items)
    keys = [numbers.setdefault(i.key, len(numbers)) for i in found]
    before = -1
    while before != len(found):
        before = len(found)
        for period in range(1, LONGEST + 1):
            if 2 * period > len(found):
                break
            if _longest_run(np.array(keys), period) < period:
                continue
            found, keys = _fold(found, keys, period, numbers)
    return found


def fold_parts(parts: Iterable[Sequence[Folded]]) -> list[Folded]:
    """The same for parts one after the other that may be alike as a whole, however long they are."""
    wholes: list[Folded] = []
    for part in parts:
        body = tuple(fold(part))
        wholes.append(Again(1, body, (0,) * sum(len(i.at) for i in body)))
    return [item for whole in fold(wholes) for item in _flat(whole)]


def _flat(item: Folded) -> tuple[Folded, ...]:
    """An item without loops of one iteration."""
    if isinstance(item, Once):
        return (item,)
    if item.count == 1:
        return item.body
    return (replace(item, body=tuple(inner for i in item.body for inner in _flat(i))),)


def _longest_run(keys: NDArray[np.int64], period: int) -> int:
    """How many items one after the other, at most, are the same again after so many."""
    others = np.flatnonzero(keys[period:] != keys[:-period])
    return int(np.diff(others, prepend=-1, append=len(keys) - period).max()) - 1


def _fold(
    items: list[Folded], keys: list[int], period: int, numbers: dict[Hashable, int]
) -> tuple[list[Folded], list[int]]:
    """One pass over items with their `keys` as numbers: repetitions of so many items become loops."""
    result: list[Folded] = []
    names: list[int] = []
    i, size = 0, len(items)
    while i < size:
        repeats = i + 2 * period <= size and keys[i] == keys[i + period]
        if not repeats or keys[i : i + period] != keys[i + period : i + 2 * period]:
            result.append(items[i])
            names.append(keys[i])
            i += 1
            continue
        first, second = (_at(items, i + k * period, period) for k in (0, 1))
        steps = tuple(b - a for a, b in zip(first, second, strict=True))
        count, last = 2, second
        while (
            i + (count + 1) * period <= size
            and keys[i : i + period] == keys[i + count * period : i + (count + 1) * period]
        ):
            following = _at(items, i + count * period, period)
            if any(b - a != s for a, b, s in zip(last, following, steps, strict=True)):
                break
            count, last = count + 1, following
        begin = i + _best_start(items, keys, i, period, count)
        first, second = (_at(items, begin + k * period, period) for k in (0, 1))
        steps = tuple(b - a for a, b in zip(first, second, strict=True))
        loop = Again(count, tuple(items[begin : begin + period]), steps)
        result += [*items[i:begin], loop]
        names += [*keys[i:begin], numbers.setdefault(loop.key, len(numbers))]
        i = begin + count * period
    return result, names


def _best_start(items: Sequence[Folded], keys: Sequence[int], i: int, period: int, count: int) -> int:
    """How many items later a loop of as many iterations should start: what is needed from one iteration to the next
    takes its memory all the time, so the least should be."""
    best, least = 0, items[i + period - 1].alive
    for shift in range(1, period):
        at = i + count * period + shift - 1  # what would come into the last iteration
        if at >= len(items) or keys[at] != keys[i + shift - 1]:
            break
        before, last, new = (items[at - k * period].at for k in (2, 1, 0))
        if any(c - b != b - a for a, b, c in zip(before, last, new, strict=True)):
            break
        if items[i + period + shift - 1].alive < least:
            best, least = shift, items[i + period + shift - 1].alive
    return best


def _at(items: Sequence[Folded], start: int, count: int) -> tuple[int, ...]:
    return tuple(a for item in items[start : start + count] for a in item.at)
