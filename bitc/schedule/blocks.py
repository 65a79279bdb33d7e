"""Chains that run by blocks of channels: which there are, and their nodes for one block."""

from __future__ import annotations

from dataclasses import replace

from bitc.ir.graph import Graph, Node, Value
from bitc.ir.schedule import Blocks
from bitc.ops.linear import Conv2D

SIZE = 32
"""Channels at a time: a multiple of what kernels compute at once."""


def chains(graph: Graph) -> list[tuple[Node, ...]]:
    """Chains from a convolution to its global pool."""
    found = []
    for i, first in enumerate(graph.nodes):
        if not isinstance(first.op, Conv2D) or first.output.type.rows == 1 or not _blockwise(first):
            continue
        nodes, at = [first], i + 1
        while nodes[-1].output.type.rows != 1 and at < len(graph.nodes):
            node, value = graph.nodes[at], nodes[-1].output
            alone = graph.uses(value) == 1 and node in graph.consumers.get(value, ())
            if not alone or not _blockwise(node) or node.output.type.channels != first.output.type.channels:
                break
            nodes.append(node)
            at += 1
        if nodes[-1].output.type.rows == 1 and nodes[-1].output.type.rank == 4:
            found.append(tuple(nodes))
    return found


def _blockwise(node: Node) -> bool:
    y = node.output
    computed = [v for v in node.inputs if v is not None and not v.is_const]
    return (
        len(node.outputs) == len(computed) == 1
        and not y.type.dtype.is_packed
        and y.type.channels % SIZE == 0
        and _on(node, 0, SIZE) is not None
    )


def _on(node: Node, start: int, stop: int) -> Node | None:
    constants = [v.array if v is not None and v.is_const else None for v in node.inputs]
    part = node.op.on_channels(start, stop, node.output.type.channels, constants)
    if part is None:
        return None
    inputs: list[Value | None] = []
    for v, array in zip(node.inputs, part.constants, strict=True):
        if v is None:
            inputs.append(None)
        elif array is not None:
            inputs.append(v if array is v.array else Value(v.name, v.type.with_shape(array.shape), array))
        elif part.all_inputs:
            inputs.append(v)
        else:
            inputs.append(Value(v.name, v.type.with_shape((*v.shape[:-1], stop - start))))
    y = node.output
    output = Value(y.name, y.type.with_shape((*y.shape[:-1], stop - start)))
    return replace(node, op=part.op, inputs=tuple(inputs), outputs=(output,))


def block_nodes(blocks: Blocks, start: int) -> list[Node]:
    """The nodes for channels `start` and on, each reading the one before."""
    nodes: list[Node] = []
    for node in blocks.nodes:
        part = _on(node, start, start + blocks.size)
        assert part is not None
        if nodes:
            inputs = tuple(nodes[-1].output if v is not None and not v.is_const else v for v in part.inputs)
            part = replace(part, inputs=inputs)
        nodes.append(part)
    return nodes
