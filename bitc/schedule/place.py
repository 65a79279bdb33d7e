"""Placing blocks with lifetimes in one arena: dynamic storage allocation.

Blocks alive at the same time lie apart, unless one may overlap another (see `Overlap`). Some lie at fixed distances
from each other: parts of one buffer. Several greedy orders (first fit at the lowest offset that every block already
placed allows), then, if none meets the lower bound, a bounded search over orders of few blocks; of many, the block that
sticks out is placed first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from bitc.ir.plan import Block
from bitc.ir.program import Overlap

Order = list[int]
Group = tuple[tuple[int, int], ...]
"""Blocks that lie together: the index of each, and where it starts."""
Overlaps = Mapping[tuple[int, int], Overlap]
"""For a block that is written while another is read for the last time: how it may lie over that one."""
SEARCH_STEPS = 20_000
"""Placements that the search may try."""
FEW = 48
"""Groups whose orders are searched."""
CLOSE = 1.001
"""How far above the bound a plan of many groups is good enough."""
REPAIRS = 24
"""Orders of many groups that are tried without a better one."""


def place(
    blocks: Sequence[Block], groups: Sequence[Group] = (), overlaps: Overlaps | None = None
) -> tuple[list[int], int, int]:
    """Offsets, total size and a lower bound, in bytes. Blocks of no group lie by themselves."""
    overlaps = overlaps or {}
    bound = lower_bound(blocks, overlaps)
    if not blocks:
        return [], 0, 0
    found = _Placing(blocks, groups, overlaps).best(bound)
    offsets = [0] * len(blocks)
    for group, at in found[0].items():
        for i, start in group:
            offsets[i] = at + start
    return offsets, found[1], bound


def lower_bound(blocks: Sequence[Block], overlaps: Overlaps | None = None) -> int:
    """Peak over all calls of the bytes alive, less what may be shared then."""
    return max((size for _, size in alive(blocks, overlaps)), default=0)


def alive(blocks: Sequence[Block], overlaps: Overlaps | None = None) -> list[tuple[int, int]]:
    """Bytes alive, less what may be shared then, by the call from which on there are so many."""
    shared: dict[int, int] = {}
    for (y, x), how in (overlaps or {}).items():
        shared[y] = shared.get(y, 0) + _shared(blocks[y].size, blocks[x].size, how)
    change: dict[int, int] = {}
    saved: dict[int, int] = {}
    for i, b in enumerate(blocks):
        change[b.start] = change.get(b.start, 0) + b.size
        change[b.stop + 1] = change.get(b.stop + 1, 0) - b.size
        saved[b.start] = saved.get(b.start, 0) + min(shared.get(i, 0), b.size)
    times = sorted(change)
    sizes = accumulate(change[t] for t in times)
    return [(t, size - saved.get(t, 0)) for t, size in zip(times, sizes, strict=True)]


def _shared(y: int, x: int, how: Overlap) -> int:
    """Most bytes in which y and x may overlap."""
    lead = min(how.lead, max(x - y, 0))
    if how.step > 1:
        lead = how.lead - -(-(how.lead - lead) // how.step) * how.step
    low, high = max(lead, 0), min(lead + y, x)
    return max(high - low, 0)


def _meeting(blocks: Sequence[Block]) -> Iterator[tuple[int, int]]:
    """Pairs of blocks that are alive at the same time, each in both orders."""
    alive: list[int] = []
    for i in sorted(range(len(blocks)), key=lambda i: blocks[i].start):
        alive = [j for j in alive if blocks[j].stop >= blocks[i].start]
        for j in alive:
            yield i, j
            yield j, i
        alive.append(i)


@dataclass(frozen=True)
class _Limit:
    """Where a group may lie, counted from another that it overlaps (`side` -1: up to `limit`) or is overlapped by (1:
    from `limit` on), at whole steps from there, and anywhere outside of (low, high)."""

    other: int
    low: int
    high: int
    side: int
    limit: int
    step: int

    def next(self, distance: int) -> int:
        """The least allowed distance that is not less."""
        if not self.low < distance < self.high:
            return distance
        if self.side < 0 and distance <= self.limit:
            return self.limit - (self.limit - distance) // self.step * self.step
        if self.side < 0:
            return self.high
        steps = max(0, -(-(distance - self.limit) // self.step))
        return min(self.limit + steps * self.step, self.high)


Placed = tuple[dict[Group, int], int]


class _Placing:
    def __init__(self, blocks: Sequence[Block], groups: Sequence[Group], overlaps: Overlaps) -> None:
        self.blocks = blocks
        together = {i for g in groups for i, _ in g}
        self.groups = [*groups, *(((i, 0),) for i in range(len(blocks)) if i not in together)]
        self.aligns = [max(blocks[i].align for i, _ in g) for g in self.groups]
        self.sizes = [max(start + blocks[i].size for i, start in g) for g in self.groups]
        self.apart: list[list[tuple[int, int, int]]] = [[] for _ in self.groups]
        """Per group where it may not lie: (other, low, high), not within (low, high) counted from the other."""
        self.limits: list[list[_Limit]] = [[] for _ in self.groups]
        self._limited(overlaps)

    def _limited(self, overlaps: Overlaps) -> None:
        group_of = {i: (g, start) for g, group in enumerate(self.groups) for i, start in group}
        for i, j in _meeting(self.blocks):
            a, b = self.blocks[i], self.blocks[j]
            (g, at), (other, start) = group_of[i], group_of[j]
            if g == other:
                continue
            low, high = start - at - a.size, start + b.size - at
            if (i, j) in overlaps:
                how = overlaps[i, j]
                self.limits[g].append(_Limit(other, low, high, -1, how.lead + start - at, how.step))
            elif (j, i) in overlaps:
                how = overlaps[j, i]
                self.limits[g].append(_Limit(other, low, high, 1, start - at - how.lead, how.step))
            else:
                self.apart[g].append((other, low, high))

    def best(self, bound: int) -> Placed:
        """The best plan found; a first one that meets the bound."""
        tried = ((self._first_fit(order), order) for order in self._orders())
        best, order = min(tried, key=lambda r: r[0][1])
        if len(self.groups) <= FEW:
            return self._search(bound, best) if best[1] > bound else best
        return self._repair(bound, order, best) if best[1] > CLOSE * bound else best

    def _orders(self) -> list[Order]:
        start = [min(self.blocks[i].start for i, _ in g) for g in self.groups]
        stop = [max(self.blocks[i].stop for i, _ in g) for g in self.groups]
        size = self.sizes
        keys: list[Callable[[int], tuple[int, ...]]] = [
            lambda g: (-size[g], start[g]),
            lambda g: (start[g], -size[g]),
            lambda g: (-stop[g], -size[g]),
            lambda g: (start[g] - stop[g], -size[g]),
            lambda g: (-size[g] * (stop[g] - start[g] + 1), start[g]),
            lambda g: (-self.aligns[g], -size[g], start[g]),
        ]
        return [sorted(range(len(self.groups)), key=key) for key in keys]

    def _lowest(self, placed: Mapping[int, int], g: int) -> int:
        """The lowest offset at which group g fits."""
        align, at, before = self.aligns[g], 0, -1
        apart = sorted((placed[o] + low, placed[o] + high) for o, low, high in self.apart[g] if o in placed)
        near = [(placed[limit.other], limit) for limit in self.limits[g] if limit.other in placed]
        while at != before:
            before = at
            for low, high in apart:
                if low >= at:  # all others are higher still
                    break
                if high > at:
                    at = -(-high // align) * align
            for base, limit in near:
                at = max(at, -(-(base + limit.next(at - base)) // align) * align)
        return at

    def _ends(self, placed: Mapping[int, int]) -> Placed:
        size = max(at + self.sizes[g] for g, at in placed.items())
        return {self.groups[g]: at for g, at in placed.items()}, size

    def _first_fit(self, order: Order) -> Placed:
        placed: dict[int, int] = {}
        for g in order:
            placed[g] = self._lowest(placed, g)
        return self._ends(placed)

    def _repair(self, bound: int, order: Order, best: Placed) -> Placed:
        """Place again and again with the group that ends highest first."""
        found, left = best, REPAIRS
        while left and best[1] > bound:
            offsets = found[0]
            highest = max(order, key=lambda g: offsets[self.groups[g]] + self.sizes[g])
            order = [highest, *(g for g in order if g != highest)]
            found = self._first_fit(order)
            left = REPAIRS if found[1] < best[1] else left - 1
            best = min(best, found, key=lambda r: r[1])
        return best

    def _search(self, bound: int, best: Placed) -> Placed:
        """Depth-first over orders, cut where a group already ends beyond the best plan, within `SEARCH_STEPS`."""
        steps, count = SEARCH_STEPS, len(self.groups)
        placed: dict[int, int] = {}

        def visit() -> bool:
            nonlocal steps, best
            if len(placed) == count:
                best = self._ends(placed)
                return best[1] == bound
            left = [(self._lowest(placed, g), g) for g in range(count) if g not in placed]
            if any(at + self.sizes[g] >= best[1] for at, g in left):
                return False  # this group has to go somewhere, and it will not get lower
            for at, g in sorted(left, key=lambda c: (c[0], -self.sizes[c[1]])):
                steps -= 1
                if steps < 0:
                    return True
                placed[g] = at
                if visit():
                    return True
                del placed[g]
            return False

        visit()
        return best
