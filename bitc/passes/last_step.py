"""Of a recurrent layer whose reader wants the last step alone, only that is kept.

    y[T - 1] = h    (y[0] = h of a layer that runs backwards)

Exporters write the whole sequence y and take its last step in many ways. Here the positions of y's elements are sent
through the movement that follows: if those of the last step come out, in their order, h takes its place, and a sequence
that nobody reads any more is not written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bitc.ir.graph import Array, Graph, Node, Value
from bitc.ir.rewrite import Rewriter, rewrite
from bitc.ops.movement import Gather, Reshape, Slice, Transpose
from bitc.ops.recurrent import Recurrent
from bitc.passes.context import Context

_MOVES = (Reshape, Transpose, Slice, Gather)


@dataclass(frozen=True)
class LastStep:
    lossless = True

    def run(self, graph: Graph, ctx: Context) -> Graph:
        if not any(isinstance(n.op, Recurrent) for n in graph.nodes):
            return graph
        positions: dict[Value, tuple[Node, Array]] = {}

        def take(rw: Rewriter, node: Node) -> Value | None:
            if isinstance(node.op, Recurrent) and node.op.sequence and len(node.inputs) > 5 and node.inputs[5] is None:
                y = node.outputs[-1]
                positions[y] = node, np.arange(y.type.size).reshape(y.shape)
            source = node.inputs[0] if node.inputs else None
            if not isinstance(node.op, _MOVES) or source not in positions:
                return None
            layer, before = positions[source]
            rest = [v.array for v in node.inputs[1:] if v is not None and v.is_const]
            if len(rest) < len(node.inputs) - 1:
                return None
            (after,) = node.op.reference(before, *rest)
            positions[node.output] = layer, after
            if not _is_last(layer, after):
                return None
            return rw.emit(Reshape(node.output.shape), layer.outputs[0], at=node.origin)

        return rewrite(rewrite(graph, take), _without_sequence)


def _is_last(layer: Node, positions: Array) -> bool:
    op, steps = layer.op, layer.outputs[-1].shape[0]
    assert isinstance(op, Recurrent)
    size = layer.outputs[0].type.size
    first = 0 if op.reverse else (steps - 1) * size
    return positions.size == size and bool((positions.reshape(-1) == np.arange(first, first + size)).all())


def _without_sequence(rw: Rewriter, node: Node) -> tuple[Value, ...] | None:
    op = node.op
    if not isinstance(op, Recurrent) or not op.sequence or rw.uses(node.outputs[-1]):
        return None
    states = rw.emit_all(replace(op, sequence=False), node.inputs, node.origin)
    return (*states, states[0])
