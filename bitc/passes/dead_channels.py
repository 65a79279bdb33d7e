"""Remove channels that no result depends on, through the whole graph.

A channel of a value goes if nothing reads it but convolutions that multiply it with zeros, or that it reaches as the
constant that means 0 there (all weights that make it are zero), and the same holds of all that is tied to it. Other
constants are folded into biases first (`constant_channels`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bitc.ir.graph import Array, Graph, Node, Value
from bitc.ir.types import Quant, TensorType
from bitc.ops.base import Pointwise
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Reshape
from bitc.ops.pool import MaxPool
from bitc.ops.quantize import Requantize
from bitc.passes.channel_ties import ChannelTies
from bitc.passes.constant_channels import folded
from bitc.passes.context import Context

_NARROWED = (Pointwise, Conv2D, MaxPool, Requantize)
"""Operators whose constant operands have one element per channel on their last axis, or one for all."""


@dataclass(frozen=True)
class DeadChannels:
    lossless = True

    def run(self, graph: Graph, ctx: Context) -> Graph:
        ties = ChannelTies(graph)
        folds = folded(graph, ties)
        if folds is not graph:
            less = self._removed(folds, ChannelTies(folds), ctx)
            if less is not folds:  # else nothing would be gained by another bias
                return less
        return self._removed(graph, ties, ctx)

    @staticmethod
    def _removed(graph: Graph, ties: ChannelTies, ctx: Context) -> Graph:
        keep = {v: ties.kept(v) for v in ties.start}
        removed = {v: v.type.channels - len(k) for v, k in keep.items() if len(k) < v.type.channels}
        for node in graph.nodes:
            if isinstance(node.op, Conv2D) and node.output in removed:
                ctx.notice(f"{node.origin}: {removed[node.output]} of {node.output.type.channels} channels are dead")
        return _rebuilt(graph, {v: keep[v] for v in removed}) if removed else graph


def _rebuilt(graph: Graph, keep: dict[Value, Array]) -> Graph:
    """The graph with only the channels `keep` of each value in it."""
    new: dict[Value, Value] = {}
    nodes = []
    for node in graph.nodes:
        for v in node.outputs:
            if v in keep:
                new[v] = Value(v.name, _narrow(v.type, keep[v]))
        inputs = tuple(_operand(node, i, new.get(v, v), keep) if v else None for i, v in enumerate(node.inputs))
        outputs = tuple(new.get(v, v) for v in node.outputs)
        op = node.op
        x = node.inputs[0] if node.inputs else None
        if isinstance(op, Conv2D) and op.group > 1 and x in keep and op.group == x.type.channels:
            op = replace(op, group=len(keep[x]))
        elif isinstance(op, Reshape):
            op = Reshape(outputs[0].shape)
        nodes.append(replace(node, op=op, inputs=inputs, outputs=outputs))
    return replace(graph, nodes=tuple(nodes))


def _operand(node: Node, index: int, v: Value, keep: dict[Value, Array]) -> Value:
    """An operand; constants are narrowed to the channels that their node still has."""
    if not v.is_const:
        return v
    out = keep.get(node.output)
    data = v.array
    if isinstance(node.op, Conv2D) and index == 1:
        x = node.inputs[0]
        if out is not None:
            data = data[out]
        if x in keep and (node.op.group == 1 or data.shape[-1] > 1):
            data = data[..., keep[x][keep[x] < data.shape[-1]]]  # those of the first group, alike in all
    elif out is not None and isinstance(node.op, _NARROWED) and v.type.channels == node.output.type.channels > 1:
        data = data[..., out]
    if data is v.array:
        return v
    data = np.ascontiguousarray(data)
    data.flags.writeable = False
    return Value(v.name, replace(v.type, shape=data.shape), data)


def _narrow(t: TensorType, keep: Array) -> TensorType:
    quant = t.quant
    if quant is not None and not quant.per_tensor:
        scale, offset = (tuple(float(p[c]) for c in keep) if len(p) > 1 else p for p in (quant.scale, quant.offset))
        quant = Quant(scale, offset)
    return replace(t, shape=(*t.shape[:-1], len(keep)), quant=quant)
