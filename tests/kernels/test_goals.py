"""Goals: instructions against bytes of weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bitc.cli import main

MODEL = Path(__file__).resolve().parents[2] / "examples" / "fashion_cnn" / "fashion_cnn.onnx"


@pytest.fixture(scope="module")
def reports() -> dict[str, dict]:
    found = {}
    for goal in ("speed", "balanced", "size"):
        result = CliRunner().invoke(main, ["bench", str(MODEL), "-t", "cortex-m4", "--optimize", goal, "--json"])
        assert result.exit_code == 0, result.stderr
        found[goal] = json.loads(result.stdout)
    return found


def test_each_goal_gets_what_it_asks_for(reports: dict[str, dict]) -> None:
    speed, balanced, size = (reports[g] for g in ("speed", "balanced", "size"))
    assert speed["total"] <= balanced["total"] < size["total"]
    flash = [r["weights_bytes"] + r["code_bytes"] for r in (speed, balanced, size)]
    assert flash[0] >= flash[1] > flash[2]


def test_binary_weights_take_an_eighth_of_a_byte(reports: dict[str, dict]) -> None:
    """1/8 byte per weight plus at most 5 %, thresholds apart."""
    layers = [r for r in reports["balanced"]["layers"] if r["kind"] in ("binary", "int8")]
    thresholds = 2 * (32 + 64 + 64 + 128) + 2 * 4 * 10
    weights = 9 * (32 + 32 * 64 + 64 * 64 + 64 * 128) + 16 * 128 * 10
    assert sum(r["weights_bytes"] for r in layers) - thresholds <= weights / 8 * 1.05
