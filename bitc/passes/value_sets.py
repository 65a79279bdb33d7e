"""Value-set analysis: which values can a tensor take?

Per tensor either a small finite set, or an interval with a flag for integers. Finite sets pass through pointwise
operators by evaluating the operator on them; intervals by evaluating monotone operators at the ends. Nothing is
matched against templates: `Sign`, `Where(x < 0, -1, 1)`, `Clip(Round(x / a), 0, 1) * a` are all just small sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from bitc.ir.graph import Array, Node, Value
from bitc.ir.rewrite import Builder
from bitc.ops.base import Pointwise
from bitc.ops.binary import Add, Max, Min, Mul, MultiThreshold, Sub
from bitc.ops.movement import Concat, Expand, Pad, Reshape, Slice, Transpose
from bitc.ops.pool import MaxPool
from bitc.ops.quantize import Dequantize
from bitc.ops.unary import Abs, Cast, Ceil, Clip, Floor, Neg, Relu, Round, Sign, Trunc

MAX_POINTS = 32
_MAX_GRID = 1024
_MAX_CONSTANT = 1 << 16
_KNOWN = (Pointwise, Reshape, Transpose, Slice, Expand, MaxPool, Concat, Pad)
"""Operators of which more than the output's dtype is known."""


@dataclass(frozen=True)
class ValueSet:
    """`points`, sorted, if the set is small and known; else the interval [lo, hi], integers only if `integer`."""

    lo: float
    hi: float
    integer: bool = False
    points: tuple[float, ...] | None = None

    @staticmethod
    def of(values: Array) -> ValueSet:
        """The set of these points."""
        points = tuple(float(v) for v in np.unique(values))
        whole = all(p.is_integer() for p in points)
        return ValueSet(points[0], points[-1], whole, points)

    @staticmethod
    def interval(lo: float, hi: float, integer: bool = False) -> ValueSet:
        """An interval; a short one of integers becomes a finite set."""
        if integer and np.isfinite(lo) and np.isfinite(hi) and hi - lo < MAX_POINTS:
            return ValueSet.of(np.arange(np.ceil(lo), np.floor(hi) + 1))
        return ValueSet(lo, hi, integer)

    @property
    def is_interval_around_zero(self) -> bool:
        """Whether values of both signs occur, and not just a few: the sign of zero was hardly thought of."""
        return self.points is None and self.lo < 0 < self.hi

    def __str__(self) -> str:
        if self.points is not None:
            return "{" + ", ".join(f"{p:g}" for p in self.points) + "}"
        kind = "integers in " if self.integer else ""
        return f"{kind}[{self.lo:g}, {self.hi:g}]"


EVERYTHING = ValueSet(-np.inf, np.inf)


class ValueSets:
    """Sets of the values that a builder has emitted so far, computed on demand."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._known: dict[Value, ValueSet] = {}

    def __getitem__(self, value: Value) -> ValueSet:
        pending = [value]
        while pending:  # no recursion: unrolled recurrent nets are thousands of nodes deep
            v = pending[-1]
            if v in self._known:
                pending.pop()
                continue
            node = self._builder.producer(v)
            missing = [i for i in (node.inputs if node else ()) if i is not None and i not in self._known]
            if node is not None and not isinstance(node.op, _KNOWN):
                missing = []  # all that its type can hold, whatever the inputs
            if missing:
                pending.extend(missing)
                continue
            self._known[v] = self._leaf(v) if node is None else self._transfer(node)
            pending.pop()
        return self._known[value]

    def _leaf(self, value: Value) -> ValueSet:
        if value.is_const:
            data = value.array
            if not data.size or data.dtype.kind not in "fiub" or not np.isfinite(data).all():
                return EVERYTHING
            if data.size > _MAX_CONSTANT:
                return ValueSet(float(data.min()), float(data.max()))
            unique = np.unique(data)
            if len(unique) <= MAX_POINTS:
                return ValueSet.of(unique)
            return ValueSet(float(unique[0]), float(unique[-1]), bool((unique == np.round(unique)).all()))
        dtype = value.type.dtype
        return ValueSet.interval(dtype.min, dtype.max, dtype.is_integer)

    def _transfer(self, node: Node) -> ValueSet:
        dtype = node.output.type.dtype
        if not isinstance(node.op, _KNOWN):
            return ValueSet.interval(dtype.min, dtype.max, dtype.is_integer)
        op, inputs = node.op, [v for v in node.inputs if v is not None]
        sets = [self._known[v] for v in inputs]
        if isinstance(op, Reshape | Transpose | Slice | Expand):
            return sets[0]
        if isinstance(op, MaxPool):
            return sets[0]
        if isinstance(op, Concat):
            return _union(sets)
        if isinstance(op, Pad):
            return _union([sets[0], ValueSet.of(np.array(op.value))])
        if isinstance(op, Dequantize) and not op.quant.per_tensor:
            return EVERYTHING
        return _pointwise(node, sets)


def _union(sets: list[ValueSet]) -> ValueSet:
    if all(s.points is not None for s in sets):
        points = np.unique([p for s in sets for p in s.points or ()])
        if len(points) <= MAX_POINTS:
            return ValueSet.of(points)
    return ValueSet(min(s.lo for s in sets), max(s.hi for s in sets), all(s.integer for s in sets))


def _pointwise(node: Node, sets: list[ValueSet]) -> ValueSet:
    finite = _finite(node, sets)
    if finite is not None:
        return finite
    op, s = node.op, sets[0]
    dtype = node.output.type.dtype
    if isinstance(op, Sign):
        return ValueSet.of(np.array([p for p in (-1, 0, 1) if (p >= 0 or s.lo < 0) and (p <= 0 or s.hi > 0)]))
    if isinstance(op, MultiThreshold):
        steps = node.input(1).shape[1]
        levels = np.arange(steps + 1) * op.scale + op.bias
        return ValueSet.of(levels) if steps < MAX_POINTS else ValueSet(levels.min(), levels.max())
    if dtype.min == 0 and dtype.max == 1:
        return ValueSet.of(np.array([0, 1]))
    lo, hi = _ends(node, sets)
    integer = dtype.is_integer or isinstance(op, Round | Floor | Ceil | Trunc) or _keeps_integers(node, sets)
    return ValueSet.interval(lo, hi, integer)


def _keeps_integers(node: Node, sets: list[ValueSet]) -> bool:
    """Whether integers in give integers out: sums, products, clips and the like of integers do."""
    if not all(s.integer for s in sets):
        return False
    op = node.op
    if isinstance(op, Clip):
        return all(np.isinf(b) or float(b).is_integer() for b in (op.lo, op.hi))
    return isinstance(op, Cast | Neg | Abs | Relu | Add | Sub | Mul | Min | Max)


def _finite(node: Node, sets: list[ValueSet]) -> ValueSet | None:
    """The image of finite input sets. Equal inputs vary together: x - x is {0}."""
    distinct = list(dict.fromkeys(v for v in node.inputs if v is not None))
    by_value = dict(zip([v for v in node.inputs if v is not None], sets, strict=True))
    points = [by_value[v].points for v in distinct]
    if any(p is None for p in points):
        return None
    size = np.prod([len(p or ()) for p in points])
    if size > _MAX_GRID:
        return None
    if isinstance(node.op, MultiThreshold) or (isinstance(node.op, Dequantize) and not node.op.quant.per_tensor):
        return None
    grid = np.array(list(product(*(p or () for p in points))), np.float64)
    column = {v: grid[:, i].astype(v.type.dtype.carrier) for i, v in enumerate(distinct)}
    with np.errstate(all="ignore"):
        (result, *_) = node.op.reference(*(None if v is None else column[v] for v in node.inputs))
    result = np.asarray(result)
    if result.dtype.kind == "f" and not np.isfinite(result).all():
        return None
    image = np.unique(result)
    return ValueSet.of(image) if len(image) <= MAX_POINTS else None


def _ends(node: Node, sets: list[ValueSet]) -> tuple[float, float]:
    """Interval of a monotone operator from the ends of its one computed input; else all reals of the dtype."""
    dtype = node.output.type.dtype
    unknown = (dtype.min, dtype.max)
    computed = [i for i, v in enumerate(node.inputs) if v is not None and not v.is_const]
    if len(computed) != 1:
        return unknown
    index = computed[0]
    value = node.input(index)
    consts = [None if v is None or not v.is_const else v.array for v in node.inputs]
    if not isinstance(node.op, Pointwise) or node.op.direction(index, *consts) is None:
        return unknown
    ends = []
    s = next(x for v, x in zip([v for v in node.inputs if v is not None], sets, strict=True) if v is value)
    with np.errstate(all="ignore"):
        for end in (s.lo, s.hi):
            args = [np.asarray(end, value.type.dtype.carrier) if i == index else c for i, c in enumerate(consts)]
            ends.append(np.asarray(node.op.reference(*args)[0], np.float64))
    low, high = float(np.min(np.minimum(*ends))), float(np.max(np.maximum(*ends)))
    return unknown if np.isnan(low) or np.isnan(high) else (low, high)
