"""Folding calls into loops loses nothing and finds nests."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from bitc.schedule.loops import LONGEST, Again, Folded, Once, fold, fold_parts


def unfold(items: Iterable[Folded], at: tuple[int, ...]) -> list[Once]:
    """The calls of items whose pointers start at `at`."""
    calls: list[Once] = []
    start = 0
    for item in items:
        here = at[start : start + len(item.at)]
        start += len(item.at)
        if isinstance(item, Once):
            calls.append(Once(item.key, here))
            continue
        for i in range(item.count):
            calls += unfold(item.body, tuple(a + i * s for a, s in zip(here, item.steps, strict=True)))
    return calls


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2)), max_size=40))
def test_folding_loses_nothing(drawn: list[tuple[str, int]]) -> None:
    calls = [Once(key, (at,)) for key, at in drawn]
    folded = fold(calls)
    assert unfold(folded, tuple(a for f in folded for a in f.at)) == calls


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 1)), max_size=4), max_size=9))
def test_folding_parts_loses_nothing(drawn: list[list[tuple[str, int]]]) -> None:
    parts = [[Once(key, (at,)) for key, at in part] for part in drawn]
    folded = fold_parts(parts)
    assert unfold(folded, tuple(a for f in folded for a in f.at)) == [call for part in parts for call in part]


def test_long_parts_are_a_loop() -> None:
    parts = [[Once((k, k * k % 7), (k + 10 * i,)) for k in range(LONGEST + 20)] for i in range(6)]
    other = [Once("other", (0,))]
    (before, loop, after) = fold_parts([other, *parts, other])
    assert isinstance(loop, Again) and loop.count == 6 and set(loop.steps) == {10}
    assert all(isinstance(f, Once) for f in (before, after, *loop.body))


def test_loops_nest() -> None:
    calls = []
    for i in range(5):
        calls += [Once("a", (100 * i + 7 * j,)) for j in range(3)]
        calls.append(Once("b", (-i,)))
    (outer,) = fold(calls)
    assert isinstance(outer, Again) and (outer.count, outer.steps) == (5, (100, -1))
    inner = outer.body[0]
    assert isinstance(inner, Again) and (inner.count, inner.steps) == (3, (7,))


def test_loops_start_where_least_is_needed_from_one_iteration_to_the_next() -> None:
    """Without one iteration less: as far as what follows goes on in the same way."""
    body = [("a", 9), ("b", 9), ("c", 1), ("d", 9), ("e", 5)]
    calls = [Once(key, (i,), alive) for i in range(4) for key, alive in body]
    for more, start in ((3, "d"), (2, "a")):
        folded = fold([*calls, *(Once(key, (4,), alive) for key, alive in body[:more])])
        (loop,) = (f for f in folded if isinstance(f, Again))
        first = loop.body[0]
        assert loop.count == 4 and isinstance(first, Once) and first.key == start
