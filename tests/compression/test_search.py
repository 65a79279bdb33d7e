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
from bitc.compression.search import Candidate, Problem, Trial, attempt, candidates, fits, search
from bitc.compression.workers import cluster, local
from bitc.frontend.edit import EditableModel
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


def inline(problem: Problem, wanted: Sequence[Candidate]) -> Iterator[Trial]:
    return (attempt(problem, c) for c in wanted)


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
    assert result.fits and result.path and fits(result.model, problem.target, problem.options)
    assert not fits(problem.source, problem.target, problem.options)
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
    everything = candidates(EditableModel(problem.source))
    assert [Candidate(**json.loads(line)["candidate"]) for line in lines] == everything
    journal = tmp_path / "journal"
    journal.write_text("".join(lines[:-2]) + lines[-2][:40])  # stopped while it wrote
    asked: list[Candidate] = []

    def noting(p: Problem, wanted: Sequence[Candidate]) -> Iterator[Trial]:
        asked.extend(wanted)
        return inline(p, wanted)

    assert search(problem, 1.0, noting, journal).model == found[0]
    assert asked == everything[-2:]
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
    assert result.fits and [m.candidate.step for m in result.path] == ["quantize"]


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
