"""Networks that join and cut channels: at the bound of memory, without copies, the same bits on every target."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitc import interp
from bitc.codegen import emit
from bitc.pipeline import optimize, planner
from bitc.runners import available
from bitc.target import Target
from tests.kernels.harness import Compiled, assert_same, random_feeds, run_on_target
from tests.schedule.joined import NETS

ARENAS = {
    ("densenet", True): 5760,
    ("densenet", False): 26624,
    ("plain_densenet", True): 5536,
    ("plain_densenet", False): 16384,
    ("shufflenet", True): 3072,
    ("shufflenet", False): 12288,
    ("unet", True): 3168,
    ("unet", False): 10752,
    ("inception", True): 8192,
    ("inception", False): 24576,
    ("binary_densenet", False): 40064,
    ("joined_bits", False): 23576,
}
"""By name, and whether activations are int8, what the nets need at most on a Cortex-M4, in bytes."""


def planned(name: str, int8: bool, target: Target) -> Compiled:
    found = planner(optimize(NETS[name](int8)), target).by_layers
    text = emit(found.program, found.plan, target, "joined")
    return Compiled(found.schedule.graph, found.program, found.plan, text, target)


def check(name: str, int8: bool, target: str, folder: Path) -> None:
    chip = Target.load(target, ram="16M", flash="16M") if target.startswith("cortex") else Target.load(target)
    if reason := available(chip):
        pytest.skip(reason)
    c = planned(name, int8, chip)
    got, _ = run_on_target(c, folder, feeds := random_feeds(c.graph))
    for output, expected in interp.run(c.graph, feeds).items():
        assert_same(got[output], expected, output)


@pytest.mark.parametrize(("name", "int8"), ARENAS)
def test_memory(name: str, int8: bool) -> None:
    """At the bound, and nothing is copied to be joined, or because it is cut out."""
    c = planned(name, int8, Target.load("cortex-m4", ram="16M", flash="16M"))
    plan, layers = c.plan, c.program.layers
    assert plan.arena_bytes <= ARENAS[name, int8]
    assert plan.arena_bytes <= 1.01 * plan.lower_bound or plan.why_above_bound
    assert {done.layer for done in c.program.finished} == set(range(len(layers)))
    copied = {layers[call.layer].op for call in c.program.calls if call.function.kernel.startswith("move")}
    assert not copied & {"Concat", "Slice"} or name == "unet"  # whose parts live longer in the whole


@pytest.mark.parametrize(("name", "int8"), ARENAS)
def test_same_bits(name: str, int8: bool, tmp_path: Path) -> None:
    check(name, int8, "cortex-m4", tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("target", ["host", "cortex-m0plus", "cortex-m55", "wasm32-simd128", "aarch64"])
@pytest.mark.parametrize(("name", "int8"), ARENAS)
def test_same_bits_on_targets(name: str, int8: bool, target: str, tmp_path: Path) -> None:
    check(name, int8, target, tmp_path)
