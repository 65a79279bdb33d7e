"""Lines through thresholds: every code, exactly, or none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitc.kernels.levels import line, steps


def codes(t: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (x >= t[:, None]).sum(axis=0)


def check(t: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    found = line(t, low, high)
    if found is None:
        return False
    for o in range(t.shape[1]):
        x = np.arange(low[o], high[o] + 1)
        v = x * int(found.slope[o]) + int(found.start[o])
        assert np.abs(v).max() < 2**31
        np.testing.assert_array_equal(np.clip(v >> found.shift, 0, len(t)), codes(t[:, o], x))
    return True


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 15), st.integers(1, 5000), st.booleans())
def test_uniform_quantizers_have_a_line(seed: int, levels: int, reach: int, saturated: bool) -> None:
    """Slopes of all sizes; levels that no sum reaches and levels below all sums."""
    rng = np.random.default_rng(seed)
    slope, offset = rng.uniform(0.3, 5, 8) * levels / reach, rng.normal(0, 3, 8)
    x = np.arange(-reach, reach + 1)
    y = np.clip(np.rint(np.float32(x[:, None] * slope + offset)), 0, levels)
    reached = y[None] >= np.arange(1, levels + 1)[:, None, None]
    t = np.where(reached.any(axis=1), x[np.argmax(reached, axis=1)], reach + 1)
    low, high = np.full(8, -reach), np.full(8, reach)
    if saturated:
        t = np.where(t == -reach, -reach - 5, t)
    assert check(t, low, high)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-40, 40), min_size=1, max_size=15))
def test_any_thresholds_are_exact_or_refused(values: list[int]) -> None:
    check(np.sort(np.array(values))[:, None], np.array([-40]), np.array([40]))


def test_no_line() -> None:
    assert line(np.array([[0], [1], [20]]), np.array([-50]), np.array([50])) is None
    assert line(np.array([[0], [1]]), np.array([-(2**31)]), np.array([2**31 - 1])) is None


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 7, 8, 15])
def test_steps_are_found_by_halving(levels: int) -> None:
    t = np.sort(np.random.default_rng(0).integers(-20, 20, (levels, 3)), axis=0)
    rows = steps(t)
    for o, row in enumerate(rows):
        for x in range(-22, 23):
            code, size = 0, (len(row) + 1) // 2
            while size:
                code += size * int(x >= row[code + size - 1])
                size //= 2
            assert min(code, levels) == (x >= t[:, o]).sum()
