"""Which channels of a graph depend on each other.

Every element of a computed value has a label; elements with one label go together or stay. Operators that only move
elements move their labels, so that a channel is followed through shuffles, splits, pixel shuffles and the heads of an
attention. Operators that keep channels apart (pools, elementwise, depthwise) tie the labels of their operands together.
That is the dependency analysis of structured pruning (Fang et al., DepGraph, 2023; Chen et al., OTOv3, 2023); a
convolution is where ties end.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from bitc.ir.graph import Array, Graph, Node, Value
from bitc.ops.base import Pointwise
from bitc.ops.binary import Mul, MultiThreshold
from bitc.ops.epilogue import Affine
from bitc.ops.linear import Conv2D, MatMul
from bitc.ops.movement import Concat
from bitc.ops.pool import AveragePool, MaxPool
from bitc.ops.quantize import Dequantize, Requantize
from bitc.ops.quantized import Lookup, MulRequant
from bitc.ops.reduce import Reduce, Softmax
from bitc.passes.channel_moves import MOVES, channel_gather, constants_moved, moved
from bitc.passes.labels import PINNED, Labels

_PER_PIXEL = (Pointwise, Requantize, Lookup)


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that stay or go together: the (ONNX node, output channel) pairs that make them, and the nodes of the
    convolutions that read them."""

    made_by: tuple[tuple[str, int], ...]
    read_by: frozenset[str]


class ChannelTies:
    """Labels of the elements of all computed values, which of them must stay, and what is constant."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._labels = Labels()
        self._of: dict[Value, Array] = {}  # broadcasts to the value's shape
        self._constants: dict[Value, Array] = {}  # the same; what an element always is, NaN where it varies
        for node in graph.nodes:
            self._node(node)
        for v in graph.outputs:
            self._pin(v)
        self._live = self._labels.live()
        while not self._regular():
            self._live = self._labels.live()

    def constant(self, v: Value) -> Array:
        """What each channel of v always is; NaN where it varies or is not known."""
        known = self._constants.get(v, np.full(1, np.nan)).reshape(-1, self._last(self._constants.get(v)))
        same = (known == known[0]).all(axis=0)
        return np.broadcast_to(np.where(same, known[0], np.nan), (v.type.channels,))

    def kept(self, v: Value) -> list[Array]:
        """Indices of the elements of v that stay, along each axis."""
        if v not in self._of:
            return [np.arange(n) for n in v.shape]
        live = self._live[self._of[v]]
        axes = range(live.ndim)
        along = (live.any(axis=tuple(b for b in axes if b != a)) for a in axes)
        return [np.flatnonzero(np.broadcast_to(k, n)) for k, n in zip(along, v.shape, strict=True)]

    def is_whole(self, v: Value) -> bool:
        """Whether what stays of v is all combinations of `kept`."""
        if v not in self._of:
            return True
        live = self._live[self._of[v]]
        along = [len(np.unique(at)) for at in np.nonzero(np.atleast_1d(live))]
        return bool(live.sum() == prod(along))

    def groups(self) -> list[ChannelGroup]:
        """Groups of channels that could go: no graph input or output, and no operator that mixes channels, holds
        them."""
        roots = self._labels.roots()
        made: dict[int, list[tuple[str, int]]] = {}
        read: dict[int, set[str]] = {}
        for node in self._graph.nodes:
            if not isinstance(node.op, Conv2D):
                continue
            for c, r in enumerate(roots[self._channels(node.output)]):
                made.setdefault(int(r), []).append((node.origin, c))
            x = node.input(0)
            if x in self._of and (node.op.group == 1 or node.op.group < x.type.channels):
                for r in np.unique(roots[self._of[x]]):
                    read.setdefault(int(r), set()).add(node.origin)
        pinned = int(roots[PINNED])
        return [ChannelGroup(tuple(m), frozenset(read.get(r, ()))) for r, m in made.items() if r != pinned]

    # What operators do.

    def _node(self, node: Node) -> None:
        op, y = node.op, node.output
        if isinstance(op, Conv2D):
            self._convolution(op, node)
        elif isinstance(op, Concat):
            parts = [v for v in node.inputs if v is not None]
            self._of[y] = _joined(op.axis, parts, [self._label(v) for v in parts])
            self._constants[y] = _joined(op.axis, parts, [self._known(v) for v in parts])
        elif isinstance(op, MOVES):
            self._move(node)
        elif isinstance(op, Softmax) and self._label(node.input(0)).shape[op.axis] == 1:
            self._of[y] = self._label(node.input(0))
        elif isinstance(op, Reduce) and all(self._label(node.input(0)).shape[a] == 1 for a in op.axes):
            self._of[y], self._constants[y] = self._label(node.input(0)), self._pooled(node)
            if not op.keepdims:
                self._of[y], self._constants[y] = (a.squeeze(op.axes) for a in (self._of[y], self._constants[y]))
        elif isinstance(op, MaxPool | AveragePool):
            self._of[y] = _last_axis(self._channels(node.input(0)), y)
            self._constants[y] = self._pooled(node)
        elif isinstance(op, _PER_PIXEL) and self._keeps_channels(node):
            self._elementwise(node)
        elif isinstance(op, MatMul):
            self._product(node)
        else:
            self._pin(*node.inputs, *node.outputs)

    def _move(self, node: Node) -> None:
        y = node.output
        where = node.inputs[1] if len(node.inputs) > 1 else None
        labels = None if where is not None and not where.is_const else moved(
            node, self._label(node.input(0)), self._labels.new
        )  # fmt: skip
        if labels is None or (where is not None and where.type.rank != 1 and labels.size > 1):
            self._pin(*node.inputs, y)
            return
        self._of[y] = labels
        known = constants_moved(node, self._known(node.input(0)))
        if known is not None:
            self._constants[y] = known

    @staticmethod
    def _keeps_channels(node: Node) -> bool:
        """Whether constants go along with elements, and the operator itself holds nothing for each channel."""
        if isinstance(node.op, MultiThreshold) or (isinstance(node.op, Dequantize) and not node.op.quant.per_tensor):
            return False
        if isinstance(node.op, Requantize):
            return node.output.shape == node.input(0).shape
        return isinstance(node.op, Lookup) or all(v is not None for v in node.inputs)

    def _elementwise(self, node: Node) -> None:
        y, operands = node.output, [v for v in node.inputs if v is not None and not v.is_const]
        labels = [self._aligned(v, y) for v in operands]
        shape = np.broadcast_shapes(*(a.shape for a in labels)) if labels else ()
        result: Array | None = None
        for v, a in zip(operands, labels, strict=True):
            size = (1,) * (y.type.rank - v.type.rank) + v.shape
            if any(s > 1 and d == 1 < n for s, d, n in zip(shape, size, y.shape, strict=True)):
                self._pin(v)  # one element for several channels
            elif result is None:
                result = np.broadcast_to(a, shape)
            else:
                self._labels.tie(result, np.broadcast_to(a, shape))
        self._of[y] = np.full((1,) * y.type.rank, PINNED) if result is None else result
        self._constants[y] = self._evaluated(node)

    def _product(self, node: Node) -> None:
        """Along the inner axis the products of elements; rows and columns of the result are those of the operands."""
        a, b, y = node.input(0), node.input(1), node.output
        if min(a.type.rank, b.type.rank) < 2:
            self._pin(a, b, y)
            return
        left, right = (self._one_axis(v) for v in (a, b))
        inner_a, inner_b = left.shape[-1] > 1, right.shape[-2] > 1
        if inner_a and inner_b:
            zero = (self._along(a, -1) == 0) | (self._along(b, -2) == 0)
            self._labels.tie(left.reshape(-1), right.reshape(-1))
            self._labels.need(left.reshape(-1)[~zero])
        elif inner_a or inner_b:
            self._pin(a if inner_a else b)
        labels = np.full((1,) * y.type.rank, PINNED)
        known = np.full((1,) * y.type.rank, np.nan)
        if right.shape[-1] > 1:
            labels = _last_axis(right.reshape(-1), y)
            known = _last_axis(np.where(self._along(b, -1) == 0, 0, np.nan), y)
            if left.shape[-2] > 1:
                self._pin(a)
        elif left.shape[-2] > 1:
            labels, known = (
                np.moveaxis(_last_axis(v, y), -1, -2)
                for v in (left.reshape(-1), np.where(self._along(a, -2) == 0, 0, np.nan))
            )
        self._of[y], self._constants[y] = labels, known

    def _convolution(self, op: Conv2D, node: Node) -> None:
        x, w, y = node.input(0), node.input(1), node.output
        packed = not w.is_const or x.type.dtype.is_packed or w.type.dtype.is_packed
        self._of[y] = _last_axis(self._labels.new((y.type.channels,)), y)
        if packed or op.planar:
            self._pin(*((x, w, y) if packed or op.group > 1 else (x,)))
            if not w.is_const or w.type.dtype.is_packed:
                return
        silent_x = self.constant(x) == op.x_zero if not op.planar else np.zeros(op.pixels(x.type).channels, np.bool_)
        by_group = (w.array != 0).reshape(op.group, -1, *w.shape[1:])  # [G, O / G, kh, kw, C / G]
        by_group &= ~silent_x.reshape(op.group, 1, 1, 1, -1)
        read = by_group.reshape(w.shape)
        silent = ~read.any(axis=(1, 2, 3))
        labels = self._channels(x) if not op.planar else np.full(1, PINNED)
        if op.planar:
            pass  # an image: its channels stay
        elif op.group == 1:
            self._labels.need(labels[read.any(axis=(0, 1, 2))])
        elif op.group == x.type.channels:
            self._labels.tie(np.repeat(labels, y.type.channels // op.group), self._of[y].reshape(-1))
        else:  # a channel goes together with those at the same place in the other groups
            self._labels.need(labels[by_group.any(axis=(1, 2, 3)).reshape(-1)])
            for row in (labels, self._of[y]):
                groups = row.reshape(op.group, -1)
                self._labels.tie(groups[1:], np.broadcast_to(groups[0], groups[1:].shape))
        acc = np.zeros((1, y.type.channels), op.accumulator(x.type, w.type).dtype.carrier)
        if isinstance(op.epilogue, Affine):  # a batch norm whose gamma is zero
            silent = silent | (np.broadcast_to(node.input(2).array, silent.shape) == 0)
        made = op.epilogue.apply(acc, *(v.array if v else None for v in node.inputs[2:])) if op.epilogue else acc
        self._constants[y] = _last_axis(np.where(silent, np.asarray(made, np.float64).reshape(-1), np.nan), y)

    # Constants.

    def _evaluated(self, node: Node) -> Array:
        """The constants that an operator makes of its operands': it is evaluated on one element of each label."""
        op, y, arrays = node.op, node.output, list[Array | None]()
        known, fixed = np.ones((1,) * y.type.rank, np.bool_), np.zeros((1,) * y.type.rank, np.bool_)
        shape = self._of[y].shape
        for i, v in enumerate(node.inputs):
            if v is None or (isinstance(op, Lookup) and i):
                arrays.append(None if v is None else v.array)
                continue
            data = v.array if v.is_const else self._known(v)
            if not v.is_const:  # parameters of an epilogue go along with an element each
                data = np.broadcast_to(data, np.broadcast_shapes(data.shape, shape))
            if v.is_const and any(d > 1 == s for d, s in zip(data.shape[::-1], shape[::-1], strict=False)):
                return np.full((1,) * y.type.rank, np.nan)  # another constant where labels are the same
            if not v.is_const:
                known = known & ~np.isnan(data)
            if isinstance(op, Mul | MulRequant):
                zero = 0 if isinstance(op, Mul) else (op.a_zero, op.b_zero)[i]
                fixed = fixed | (data == zero)  # 0 times anything
            arrays.append(data if v.is_const else np.nan_to_num(data).astype(v.type.dtype.carrier))
        with np.errstate(all="ignore"):
            made = np.asarray(op.reference(*arrays)[0], np.float64)
        return np.where(known | fixed, made, np.nan)

    def _pooled(self, node: Node) -> Array:
        """Constants behind a pool or a reduction, which keep 0, and a maximum all."""
        op, x, y = node.op, node.input(0), node.output
        known = self._known(x)
        pools = isinstance(op, MaxPool | AveragePool)
        mixed = known.size != known.shape[-1] if pools else any(known.shape[a] > 1 for a in op.axes)  # type: ignore[attr-defined]  # else a Reduce
        plain = x.type.dtype is y.type.dtype and not (isinstance(op, AveragePool) and len(node.inputs) > 1)
        if mixed or not plain:
            return np.full((1,) * x.type.rank, np.nan)
        return np.where(isinstance(op, MaxPool) | (known == 0), known, np.nan)

    # Labels.

    def _label(self, v: Value) -> Array:
        return self._of.get(v, np.full((1,) * v.type.rank, PINNED))

    def _known(self, v: Value) -> Array:
        return self._constants.get(v, np.full((1,) * v.type.rank, np.nan))

    @staticmethod
    def _last(known: Array | None) -> int:
        return 1 if known is None or not known.ndim else known.shape[-1]

    def _aligned(self, v: Value, y: Value) -> Array:
        a = self._label(v)
        return a.reshape((1,) * (y.type.rank - a.ndim) + a.shape)

    def _pin(self, *values: Value | None) -> None:
        for v in values:
            if v is not None and not v.is_const:
                self._of.setdefault(v, np.full((1,) * v.type.rank, PINNED))
                self._labels.tie(self._of[v], np.full(self._of[v].shape, PINNED))

    def _channels(self, v: Value) -> Array:
        """Labels of the channels: elements of one channel are tied together."""
        a = self._only(v, v.type.rank - 1)
        return np.broadcast_to(a.reshape(-1), (v.type.channels,))

    def _only(self, v: Value, axis: int) -> Array:
        """Labels of v that vary along one axis alone; those that do not are tied."""
        a = self._label(v)
        if a.size != a.shape[axis]:
            rows = np.moveaxis(a, axis, -1).reshape(-1, a.shape[axis])
            self._labels.tie(rows[1:], np.broadcast_to(rows[0], rows[1:].shape))
            a = rows[0].reshape([-1 if i == axis else 1 for i in range(a.ndim)])
            self._of[v] = a
        return a

    def _one_axis(self, v: Value) -> Array:
        """Labels of a matrix that vary along columns or else rows; others are tied, and stay if neither does."""
        a, last = self._label(v), v.type.rank - 1
        if a.shape[-1] == a.shape[-2] == 1 < a.size:
            self._pin(v)
        return self._only(v, last if a.shape[-1] > 1 else last - 1)

    def _along(self, v: Value, axis: int) -> Array:
        """What each row or column of a matrix always is."""
        known = np.moveaxis(self._known(v), axis, -1)
        known = np.broadcast_to(known, (*known.shape[:-1], v.shape[axis])).reshape(-1, v.shape[axis])
        return np.where((known == known[0]).all(axis=0), known[0], np.nan)

    # What stays.

    def _regular(self) -> bool:
        """Whether all values are whole, or lie between whole ones of which one is made of channels of the other; else
        something more is to stay."""
        fine = True
        for labels in self._of.values():
            if not self._live[labels].any():
                self._labels.need(labels.reshape(-1)[:1])  # no value may become empty
                return False
        for node in self._graph.nodes:
            for v in (*node.inputs, *node.outputs):
                if v is not None and v in self._of and not self.is_whole(v) and not self._passes(node, v):
                    self._labels.need(self._of[v])
                    fine = False
        return fine

    def _passes(self, node: Node, v: Value) -> bool:
        if not isinstance(node.op, MOVES):
            return False
        whole = v is node.input(0) and self.is_whole(node.output)
        return not whole or channel_gather(self._graph, node, self.is_whole) is not None


def _last_axis(row: Array, y: Value) -> Array:
    """A row as what is known of y's last axis."""
    return row.reshape((1,) * (y.type.rank - 1) + (-1,))


def _joined(axis: int, parts: list[Value], arrays: list[Array]) -> Array:
    """What is known of a concatenation."""
    shape = np.broadcast_shapes(*(tuple(1 if i == axis else d for i, d in enumerate(a.shape)) for a in arrays))
    whole = [
        np.broadcast_to(a, [p.shape[axis] if i == axis else d for i, d in enumerate(shape)])
        for p, a in zip(parts, arrays, strict=True)
    ]
    return np.concatenate(whole, axis)
