"""The examples on every target: compiled, run where a runner exists, the same labels everywhere, within budget."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bitc import runners
from bitc.cli import main
from bitc.target import Target

ROOT = Path(__file__).resolve().parents[2]
BUDGETS = ROOT / "tests" / "golden" / "budgets.json"
EXAMPLES = {p.parent.name: p for p in sorted((ROOT / "examples").glob("*/*.onnx"))}
FLOAT = ("fashion_float", "fashion_resnet")
SLACK = {"arena_bytes": 0, "weights_bytes": 0, "code_bytes": 0.01, "stack_bytes": 0.01, "instructions": 0.01}
"""By how much each figure may grow over its budget, relative; what no compiler decides may not grow at all."""


def bitc(*args: object) -> dict[str, Any]:
    """Run a command in process with --json; fails the test if it does not exit with 0."""
    result = CliRunner().invoke(main, [*map(str, args), "--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_the_examples_are_there() -> None:
    assert list(EXAMPLES) == ["fashion_cnn", "fashion_float", "fashion_resnet", "mnist_mlp"]


def _cases() -> Iterator[Any]:
    """Every example on every target; float arithmetic in software takes the emulators long."""
    for example in EXAMPLES:
        for target in Target.available():
            slow = example in FLOAT and "fpu" not in Target.load(target).features
            if target != "host":
                yield pytest.param(example, target, marks=[pytest.mark.full] if slow else [])


@pytest.mark.parametrize(("example", "target"), list(_cases()))
def test_verified_and_within_budget(example: str, target: str, update_golden: bool, tmp_path: Path) -> None:
    model = EXAMPLES[example]
    chip = Target.load(target)
    if reason := runners.available(chip):
        report = bitc("compile", model, "--target", target, "-o", tmp_path / "out")
        _check_budget(example, target, report, update_golden)
        pytest.skip(f"compiled, not run: {reason}")
    count = 48 if chip.runner.kind == "host" else 2
    small = chip.memory.ram is not None and chip.memory.ram < 2**16  # for floats
    room = ("--ram", "128k", "--flash", "512k") if small else ()
    inputs = ("--inputs", model.with_name("images.npz"), "--samples", count)
    report = bitc("verify", model, "--target", target, *inputs, *room)
    assert report["ok"] and report["samples"] == count and report["ties"] == 0
    assert report["argmax_agreement"] == 1
    _check_budget(example, target, report, update_golden)


@pytest.mark.parametrize("example", EXAMPLES)
def test_accuracy_on_the_host(example: str) -> None:
    model = EXAMPLES[example]
    report = bitc("verify", model, "--target", "host", "--inputs", model.with_name("images.npz"))
    assert report["ok"] and report["argmax_agreement"] == 1
    assert report["accuracy"] >= 0.8  # of 48 images; the READMEs of the examples tell that of all 10,000


def _check_budget(example: str, target: str, report: dict[str, Any], update: bool) -> None:
    figures = {k: report[k] for k in SLACK if report.get(k) is not None}
    table = json.loads(BUDGETS.read_text(encoding="utf-8")) if BUDGETS.exists() else {}
    if update:
        table.setdefault(example, {})[target] = figures
        BUDGETS.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return
    budget = table[example][target]
    for key, value in figures.items():
        assert value <= budget[key] * (1 + SLACK[key]), f"{key} grew from {budget[key]} to {value}"
