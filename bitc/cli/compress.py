"""The command `compress`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from bitc.cli import render
from bitc.cli.options import Job, make_job, model_options, target_options
from bitc.compression import Choice, Request, Step, compress_file, parse_on, search_file
from bitc.compression.search import MINIMIZE
from bitc.compression.workers import cluster, local
from bitc.errors import UsageError
from bitc.frontend.to_qonnx import to_qonnx
from bitc.project import write_file


def step_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What is compressed, and on which data."""
    for decorate in (
        click.option(
            "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of what is drawn from the samples."
        ),
        click.option(
            "--max-drop",
            type=click.FloatRange(0, 1),
            default=1.0,
            help="What accuracy, agreement or fidelity may lose in all; layers that cost more stay as they are.",
        ),
        click.option("--exclude", multiple=True, metavar="LAYER", help="Steps are not for these layers."),
        click.option("--include", multiple=True, metavar="LAYER", help="Steps are only for these (* and ? match)."),
        click.option("--samples", type=click.IntRange(1), default=None, help="How many samples to use (default: all)."),
        click.option(
            "--calibration",
            type=click.Path(path_type=Path),
            help="NPZ file with one array per input, and labels if the classes are known.",
        ),
        click.option(
            "--step",
            "steps",
            multiple=True,
            metavar="NAME[:OPTION=VALUE,...][@LAYER,...]",
            help="binarize, ternarize, prune, share, channels or, last, quantize; may be given several times.",
        ),
    ):
        command = decorate(command)
    return command


@dataclass(frozen=True)
class Steps:
    """The parsed form of `step_options`."""

    steps: tuple[str, ...]
    calibration: Path | None
    samples: int | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    max_drop: float
    seed: int

    @classmethod
    def taken(cls, options: dict[str, Any]) -> Steps:
        """Take what `step_options` adds out of a command's options."""
        return cls(**{f.name: options.pop(f.name) for f in fields(cls)})

    def request(self, job: Job) -> Request:
        """Raises UsageError if there is no data."""
        if self.calibration is None:
            hint = "pass --calibration X.npz, with one array per input"
            raise UsageError("compression needs data", where="--calibration", hint=hint)
        return Request(job.model, self.calibration, job.target, job.options, self.samples, self.seed, self.max_drop)

    def apply(self, job: Job) -> tuple[bytes, dict[str, Any]]:
        """The compressed model and its report."""
        return compress_file(self.request(job), [self._step(s) for s in self.steps])

    def _step(self, text: str) -> tuple[Step, Choice]:
        step, only = parse_on(text)
        return step, Choice(only or self.include, self.exclude)


@click.command("compress")
@model_options
@target_options
@step_options
@click.option(
    "--minimize",
    type=click.Choice(MINIMIZE),
    default="none",
    show_default=True,
    help="What a search goes on to save, within --max-drop, once the model fits.",
)
@click.option("--jobs", type=click.IntRange(0), default=0, help="Processes of a search (default: one per core).")
@click.option("--scheduler", default="", metavar="tcp://HOST:PORT", help="Dask scheduler that a search runs on.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["onnx", "qonnx"]),
    default="onnx",
    show_default=True,
    help="onnx: standard operators; qonnx: what is quantized as QONNX's Quant and BipolarQuant.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="ONNX file to write.")
def compress_command(
    minimize: str,
    jobs: int,
    scheduler: str,
    form: str,
    output: Path,
    **options: Any,
) -> None:
    """Give MODEL fewer bits or fewer weights, layer by layer, and write it as ONNX.

    Without --step, a mix of steps is searched that makes the model fit the target.
    """
    chosen = Steps.taken(options)
    if minimize != "none" and (chosen.steps or chosen.max_drop == 1):
        hint = "leave out --step, and say with --max-drop what may be lost"
        raise UsageError("only a search within limits minimizes", where="--minimize", hint=hint)
    if output.is_dir() or not output.parent.is_dir():
        hint = "give -o a file in a folder that exists"
        raise UsageError("can not write the output: it is no file in a folder", where=str(output), hint=hint)
    job = make_job(**options)
    with render.progress(f"compressing {job.model.name}"):
        if chosen.steps:
            model, report = chosen.apply(job)
        else:
            run = cluster(scheduler) if scheduler else local(jobs)
            journal = output.with_name(f"{output.name}.journal")
            model, report = search_file(chosen.request(job), run, journal, minimize=minimize)
        write_file(output, to_qonnx(model) if form == "qonnx" else model)
    if job.json:
        render.emit_json(report)
        return
    title = f"{report['model']}: {report['metric']} {report['before']['score']:.4f} -> {report['after']['score']:.4f}"
    if chosen.steps:
        _show_layers(title, report)
    else:
        _show_path(title, report)
    for row in report["skipped"]:
        click.echo(f"{row['node']} stays as it was: {row['why']}")
    click.echo()
    before, after = report["before"], report["after"]
    render.facts((k, f"{before[k]:,} -> {after[k]:,}") for k in ("weights_bytes", "arena_bytes", "predicted"))
    click.echo(f"wrote {output}")


def _show_layers(title: str, report: dict[str, Any]) -> None:
    render.table(
        title,
        ["step", "layer", "error", report["metric"], "kept because"],
        [[r["step"], r["layer"], f"{r['error']:.4f}", f"{r['score']:.4f}", r["kept"]] for r in report["layers"]],
        right=(2, 3),
    )


def _show_path(title: str, report: dict[str, Any]) -> None:
    if not report["path"]:
        click.echo("it fits as it is")
    render.table(
        title,
        ["step", "layer", report["metric"], "weights", "code", "RAM", "instructions", "why"],
        [
            [
                *(r["step"], r["layer"], f"{r['score']:.4f}", r["weights"], r["code"]),
                *(r["ram"] + r["stack"], r["instructions"], r["why"]),
            ]
            for r in report["path"]
        ],
        right=(2, 3, 4, 5, 6),
    )
