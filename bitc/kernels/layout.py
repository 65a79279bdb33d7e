"""Which words packed tensors use."""

from __future__ import annotations

from dataclasses import replace

from bitc.ir.graph import Graph, Node, Value
from bitc.ir.types import Layout, TensorType
from bitc.target import Target

MAX_WASTE = 0.05
"""Share of padding bits that a wider word may cost."""


def word_for(channels: int, word_bits: int) -> int:
    """The widest word that pads a row of `channels` bits by at most 5 %; narrow words for short rows."""
    for word in (64, 32, 16, 8):
        padded = -(-channels // word) * word
        if word <= word_bits and padded - channels <= MAX_WASTE * channels:
            return word
    if channels > 16:
        return min(32, word_bits)
    return 16 if channels > 8 else 8


def with_layout(t: TensorType, target: Target) -> TensorType:
    """`t` with its words chosen if it is of a packed type."""
    return replace(t, layout=Layout(word_for(t.channels, target.word_bits))) if t.dtype.is_packed else t


def assign_layouts(graph: Graph, target: Target) -> Graph:
    """The same graph with a layout on every packed value. The word depends on the length of a row alone, so producers
    and consumers agree; a `Reshape` that changes rows becomes a repacking kernel."""
    table: dict[Value, Value] = {}

    def new(v: Value) -> Value:
        if v not in table:
            table[v] = Value(v.name, with_layout(v.type, target), v.data, v.origin)
        return table[v]

    def convert(n: Node) -> Node:
        return replace(
            n, inputs=tuple(None if v is None else new(v) for v in n.inputs), outputs=tuple(new(v) for v in n.outputs)
        )

    nodes = tuple(convert(n) for n in graph.nodes)
    return Graph(graph.name, tuple(map(new, graph.inputs)), tuple(map(new, graph.outputs)), nodes)
