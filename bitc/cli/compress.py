"""The command `compress`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bitc.cli import render
from bitc.cli.options import make_job, model_options, target_options
from bitc.compression import Choice, Request, compress_file, parse, search_file
from bitc.compression.workers import cluster, local
from bitc.project import write_file


@click.command("compress")
@model_options
@target_options
@click.option(
    "--step",
    "steps",
    multiple=True,
    metavar="NAME[:OPTION=VALUE,...]",
    help="binarize, ternarize, prune, share or channels, with options; may be given several times, in order. Without "
    "any, steps are searched that make the model fit the target.",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    required=True,
    help="NPZ file with one array per input, and labels if the classes are known.",
)
@click.option("--samples", type=click.IntRange(1), default=None, help="How many samples to use (default: all).")
@click.option("--include", multiple=True, metavar="LAYER", help="Only these layers (* and ? match).")
@click.option("--exclude", multiple=True, metavar="LAYER", help="Not these layers.")
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 1),
    default=1.0,
    help="What accuracy, agreement or fidelity may lose in all; layers that cost more stay as they are.",
)
@click.option("--jobs", type=click.IntRange(0), default=0, help="Processes of a search (default: one per core).")
@click.option("--scheduler", default="", metavar="tcp://HOST:PORT", help="Dask scheduler that a search runs on.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of what is drawn from the samples.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="ONNX file to write.")
def compress_command(
    steps: tuple[str, ...],
    calibration: Path,
    samples: int | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    max_drop: float,
    jobs: int,
    scheduler: str,
    seed: int,
    output: Path,
    **options: Any,
) -> None:
    """Give MODEL fewer bits or fewer weights, layer by layer, and write it as ONNX."""
    job = make_job(**options)
    request = Request(job.model, calibration, job.target, job.options, samples, seed, max_drop)
    parsed = [parse(step) for step in steps]
    with render.progress(f"compressing {job.model.name}"):
        if parsed:
            model, report = compress_file(request, parsed, Choice(include, exclude))
        else:
            run = cluster(scheduler) if scheduler else local(jobs)
            model, report = search_file(request, run, output.with_name(f"{output.name}.journal"))
        write_file(output, model)
    if job.json:
        render.emit_json(report)
        return
    title = f"{report['model']}: {report['metric']} {report['before']['score']:.4f} -> {report['after']['score']:.4f}"
    if parsed:
        _show_layers(title, report)
    else:
        _show_path(title, report)
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
        ["step", "layer", report["metric"], "weights", "RAM", "instructions", "why"],
        [
            [r["step"], r["layer"], f"{r['score']:.4f}", r["weights"], r["ram"], r["instructions"], r["why"]]
            for r in report["path"]
        ],
        right=(2, 3, 4, 5),
    )
