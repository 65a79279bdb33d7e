"""Steps applied to a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bitc.compression.calibration import Calibration, Score
from bitc.compression.steps import Step
from bitc.compression.work import Choice, Outcome, Work
from bitc.errors import InvalidModel

Report = Callable[[str], None]


@dataclass(frozen=True)
class Compressed:
    """The model after all steps, as ONNX, and what it was and is worth."""

    model: bytes
    before: Score
    after: Score
    outcomes: tuple[Outcome, ...]


def compress(
    source: bytes,
    steps: Sequence[tuple[Step, Choice]],
    calibration: Calibration,
    max_drop: float = 1.0,
    report: Report = lambda line: None,
) -> Compressed:
    """Apply the steps, each to its layers, to an ONNX model. A change that lets the score drop by more than `max_drop`
    in all is not made. Raises UsageError, InvalidModel."""
    work = Work(source, calibration, max_drop)
    if not work.model.layers:
        raise InvalidModel(
            "has no Conv, Gemm or MatMul with constant float weights of its own",
            where="model",
            hint="compress the float model, and quantize it last",
            detail="\n".join(f"{name}: {why}" for name, why in work.model.skipped.items()),
        )
    outcomes: list[Outcome] = []
    for step, work.choice in steps:
        for outcome in step.run(work):
            outcomes.append(outcome)
            report(str(outcome))
    return Compressed(work.data, work.before, work.score, tuple(outcomes))
