"""Which channels of a graph depend on each other.

Operators that keep channels apart (pools, elementwise, depthwise) tie the channels of their operands together: what is
tied goes together or stays. That is the dependency analysis of structured pruning (Fang et al., DepGraph, 2023; Chen
et al., OTOv3, 2023); a convolution is where ties end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitc.ir.graph import Array, Graph, Node, Value
from bitc.ops.base import Pointwise
from bitc.ops.epilogue import Affine
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Concat, Reshape
from bitc.ops.pool import AveragePool, MaxPool
from bitc.ops.quantize import Requantize
from bitc.ops.quantized import Lookup
from bitc.ops.reduce import Reduce

_PER_CHANNEL = (Pointwise, MaxPool, AveragePool, Requantize, Reduce, Lookup)


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that stay or go together: the (ONNX node, output channel) pairs that make them, and the nodes of the
    convolutions that read them."""

    made_by: tuple[tuple[str, int], ...]
    read_by: frozenset[str]


class ChannelTies:
    """Channels of all computed values as one row of elements, tied by union-find."""

    def __init__(self, graph: Graph) -> None:
        computed = [v for n in graph.nodes for v in n.outputs]
        ends = np.cumsum([0, *(v.type.channels for v in computed)])
        self.start = {v: int(e) for v, e in zip(computed, ends[:-1], strict=True)}
        self._parent = np.arange(int(ends[-1]))
        self._needed = np.zeros(int(ends[-1]), np.bool_)
        self._pinned = np.zeros(int(ends[-1]), np.bool_)
        self._graph = graph
        self._constants: dict[Value, Array] = {}  # what a channel always is, NaN where it varies
        for v in graph.outputs:
            self._pin(v)
        for node in graph.nodes:
            self._node(node)
        self._live = np.zeros(len(self._needed), np.bool_)
        self._live[[self._root(int(i)) for i in np.flatnonzero(self._needed | self._pinned)]] = True
        for v, start in self.start.items():
            if not any(self._live[self._root(start + c)] for c in range(v.type.channels)):
                self._live[self._root(start)] = True  # no value may become empty

    def constant(self, v: Value) -> Array:
        """What each channel of v always is; NaN where it varies or is not known."""
        return self._constant(v)

    def kept(self, v: Value) -> Array:
        """Indices of the channels of v that stay."""
        start = self.start[v]
        return np.asarray([c for c in range(v.type.channels) if self._live[self._root(start + c)]])

    def groups(self) -> list[ChannelGroup]:
        """Groups of channels that could go: no graph input or output, and no operator that mixes channels, holds
        them."""
        pinned = {self._root(int(i)) for i in np.flatnonzero(self._pinned)}
        made: dict[int, list[tuple[str, int]]] = {}
        read: dict[int, set[str]] = {}
        for node in self._graph.nodes:
            if not isinstance(node.op, Conv2D):
                continue
            for c in range(node.output.type.channels):
                made.setdefault(self._root(self.start[node.output] + c), []).append((node.origin, c))
            x = node.input(0)
            if x in self.start and (node.op.group == 1 or node.op.group < x.type.channels):
                for c in range(x.type.channels):
                    read.setdefault(self._root(self.start[x] + c), set()).add(node.origin)
        return [ChannelGroup(tuple(m), frozenset(read.get(r, ()))) for r, m in made.items() if r not in pinned]

    def _node(self, node: Node) -> None:
        op, y = node.op, node.output
        x = node.inputs[0] if node.inputs else None
        if isinstance(op, Conv2D):
            self._convolution(op, node)
        elif isinstance(op, Concat) and op.axis == y.type.rank - 1:
            at = 0
            for part in node.inputs:
                assert part is not None
                self._tie(part, y, np.arange(part.type.channels), at)
                at += part.type.channels
            self._constants[y] = np.concatenate([self._constant(p) for p in node.inputs if p is not None])
        elif isinstance(op, Reshape) and x is not None and y.type.channels % x.type.channels == 0:
            source = np.arange(y.type.channels) % x.type.channels
            self._tie(x, y, source)
            self._constants[y] = self._constant(x)[source]
        elif isinstance(op, _PER_CHANNEL) and self._keeps_channels(node):
            for v in node.inputs:
                if v is not None and not v.is_const:
                    self._tie(v, y, np.arange(y.type.channels))
            self._constants[y] = self._evaluated(node)
        else:
            for v in (*node.inputs, *node.outputs):
                self._pin(v)

    def _keeps_channels(self, node: Node) -> bool:
        channels = node.output.type.channels
        if isinstance(node.op, Reduce) and node.input(0).type.rank - 1 in node.op.axes:
            return False
        operands = [v for v in node.inputs[: 1 if isinstance(node.op, Lookup | AveragePool) else None] if v is not None]
        return all(
            v.type.channels == channels if not v.is_const else v.type.channels in (1, channels) for v in operands
        )

    def _convolution(self, op: Conv2D, node: Node) -> None:
        x, w, y = node.input(0), node.input(1), node.output
        packed = not w.is_const or x.type.dtype.is_packed or w.type.dtype.is_packed
        if packed or op.planar:
            for v in (x, w, y) if packed or op.group > 1 else (x,):
                self._pin(v)
            if not w.is_const or w.type.dtype.is_packed:
                return
        silent_x = self._constant(x) == op.x_zero if not op.planar else np.zeros(op.pixels(x.type).channels, np.bool_)
        by_group = (w.array != 0).reshape(op.group, -1, *w.shape[1:])  # [G, O / G, kh, kw, C / G]
        by_group &= ~silent_x.reshape(op.group, 1, 1, 1, -1)
        read = by_group.reshape(w.shape)
        silent = ~read.any(axis=(1, 2, 3))
        if op.planar:
            pass  # an image: its channels stay
        elif op.group == 1:
            self._need(x, read.any(axis=(0, 1, 2)))
        elif op.group == x.type.channels:
            self._tie(x, y, np.arange(y.type.channels) // (y.type.channels // op.group))
        else:  # a channel goes together with those at the same place in the other groups
            self._need(x, by_group.any(axis=(1, 2, 3)).reshape(-1))
            self._across(x, op.group)
            self._across(y, op.group)
        acc = np.zeros((1, y.type.channels), op.accumulator(x.type, w.type).dtype.carrier)
        if isinstance(op.epilogue, Affine):  # a batch norm whose gamma is zero
            silent = silent | (np.broadcast_to(node.input(2).array, silent.shape) == 0)
        made = op.epilogue.apply(acc, *(v.array if v else None for v in node.inputs[2:])) if op.epilogue else acc
        self._constants[y] = np.where(silent, np.asarray(made, np.float64).reshape(-1), np.nan)

    def _evaluated(self, node: Node) -> Array:
        """The constants that an operator makes of its operands': it is evaluated on one pixel of them."""
        channels = node.output.type.channels
        known, arrays = np.ones(channels, np.bool_), list[Array | None]()
        for v in node.inputs:
            if v is None:
                arrays.append(None)
            elif v.is_const:
                if v.type.size not in (1, v.type.channels):  # another constant at every pixel
                    return np.full(channels, np.nan)
                arrays.append(v.array)
            else:
                values = self._constant(v)
                known &= ~np.isnan(values)
                shape = (1,) * (v.type.rank - 1) + (channels,)
                arrays.append(np.nan_to_num(values).astype(v.type.dtype.carrier).reshape(shape))
        if isinstance(node.op, Reduce | MaxPool | AveragePool):
            same = arrays[0] is not None and node.output.type.dtype is node.input(0).type.dtype
            kept = np.asarray(arrays[0], np.float64).reshape(-1)
            if not same or (isinstance(node.op, AveragePool) and len(node.inputs) > 1):
                return np.full(channels, np.nan)
            return np.where(known & (isinstance(node.op, MaxPool) | (kept == 0)), kept, np.nan)
        made = np.asarray(node.op.reference(*arrays)[0], np.float64).reshape(-1)
        return np.where(known, np.broadcast_to(made, channels), np.nan)

    def _constant(self, v: Value) -> Array:
        return self._constants.get(v, np.full(v.type.channels, np.nan))

    def _pin(self, v: Value | None) -> None:
        if v in self.start:
            self._pinned[self.start[v] + np.arange(v.type.channels)] = True

    def _need(self, v: Value, channels: Array) -> None:
        if v in self.start:
            self._needed[self.start[v] + np.flatnonzero(channels)] = True

    def _tie(self, x: Value, y: Value, source: Array, at: int = 0) -> None:
        """Tie channel ``source[i]`` of x to channel ``at + i`` of y."""
        if x not in self.start:  # an input: its channels stay
            self._pinned[self.start[y] + at + np.arange(len(source))] = True
            return
        for i, c in enumerate(source):
            a, b = self._root(self.start[x] + int(c)), self._root(self.start[y] + at + i)
            self._parent[a] = b

    def _across(self, v: Value, groups: int) -> None:
        """Tie the channels at the same place in all groups."""
        if v in self.start:
            per_group = v.type.channels // groups
            for c in range(per_group, v.type.channels):
                self._parent[self._root(self.start[v] + c)] = self._root(self.start[v] + c % per_group)

    def _root(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = int(self._parent[i])
        return i
