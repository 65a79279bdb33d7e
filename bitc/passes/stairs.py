"""Staircases: affine functions of one tensor with at most one rounding, as quantizers and what surrounds them are.

    y = clip(a * x + c, lo, hi)            before rounding, in reals
    v = scale * round(y) + offset          after it, with lo and hi integers

A sequence of Mul, Div, Add, Sub by constants, Relu, Clip, casts, roundings, Quantize and Dequantize composes to that,
whatever its number of operators: clipping commutes with rounding and with increasing affine maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bitc.ir.graph import Array, Node, Op, Value
from bitc.ir.rewrite import Builder
from bitc.ops.binary import Add, Div, Max, Min, Mul, Sub
from bitc.ops.quantize import Dequantize, Quantize
from bitc.ops.unary import Cast, Ceil, Clip, Floor, Neg, Relu, Round, Trunc

LINE: tuple[type[Op], ...] = (
    Add, Sub, Mul, Div, Max, Min, Neg, Relu, Clip, Cast, Round, Floor, Ceil, Trunc, Quantize, Dequantize,
)  # fmt: skip
ROUNDS: tuple[type[Op], ...] = (Round, Floor, Ceil, Trunc, Quantize, Cast)
"""Operators that may round; so does Div of integers, which a Cast follows."""
MAX_NODES = 64
EVEN, DOWN, UP, TO_ZERO = "to even", "down", "up", "to zero"
_ROUNDINGS: dict[type[Op], str] = {Round: EVEN, Floor: DOWN, Ceil: UP, Trunc: TO_ZERO}
_NEAR = 1e-4
"""Distance from an integer, in steps, that float32 scales explain."""


@dataclass(frozen=True)
class Stairs:
    """The function of the module's text. The arrays have one element or one per channel (the last axis). `a` is
    float32, composed in float32 as onnxruntime composes scales; `exact` is a in float64, as all else is."""

    a: Array
    exact: Array
    c: Array
    lo: Array
    hi: Array
    mode: str = ""
    scale: float = 1.0
    offset: float = 0.0

    @staticmethod
    def of() -> Stairs:
        """The identity."""
        return Stairs(np.ones(1, np.float32), np.ones(1), np.zeros(1), np.full(1, -np.inf), np.full(1, np.inf))

    @property
    def per_tensor(self) -> bool:
        """Whether all channels have the same function."""
        return self.a.size == self.c.size == self.lo.size == self.hi.size == 1

    def integral(self, root: Value) -> bool:
        """Whether all values are integers; of codes, but for what float32 scales explain (one that is divided by an
        equal one is not quite 1)."""
        if self.mode:
            return self.scale == 1 and self.offset.is_integer()
        dtype = root.type.dtype
        if not dtype.is_integer:
            return False
        reach = max(-dtype.min, dtype.max) if dtype.is_code and dtype.bits <= 16 else np.inf
        return _whole(self.exact, reach) and all(_whole(p, 1) for p in (self.c, self.lo, self.hi))

    @property
    def t(self) -> Array:
        """The function before rounding as ``a * (x + t)``."""
        return self.c / np.where(self.exact == 0, 1, self.exact)

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and greatest of the rounded numbers."""
        return float(self.lo.min()), float(self.hi.max())


def walk(builder: Builder, v: Value) -> tuple[Value, list[Node]]:
    """From v up through operators of one computed operand that staircases are made of, to the first value that is
    none, or that holds codes of 16 bits or fewer; the nodes in order of computation."""
    nodes: list[Node] = []
    while len(nodes) < MAX_NODES:
        node = builder.producer(v)
        if node is None or not is_line(node) or (v.type.dtype.is_code and v.type.dtype.bits <= 16):
            break
        nodes.append(node)
        v = computed(node)
    return v, nodes[::-1]


def computed(node: Node) -> Value:
    """The one computed operand of a line."""
    return next(v for v in node.inputs if v is not None and not v.is_const)


def is_line(node: Node) -> bool:
    """Whether a node maps one computed operand element by element, with constants per tensor or channel."""
    if not isinstance(node.op, LINE):
        return False
    operands = [v for v in node.inputs if v is not None and not v.is_const]
    if len(operands) != 1 or operands[0].shape != node.output.shape or operands[0].type.dtype.carrier.kind == "b":
        return False
    if isinstance(node.op, Quantize) and node.inputs[0] is not operands[0]:
        return False
    return all(_small(v) for v in node.inputs if v is not None and v.is_const)


def _small(c: Value) -> bool:
    if c.type.dtype.is_packed or c.array.dtype.kind == "b" or not np.isfinite(c.array).all():
        return False
    return c.type.size == 1 or c.shape[-1] == c.type.size


def climb(root: Value, nodes: Sequence[Node]) -> Stairs | None:
    """The staircase that the nodes compute of the root; None if it is none."""
    found: Stairs | None = Stairs.of()
    for node in nodes:
        if found is None:
            return None
        found = _step(found, root, node)
    return found


def _step(s: Stairs, root: Value, node: Node) -> Stairs | None:
    op = node.op
    if isinstance(op, Add | Sub | Mul | Div | Max | Min):
        return _binary(s, root, node)
    if isinstance(op, Neg):
        return _scaled(s, np.array([-1.0]))
    if isinstance(op, Relu):
        return _clipped(s, np.zeros(1), np.full(1, np.inf))
    if isinstance(op, Clip):
        return _clipped(s, np.array([op.lo]), np.array([op.hi]))
    if isinstance(op, Cast):
        return _cast(s, root, node)
    if isinstance(op, Quantize):
        scale, zero = (v.array.reshape(-1).astype(np.float64) for v in node.inputs[1:] if v is not None)
        y = _scaled(s, scale, divide=True)
        y = _rounded(y, root, EVEN) if y else None
        y = _shifted(y, zero) if y and zero.size == 1 else None
        return _clipped(y, np.array([op.lo]), np.array([op.hi])) if y else None
    if isinstance(op, Dequantize):
        q = op.quant
        y = _shifted(s, np.array([-float(q.zero)]))
        y = _scaled(y, np.array(q.scale)) if y else None
        return _shifted(y, np.array(q.offset)) if y and any(q.offset) else y
    return _rounded(s, root, _ROUNDINGS[type(op)])


def _binary(s: Stairs, root: Value, node: Node) -> Stairs | None:
    op, first = node.op, node.inputs[0]
    left = first is not None and first.is_const
    c = next(v for v in node.inputs if v is not None and v.is_const).array.reshape(-1).astype(np.float64)
    if isinstance(op, Max | Min):
        infinite = np.full(1, np.inf)
        return _clipped(s, c, infinite) if isinstance(op, Max) else _clipped(s, -infinite, c)
    if isinstance(op, Add):
        return _shifted(s, c)
    if isinstance(op, Sub):
        y = _scaled(s, np.array([-1.0])) if left else s
        return _shifted(y, c if left else -c) if y else None
    if isinstance(op, Mul):
        return _scaled(s, c)
    if left or not c.all():
        return None
    y = _scaled(s, c, divide=True)
    return _rounded(y, root, TO_ZERO) if y and node.output.type.dtype.is_integer else y


def _scaled(s: Stairs, k: Array, divide: bool = False) -> Stairs | None:
    """Times k, or divided by it."""
    factor = 1 / k if divide else k
    if s.mode and not factor.all():
        return None
    if s.mode:
        return replace(s, scale=s.scale * float(factor[0]), offset=s.offset * float(factor[0])) if k.size == 1 else None
    with np.errstate(over="ignore"):
        a = s.a / k.astype(np.float32) if divide else s.a * k.astype(np.float32)
    if not np.isfinite(a).all():
        return None
    limits = [
        np.where(factor == 0, side * np.inf, bound * np.where(factor == 0, 1, factor))
        for side, bound in ((-1, s.lo), (1, s.hi))
    ]  # a constant has no limits
    ends = np.stack(np.broadcast_arrays(*limits))
    return replace(s, a=a, exact=s.exact * factor, c=s.c * factor, lo=ends.min(axis=0), hi=ends.max(axis=0))


def _shifted(s: Stairs, c: Array) -> Stairs | None:
    """Plus c."""
    if s.mode:
        return replace(s, offset=s.offset + float(c[0])) if c.size == 1 else None
    return replace(s, c=s.c + c, lo=s.lo + c, hi=s.hi + c)


def _clipped(s: Stairs, lo: Array, hi: Array) -> Stairs | None:
    if s.mode:
        if s.scale <= 0:
            return None
        ends = [_on_step((b - s.offset) / s.scale, s) for b in (lo, hi)]
        if ends[0] is None or ends[1] is None:
            return None
        lo, hi = ends[0], ends[1]
    low, high = np.minimum(np.maximum(s.lo, lo), hi), np.maximum(np.minimum(s.hi, hi), lo)
    mode = DOWN if s.mode == TO_ZERO and low.min() >= 0 else s.mode
    return replace(s, lo=low, hi=high, mode=mode)


def _whole(p: Array, reach: float) -> bool:
    """Whether p times numbers up to `reach` is near integers."""
    near = np.rint(p)
    with np.errstate(invalid="ignore"):
        return bool(((p == near) | (np.abs(p - near) * reach <= _NEAR)).all())


def _on_step(bound: Array, s: Stairs) -> Array | None:
    """A bound as a number of steps; None if it cuts a step."""
    bound = np.where(bound < s.lo.min(), -np.inf, np.where(bound > s.hi.max(), np.inf, bound))
    near = np.rint(bound)
    inside = np.isfinite(bound)
    return near if (np.abs(bound[inside] - near[inside]) <= _NEAR).all() else None


def _rounded(s: Stairs, root: Value, mode: str) -> Stairs | None:
    if s.integral(root):
        return s
    if s.mode:
        return None
    function = {EVEN: np.rint, DOWN: np.floor, UP: np.ceil, TO_ZERO: np.trunc}[mode]
    if mode == TO_ZERO and s.lo.min() >= 0:
        mode = DOWN
    return replace(s, lo=function(s.lo), hi=function(s.hi), mode=mode)


def _cast(s: Stairs, root: Value, node: Node) -> Stairs | None:
    dtype, source = node.output.type.dtype, computed(node).type.dtype
    if dtype.carrier.kind == "b" or dtype.is_packed:
        return None
    if dtype.is_float:
        return s
    y = _rounded(s, root, TO_ZERO)
    if y is None or source.is_float:  # saturates
        return _clipped(y, np.array([dtype.min]), np.array([dtype.max])) if y else None
    low, high = y.bounds
    low, high = y.scale * low + y.offset, y.scale * high + y.offset
    return y if dtype.bits >= source.bits or (dtype.min <= low and high <= dtype.max) else None
