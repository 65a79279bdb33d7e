"""`bitc plan`: memory against extra work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bitc import actions, chart, pipeline
from bitc.cli import render
from bitc.cli.options import make_job, model_options, target_options
from bitc.project import write_project

TITLE = 150
"""Characters of a picture's title."""


@click.command("plan")
@model_options
@target_options
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), help="Folder for plan.html and memory.svg.")
@click.option("--png", is_flag=True, help="Write memory.png and front.png too.")
@click.option("--force", is_flag=True, help="Write into a folder that holds other files.")
def plan_command(folder: Path | None, png: bool, force: bool, **options: Any) -> None:
    """Show how little RAM MODEL can run in, and what extra work that costs."""
    job = make_job(**options)
    with render.progress(f"planning {job.model.name} for {job.target.name}"):
        found = pipeline.optimize(job.model, job.options)
        report, front, chosen = actions.plan(found, job.target)
        if folder is not None:
            memory = chart.memory(chosen.plan, f"{job.model.name}: {chosen.schedule}"[:TITLE])
            files = {
                "plan.html": chart.page(job.model.name, job.target.name, front, chosen).encode(),
                "memory.svg": chart.svg(memory).encode(),
            }
            if png:
                files |= {"memory.png": chart.png(memory), "front.png": chart.png(chart.points(front, chosen))}
            write_project(folder, files, force=force)
    if job.json:
        render.emit_json(report)
        return
    taken = report["points"][report["chosen"]]["arena_bytes"]
    for what, points in (("products", report["points"]), ("instructions", report["faster"])):
        render.table(
            f"{job.model.name} on {job.target.name}: the least arena for the fewest {what}",
            ["", "arena bytes", "products", "instructions", "schedule"],
            [
                [
                    "*" if p["arena_bytes"] == taken else "",
                    p["arena_bytes"],
                    f"{p['mac_factor']:.3f}",
                    p["instructions"],
                    p["schedule"],
                ]
                for p in points
            ],
            right=(1, 2, 3),
        )
    click.echo(f"order of the layers: {report['order']['quality']}")
    if not report["fits"]:
        click.echo("no schedule fits the RAM of the target", err=True)
