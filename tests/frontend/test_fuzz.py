"""The importer under mutated models, in processes of their own (see `tests.frontend.fuzz`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def fuzz(first: int, count: int) -> None:
    command = [sys.executable, "-m", "tests.frontend.fuzz", str(first), str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-2000:]}"


def test_mutated_models() -> None:
    fuzz(0, 800)


@pytest.mark.full
@pytest.mark.parametrize("part", range(8))
def test_many_mutated_models(part: int) -> None:
    fuzz(1_000_000 + part * 10_000, 10_000)
