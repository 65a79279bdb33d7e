"""Predicted instructions against exact ones, and the README against the committed results."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import instructions
from benchmarks.fit import roomy
from benchmarks.suite import SUITE, model
from bitc.kernels.costs import prices, profiles
from bitc.target import Target

README = Path(__file__).resolve().parents[2] / "README.md"
MARKED = re.compile(r"(<!-- table: layers -->\n).*?(<!-- end -->)", re.DOTALL)
SAMPLE = {"conv 3x3 64-64 @16", "conv 3x3 512-512 @7", "conv 3x3 33-65 @16", "conv 1x1 256-256 @14", "dense 1024-1024",
          "conv 3x3 64 @16, depthwise", "conv 3x3 64-64 @16, float out", "conv 3x3 3-64 @32, uint8 in"}  # fmt: skip
PREDICTED = ("cortex-m0plus", "cortex-m4", "aarch64")


@pytest.mark.parametrize("name", PREDICTED)
def test_prediction(name: str) -> None:
    layers = [layer for layer in SUITE if layer.name in SAMPLE]
    for layer, row in instructions.suite(roomy(name), layers).items():
        assert row["predicted"] == pytest.approx(row["instructions"], rel=0.15), (layer, row)


@pytest.mark.parametrize("name", ["cortex-m4", "cortex-m33", "cortex-m7", "aarch64", "aarch64-dotprod", "riscv32"])
def test_committed_results_are_predicted(name: str) -> None:
    for layer, row in instructions.load()[name].items():
        assert row["predicted"] == pytest.approx(row["instructions"], rel=0.15), layer


def test_prices_are_of_the_most_similar_chip() -> None:
    assert len({p.triple for p in profiles()}) > 5
    mine = Target.load("cortex-m4", features=["-fpu"])
    assert prices(mine) == prices(Target.load("cortex-m3")), "has dsp, but prices with an FPU do not hold"
    assert not prices(Target.load("x86-64")), "was not counted"


def test_suite_names_are_unique_and_macs_right() -> None:
    assert len({layer.name for layer in SUITE}) == len(SUITE)
    assert SUITE[0].macs == 16 * 16 * 64 * 64 * 9
    assert len(model(SUITE[:3]).graph.output) == 3


def test_readme_shows_the_results(update_golden: bool) -> None:
    text = README.read_text(encoding="utf-8")
    wanted = MARKED.sub(lambda m: m[1] + instructions.readme() + m[2], text)
    if update_golden:
        README.write_text(wanted, encoding="utf-8")
        return
    assert text == wanted, "run pytest tests/benchmarks --update-golden"
