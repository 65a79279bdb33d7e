"""Numpy evaluation of a Graph: the oracle. Bit-exact with the generated C for codes and for float layers, since both
follow the same order of operations and round after each one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bitc.ir.graph import Array, Graph, Node, Value

Env = dict[Value, Array]


def evaluate(
    graph: Graph,
    feeds: Mapping[str, Array],
    observe: Callable[[Node, Value, Array], Array] | None = None,
) -> Env:
    """Evaluate every node; returns all values by identity (inputs and results).

    `feeds` maps input names to arrays of the declared shapes. `observe` sees each result as it is computed and returns
    the array to go on with: verification substitutes the reference's bits here.
    """
    env: Env = {}
    for v in graph.inputs:
        env[v] = np.asarray(feeds[v.name]).astype(v.type.dtype.carrier, copy=False).reshape(v.shape)
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            args = [None if v is None else (v.data if v.is_const else env[v]) for v in node.inputs]
            for v, result in zip(node.outputs, node.op.reference(*args), strict=False):
                env[v] = observe(node, v, result) if observe else result
    return env


def run(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Evaluate and return the graph's outputs by name."""
    env = evaluate(graph, feeds)
    return {v.name: v.array if v.is_const else env[v] for v in graph.outputs}
