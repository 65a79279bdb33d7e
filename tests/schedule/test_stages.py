"""Stages give the same bits as layers one after the other, whatever the network and the schedule."""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitc import interp
from bitc.kernels import assign_layouts
from bitc.target import Target
from tests.kernels.harness import (
    assert_same,
    call,
    compile_schedule,
    portable,
    random_feeds,
    run_on_target,
    shared_library,
)
from tests.schedule.drawn import Case, cases, schedule, together

BATCH = st.lists(cases(), min_size=12, max_size=12)


def check_batch(found: list[Case], target: Target, on_target: bool = False) -> int:
    """Compile all cases in one go and compare every output with the oracle; returns the number of stages."""
    graph, starts = together(found)
    planned = schedule(assign_layouts(graph, target), starts)
    compiled = compile_schedule(planned, target)
    feeds = random_feeds(graph)
    want = interp.run(graph, feeds)
    with tempfile.TemporaryDirectory() as folder:
        if on_target:
            got, _ = run_on_target(compiled, Path(folder), feeds, "-O1")
        else:
            got = call(compiled, ctypes.CDLL(str(shared_library(compiled, Path(folder), "-O1"))), feeds)
    for name, expected in want.items():
        assert_same(got[name], expected, name)
    return len(planned.stages)


@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(BATCH)
def test_any_schedule(found: list[Case]) -> None:
    check_batch(found, portable())


@settings(max_examples=1, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(BATCH)
def test_any_schedule_on_a_microcontroller(found: list[Case]) -> None:
    check_batch(found, Target.load("cortex-m4"), on_target=True)


@pytest.mark.full
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(BATCH)
def test_many_schedules(found: list[Case]) -> None:
    check_batch(found, portable())
