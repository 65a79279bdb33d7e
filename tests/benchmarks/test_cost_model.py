"""Predicted instructions against exact ones, and the README against the committed results."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import compression, host, instructions, int8, memory, sparse, web
from benchmarks.fit import roomy
from benchmarks.suite import SUITE, model
from bitc.ir.dtypes import BIT1
from bitc.kernels import Goal, assign_layouts, select
from bitc.kernels.costs import prices, profiles
from bitc.ops.linear import Conv2D
from bitc.pipeline import optimize
from bitc.target import Target

README = Path(__file__).resolve().parents[2] / "README.md"
TABLES = {
    "layers": instructions.readme,
    "int8": int8.readme,
    "sparse": sparse.readme,
    "host": host.readme,
    "web": web.readme,
    "compression": compression.readme,
    "memory": memory.readme,
}
SAMPLE = {"conv 3x3 64-64 @16", "conv 3x3 512-512 @7", "conv 3x3 33-65 @16", "conv 1x1 256-256 @14", "dense 1024-1024",
          "conv 3x3 64 @16, depthwise", "conv 3x3 64-64 @16, float out", "conv 3x3 3-64 @32, uint8 in"}  # fmt: skip
PREDICTED = ("cortex-m0plus", "cortex-m4", "aarch64")
EXACT = ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m33", "cortex-m7", "cortex-m55", "aarch64",
         "aarch64-dotprod", "armv7-neon", "riscv32", "wasm32")  # fmt: skip
"""Targets on which all predictions are within 15 %."""


@pytest.mark.parametrize("name", PREDICTED)
def test_prediction(name: str) -> None:
    layers = [layer for layer in SUITE if layer.name in SAMPLE]
    for layer, row in instructions.suite(roomy(name), layers).items():
        assert row["predicted"] == pytest.approx(row["instructions"], rel=0.15), (layer, row)


@pytest.mark.parametrize("name", EXACT)
def test_committed_results_are_predicted(name: str) -> None:
    for layer, row in instructions.RESULTS.load()[name].items():
        assert row["predicted"] == pytest.approx(row["instructions"], rel=0.15), layer


@pytest.mark.parametrize("name", instructions.RESULTS.load())
def test_the_best_kernel_is_chosen(name: str) -> None:
    """No other kernel was measured to take 5 % fewer instructions than the one that predictions chose."""
    for layer, row in instructions.RESULTS.load()[name].items():
        for other, cost in row.get("others", {}).items():
            assert row["instructions"] <= 1.05 * cost, (layer, row["row"], other)


def test_goals_agree_on_microcontrollers() -> None:
    """The fastest kernels store about a bit per weight: the default takes them too."""
    for name in ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33"):
        target = roomy(name)
        graph = assign_layouts(optimize(model(SUITE).SerializeToString()).graph, target)
        fast, default = (select(graph, target, goal) for goal in (Goal.SPEED, Goal.BALANCED))
        for node in graph.nodes:
            if isinstance(node.op, Conv2D) and node.input(0).type.dtype is BIT1 and node.input(1).shape[0] % 32 == 0:
                assert fast[node] is default[node], (name, node.origin)


def test_int8_takes_at_most_what_cmsis_nn_takes() -> None:
    """As committed, and 30 % less."""
    for layer, peer in int8.PEER.items():
        for name in ("cortex-m4", "cortex-m33", "cortex-m7", "cortex-m55"):
            row = int8.RESULTS.load()[name][layer.name]
            assert row["instructions"] / layer.macs < 0.7 * peer, (name, layer.name)


def test_int8_counts_are_as_committed() -> None:
    for layer, row in int8.run(["cortex-m4"])["cortex-m4"].items():
        committed = int8.RESULTS.load()["cortex-m4"][layer]
        assert row["instructions"] == pytest.approx(committed["instructions"], rel=0.02), layer
        assert row["predicted"] == pytest.approx(row["instructions"], rel=0.2), layer


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
    wanted = text
    for name, made in TABLES.items():
        marked = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        wanted = marked.sub(lambda m, made=made: m[1] + made() + m[2], wanted)
    if update_golden:
        README.write_text(wanted, encoding="utf-8")
        return
    assert text == wanted, "run pytest tests/benchmarks --update-golden"
