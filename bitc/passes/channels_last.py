"""Sink Transpose and Reshape towards the outputs until they meet and cancel.

Convolutions and pools are NHWC and stand between two Transposes after import. Pointwise operators commute with any
movement of elements, if their constants are moved the opposite way:

    f(M(x), c) = M(f(x, M^-1(c)))        M a Transpose or a Reshape

and Transpose(p) of Transpose(q) is one Transpose or none. What is left at the end stands where data really has to
move. Maxima over rows and columns, now the axes of images, become pools.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from bitc.ir.dtypes import FLOAT32, INT8, UINT8
from bitc.ir.graph import Array, Graph, Node, Op, Origin, Value
from bitc.ir.rewrite import Rewriter, rewrite
from bitc.ops.base import Pointwise
from bitc.ops.binary import MultiThreshold
from bitc.ops.movement import Concat, Gather, Pad, Reshape, Slice, Transpose
from bitc.ops.pool import MaxPool
from bitc.ops.reduce import ArgMax, ArgMin, Reduce, ReduceMax, Softmax
from bitc.ops.window import Window
from bitc.passes.context import Context
from bitc.passes.simplify import squeeze_broadcast

_LIMIT = 1 << 16
"""Largest constant, in elements, that may grow because it is moved with its data."""


@dataclass(frozen=True)
class ChannelsLast:
    lossless = True

    def run(self, graph: Graph, ctx: Context) -> Graph:
        while True:
            before = len(graph.nodes)
            text = [type(n.op) for n in graph.nodes]
            graph = rewrite(graph, _rule)
            if len(graph.nodes) == before and [type(n.op) for n in graph.nodes] == text:
                return graph


def _rule(rw: Rewriter, node: Node) -> Value | None:
    if isinstance(node.op, Transpose):
        return _merge_transpose(rw, node)
    if isinstance(node.op, Reshape):
        return _merge_reshape(rw, node) or _sink_below_reshape(rw, node)
    if isinstance(node.op, Pointwise):
        return _sink_below_pointwise(rw, node)
    if isinstance(node.op, ReduceMax) and (pool := _as_pool(rw, node, node.op)):
        return pool
    if isinstance(node.op, Reduce | Softmax | ArgMax | ArgMin | Concat | Gather | Pad | Slice):
        return _sink_below_axes(rw, node)
    return None


def _as_pool(rw: Rewriter, node: Node, op: ReduceMax) -> Value | None:
    """The maximum over rows and columns as a pool of one window, which is known to keep codes and bits."""
    x = node.input(0)
    if op.axes != (1, 2) or x.type.rank != 4 or not x.type.size or x.type.dtype not in (FLOAT32, INT8, UINT8):
        return None
    y = rw.emit(MaxPool(Window((x.shape[1], x.shape[2]))), x, at=node.origin, name=node.output.name)
    return y if op.keepdims else rw.emit(Reshape(node.output.shape), y, at=node.origin, name=node.output.name)


def _merge_transpose(rw: Rewriter, node: Node) -> Value | None:
    assert isinstance(node.op, Transpose)
    x, perm = node.input(0), node.op.perm
    inner = rw.producer(x)
    if inner is not None and isinstance(inner.op, Transpose):
        x, perm = inner.input(0), tuple(inner.op.perm[p] for p in perm)
        if perm == tuple(range(len(perm))):
            return x
        return rw.emit(Transpose(perm), x, at=node.origin, name=node.output.name)
    if perm == tuple(range(len(perm))):
        return x
    moved = [p for p in perm if x.shape[p] != 1]
    if moved == sorted(moved):  # only axes of length 1 move: a view
        return rw.emit(Reshape(node.output.shape), x, at=node.origin, name=node.output.name)
    return None


def _merge_reshape(rw: Rewriter, node: Node) -> Value | None:
    x = node.input(0)
    if x.shape == node.output.shape:
        return x
    inner = rw.producer(x)
    if inner is not None and isinstance(inner.op, Reshape):
        source = inner.input(0)
        if source.shape == node.output.shape:
            return source
        return rw.emit(Reshape(node.output.shape), source, at=node.origin, name=node.output.name)
    return None


def _sink_below_reshape(rw: Rewriter, node: Node) -> Value | None:
    """Reshape(Transpose(x)) = Transpose(Reshape(Transpose'(x))), where the inner one only brings together axes that are
    merged (none, if they lie together in x) and the outer one can go on sinking."""
    transpose = rw.producer(node.input(0))
    if transpose is None or not isinstance(transpose.op, Transpose):
        return None
    x, perm, shape = transpose.input(0), transpose.op.perm, node.output.shape
    groups = [([perm[i] for i in before], after) for before, after in _axis_groups(node.input(0).shape, shape)]
    groups.sort(key=lambda g: min(g[0]))  # in the order of x
    axes = [a for _, after in groups for a in after]
    inner = tuple(a for before, _ in groups for a in before)
    if axes == sorted(axes):
        return None
    together = x if inner == tuple(range(len(inner))) else rw.emit(Transpose(inner), x, at=transpose.origin)
    moved = rw.emit(Reshape(tuple(shape[a] for a in axes)), together, at=node.origin, name=node.output.name)
    outer = Transpose(tuple(int(i) for i in np.argsort(axes)))
    if node.output.origin is not None:
        moved.origin = _back(node.output.origin, outer, moved.shape)
    return rw.emit(outer, moved, at=transpose.origin, name=node.output.name)


def _axis_groups(a: tuple[int, ...], b: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """The finest split of both shapes into runs of axes with equal numbers of elements; empty if there is none."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(a) and j < len(b):
        left, right, m, n = [i], [j], a[i], b[j]
        while m != n:
            if m < n:
                i += 1
                left.append(i)
                m *= a[i]
            else:
                j += 1
                right.append(j)
                n *= b[j]
        groups.append((left, right))
        i, j = i + 1, j + 1
    if groups:  # trailing axes of length 1
        groups[-1][0].extend(range(i, len(a)))
        groups[-1][1].extend(range(j, len(b)))
    return groups


def _sink_below_pointwise(rw: Rewriter, node: Node) -> Value | None:
    """f(M(x), c) = M(f(x, M^-1(c))): every operand of full size is moved alike, the others are small."""
    after = node.output.shape
    movers = [rw.producer(v) for v in node.inputs if v is not None and not v.is_const and v.shape == after]
    first = movers[0] if movers else None
    if first is None or not isinstance(first.op, Transpose | Reshape):
        return None
    if isinstance(node.op, MultiThreshold):
        return _sink_below_multithreshold(rw, node, first)
    before = first.input(0).shape
    if any(m is None or m.op != first.op or m.input(0).shape != before for m in movers):
        return None
    inputs: list[Value | None] = []
    for v in node.inputs:
        moved = v if v is None else _moved_operand(rw, v, first.op, before, after)
        if v is not None and moved is None:
            return None
        inputs.append(moved)
    inner = rw.emit(node.op, *inputs, at=node.origin, name=node.output.name)
    if node.output.origin is not None:
        inner.origin = _back(node.output.origin, first.op, before)
    return rw.emit(first.op, inner, at=first.origin, name=node.output.name)


def _moved_operand(
    rw: Rewriter, v: Value, mover: Transpose | Reshape, before: tuple[int, ...], after: tuple[int, ...]
) -> Value | None:
    """The operand that has to stand before `mover` in place of v; None if it is not worth it."""
    if v.is_const:
        moved = _move_back(v.array, mover, before, after)
        return moved if moved is None else (v if moved is v.array else rw.const(moved, v.name))
    own = rw.producer(v)
    if own is not None and own.op == mover and (v.shape == after or isinstance(mover, Transpose)):
        return own.input(0)
    if v.type.size == 1:
        return rw.emit(Reshape((1,) * len(before)), v, at=own.origin if own else "", name=v.name)
    if isinstance(mover, Reshape):
        return None
    if v.type.rank < len(after):
        v = rw.emit(Reshape((1,) * (len(after) - v.type.rank) + v.shape), v, name=v.name)
    return rw.emit(Transpose(tuple(int(i) for i in np.argsort(mover.perm))), v, name=v.name)


def _sink_below_multithreshold(rw: Rewriter, node: Node, mover: Node) -> Value | None:
    """MultiThreshold names its channel axis, which moves as with `_sink_below_axes`; the thresholds stay."""
    assert isinstance(node.op, MultiThreshold)
    if not isinstance(mover.op, Transpose):
        return None
    perm = mover.op.perm
    moved = replace(node.op, axis=perm[node.op.axis] - len(perm))
    inner = rw.emit(moved, mover.input(0), node.input(1), at=node.origin, name=node.output.name)
    if node.output.origin is not None:
        inner.origin = _back(node.output.origin, mover.op, inner.shape)
    return rw.emit(mover.op, inner, at=mover.origin, name=node.output.name)


def _back(origin: Origin, mover: Transpose | Reshape, before: tuple[int, ...]) -> Origin:
    """Origin of the value before `mover`, given that of the value after it."""
    if isinstance(mover, Transpose):
        return origin.then("transpose", np.argsort(mover.perm).tolist())
    return origin.then("reshape", before)


def _move_back(c: Array, mover: Transpose | Reshape, before: tuple[int, ...], after: tuple[int, ...]) -> Array | None:
    """The constant that has to stand before `mover`, broadcastable there; None if it would grow too large."""
    if c.size == 1:
        return c if c.ndim <= len(before) else c.reshape((1,) * len(before))
    c = c.reshape((1,) * (len(after) - c.ndim) + c.shape)
    if isinstance(mover, Transpose):
        return np.ascontiguousarray(c.transpose(np.argsort(mover.perm)))
    if prod(after) > _LIMIT:
        return None
    return squeeze_broadcast(np.broadcast_to(c, after).reshape(before))


def _sink_below_axes(rw: Rewriter, node: Node) -> Value | None:
    """Operators that work along named axes follow a Transpose by renaming their axes."""
    if isinstance(node.op, Gather) and node.input(1).type.rank != 1:
        return None
    consts = tuple(v for v in node.inputs if v is not None and v.is_const)
    movers = [rw.producer(v) for v in node.inputs if v not in consts]
    first = movers[0] if movers else None
    if first is None or not isinstance(first.op, Transpose):
        return None
    if any(m is None or m.op != first.op for m in movers):
        return None
    perm = first.op.perm
    sources = [m.input(0) for m in movers if m is not None]
    if consts and not isinstance(node.op, Gather):
        return None
    inner = rw.emit(_renamed(node.op, perm), *sources, *consts, at=node.origin, name=node.output.name)
    outer = Transpose(perm)
    if inner.type.rank != len(perm):  # a reduction that dropped axes
        kept = [p for p in perm if p not in inner_axes(rw, inner)]
        outer = Transpose(tuple(sorted(kept).index(p) for p in kept))
    if node.output.origin is not None:
        inner.origin = _back(node.output.origin, outer, inner.shape)
    return rw.emit(outer, inner, at=first.origin, name=node.output.name)


def inner_axes(rw: Rewriter, value: Value) -> tuple[int, ...]:
    """The axes that the reduction producing `value` dropped."""
    node = rw.producer(value)
    assert node is not None
    return node.op.axes if isinstance(node.op, Reduce) else (node.op.axis,)  # type: ignore[attr-defined]


def _renamed(op: Op, perm: tuple[int, ...]) -> Op:
    """The operator that does before ``Transpose(perm)`` what `op` does behind it: axis a there is perm[a] here."""
    match op:
        case Reduce(axes=axes):
            return replace(op, axes=tuple(sorted(perm[a] for a in axes)))
        case Softmax() | Concat() | Gather() | ArgMax() | ArgMin():
            return replace(op, axis=perm[op.axis])
        case Pad():
            return replace(op, before=_unpermute(op.before, perm), after=_unpermute(op.after, perm))
        case Slice():
            return Slice(_unpermute(op.starts, perm), _unpermute(op.stops, perm), _unpermute(op.steps, perm))
    raise AssertionError(op)


def _unpermute(values: tuple[int, ...], perm: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(values[i] for i in np.argsort(perm))
