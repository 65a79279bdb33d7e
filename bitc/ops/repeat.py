"""A graph that runs many times: what Loop and Scan become where they are not unrolled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bitc.ir.graph import Array, Graph, Node, Op, Value
from bitc.ir.types import TensorType

UNBOUNDED = 2**31 - 1
"""Steps of a loop that its condition alone ends."""


@dataclass(frozen=True, repr=False)
class Repeat(Op):
    """`body`, `steps` times.

    Inputs: `states`, which each step hands to the next; `rows`, tensors ``[steps, ...]`` of which each step reads its
    own part; and what is the same in every step. Those are the inputs of the body too, the rows without their first
    axis. The body's outputs are the new states, then what is collected. Outputs: the states after the last step, and
    what was collected as ``[steps, ...]``. `conditional`: the first state is a bool, and no step is made once it is
    false; the parts of the steps that were not made are zeros.
    """

    body: Graph
    steps: int
    states: int
    rows: int
    conditional: bool = False

    def __repr__(self) -> str:
        until = ", while its first state is true" if self.conditional else ""
        return f"Repeat({self.steps} steps of {len(self.body.nodes)} nodes{until})"

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        assert self.steps > 0 and len(types) == len(self.body.inputs) >= self.states + self.rows
        for i, (t, v) in enumerate(zip(types, self.body.inputs, strict=True)):
            part = self.states <= i < self.states + self.rows
            shape = (self.steps, *v.shape) if part else v.shape
            assert t is not None and (t.shape, t.dtype) == (shape, v.type.dtype), f"{t} for {v.type} of {self}"
        kept, parts = self.body.outputs[: self.states], self.body.outputs[self.states :]
        for before, after in zip(self.body.inputs, kept, strict=False):
            assert (before.shape, before.type.dtype) == (after.shape, after.type.dtype), f"state {after} of {self}"
        grown = (TensorType((self.steps, *v.shape), v.type.dtype) for v in parts)
        return (*(TensorType(v.shape, v.type.dtype) for v in kept), *grown)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        given = [np.asarray(a) for a in arrays]
        states, last = given[: self.states], self.states + self.rows
        parts = self.body.outputs[self.states :]
        collected = [np.zeros((self.steps, *v.shape), v.type.dtype.carrier) for v in parts]
        for step in range(self.steps):
            if self.conditional and not states[0].reshape(-1)[0]:
                break
            rows = [a[step] for a in given[self.states : last]]
            results = _evaluated(self.body, [*states, *rows, *given[last:]])
            states = results[: self.states]
            for whole, part in zip(collected, results[self.states :], strict=True):
                whole[step] = part
        return (*states, *collected)


def _evaluated(graph: Graph, inputs: Sequence[Array]) -> list[Array]:
    env: dict[Value, Array] = dict(zip(graph.inputs, inputs, strict=True))
    for node in graph.nodes:
        args = [None if v is None else v.data if v.is_const else env[v] for v in node.inputs]
        env.update(zip(node.outputs, node.op.reference(*args), strict=False))
    return [v.array if v.is_const else np.asarray(env[v]) for v in graph.outputs]


def with_bodies(graph: Graph, change: Callable[[Graph], Graph]) -> Graph:
    """The graph with the bodies of its loops changed; their inputs and outputs must keep their types."""

    def changed(node: Node) -> Node:
        return replace(node, op=replace(node.op, body=change(node.op.body))) if isinstance(node.op, Repeat) else node

    if not any(isinstance(n.op, Repeat) for n in graph.nodes):
        return graph
    return replace(graph, nodes=tuple(map(changed, graph.nodes)))
