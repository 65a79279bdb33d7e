"""Options and fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files and budgets")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


def zoo(path: str) -> Path:
    """A file of the model zoo that lies beside the checkout (or where BITC_ZOO says); skips the test without it."""
    found = Path(os.environ.get("BITC_ZOO", ROOT.parent / "shared" / "zoo")) / path
    if not found.exists():
        pytest.skip(f"the zoo is not here: {path}")
    return found
