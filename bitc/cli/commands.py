"""The commands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from bitc import actions, pipeline, quantization, runners
from bitc.cli import render
from bitc.cli.compress import Steps, compress_command, step_options
from bitc.cli.options import Job, make_job, make_options, model_options, source_options, target_options
from bitc.cli.plan import plan_command
from bitc.errors import UnsupportedOp
from bitc.ir.text import to_text
from bitc.target import Target
from bitc.verification import inputs as samples_of
from bitc.verification import outputs


@click.command("compile")
@model_options
@target_options
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
@click.option("--build", is_flag=True, help="Compile the C files too, to DIR/build/libNAME.a.")
@click.option("--force", is_flag=True, help="Write into a folder that holds other files.")
@step_options
def compile_command(
    folder: Path,
    build: bool,
    force: bool,
    **options: Any,
) -> None:
    """Compile MODEL to a C project in a folder, compressed first if steps are given."""
    chosen = Steps.taken(options)
    job = make_job(**options)
    with render.progress(f"compiling {job.model.name} for {job.target.name}"):
        source: Path | bytes = job.model
        if chosen.steps:
            source, _ = chosen.apply(job)
        name = pipeline.prefix(job.options.name, job.model)
        compiled = pipeline.compile_model(source, job.target, replace(job.options, name=name))
        built = actions.measure(compiled, job.toolchain, job.opt)
        actions.write(built, folder, force=force, library=build)
    if job.json:
        render.emit_json(built.report)
        return
    render.notices(built.report["warnings"])
    _show_compiled(built.report)
    click.echo(f"wrote {len(built.report['files'])} files to {folder}")


def _show_compiled(report: dict[str, Any]) -> None:
    render.table(
        f"{report['model']} for {report['target']}",
        ["layer", "operator", "kernel", "MACs", "weights", "predicted cost"],
        [[r["name"], r["op"], r["kernel"], r["macs"], r["weights_bytes"], r["predicted"]] for r in report["layers"]],
        right=(3, 4, 5),
    )
    click.echo()
    _show_sizes(report)


def _show_sizes(report: dict[str, Any]) -> None:
    macs = report["macs"]
    total = sum(macs.values())
    share = ", ".join(f"{v:,} {k} ({100 * v / total:.1f} %)" for k, v in macs.items() if v)
    render.facts(
        [
            ("MACs", share or None),
            ("schedule", report["schedule"] if report["mac_factor"] > 1 or ".." in report["schedule"] else None),
            ("extra work", f"{100 * (report['mac_factor'] - 1):.1f} %" if report["mac_factor"] > 1 else None),
            ("arena bytes", report["arena_bytes"]),
            ("of it state bytes", report["state_bytes"] or None),
            ("stack bytes", report["stack_bytes"]),
            ("scratch bytes in it", report["scratch_bytes"] or None),
            ("input bytes in it", report["input_in_arena_bytes"] or None),
            ("input bytes", report["input_bytes"]),
            ("output bytes", report["output_bytes"]),
            ("weights bytes", report["weights_bytes"]),
            ("code bytes", report["code_bytes"]),
        ]
    )


@click.command("verify")
@model_options
@target_options
@click.option("--inputs", type=click.Path(path_type=Path), help="NPZ file with one array per input; default: random.")
@click.option(
    "--samples", type=click.IntRange(1), default=None, help="How many samples to run (default: all, or 8 random)."
)
@click.option("--runner", default=None, help="host, unicorn, wasmtime or qemu, instead of the target's own.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random samples.")
@click.option("--per-layer", "tensors", is_flag=True, help="Compare every tensor; name the first node that departs.")
def verify_command(
    inputs: Path | None, samples: int | None, runner: str | None, seed: int, tensors: bool, **options: Any
) -> None:
    """Run MODEL on the target's emulator and compare it with onnxruntime, bit by bit where it is integer."""
    job = make_job(**options)
    with render.progress(f"verifying {job.model.name} on {job.target.name}"):
        compiled = pipeline.compile_model(job.model, job.target, job.options)
        report = actions.verify(compiled, inputs, samples, runner, seed, job.toolchain, job.opt, tensors)
    if job.json:
        render.emit_json(report)
    else:
        render.notices(report["warnings"])
        _show_verified(report)
    raise SystemExit(0 if report["ok"] else 1)


def _show_verified(report: dict[str, Any]) -> None:
    click.echo(f"{report['model']} on {report['target']} ({report['runner']}), compared with {report['reference']}")
    steps = report["max_lsb_error"]
    render.facts(
        [
            ("result", "ok" if report["ok"] else "FAILED"),
            ("samples", report["samples"]),
            ("same label", f"{100 * report['argmax_agreement']:.1f} %"),
            ("accuracy", None if report["accuracy"] is None else f"{100 * report['accuracy']:.1f} %"),
            ("largest error", f"{report['max_abs_error']:.3g}" + (f" ({steps:g} steps)" if steps else "")),
            ("ties", report["ties"]),
            (report["metric"], report["instructions"]),
        ]
    )
    _show_sizes(report)
    if "per_layer" in report:
        _show_tensors(report["per_layer"])
    for line in report["failures"]:
        click.echo(f"failure: {line}", err=True)


def _show_tensors(rows: list[dict[str, Any]]) -> None:
    """The rows that are not equal, and the first node that departs."""
    differ = [r for r in rows if r["max_abs_error"] or r["status"] != "same"]
    shown = [
        [r["node"], r["tensor"], _error(r, "max"), _error(r, "own"), r["compiled"] or "", r["status"], r["why"]]
        for r in differ
    ]
    title = f"{len(rows)} tensors, {len(rows) - len(differ)} of them equal; the others:"
    header = ["node", "tensor", "error", "by itself", "in the C code", "status", "why"]
    render.table(title, header, shown, right=(2, 3))
    first = next((r for r in rows if r["status"] == "departs"), None)
    click.echo(f"first node that departs: {first['node']}, tensor {first['tensor']}" if first else "no node departs")


def _error(row: dict[str, Any], which: str) -> str:
    steps = row[f"{which}_lsb_error"]
    return f"{row[f'{which}_abs_error']:.3g}" + (f" ({steps:g} steps)" if steps else "")


@click.command("run")
@model_options
@target_options
@click.option("--inputs", type=click.Path(path_type=Path), required=True, help="NPZ file with one array per input.")
@click.option("--outputs", "result", type=click.Path(path_type=Path), required=True, help="NPZ file to write.")
@click.option("--runner", default=None, help="host, unicorn, wasmtime or qemu, instead of the target's own.")
def run_command(inputs: Path, result: Path, runner: str | None, **options: Any) -> None:
    """Run MODEL on the target's emulator and save its outputs."""
    job = make_job(**options)
    with render.progress(f"running {job.model.name} on {job.target.name}"):
        compiled = pipeline.compile_model(job.model, job.target, job.options)
        samples = samples_of.load_inputs(inputs, compiled.interface)
        report, arrays = actions.run(compiled, samples, runner, job.toolchain, job.opt)
        outputs.save(result, arrays)
    if job.json:
        render.emit_json(report)
        return
    render.notices(report["warnings"])
    render.facts([("samples", report["samples"]), (report["metric"], report["instructions"])])


@click.command("bench")
@model_options
@target_options
@click.option("--inputs", type=click.Path(path_type=Path), help="NPZ file with one array per input; default: random.")
@click.option("--runner", default=None, help="host, unicorn, wasmtime or qemu, instead of the target's own.")
def bench_command(inputs: Path | None, runner: str | None, **options: Any) -> None:
    """Measure MODEL per layer: exact instructions on emulators, fuel in WebAssembly, nanoseconds on the host."""
    job = make_job(**options)
    with render.progress(f"measuring {job.model.name} on {job.target.name}"):
        compiled = pipeline.compile_model(job.model, job.target, job.options)
        report = actions.bench(compiled, inputs, runner, job.toolchain, job.opt)
    if job.json:
        render.emit_json(report)
        return
    render.notices(report["warnings"])
    rows = [[r["name"], r["op"], r["kernel"], r["macs"], r["value"], r["predicted"]] for r in report["layers"]]
    rows.append(["total", "", "", sum(r["macs"] for r in report["layers"]), report["total"], None])
    render.table(
        f"{report['model']} on {report['target']}",
        ["layer", "operator", "kernel", "MACs", report["metric"], "predicted"],
        rows,
        (3, 4, 5),
    )


@click.command("quantize")
@source_options
@click.option("--calibration", type=click.Path(path_type=Path), required=True, help="NPZ file of typical inputs.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="ONNX file to write.")
@click.option("--test", type=click.Path(path_type=Path), help="NPZ file to compare on (default: the calibration data).")
@click.option("--labels", type=click.Path(path_type=Path), help="NPZ file with the true classes, if not among those.")
@click.option(
    "--method",
    type=click.Choice(sorted(quantization.METHODS)),
    default=quantization.Settings.method,
    show_default=True,
    help="How ranges are found.",
)
@click.option("--symmetric", is_flag=True, help="No zero points for activations.")
def quantize_command(
    model: Path,
    calibration: Path,
    output: Path,
    test: Path | None,
    labels: Path | None,
    method: str,
    symmetric: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Quantize the float MODEL to int8 by onnxruntime.quantization, and compare both."""
    settings = quantization.Settings(method, symmetric)
    with render.progress(f"quantizing {model.name}"):
        report = actions.quantize(model, make_options(**options), calibration, test, labels, settings, output)
    if as_json:
        render.emit_json(report)
        return
    render.notices(report["warnings"])
    before, after = report["accuracy_before"], report["accuracy_after"]
    render.facts(
        [
            ("samples", report["samples"]),
            ("same label", f"{100 * report['argmax_agreement']:.1f} %"),
            ("accuracy", None if before is None else f"{100 * before:.1f} % before, {100 * after:.1f} % after"),
            ("error", f"{report['max_abs_error']:.3g} at most, {report['mean_abs_error']:.3g} on average"),
            ("bytes", f"{report['float_bytes']:,} before, {report['bytes']:,} after"),
        ]
    )
    click.echo(f"wrote {output}")


@click.command("inspect")
@model_options
def inspect_command(model: Path, as_json: bool, **options: Any) -> None:
    """Show the graph of MODEL, what was found binary and in which form, what was not and why, what is unsupported."""
    try:
        found = pipeline.optimize(model, make_options(**options))
    except UnsupportedOp as error:
        _show_unsupported(error, as_json)
        return
    if as_json:
        render.emit_json(actions.inspection(found))
        return
    render.notices(found.findings.notices)
    click.echo(to_text(found.graph), nl=False)
    render.table("binary", ["node", "form"], [[f.node, f.form] for f in found.findings.binary])
    render.table("not binary", ["node", "why"], [[d.node, d.why] for d in found.findings.not_binary])
    render.table("integer", ["node", "form"], [[f.node, f.form] for f in found.findings.integer])
    render.table("not integer", ["node", "why"], [[d.node, d.why] for d in found.findings.not_integer])


def _show_unsupported(error: UnsupportedOp, as_json: bool) -> None:
    if as_json:
        nodes = [vars(n) for n in error.nodes]
        empty = ("nodes", "binary", "not_binary", "integer", "not_integer", "warnings")
        render.emit_json({"unsupported": nodes} | {name: [] for name in empty})
        return
    rows = [[n.node, n.op, n.reason, n.hint] for n in error.nodes]
    render.table("unsupported", ["node", "operator", "reason", "what to do"], rows)


@click.command("targets")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else.")
def targets_command(as_json: bool) -> None:
    """List the targets, and what runs them here."""
    chips = [Target.load(name) for name in Target.available()]
    rows = [
        {
            "name": t.name,
            "description": t.description,
            "features": sorted(t.features),
            "ram": t.memory.ram,
            "flash": t.memory.flash,
            "runner": t.runner.kind,
            "unusable": runners.available(t),
        }
        for t in chips
    ]
    if as_json:
        render.emit_json({"targets": rows})
        return

    def size(n: object) -> str:
        return "" if n is None else f"{int(str(n)) // 1024} kB"

    render.table(
        "",
        ["target", "RAM", "flash", "runs in", "features", "description"],
        [
            [
                r["name"],
                size(r["ram"]),
                size(r["flash"]),
                f"({r['unusable']})" if r["unusable"] else r["runner"],
                " ".join(sorted(t.features)),
                r["description"],
            ]
            for r, t in zip(rows, chips, strict=True)
        ],
        right=(1, 2),
    )


COMMANDS = (
    compile_command,
    verify_command,
    run_command,
    bench_command,
    plan_command,
    quantize_command,
    inspect_command,
    compress_command,
    targets_command,
)
__all__ = ["COMMANDS", "Job"]
