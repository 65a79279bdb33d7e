"""Whether numbers of a few bits lie in memory as bit planes or one to a byte, whichever makes their layers cheaper.

Planes are XOR and popcount per pair of planes, so that bits against bits cost least; bytes are multiplied, so that four
bits against four, or against eight, may cost less. What is moved or pooled between two layers stays in one form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bitc.ir.dtypes import UINT8
from bitc.ir.graph import Graph, Node, Op, Value
from bitc.kernels.layout import assign_layouts
from bitc.kernels.select import Goal, total, weigh
from bitc.ops.epilogue import Levels
from bitc.ops.linear import Conv2D
from bitc.ops.quantize import Requantize
from bitc.target import Target


def choose_few_bits(graph: Graph, target: Target, goal: Goal) -> Graph:
    """The same graph with planes or bytes chosen for every group of tensors that share a form."""
    for names in [{v.name for v in group} for group in _groups(graph)]:
        dense = _as_bytes(graph, names)
        touched = [i for i, n in enumerate(graph.nodes) if any(v is not None and v.name in names for v in _values(n))]
        sides = [total([assign_layouts(g, target).nodes[i] for i in touched], target, goal) for g in (graph, dense)]
        planes, octets = sides
        if planes is None or (octets is not None and weigh([planes, octets], target, goal) is octets):
            graph = dense
    return graph


def _values(node: Node) -> Iterator[Value | None]:
    yield from node.inputs
    yield from node.outputs


def _groups(graph: Graph) -> list[set[Value]]:
    """Tensors of numbers in planes; those that a node reads and writes, other than by computing, are one group."""
    group: dict[Value, set[Value]] = {}
    for node in graph.nodes:
        few = [v for v in _values(node) if v is not None and v.type.dtype.digits]
        ends = {v for v in few if isinstance(node.op, Conv2D | Requantize)}
        for v in few:
            group.setdefault(v, {v})
        joined = [v for v in few if v not in ends]
        if joined:
            merged = set[Value]().union(*(group[v] for v in joined))
            group |= dict.fromkeys(merged, merged)
    distinct: list[set[Value]] = []
    for found in group.values():
        if not any(found is d for d in distinct):
            distinct.append(found)
    return distinct


def _as_bytes(graph: Graph, names: set[str]) -> Graph:
    """The graph with these tensors one number to a byte."""
    table: dict[Value, Value] = {}

    def new(v: Value) -> Value:
        if v.name not in names:
            return v
        if v not in table:
            table[v] = Value(v.name, replace(v.type, dtype=UINT8), v.data, v.origin)
        return table[v]

    nodes = tuple(
        replace(
            n,
            op=_op(n.op) if n.output.name in names else n.op,
            inputs=tuple(None if v is None else new(v) for v in n.inputs),
            outputs=tuple(map(new, n.outputs)),
        )
        for n in graph.nodes
    )
    return Graph(graph.name, tuple(map(new, graph.inputs)), tuple(map(new, graph.outputs)), nodes)


def _op(op: Op) -> Op:
    """The operator with an output of bytes."""
    if isinstance(op, Conv2D | Requantize) and isinstance(op.epilogue, Levels):
        return replace(op, epilogue=replace(op.epilogue, dtype=UINT8))
    return op
