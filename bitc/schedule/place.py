"""Placing blocks with lifetimes in one arena: dynamic storage allocation.

Several greedy orders (first fit at the lowest offset that overlaps no block alive at the same time), then, if none
meets the lower bound, a bounded search over orders of few blocks; of many, the block that sticks out is placed first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bitc.ir.plan import Block

Order = list[int]
SEARCH_STEPS = 20_000
"""Placements that the search may try."""
FEW = 48
"""Blocks whose orders are searched."""
REPAIRS = 24
"""Orders of many blocks that are tried."""


def place(blocks: Sequence[Block]) -> tuple[list[int], int, int]:
    """Offsets, total size and the lower bound, in bytes."""
    bound = lower_bound(blocks)
    if not blocks:
        return [], 0, 0
    best = min((_first_fit(blocks, order) for order in _orders(blocks)), key=lambda r: r[1])
    if best[1] > bound:
        better = _search(blocks, bound, best) if len(blocks) <= FEW else _repair(blocks, bound)
        best = min(best, better, key=lambda r: r[1])
    return best[0], best[1], bound


def lower_bound(blocks: Sequence[Block]) -> int:
    """Peak of the live bytes over all calls."""
    return max((sum(b.size for b in blocks if b.start <= t <= b.stop) for t in {b.start for b in blocks}), default=0)


def _orders(blocks: Sequence[Block]) -> list[Order]:
    keys: list[Callable[[Block], tuple[int, ...]]] = [
        lambda b: (-b.size, b.start),
        lambda b: (b.start, -b.size),
        lambda b: (-b.stop, -b.size),
        lambda b: (b.start - b.stop, -b.size),
        lambda b: (-b.size * (b.stop - b.start + 1), b.start),
        lambda b: (-b.align, -b.size, b.start),
    ]
    return [sorted(range(len(blocks)), key=lambda i, k=key: k(blocks[i])) for key in keys]  # type: ignore[misc]


def _lowest(blocks: Sequence[Block], placed: dict[int, int], i: int) -> int:
    """The lowest offset at which block i fits."""
    b, at = blocks[i], 0
    for j in sorted((j for j in placed if blocks[j].meets(b)), key=lambda j: placed[j]):
        if placed[j] - at >= b.size:
            break
        end = placed[j] + blocks[j].size
        at = max(at, -(-end // b.align) * b.align)
    return at


def _first_fit(blocks: Sequence[Block], order: Order) -> tuple[list[int], int]:
    placed: dict[int, int] = {}
    for i in order:
        placed[i] = _lowest(blocks, placed, i)
    return [placed[i] for i in range(len(blocks))], max(placed[i] + blocks[i].size for i in placed)


def _repair(blocks: Sequence[Block], bound: int) -> tuple[list[int], int]:
    """Place by size, then again and again with the block that ends highest first."""
    order = sorted(range(len(blocks)), key=lambda i: (-blocks[i].size, blocks[i].start))
    best = _first_fit(blocks, order)
    offsets = best[0]
    for _ in range(REPAIRS):
        if best[1] == bound:
            break
        highest = max(order, key=lambda i: offsets[i] + blocks[i].size)
        order = [highest, *(i for i in order if i != highest)]
        offsets, size = _first_fit(blocks, order)
        best = min(best, (offsets, size), key=lambda r: r[1])
    return best


def _search(blocks: Sequence[Block], bound: int, best: tuple[list[int], int]) -> tuple[list[int], int]:
    """Depth-first over orders, cut where a block already ends beyond the best plan, within `SEARCH_STEPS`."""
    steps, count = SEARCH_STEPS, len(blocks)
    placed: dict[int, int] = {}

    def visit() -> bool:
        nonlocal steps, best
        if len(placed) == count:
            best = [placed[i] for i in range(count)], max(placed[i] + blocks[i].size for i in placed)
            return best[1] == bound
        left = [(_lowest(blocks, placed, i), i) for i in range(count) if i not in placed]
        if any(at + blocks[i].size >= best[1] for at, i in left):
            return False  # this block has to go somewhere, and it will not get lower
        for at, i in sorted(left, key=lambda c: (c[0], -blocks[c[1]].size)):
            steps -= 1
            if steps < 0:
                return True
            placed[i] = at
            if visit():
                return True
            del placed[i]
        return False

    visit()
    return best
