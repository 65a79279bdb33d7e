"""The search: it ends with a model that fits, wherever its trials run, and goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from distributed import LocalCluster

from bitc import actions
from bitc.cli import main
from bitc.compression.mix import FLOAT, INT8, Change, Mix, Needs, Problem, Trial, Workbench, with_change
from bitc.compression.search import changes, search
from bitc.compression.workers import cluster, local
from bitc.errors import DoesNotFit
from bitc.frontend.edit import EditableModel
from bitc.ops.linear import Conv2D
from bitc.pipeline import Options, compile_model
from bitc.quantization import to_int8
from bitc.target import Target
from bitc.toolchain import Toolchain
from tests.passes.nets import Net


def network() -> bytes:
    """Two convolutions and a dense layer, 4,000 weights."""
    net = Net(seed=3)
    x = net.input(1, 3, 8, 8)
    for inputs, outputs in ((3, 16), (16, 24)):
        weights = net.reals(outputs, inputs, 3, 3) / np.sqrt(9 * inputs)
        x = net.op("Relu", net.op("Conv", x, weights, net.reals(outputs), pads=[1, 1, 1, 1]))
    x = net.op("Flatten", net.op("AveragePool", x, kernel_shape=[8, 8]))
    return net.model(net.op("Gemm", x, net.reals(24, 10), net.reals(10)))


def inline(problem: Problem, wanted: Sequence[Mix]) -> Iterator[Trial]:
    bench = Workbench(problem)
    return (bench.attempt(mix) for mix in wanted)


def fits(model: bytes, target: Target) -> bool:
    """As `bitc compile` finds."""
    try:
        actions.measure(compile_model(model, target), Toolchain(), "-O3")
    except DoesNotFit:
        return False
    return True


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Short of flash by a quarter of the weights, at int8."""
    rng = np.random.default_rng(0)
    samples = [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(4)]
    source, target = network(), Target.load("cortex-m4")
    report = actions.measure(compile_model(to_int8(source, samples), target), Toolchain(), "-O3").report
    flash = report["code_bytes"] + 3 * report["weights_bytes"] // 4
    tight = replace(target, memory=replace(target.memory, flash=flash))
    return Problem(source, samples, None, 0, tight, Options())


@pytest.fixture(scope="module")
def found(problem: Problem, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Path]:
    """What a search in this process finds, and its journal."""
    journal = tmp_path_factory.mktemp("search") / "journal"
    result = search(problem, 1.0, inline, journal)
    assert result.fits and result.path and fits(result.model, problem.target)
    assert not fits(problem.source, problem.target)
    return result.model, journal


@pytest.mark.parametrize("where", ["processes", "cluster"])
def test_the_same_result_wherever_it_runs(where: str, problem: Problem, found: tuple[bytes, Path]) -> None:
    if where == "processes":
        assert search(problem, 1.0, local(2)).model == found[0]
        return
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as workers:
        assert search(problem, 1.0, cluster(workers.scheduler_address)).model == found[0]


def test_it_goes_on_where_it_was_stopped(problem: Problem, found: tuple[bytes, Path], tmp_path: Path) -> None:
    lines = found[1].read_text().splitlines(keepends=True)
    alone = [with_change((Change(INT8),), c) for c in changes(problem.source, True)]
    mixes = [tuple(Change(c["steps"], tuple(c["layers"])) for c in json.loads(line)["mix"]) for line in lines]
    assert mixes[: 2 + len(alone)] == [(), (Change(INT8),), *alone]
    journal, end = tmp_path / "journal", len(alone)
    journal.write_text("".join(lines[:end]) + lines[end][:40])  # stopped while it wrote
    asked: list[Mix] = []

    def noting(p: Problem, wanted: Sequence[Mix]) -> Iterator[Trial]:
        asked.extend(wanted)
        return inline(p, wanted)

    assert search(problem, 1.0, noting, journal).model == found[0]
    assert asked == alone[-2:]
    other = replace(problem, seed=1)
    assert other.key != problem.key


def test_a_model_that_fits_stays_as_it_is(problem: Problem) -> None:
    roomy = replace(problem, target=Target.load("cortex-m4"))
    result = search(roomy, 1.0, inline)
    assert result.fits and not result.path


def test_int8_comes_first(problem: Problem) -> None:
    flash = problem.target.memory.flash
    assert flash is not None
    roomier = replace(problem, target=replace(problem.target, memory=replace(problem.target.memory, flash=2 * flash)))
    result = search(roomier, 1.0, inline)
    assert result.fits and [m.change for m in result.path] == [Change(INT8)]


def test_a_mix_is_one_change_for_a_place() -> None:
    mix = with_change((Change(INT8),), Change("share:entries=16", ("a",)))
    assert with_change(mix, Change("ternarize", ("a",))) == tuple(sorted([Change(INT8), Change("ternarize", ("a",))]))
    assert len(with_change(mix, Change(FLOAT, ("a",)))) == 3


def test_layers_of_a_mix_are_float_int8_or_pruned_and_int8(problem: Problem) -> None:
    """What is left float is so in the C too, between layers that are int8, and the codebook survives int8."""
    first, second, last = (layer.name for layer in EditableModel(problem.source).layers)
    bench = Workbench(problem)
    model, score = bench.model(
        (Change(FLOAT, (first,)), Change(INT8), Change("prune:sparsity=0.5 share:entries=4", (second,)))
    )
    compiled = compile_model(model, problem.target)
    assert score.metric == "agreement" and score.noise > 0
    macs = actions.measure(replace(compiled, target=Target.load("cortex-m4")), Toolchain(), "-O3").report["macs"]
    assert macs["float"] == 3 * 9 * 16 * 64 and macs["int8"] > 0
    left = EditableModel(model).skipped
    assert set(left) == {second, last}
    whole = next(n for n in compiled.graph.nodes if n.origin == second and isinstance(n.op, Conv2D))
    codes = whole.input(1).data
    assert codes is not None
    assert len(np.unique(codes)) <= 4 and (codes == 0).mean() > 0.4


def test_minimize_goes_on_from_what_fits(problem: Problem) -> None:
    """Down to fewer weights, as far as the score allows."""
    roomy = replace(problem, target=Target.load("cortex-m4"))
    some = [c for c in changes(problem.source, True) if c.steps.startswith(("share", "channels"))]

    def few(p: Problem, wanted: Sequence[Mix]) -> Iterator[Trial]:
        skipped = Trial(0, 0, Needs(0, 0, 0), "not tried")
        bench = Workbench(p)
        return (bench.attempt(mix) if set(mix) & set(some) else skipped for mix in wanted)

    result = search(roomy, 0.3, few, minimize="weights")
    int8, *others = [m.needs.weights for m in result.path if not m.why.startswith("passed over")]
    assert result.fits and others and others == sorted(others, reverse=True) and others[-1] < 0.6 * int8
    assert min(m.score for m in result.path) >= 0.7


def run(tmp_path: Path, problem: Problem, *args: object) -> Any:
    model, data, out = tmp_path / "net.onnx", tmp_path / "data.npz", tmp_path / "small.onnx"
    model.write_bytes(problem.source)
    np.savez(data, x=np.stack([s["x"] for s in problem.samples]))
    flash = ("--target", "cortex-m4", "--flash", problem.target.memory.flash)
    return CliRunner().invoke(
        main, [*map(str, ("compress", model, "--calibration", data, "-o", out, *flash, *args)), "--json"]
    )


def test_command(problem: Problem, found: tuple[bytes, Path], tmp_path: Path) -> None:
    result = run(tmp_path, problem, "--jobs", 1)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["path"] and report["after"]["weights_bytes"] < report["before"]["weights_bytes"]
    assert (tmp_path / "small.onnx").read_bytes() == found[0]
    assert not list(tmp_path.glob("*.journal"))


def test_no_way_to_fit_is_an_error(problem: Problem, tmp_path: Path) -> None:
    tiny = replace(problem, target=replace(problem.target, memory=replace(problem.target.memory, flash=3000)))
    result = run(tmp_path, tiny, "--jobs", 1, "--max-drop", 0.2)
    assert result.exit_code == 4 and "no mix of steps" in result.stderr and "--max-drop" in result.stderr
    assert not (tmp_path / "small.onnx").exists()


def test_no_scheduler_is_an_error(problem: Problem, tmp_path: Path) -> None:
    result = run(tmp_path, problem, "--scheduler", "tcp://127.0.0.1:1")
    assert result.exit_code == 2 and "no Dask scheduler answers" in result.stderr
