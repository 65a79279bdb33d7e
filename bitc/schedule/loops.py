"""Finding the loops in a long list of calls: what repeats, with pointers that move on by the same steps, is a loop."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

LONGEST = 96
"""Items that the body of a loop may have."""


@dataclass(frozen=True)
class Once:
    """One call: `key` says which, `at` where each of its pointers stands."""

    key: Hashable
    at: tuple[int, ...]


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
        loop = Again(count, tuple(items[i : i + period]), steps)
        result.append(loop)
        names.append(numbers.setdefault(loop.key, len(numbers)))
        i += count * period
    return result, names


def _at(items: Sequence[Folded], start: int, count: int) -> tuple[int, ...]:
    return tuple(a for item in items[start : start + count] for a in item.at)
