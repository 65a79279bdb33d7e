"""The oracle against the reference, one sample at a time.

Sign is discontinuous: where onnxruntime's own float sum lies within rounding of a threshold, its bit and ours may
differ and both be right. So layer by layer: wherever our codes differ from the reference's, the difference is a *tie*
if a bound on the rounding of what was compared (`rounding`) covers it, and a failure otherwise; evaluation goes on from
the reference's codes, so that one flipped bit does not hide what comes after it. Float outputs must then agree within
twice their bound: both sides round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from bitc import interp
from bitc.ir.graph import Array, Graph, Node, Op, Origin, Value
from bitc.ir.types import TensorType
from bitc.ops import binary, unary
from bitc.ops.base import Pointwise
from bitc.ops.epilogue import FixedPoint, Requant
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Concat, Crop, Expand, Gather, Pad, Reshape, Rows, Slice, Tile, Transpose
from bitc.ops.pool import AveragePool, MaxPool
from bitc.ops.quantize import Quantize, Repack, Requantize
from bitc.ops.quantized import AddRequant, Lookup, MulRequant
from bitc.ops.reduce import ArgMax, ArgMin, ReduceMax, ReduceMin, Softmax
from bitc.verification.bounded import Bounded, bounded
from bitc.verification.reference import Reference
from bitc.verification.rounding import RoundingAnalysis

RELATIVE = 1e-5
"""Share of the largest magnitude by which a float tensor may differ whatever its bound: what remains of scales that
are rounded once on one side and twice on the other."""
_SHOWN = 4
"""Failures kept per tensor and sample."""

_STEPS = (
    Quantize, unary.Sign, unary.Round, unary.Floor, unary.Ceil, unary.Trunc, unary.Not, unary.IsNaN,
    binary.Comparison, binary.And, binary.Or, binary.Xor, binary.Mod, binary.MultiThreshold, ArgMax, ArgMin,
)  # fmt: skip
_CARRIES = (
    Pointwise, MaxPool, ReduceMax, ReduceMin, Reshape, Transpose, Concat, Slice, Pad, Expand, Tile, Gather, Repack,
    Crop, Rows,
)  # fmt: skip
"""Operators whose results are discrete where their computed operands are."""


@dataclass(frozen=True)
class Failure:
    """An element that differs and is no tie. `ours` and `theirs` are reals; `bound` is what rounding explains."""

    sample: int
    tensor: str
    index: tuple[int, ...]
    ours: float
    theirs: float
    bound: float

    def __str__(self) -> str:
        at = f"{self.tensor}[{', '.join(map(str, self.index))}]"
        explained = f"rounding explains {self.bound:.3g}" if np.isfinite(self.bound) else "no bound is known"
        return f"sample {self.sample}: {at} is {self.ours:.9g}, the reference has {self.theirs:.9g} ({explained})"


@dataclass
class SampleResult:
    """What one sample shows. `outputs` are ours, computed from the reference's codes where those differ, and
    `theirs` the reference's, by ONNX name; `failed` counts all elements, of which `failures` are the first."""

    ties: int = 0
    failures: list[Failure] = field(default_factory=list)
    failed: int = 0
    outputs: dict[str, Array] = field(default_factory=dict)
    theirs: dict[str, Array] = field(default_factory=dict)


class Comparison:
    """Compares `graph`, on codes, with the reference of `imported`, from which the passes made it."""

    def __init__(
        self, imported: Graph, graph: Graph, reference: Callable[[list[str]], Reference], tolerance: float
    ) -> None:
        """`reference` opens the reference so that it shows the tensors it is given."""
        self.graph = graph
        self._imported = imported
        self._analysis = RoundingAnalysis(imported, tolerance)
        self._values = _by_tensor(imported)
        self.anchors = _anchors(graph, set(self._values), _discrete(imported))
        """Values at which codes are compared and replaced."""
        shown = [*(o.tensor for o in self.anchors.values()), *_not_fused(imported)]
        self.reference = reference(list(dict.fromkeys(shown)))

    def sample(self, number: int, feeds: Mapping[str, Array]) -> SampleResult:
        theirs = self.reference.run(feeds)
        bounds: dict[str, Array] = {}
        snapped: dict[str, Array] = {}
        codecs = {o.tensor: v.type for v, o in self.anchors.items()}

        def go_on(value: Value, found: Bounded) -> Bounded:
            origin = value.origin
            if origin is None or origin.steps or origin.tensor not in codecs or origin.tensor not in theirs:
                return found
            name = origin.tensor
            bounds.setdefault(name, found.err)
            if name not in snapped:
                reals = theirs[name].reshape(value.shape)
                snapped[name] = _distance(reals, codecs[name])
            array = theirs[name].reshape(value.shape)
            array = array.astype(np.float64) if found.is_float else array.astype(found.value.dtype)
            return bounded(array, snapped[name])

        analysed = self._analysis.run(feeds, go_on)
        result = SampleResult(theirs={v.name: np.asarray(theirs[v.name]).reshape(v.shape) for v in self._outputs()})
        own: dict[Value, Array] = {}
        counted: set[str] = set()

        def observe(node: Node, value: Value, array: Array) -> Array:
            origin = self.anchors.get(value)
            if origin is None or origin.tensor not in theirs or origin.tensor not in bounds:
                return array
            own[value] = array
            name = origin.tensor
            reals = origin.view(theirs[name].reshape(self._values[name].shape))
            bound = origin.view(bounds[name])
            return self._settle(result, counted, number, value, array, (reals, bound))

        env = interp.evaluate(self.graph, feeds, observe)
        for ours, imported in zip(self.graph.outputs, self._imported.outputs, strict=True):
            array = ours.array if ours.is_const else own.get(ours, env[ours])
            result.outputs[imported.name] = array
            if ours not in own:
                known = None if imported.is_const else analysed[imported].err
                self._check_output(result, number, imported.name, array, known)
        return result

    def _outputs(self) -> tuple[Value, ...]:
        return self._imported.outputs

    def _settle(
        self,
        result: SampleResult,
        counted: set[str],
        number: int,
        value: Value,
        codes: Array,
        theirs: tuple[Array, Array],
    ) -> Array:
        """Count ties and failures of one tensor; returns the reference's codes. A tensor that stands in the graph
        twice (as bits and as reals) is counted once."""
        reals, bound = theirs[0].astype(np.float64), 2 * theirs[1]
        ours = decode_reals(codes, value.type)
        wanted = encode_reals(reals, value.type)
        gap = np.abs(ours - reals)
        gap = np.where(np.isnan(ours) & np.isnan(reals), 0.0, gap)
        small = RELATIVE * np.max(np.abs(reals[np.isfinite(reals)]), initial=0.0)
        differs = ~(gap <= small) if value.type.dtype.is_float else codes != wanted
        explained = np.isfinite(bound) & (gap <= bound * (1 + 1e-9))
        ties = differs & explained
        bad = (differs | ~(gap <= bound + small)) & ~explained
        name = self.anchors[value].tensor
        if name not in counted:
            counted.add(name)
            result.ties += int(ties.sum())
            # Report elements where the ONNX tensor has them.
            shape = self._values[name].shape
            flat = self.anchors[value].view(np.arange(bad.size).reshape(shape)).reshape(-1)
            order = np.argsort(flat)
            arrays = (a.reshape(-1)[order].reshape(shape) for a in (ours, reals, bound, bad))
            self._record(result, number, name, *arrays)
        return np.asarray(wanted)

    def _check_output(self, result: SampleResult, number: int, name: str, array: Array, err: Array | None) -> None:
        ours, reals = array.astype(np.float64), result.theirs[name].astype(np.float64)
        finite = np.abs(reals[np.isfinite(reals)])
        floor = RELATIVE * np.max(finite, initial=0.0)
        bound = np.zeros(ours.shape) if err is None else np.where(np.isfinite(err), 2 * err, 10 * floor)
        with np.errstate(invalid="ignore"):
            same = (ours == reals) | (np.isnan(ours) & np.isnan(reals))
            bad = ~(same | (np.abs(ours - reals) <= bound + floor))
        self._record(result, number, name, ours, reals, bound + floor, bad)

    @staticmethod
    def _record(
        result: SampleResult, number: int, name: str, ours: Array, reals: Array, bound: Array, bad: Array
    ) -> None:
        result.failed += int(bad.sum())
        for index in map(tuple, np.argwhere(bad)[:_SHOWN]):
            at = tuple(int(i) for i in index)
            result.failures.append(
                Failure(number, name, at, float(ours[index]), float(reals[index]), float(bound[index]))
            )


def decode_reals(codes: Array, t: TensorType) -> Array:
    """Codes as reals, float64; codes of types without a quant are reals themselves."""
    if t.quant is None:
        return codes.astype(np.float64)
    numbers = codes.astype(np.float64) - t.quant.zero
    return np.asarray(numbers * np.asarray(t.quant.scale) + np.asarray(t.quant.offset))


def encode_reals(reals: Array, t: TensorType) -> Array:
    """The codes whose reals are nearest."""
    carrier = t.dtype.carrier
    if t.dtype.is_float or (t.quant is None and not t.dtype.is_packed):
        return reals.astype(carrier)
    scale, offset = (1.0, 0.0) if t.quant is None else (np.asarray(t.quant.scale), np.asarray(t.quant.offset))
    zero = t.quant.zero if t.quant else 0
    codes = np.asarray(np.clip(np.rint((reals - offset) / scale) + zero, t.dtype.min, t.dtype.max))
    return np.asarray(codes.astype(np.int64).astype(carrier))


def _not_fused(graph: Graph) -> list[str]:
    """ONNX tensors to show so that the reference computes them as the model says: onnxruntime's softmax of codes sums
    rounded table entries, which puts some of its results one step beside the nearest code."""
    made = (n.output for n in graph.nodes if isinstance(n.op, Softmax))
    return [v.origin.tensor for v in made if v.origin is not None and not v.origin.steps]


def _distance(reals: Array, t: TensorType) -> Array:
    """How far the reference's values are from the codes' reals that we go on with."""
    if t.dtype.is_float or (t.quant is not None and not t.quant.per_tensor):
        return np.zeros(reals.shape)
    return np.asarray(np.abs(decode_reals(encode_reals(reals.astype(np.float64), t), t) - reals))


def _by_tensor(graph: Graph) -> dict[str, Value]:
    """The computed value that is each ONNX tensor."""
    found: dict[str, Value] = {}
    for node in graph.nodes:
        for v in node.outputs:
            if v.origin is not None and not v.origin.steps:
                found.setdefault(v.origin.tensor, v)
    return found


def _is_step(op: Op) -> bool:
    return isinstance(op, _STEPS) or (isinstance(op, unary.Cast) and not op.dtype.is_float)


def _requantizes(op: Op) -> bool:
    if isinstance(op, Conv2D):
        return isinstance(op.epilogue, Requant | FixedPoint)
    return isinstance(op, Requantize | AddRequant | MulRequant | Lookup) or (
        isinstance(op, AveragePool) and op.requant is not None
    )


def _discrete(graph: Graph) -> set[str]:
    """Names of ONNX tensors that change in steps only: quantizers and what follows them element by element."""
    known: set[Value] = set()
    for node in graph.nodes:
        computed = [v for v in node.inputs if v is not None and not v.is_const]
        carries = isinstance(node.op, _CARRIES) and computed and all(v in known for v in computed)
        if _is_step(node.op) or carries:
            known.update(node.outputs)
    return {v.origin.tensor for v in known if v.origin is not None and not v.origin.steps}


def _anchors(graph: Graph, tensors: set[str], discrete: set[str]) -> dict[Value, Origin]:
    """Where codes are compared: at every quantizer's result that is an ONNX tensor, as close behind the step as there
    is one. What only moves codes that were compared is not compared again."""
    anchors: dict[Value, Origin] = {}
    stepped: set[Value] = set()
    for node in graph.nodes:
        y = node.output.type
        quantizes = (
            (y.dtype.is_packed or y.quant is not None)
            and not isinstance(node.op, _CARRIES)
            and not isinstance(node.op, Repack)
        )
        fresh = quantizes or _is_step(node.op) or _requantizes(node.op)
        if not fresh and not any(v in stepped for v in node.inputs):
            continue
        v = node.output
        exists = v.origin is not None and v.origin.tensor in tensors
        if exists and v.origin is not None and (not y.dtype.is_float or v.origin.tensor in discrete):
            anchors[v] = v.origin
        else:
            stepped.add(v)
    return anchors
