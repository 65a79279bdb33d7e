"""Folding calls into loops loses nothing and finds nests."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from bitc.schedule.loops import Again, Folded, Once, fold


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


def test_loops_nest() -> None:
    calls = []
    for i in range(5):
        calls += [Once("a", (100 * i + 7 * j,)) for j in range(3)]
        calls.append(Once("b", (-i,)))
    (outer,) = fold(calls)
    assert isinstance(outer, Again) and (outer.count, outer.steps) == (5, (100, -1))
    inner = outer.body[0]
    assert isinstance(inner, Again) and (inner.count, inner.steps) == (3, (7,))
