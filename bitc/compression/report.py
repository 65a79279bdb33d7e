"""Compression of a file, with sizes and cost on a target before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitc.compression.calibration import Score
from bitc.compression.compress import Report, compress
from bitc.compression.mix import Problem
from bitc.compression.search import Mapper, search
from bitc.compression.steps import Step
from bitc.compression.work import Choice
from bitc.errors import DoesNotFit, InvalidModel, UsageError
from bitc.frontend import load
from bitc.frontend.edit import EditableModel
from bitc.kernels.costs import instructions
from bitc.pipeline import Options, compile_model
from bitc.target import Target
from bitc.verification.inputs import load_inputs, load_labels


@dataclass(frozen=True)
class Request:
    """What is to be compressed, for what, on which data. `count` limits the samples."""

    source: Path
    data: Path
    target: Target
    options: Options
    count: int | None = None
    seed: int = 0
    max_drop: float = 1.0

    def problem(self) -> Problem:
        """Read the files. Raises ModelError, UsageError."""
        imported = load(self.source, self.options.shapes)
        if imported.reference is None:
            hint = "compile it as it is"
            raise InvalidModel("has QONNX operators, which are quantized already", where=str(self.source), hint=hint)
        everything = load_inputs(self.data, imported.graph)
        samples = everything[: self.count]
        for name in samples[0]:
            if not all(np.isfinite(s[name]).all() for s in samples):
                hint = "leave such samples out, or replace the values"
                raise UsageError(f"array {name!r} holds NaN or infinity", where=str(self.data), hint=hint)
        labels = load_labels(self.data, len(samples), len(everything))
        return Problem(imported.reference, samples, labels, self.seed, self.target, self.options)


def compress_file(
    request: Request, steps: Sequence[tuple[Step, Choice]], report: Report = lambda line: None
) -> tuple[bytes, dict[str, Any]]:
    """Compress an ONNX file; the new model, and the JSON of `bitc compress`. Raises ModelError, UsageError,
    TargetError."""
    problem = request.problem()
    done = compress(problem.source, steps, problem.calibration(), request.max_drop, report)
    layers = [
        {"step": o.step, "layer": o.layer, "error": o.error, "score": o.score.value, "kept": o.kept}
        for o in done.outcomes
    ]
    return done.model, _report(request, problem, done.model, done.before, done.after) | {"layers": layers}


def search_file(
    request: Request, run: Mapper, journal: Path, report: Report = lambda line: None, minimize: str = "none"
) -> tuple[bytes, dict[str, Any]]:
    """Find steps that make an ONNX file fit the target; as `compress_file`. Raises DoesNotFit too, with the path."""
    problem = request.problem()
    found = search(problem, request.max_drop, run, journal, report, minimize)
    path = [
        {"step": m.change.steps, "layer": ", ".join(m.change.layers), "score": m.score, **vars(m.needs), "why": m.why}
        for m in found.path
    ]
    if not found.fits:
        raise DoesNotFit(
            f"no mix of steps that loses at most {request.max_drop:g} fits",
            where=request.target.name,
            hint="allow more with --max-drop, or take a larger chip",
            detail="\n".join(
                f"{p['step']} {p['layer']}: {p['score']:.4f}, {p['weights']:,} bytes; {p['why']}" for p in path
            ),
        )
    journal.unlink(missing_ok=True)
    calibration = problem.calibration()
    before, after = calibration.score(problem.source), calibration.score(found.model)
    return found.model, _report(request, problem, found.model, before, after) | {"path": path}


def _report(request: Request, problem: Problem, model: bytes, before: Score, after: Score) -> dict[str, Any]:
    return {
        "model": request.source.name,
        "target": request.target.name,
        "samples": len(problem.samples),
        "skipped": [{"node": n, "why": why} for n, why in EditableModel(problem.source).skipped.items()],
        "metric": before.metric,
        "before": _worth(problem.source, before, request.target, request.options),
        "after": _worth(model, after, request.target, request.options),
    }


def _worth(model: bytes, score: Score, target: Target, options: Options) -> dict[str, Any]:
    """Score, bytes and predicted instructions."""
    compiled = compile_model(model, target, options)
    choices = compiled.selection.choices.items()
    return {
        "score": score.value,
        "weights_bytes": compiled.program.weights_bytes,
        "arena_bytes": compiled.plan.arena_bytes,
        "predicted": round(sum(instructions(choice.variant, node, target) for node, choice in choices)),
    }
