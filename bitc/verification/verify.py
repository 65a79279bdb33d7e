"""`bitc verify`: device against oracle, oracle against reference."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from bitc.ir.graph import Array, Graph, Value
from bitc.ir.program import Buffer
from bitc.passes.context import Context
from bitc.passes.sign_zero import SignOfZero
from bitc.pipeline import Compiled, Optimized
from bitc.verification.compare import Comparison, SampleResult
from bitc.verification.device import check_device, zero_states
from bitc.verification.reference import Numpy, OnnxRuntime, Reference

MAX_FAILURES = 20
"""Failures listed in a report."""


class Done(Protocol):
    """What came back from a device (`bitc.device.DeviceRun`)."""

    @property
    def outputs(self) -> list[dict[str, Array]]: ...
    @property
    def layers(self) -> list[list[tuple[Buffer, Array]]]: ...


@dataclass
class VerifyReport:
    """What `bitc verify` found. Its fields are keys of the JSON object."""

    ok: bool = True
    samples: int = 0
    max_abs_error: float = 0.0
    """Of all outputs, against the reference: the device's in samples without ties, and the oracle's going on from the
    reference's bits."""
    max_lsb_error: float = 0.0
    """The same in steps, of outputs that are integer codes; 0 if there are none."""
    argmax_agreement: float = 1.0
    """Share of the samples whose label (argmax over the last axis of the first output) is the reference's, by the
    device's own outputs, ties included."""
    ties: int = 0
    float_exact: bool = True
    """Whether the device's floats equal the oracle's to the last bit."""
    accuracy: float | None = None
    reference: str = ""
    failures: list[str] = field(default_factory=list)
    failed_elements: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def verify(
    compiled: Compiled,
    samples: Sequence[Mapping[str, Array]],
    done: Done,
    recorded: Done | None = None,
    labels: Array | None = None,
) -> dict[str, Any]:
    """The JSON of a verification. `done` has the device's outputs for all samples, `recorded` what its layers wrote for
    the first ones."""
    values = {b: v for v, b in compiled.program.values.items()}
    kept = compiled.program.states  # hold their new value at the end
    layers = [
        [(values[b], a) for b, a in s if b in values and b not in kept] for s in (recorded.layers if recorded else [])
    ]
    report = verify_outputs(compiled.model, compiled.graph, samples, done.outputs, labels)
    found = check_device(compiled.graph, samples, done.outputs, layers, compiled.model.imported.states)
    report.float_exact = found.float_exact
    report.failures = (found.failures + report.failures)[:MAX_FAILURES]
    report.ok = report.ok and not found.failures
    return report.to_json()


def verify_outputs(
    model: Optimized,
    graph: Graph,
    samples: Sequence[Mapping[str, Array]],
    outputs: Sequence[Mapping[str, Array]] | None = None,
    labels: Array | None = None,
) -> VerifyReport:
    """Oracle against reference. `outputs`: what the device gave, by the names of `graph`, for labels; without it the
    oracle's are taken."""
    comparison = open_comparison(model, graph)
    report = VerifyReport(samples=len(samples), reference=comparison.reference.name)
    agreed, hits = 0.0, 0
    states = model.imported.states
    kept = zero_states(graph, states)
    given = [v for v in graph.outputs if v.name not in dict(states).values()]
    for number, sample in enumerate(samples):
        found = comparison.sample(number, {**sample, **kept})
        kept = {name: found.theirs[output] for name, output in states}
        report.ties += found.ties
        report.failed_elements += found.failed
        report.failures += [str(f) for f in found.failures]
        _measure(report, graph.outputs, found.outputs, found)
        if outputs is not None and not found.ties:
            _measure(report, given, outputs[number], found)
        first = given[0].name
        label = found.outputs[first] if outputs is None else outputs[number][first]
        agreed += label_agreement(label, found.theirs[first])
        hits += labels is not None and _label(label) == int(labels[number])
    report.argmax_agreement = agreed / len(samples) if samples else 1.0
    report.accuracy = hits / len(samples) if labels is not None and samples else None
    report.ok = report.failed_elements == 0
    report.failures = report.failures[:MAX_FAILURES]
    return report


def open_comparison(model: Optimized, graph: Graph, everything: bool = False) -> Comparison:
    """The comparison of a model's oracle with onnxruntime, or with the imported graph where onnxruntime can not say:
    QONNX, and models in which the user chose what the sign of zero is. `everything`: the reference shows every
    tensor."""
    imported, options = model.imported, model.options
    meaning = SignOfZero(options.sign0).run(imported.graph, Context())
    chosen = len(meaning.nodes) != len(imported.graph.nodes)

    def reference(tensors: list[str]) -> Reference:
        if everything:
            tensors = [v.origin.tensor for n in imported.graph.nodes for v in n.outputs if v.origin]
        if imported.reference is None or chosen:
            return Numpy(meaning, tensors)
        return OnnxRuntime(imported.reference, tensors, imported.ragged)

    return Comparison(meaning, graph, reference, options.tolerance)


def _measure(report: VerifyReport, values: Sequence[Value], outputs: Mapping[str, Array], found: SampleResult) -> None:
    """Raise the report's errors to those of these outputs; of codes also in steps."""
    for v in values:
        ours, theirs = outputs[v.name], found.theirs[v.name]
        a, b = ours.astype(np.float64).reshape(theirs.shape), theirs.astype(np.float64)
        with np.errstate(invalid="ignore"):
            same = (a == b) | (np.isnan(a) & np.isnan(b))
            gap = float(np.max(np.where(same, 0.0, np.abs(a - b)), initial=0.0))
        gap = gap if np.isfinite(gap) else sys.float_info.max
        report.max_abs_error = max(report.max_abs_error, gap)
        if v.type.dtype.is_code and v.type.dtype.bits <= 16:
            report.max_lsb_error = max(report.max_lsb_error, gap)


def label_agreement(ours: Array, theirs: Array) -> float:
    """Share of rows (last axis) whose largest element is at a place where the reference's is largest too. An output of
    one element agrees if it is the same integer, or on the same side of 0 and of 1/2."""
    ours = ours.reshape(theirs.shape)
    if theirs.size == 1 or not theirs.ndim or theirs.shape[-1] == 1:
        if theirs.dtype.kind != "f":
            return float(np.mean(ours == theirs))
        return float(np.mean(((ours > 0) == (theirs > 0)) & ((ours > 0.5) == (theirs > 0.5))))
    if theirs.dtype.kind in "iu" and theirs.dtype.itemsize > 2:  # these are labels
        return float(np.mean(ours == theirs))
    at, wanted = np.argmax(ours, axis=-1), np.argmax(theirs, axis=-1)
    tied = np.take_along_axis(theirs, at[..., None], -1)[..., 0] == theirs.max(axis=-1)
    return float(np.mean((at == wanted) | tied))


def _label(output: Array) -> int:
    flat = output.reshape(-1)
    if flat.size > 1:
        return int(np.argmax(flat))
    return int(flat[0]) if flat.dtype.kind in "iu" else int(flat[0] > 0)
