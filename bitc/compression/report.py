"""Compression of a file, with sizes and cost on a target before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bitc.compression.calibration import Calibration, Score
from bitc.compression.compress import Report, compress
from bitc.compression.steps import Step
from bitc.compression.work import Choice
from bitc.errors import InvalidModel
from bitc.frontend import load
from bitc.kernels.costs import instructions
from bitc.pipeline import Options, compile_model
from bitc.target import Target
from bitc.verification.inputs import load_inputs, load_labels


def compress_file(
    source: Path,
    steps: Sequence[Step],
    data: Path,
    choice: Choice,
    max_drop: float,
    target: Target,
    options: Options,
    count: int | None = None,
    seed: int = 0,
    report: Report = lambda line: None,
) -> tuple[bytes, dict[str, Any]]:
    """Compress an ONNX file on the samples of an NPZ file; the new model, and the JSON of `bitc compress`.

    Raises ModelError, UsageError, TargetError.
    """
    imported = load(source, options.shapes)
    if imported.reference is None:
        raise InvalidModel("has QONNX operators, which are quantized already", where=str(source), hint="compile it")
    samples = load_inputs(data, imported.graph, count)
    calibration = Calibration(imported.reference, samples, load_labels(data, len(samples)), seed)
    done = compress(imported.reference, steps, calibration, choice, max_drop, report)
    layers = [
        {"step": o.step, "layer": o.layer, "error": o.error, "score": o.score.value, "kept": o.kept}
        for o in done.outcomes
    ]
    return done.model, {
        "model": source.name,
        "target": target.name,
        "samples": len(samples),
        "metric": done.before.metric,
        "before": _worth(imported.reference, done.before, target, options),
        "after": _worth(done.model, done.after, target, options),
        "layers": layers,
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
