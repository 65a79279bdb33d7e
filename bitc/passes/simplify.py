"""Remove what computes nothing, so that later passes see the same values as the same value.

    x + 0 = x    x - 0 = x    x * 1 = x    x / 1 = x    x cast to its own type = x

Equal operators on equal inputs are computed once (exporters write a surrogate of a straight-through estimator twice),
and constants are shrunk to the axes along which they vary (``ones_like`` becomes a constant of the whole shape).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from bitc.ir.graph import Array, Graph, Node, Value
from bitc.ir.rewrite import Rewriter, rewrite
from bitc.ops.base import Pointwise
from bitc.ops.binary import Add, Div, Mul, MultiThreshold, Sub
from bitc.ops.unary import Cast
from bitc.passes.context import Context

_SMALL = 1 << 12
"""Constants up to this many elements are compared by value."""


@dataclass(frozen=True)
class Simplify:
    lossless = True

    def run(self, graph: Graph, ctx: Context) -> Graph:
        seen: dict[Hashable, tuple[Value, ...]] = {}

        def rule(rw: Rewriter, node: Node) -> tuple[Value, ...] | Value | None:
            shrunk = _shrink_constants(rw, node)
            same = _neutral(shrunk or node)
            if same is not None:
                return same
            key = (node.op, tuple(map(_identity, (shrunk or node).inputs)))
            if key in seen:
                return seen[key]
            if shrunk is not None:
                rw.add(shrunk)
                for v in shrunk.outputs:
                    rw.unique(v.name)
            seen[key] = node.outputs
            return node.outputs if shrunk is not None else None

        return rewrite(graph, rule)


def _identity(v: Value | None) -> Hashable:
    """Equal for inputs that hold the same elements."""
    if v is None or not v.is_const or v.type.size > _SMALL:
        return v
    return v.type, v.array.tobytes()


def _neutral(node: Node) -> Value | None:
    """The input that the node's output equals."""
    if isinstance(node.op, Cast) and node.input(0).type == node.output.type:
        return node.input(0)
    if not isinstance(node.op, Add | Sub | Mul | Div):
        return None
    nothing = 0 if isinstance(node.op, Add | Sub) else 1
    a, b = node.input(0), node.input(1)
    pairs = [(a, b), (b, a)] if isinstance(node.op, Add | Mul) else [(a, b)]
    for x, c in pairs:
        if c.is_const and not x.is_const and x.type == node.output.type and (c.array == nothing).all():
            return x
    return None


def _shrink_constants(rw: Rewriter, node: Node) -> Node | None:
    """The same node with constants only as large as they need to be; None if they are."""
    if not isinstance(node.op, Pointwise) or isinstance(node.op, MultiThreshold):
        return None
    computed = [v.shape for v in node.inputs if v is not None and not v.is_const]
    if not computed or np.broadcast_shapes(*computed) != node.output.shape:
        return None
    inputs: list[Value | None] = []
    for v in node.inputs:
        small = squeeze_broadcast(v.array) if v is not None and v.is_const else None
        inputs.append(v if v is None or small is None or small.shape == v.shape else rw.const(small, v.name))
    if all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
        return None
    return Node(node.op, tuple(inputs), node.outputs, node.origin)


def squeeze_broadcast(c: Array) -> Array:
    """Reduce every axis along which the array does not vary to length 1."""
    for axis in range(c.ndim):
        first = c.take([0], axis) if c.shape[axis] > 1 else c
        if np.array_equal(np.broadcast_to(first, c.shape), c, equal_nan=c.dtype.kind == "f"):
            c = first
    return np.ascontiguousarray(c).reshape(c.shape)
