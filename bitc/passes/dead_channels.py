"""Remove channels that no result depends on, through the whole graph.

A channel of a value goes if nothing reads it but convolutions that multiply it with zeros, or that it reaches as the
constant that means 0 there (all weights that make it are zero), and the same holds of all that is tied to it. Other
constants are folded into biases first (`constant_channels`). What then only passes elements on is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bitc.ir.graph import Array, Graph, Node, Value, constant
from bitc.ir.rewrite import dead_code
from bitc.ir.types import Quant, TensorType
from bitc.ops.base import Pointwise
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Reshape
from bitc.ops.pool import MaxPool
from bitc.ops.quantize import Requantize
from bitc.passes.channel_moves import MOVES, channel_gather, is_nothing, narrowed, picked
from bitc.passes.channel_ties import ChannelTies
from bitc.passes.constant_channels import folded
from bitc.passes.context import Context

_NARROWED = (Pointwise, Conv2D, MaxPool, Requantize)
"""Operators whose constant operands broadcast to the output."""


@dataclass(frozen=True)
class DeadChannels:
    lossless = True

    def run(self, graph: Graph, ctx: Context) -> Graph:
        if any(v.type.size == 0 for n in graph.nodes for v in n.outputs):
            return graph
        ties = ChannelTies(graph)
        folds = folded(graph, ties)
        if folds is not graph:
            less = _Narrowing(folds, ChannelTies(folds)).run(ctx)
            if less is not folds:  # else nothing would be gained by another bias
                return less
        return _Narrowing(graph, ties).run(ctx)


class _Narrowing:
    """A graph rebuilt with only what `ties` keep of each value."""

    def __init__(self, graph: Graph, ties: ChannelTies) -> None:
        self._graph, self._ties = graph, ties
        self._keep = {v: ties.kept(v) for n in graph.nodes for v in (*n.inputs, *n.outputs) if v and not v.is_const}
        self._new: dict[Value, Value] = {}
        self._nodes: list[Node] = []

    def run(self, ctx: Context) -> Graph:
        graph = self._graph
        if all(self._ties.is_whole(v) and not self._is_less(v) for v in self._keep):
            return graph
        for node in graph.nodes:
            if isinstance(node.op, Conv2D) and self._is_less(node.output):
                kept, channels = len(self._keep[node.output][-1]), node.output.type.channels
                ctx.notice(f"{node.origin}: {channels - kept} of {channels} channels are dead")
            if all(self._ties.is_whole(v) for v in node.outputs):
                self._node(node)
        outputs = tuple(self._new.get(v, v) for v in graph.outputs)
        return dead_code(replace(graph, nodes=tuple(self._nodes), outputs=outputs))

    def _is_less(self, v: Value) -> bool:
        return tuple(map(len, self._keep[v])) != v.shape

    def _node(self, node: Node) -> None:
        for v in node.outputs:
            if self._is_less(v):
                self._new[v] = Value(v.name, _narrow(v.type, self._keep[v]))
        if isinstance(node.op, MOVES):
            self._move(node)
            return
        op, x = node.op, node.inputs[0] if node.inputs else None
        inputs = tuple(self._operand(node, i, v) if v else None for i, v in enumerate(node.inputs))
        outputs = tuple(self._new.get(v, v) for v in node.outputs)
        if isinstance(op, Conv2D) and op.group > 1 and x in self._keep and op.group == x.type.channels:
            op = replace(op, group=len(self._keep[x][-1]))
        same = op is node.op and inputs == node.inputs and outputs == node.outputs
        self._nodes.append(node if same else replace(node, op=op, inputs=inputs, outputs=outputs))

    def _move(self, node: Node) -> None:
        x, y = node.input(0), node.output
        out = self._new.get(y, y)
        if self._ties.is_whole(x):
            steps = narrowed(node, out, self._keep[x], self._keep[y])
        else:
            found = channel_gather(self._graph, node, self._ties.is_whole)
            assert found is not None, f"{y.name} is made of parts of channels"
            x, channel = found
            where = [np.arange(len(k)) for k in self._keep[x]]
            where[-1] = np.searchsorted(self._keep[x][-1], channel[self._keep[y][-1]])
            steps = [*picked(where, [len(k) for k in self._keep[x]]), (Reshape(out.shape), None)]
        at = self._new.get(x, x)
        for i, (op, index) in enumerate(steps):
            given = (at,) if index is None else (at, constant(f"{y.name}.index", index))
            (made,) = op.infer(*(v.type for v in given))
            last = i == len(steps) - 1
            if is_nothing((op, index), at, made.shape) and not (last and y in self._graph.outputs):
                continue
            step = out if last else Value(f"{y.name}.part", made)
            self._nodes.append(replace(node, op=op, inputs=given, outputs=(step,)))
            at = step
        if at is not out:
            self._new[y] = at

    def _operand(self, node: Node, index: int, v: Value) -> Value:
        """An operand; constants are narrowed to the channels that their node still has."""
        if not v.is_const:
            return self._new.get(v, v)
        data, out = v.array, self._keep[node.output]
        if isinstance(node.op, Conv2D) and index == 1:
            x = node.inputs[0]
            data = _taken(data, [out[-1], *(np.arange(n) for n in data.shape[1:])])
            if x in self._keep and not node.op.planar and (node.op.group == 1 or data.shape[-1] > 1):
                kept = self._keep[x][-1]
                data = data[..., kept[kept < data.shape[-1]]]  # those of the first group, alike in all
        elif isinstance(node.op, _NARROWED):
            data = _taken(data, out[len(out) - data.ndim :] if data.ndim else [])
        if data.shape == v.shape:
            return v
        return constant(v.name, data, replace(v.type, shape=data.shape))


def _taken(data: Array, keep: Sequence[Array]) -> Array:
    """The elements `keep` along each axis on which there are several."""
    for axis, index in enumerate(keep):
        if data.shape[axis] > max(1, len(index)):
            data = np.take(data, index, axis)
    return data


def _narrow(t: TensorType, keep: Sequence[Array]) -> TensorType:
    quant = t.quant
    if quant is not None and not quant.per_tensor:
        scale, offset = (
            tuple(float(p[c]) for c in keep[-1]) if len(p) == t.channels else p for p in (quant.scale, quant.offset)
        )
        quant = Quant(scale, offset)
    return replace(t, shape=tuple(map(len, keep)), quant=quant)
