"""What the commands do with a compiled model: measure, write, run, verify, bench; each gives its command's JSON."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitc import device, pipeline, quantization
from bitc.errors import ModelError, UsageError
from bitc.frontend import load
from bitc.ir.graph import Array
from bitc.pipeline import Compiled, Optimized, Options
from bitc.planning import SHOWN, Planned, Planner, by_macs, by_work
from bitc.project import REPORT, write_file, write_project
from bitc.quantization import Settings
from bitc.report import check_fit, compile_report
from bitc.target import Target
from bitc.toolchain import Objects, Runnable, Toolchain, archive, build_model, compile_sources
from bitc.verification import verify as compare
from bitc.verification.inputs import load_inputs, load_labels, random_inputs
from bitc.verification.per_layer import per_layer

RANDOM_SAMPLES = 8


@dataclass(frozen=True)
class Measured:
    """A compiled model with the sizes that the C compiler gave it."""

    compiled: Compiled
    report: dict[str, Any]
    library: bytes
    """Static library of the model."""


@contextmanager
def _folder(compiled: Compiled) -> Iterator[Path]:
    """The C project in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="bitc-") as name:
        folder = Path(name) / "src"
        folder.mkdir()
        for path, text in compiled.files.items():
            (folder / path).write_text(text, encoding="utf-8")
        yield folder


def _report(compiled: Compiled, objects: Objects) -> dict[str, Any]:
    """The sizes; raises DoesNotFit if the target can not hold them."""
    files = [*compiled.files, REPORT]
    notices = compiled.model.findings.notices
    states = compiled.model.imported.states
    report = compile_report(
        compiled.name,
        compiled.program,
        compiled.plan,
        compiled.target,
        objects,
        files,
        notices,
        states,
        str(compiled.planned.schedule),
    )
    check_fit(report, compiled.program, compiled.plan, compiled.target)
    return report


def measure(compiled: Compiled, toolchain: Toolchain, opt: str) -> Measured:
    """Compile the C files for their sizes. Raises ToolchainError, DoesNotFit."""
    with _folder(compiled) as folder:
        out = folder.parent / "objects"
        objects = compile_sources(compiled.target, sorted(folder.glob("*.c")), [folder], out, opt, toolchain=toolchain)
        report = _report(compiled, objects)
        library = archive(objects, out / f"lib{compiled.name}.a").read_bytes()
    return Measured(compiled, report, library)


def write(measured: Measured, folder: Path, *, force: bool, library: bool) -> None:
    """Write the C project, its report and, if wanted, its library. Raises UsageError."""
    files = {name: text.encode() for name, text in measured.compiled.files.items()}
    if library:
        path = f"build/lib{measured.compiled.name}.a"
        files[path] = measured.library
        measured.report["files"] = sorted([*measured.report["files"], path])
    files[REPORT] = json.dumps(measured.report, indent=2).encode() + b"\n"
    write_project(folder, files, force=force)


def run(
    compiled: Compiled, samples: Sequence[device.Sample], runner: str | None, toolchain: Toolchain, opt: str
) -> tuple[dict[str, Any], list[dict[str, Array]]]:
    """Run samples on the target: the report, and the outputs per sample."""
    given = [compiled.given(s) for s in samples]
    with _folder(compiled) as folder:
        build = _build(compiled, folder, toolchain, opt)
        report = _report(compiled, build.model)
        done = device.run(build, compiled.program, given, runner)
    report |= {"samples": len(samples), **_cost(done)}
    return report, done.outputs


def _build(compiled: Compiled, folder: Path, toolchain: Toolchain, opt: str, hooks: bool = False) -> Runnable:
    out = folder.parent / ("hooked" if hooks else "plain")
    return build_model(compiled.target, folder, compiled.name, out, hooks=hooks, opt=opt, toolchain=toolchain)


def _cost(done: device.DeviceRun) -> dict[str, Any]:
    r = done.result
    value = r.nanoseconds if r.metric == "nanoseconds" else r.instructions
    return {
        "metric": r.metric,
        "instructions": r.instructions if r.metric == "instructions" else None,
        "cost": value,
        "stack_used": r.stack_bytes,
    }


def verify(
    compiled: Compiled,
    inputs: Path | None,
    count: int | None,
    runner: str | None,
    seed: int,
    toolchain: Toolchain,
    opt: str,
    tensors: bool = False,
) -> dict[str, Any]:
    """Run on the target and compare with onnxruntime (QONNX: with the imported graph), layer by layer. `tensors` adds
    a comparison of every tensor."""
    graph = compiled.interface
    samples = load_inputs(inputs, graph, count) if inputs else random_inputs(graph, count or RANDOM_SAMPLES, seed)
    labels = load_labels(inputs, len(samples)) if inputs else None
    given = [compiled.given(s) for s in samples]
    with _folder(compiled) as folder:
        plain = _build(compiled, folder, toolchain, opt)
        hooked = _build(compiled, folder, toolchain, opt, hooks=True)
        report = _report(compiled, plain.model)
        done = device.run(plain, compiled.program, given, runner)
        recorded = device.run(hooked, compiled.program, given[:2], runner, record=True)
    result = compare(compiled, samples, done, recorded, labels)
    if tensors:
        result["per_layer"] = per_layer(compiled.model, compiled.graph, samples)
    return report | _cost(done) | result | {"runner": runner or compiled.target.runner.kind}


def quantize(
    model: Path,
    options: Options,
    calibration: Path,
    test: Path | None,
    labels: Path | None,
    settings: Settings,
    output: Path,
) -> dict[str, Any]:
    """Quantize a float model, write it, and say how far it is from the float model on the test data. Raises UsageError,
    ModelError; never leaves a half-written file."""
    imported = load(model, options.shapes, options.constants)
    if imported.reference is None:
        raise ModelError("has QONNX operators", where=str(model), hint="give the float model, in standard operators")
    samples = load_inputs(calibration, imported.graph)
    tried = load_inputs(test, imported.graph) if test else samples
    known = load_labels(labels or test or calibration, len(tried))
    if labels is not None and known is None:
        raise UsageError(
            f"holds no integers named labels, label or y, one for each of {len(tried)} samples",
            where=str(labels),
            hint="write it with numpy.savez(path, labels=array)",
        )
    found = quantization.quantize(imported.reference, samples, tried, known, settings)
    load(found.model)  # raises where bitc could not compile what was made
    write_file(output, found.model)
    report = {key: value for key, value in vars(found).items() if key != "model"}
    return {
        "model": str(model),
        "output": str(output),
        "calibration_samples": len(samples),
        "float_bytes": len(imported.reference),
        "bytes": len(found.model),
        **report,
        "warnings": list(imported.notices),
    }


def bench(
    compiled: Compiled, inputs: Path | None, runner: str | None, toolchain: Toolchain, opt: str
) -> dict[str, Any]:
    """Cost per layer on the target's runner: instructions, fuel or nanoseconds."""
    graph = compiled.interface
    samples = load_inputs(inputs, graph, 1) if inputs else random_inputs(graph, 1, 0)
    given = [compiled.given(s) for s in samples]
    with _folder(compiled) as folder:
        hooked = _build(compiled, folder, toolchain, opt, hooks=True)
        report = _report(compiled, hooked.model)
        done = device.run(hooked, compiled.program, given, runner, record=True)
    metric = done.result.metric
    layers, before = [], 0
    for record in done.result.layers[0]:
        at = (record.nanoseconds if metric == "nanoseconds" else record.instructions) or 0
        layers.append(report["layers"][record.layer] | {"value": at - before})
        before = at
    return report | {"metric": metric, "total": sum(r["value"] for r in layers), "layers": layers}


def plan(found: Optimized, target: Target) -> tuple[dict[str, Any], list[Planned], Planned]:
    """The JSON of `bitc plan`, the plans of its points, and the plan that is taken. Points are those of which none
    needs both less memory and fewer multiply-accumulates than another; `faster` are the same for instructions."""
    planner = pipeline.planner(found, target)
    chosen = planner.choose(found.options.max_overhead)
    front, faster = planner.front(by_macs), planner.front(by_work, SHOWN // 2 + 1)
    if all(p.plan.arena_bytes != chosen.plan.arena_bytes for p in front):
        front = sorted([*front, chosen], key=lambda p: p.mac_factor)
    points = [_point(p, planner) for p in front]
    index = next(i for i, p in enumerate(front) if p.plan.arena_bytes == chosen.plan.arena_bytes)
    order = {"peak": planner.ordered.peak, "bound": planner.ordered.bound, "quality": planner.ordered.quality}
    report = {"target": target.name, "points": points, "chosen": index, "fits": planner.fits(chosen), "order": order}
    return report | {"faster": [_point(p, planner) for p in faster]}, front, chosen


def _point(p: Planned, planner: Planner) -> dict[str, Any]:
    return {
        "arena_bytes": p.plan.arena_bytes,
        "mac_factor": round(p.mac_factor, 4),
        "schedule": str(p.schedule),
        "predicted": p.predicted,
        "instructions": p.work,
        "ram_bytes": p.ram_bytes,
        "weights_bytes": p.program.weights_bytes,
        "fits": planner.fits(p),
        "lower_bound": p.plan.lower_bound,
        "liveness": p.plan.liveness,
        "why_above_bound": p.plan.why_above_bound,
    }


def inspection(found: Optimized) -> dict[str, Any]:
    """The JSON of `bitc inspect`."""
    nodes = [
        {"name": n.output.name, "op": n.op.name, "node": n.origin, "type": str(n.output.type)}
        for n in found.graph.nodes
    ]
    return {
        "nodes": nodes,
        "unsupported": [],
        "binary": [vars(f) for f in found.findings.binary],
        "not_binary": [vars(d) for d in found.findings.not_binary],
        "integer": [vars(f) for f in found.findings.integer],
        "not_integer": [vars(d) for d in found.findings.not_integer],
        "warnings": found.findings.notices,
    }
