"""Nodes that run by blocks of channels: which there are, and their nodes for one block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from bitc.ir.graph import Graph, Node, Value
from bitc.ir.schedule import Blocks
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Concat

SIZE = 32
"""Channels at a time: a multiple of what kernels compute at once."""


def chains(graph: Graph) -> list[tuple[Node, ...]]:
    """Chains from a convolution to its global pool."""
    found = []
    for i, first in enumerate(graph.nodes):
        if not _expands(first) or first.output.type.rows == 1 or not _blockwise(first):
            continue
        nodes, at = [first], i + 1
        while nodes[-1].output.type.rows != 1 and at < len(graph.nodes):
            node, value = graph.nodes[at], nodes[-1].output
            alone = graph.uses(value) == 1 and node in graph.consumers.get(value, ())
            channelwise = _blockwise(node) and not _expands(node)
            if not alone or not channelwise or node.output.type.channels != first.output.type.channels:
                break
            nodes.append(node)
            at += 1
        if nodes[-1].output.type.rows == 1 and nodes[-1].output.type.rank == 4:
            found.append(tuple(nodes))
    return found


def splits(graph: Graph, nodes: Sequence[Node]) -> Mapping[Node, Node]:
    """Convolutions of tensors from outside the nodes that are read by a depthwise one alone, and that: channels of the
    one are channels of the other. (What is made inside would have to be kept whole for the next block.)"""
    found: dict[Node, Node] = {}
    for node in nodes:
        x = node.inputs[0] if node.inputs else None
        first = graph.producers.get(x) if x is not None else None
        if first not in nodes or first is None or not _expands(first) or first in found.values():
            continue
        alone = graph.uses(first.output) == 1 and first.output not in graph.outputs
        depthwise = isinstance(node.op, Conv2D) and node.op.group > 1
        outside = graph.producers.get(first.input(0)) not in nodes
        plain = not first.output.type.dtype.is_packed and not node.output.type.dtype.is_packed
        if alone and outside and depthwise and plain and _on(first, 0, 1) and _on(node, 0, 1):
            found[first] = node
    return found


@lru_cache(maxsize=1024)
def in_blocks(first: Node, reader: Node, size: int) -> tuple[tuple[tuple[Node, Node], ...], Node]:
    """A convolution and the depthwise one that reads it, for `size` channels after the other, and what joins them."""
    channels = reader.output.type.channels
    pairs = []
    for start in range(0, channels, size):
        stop = min(start + size, channels)
        one, other = _on(first, start, stop), _on(reader, start, stop)
        assert one is not None and other is not None
        pairs.append((one, replace(other, inputs=(one.output, *other.inputs[1:]))))
    join = replace(reader, op=Concat(reader.output.type.rank - 1), inputs=tuple(b.output for _, b in pairs))
    return tuple(pairs), join


def _expands(node: Node) -> bool:
    """Whether each output channel is made of all input channels."""
    return isinstance(node.op, Conv2D) and node.op.group == 1


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
