"""`bitc verify --per-layer`: every tensor of the ONNX model against the reference, and the first node that departs.

Each tensor is compared twice: running freely, with the errors of all layers before it, and on its own, computed from
the reference's tensors, so that an error shows at the node that makes it and not at those it spreads to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bitc import interp
from bitc.ir.graph import Array, Graph, Node, Origin, Value
from bitc.ops.unary import Narrow
from bitc.pipeline import Optimized
from bitc.verification.compare import RELATIVE, decode_reals, encode_reals
from bitc.verification.device import zero_states
from bitc.verification.reference import Reference
from bitc.verification.verify import open_comparison

TOLERANCE = 10 * RELATIVE
"""Share of a float tensor's largest magnitude by which one node may move it; one that rounds to fewer bits, by one of
these."""


@dataclass
class Row:
    """One ONNX tensor. Errors are the largest over all samples; those in steps are None for tensors without codes."""

    node: str
    """The ONNX node that makes it."""
    tensor: str
    compiled: bool
    """Whether the generated C holds this tensor; if not, it went into a layer, and is computed as the model says."""
    type: str
    elements: int
    max_abs_error: float = 0.0
    max_lsb_error: float | None = None
    own_abs_error: float = 0.0
    """From the reference's tensors before it."""
    own_lsb_error: float | None = None
    differing: float = 0.0
    """Share of the elements that are not equal, from the reference's tensors before it."""
    status: str = "same"
    """`same`; `rounding`: differs by what float rounding explains; `departs`: by more."""
    why: str = ""


@dataclass(frozen=True)
class _Tensor:
    """A value that stands for an ONNX tensor, and the shape of that."""

    value: Value
    origin: Origin
    shape: tuple[int, ...]

    def theirs(self, found: Mapping[str, Array]) -> Array | None:
        array = found.get(self.origin.tensor)
        return None if array is None else self.origin.view(array.reshape(self.shape))

    def codes(self, theirs: Array) -> Array:
        """The reference's tensor in the value's type."""
        if self._as_codes(theirs):
            return theirs.astype(self.value.type.dtype.carrier)
        return encode_reals(theirs.astype(np.float64), self.value.type)

    def errors(self, ours: Array, theirs: Array) -> tuple[float, float | None, float]:
        """Largest difference in reals and in steps, and the share of elements that differ."""
        t = self.value.type
        a = ours.astype(np.float64) if self._as_codes(theirs) else decode_reals(ours, t)
        b = theirs.astype(np.float64)
        with np.errstate(invalid="ignore"):
            gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        gap = np.nan_to_num(gap, nan=np.finfo(np.float64).max)
        top = float(np.max(gap, initial=0.0))
        if t.dtype.is_float:
            return top, None, float(np.mean(gap > 0)) if gap.size else 0.0
        scale = 1.0 if self._as_codes(theirs) or t.quant is None else np.abs(np.asarray(t.quant.scale))
        steps = np.rint(gap / scale) if t.quant is not None else gap
        return top, float(np.max(steps, initial=0.0)), float(np.mean(steps > 0)) if gap.size else 0.0

    def _as_codes(self, theirs: Array) -> bool:
        """Whether the reference's tensor holds the codes themselves."""
        return theirs.dtype.kind in "iu" and not self.value.type.dtype.is_packed


def per_layer(model: Optimized, graph: Graph, samples: Sequence[Mapping[str, Array]]) -> list[dict[str, Any]]:
    """A row per ONNX tensor, in the model's order, as JSON."""
    imported = model.imported.graph
    comparison = open_comparison(model, graph, everything=True)
    makers = {v.origin.tensor: (n, v) for n in imported.nodes for v in n.outputs if v.origin and not v.origin.steps}
    held = _tensors(graph, makers)
    rest = {name: t for name, t in _tensors(imported, makers).items() if name not in held}
    chosen = {name: held.get(name) or rest[name] for name in makers}
    rows = {
        name: Row(makers[name][0].origin, name, name in held, str(t.value.type), t.value.type.size)
        for name, t in chosen.items()
    }
    failed: set[str] = set()
    seen: set[str] = set()
    kept = zero_states(graph, model.imported.states)
    for number, sample in enumerate(samples):
        feeds = {**sample, **kept}
        found = comparison.sample(number, feeds)
        failed |= {f.tensor for f in found.failures}
        theirs = comparison.reference.run(feeds)
        kept = {name: found.theirs[output] for name, output in model.imported.states}
        for side, tensors in ((graph, held), (imported, rest)):
            seen |= _compare(side, tensors, feeds, theirs, rows)
    integer = {name for name, t in held.items() if _is_integer(graph, t.value)}
    for row in rows.values():
        _judge(row, row.tensor in failed, row.tensor in integer, comparison.reference)
    return [asdict(row) for name, row in rows.items() if name in seen]


def _tensors(graph: Graph, makers: Mapping[str, tuple[Node, Value]]) -> dict[str, _Tensor]:
    """The first value for each ONNX tensor."""
    found: dict[str, _Tensor] = {}
    for v in (v for n in graph.nodes for v in n.outputs):
        if v.origin is not None and v.origin.tensor in makers:
            found.setdefault(v.origin.tensor, _Tensor(v, v.origin, makers[v.origin.tensor][1].shape))
    return found


def _compare(
    graph: Graph, tensors: Mapping[str, _Tensor], feeds: Mapping[str, Array], theirs: Mapping[str, Array],
    rows: Mapping[str, Row],
) -> set[str]:  # fmt: skip
    """Raise the errors of the rows; returns the tensors that the reference has."""
    by_value = {t.value: t for t in tensors.values()}
    seen: set[str] = set()

    def own(node: Node, value: Value, ours: Array) -> Array:
        tensor = by_value.get(value)
        wanted = tensor.theirs(theirs) if tensor else None
        if tensor is None or wanted is None:
            return ours
        seen.add(tensor.origin.tensor)
        row = rows[tensor.origin.tensor]
        top, steps, share = tensor.errors(ours, wanted)
        row.own_abs_error, row.differing = max(row.own_abs_error, top), max(row.differing, share)
        row.own_lsb_error = _larger(row.own_lsb_error, steps)
        limit = max(TOLERANCE, 2.0**-node.op.mantissa) if isinstance(node.op, Narrow) else TOLERANCE
        if tensor.value.type.dtype.is_float and top > limit * _magnitude(wanted):
            row.status = "departs"
        return tensor.codes(wanted)

    interp.evaluate(graph, feeds, own)
    env = interp.evaluate(graph, feeds)
    for value, tensor in by_value.items():
        wanted = tensor.theirs(theirs)
        if wanted is not None:
            row = rows[tensor.origin.tensor]
            top, steps, _ = tensor.errors(env[value], wanted)
            row.max_abs_error = max(row.max_abs_error, top)
            row.max_lsb_error = _larger(row.max_lsb_error, steps)
    return seen


def _larger(a: float | None, b: float | None) -> float | None:
    return b if a is None else a if b is None else max(a, b)


def _magnitude(x: Array) -> float:
    reals = x.astype(np.float64)
    return float(np.max(np.abs(reals[np.isfinite(reals)]), initial=0.0))


def _is_integer(graph: Graph, value: Value) -> bool:
    """Whether a value is computed from integers alone."""
    inputs = [v for v in graph.producers[value].inputs if v is not None and not v.is_const]
    return all(v.type.dtype.is_integer for v in inputs)


def _judge(row: Row, failed: bool, integer: bool, reference: Reference) -> None:
    """Set status and reason."""
    steps = row.own_lsb_error
    wide = steps is not None and row.type.startswith(("int", "uint"))
    if failed or row.status == "departs" or (wide and steps is not None and steps > 1):
        row.status = "departs"
        row.why = "differs by more than rounding explains"
    elif steps:
        row.status = "rounding"
        share = f"{100 * row.differing:.2g} % of the elements at most"
        if wide and not integer:
            row.why = f"{share}: both compute in float32, and the number lies within its rounding of the next step"
        elif wide:
            row.why = (
                f"{share}: {reference.name} computes in float32 on dequantized numbers and rounds to a step from "
                "there; bitc rounds the exact integer sum once"
            )
        else:
            row.why = f"{share}: {reference.name}'s float32 sum lies within its own rounding of the threshold"
    elif row.own_abs_error:
        row.status = "rounding"
        row.why = "float32 sums in another order"
    elif row.max_abs_error:
        row.why = "equal by itself; differs by what came before"
