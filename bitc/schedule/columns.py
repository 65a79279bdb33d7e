"""The columns of a stage in strips: which columns of each value a strip needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from bitc.ir.graph import Graph, Node, Value
from bitc.ir.schedule import Stage, kept
from bitc.ops.movement import Crop
from bitc.schedule.rows import image_inputs, image_size, window

Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Strip:
    """The columns [left, right) of each value that a strip makes or reads."""

    spans: Mapping[Value, Span]

    def width(self, value: Value) -> int:
        left, right = self.spans[value]
        return right - left

    def reads(self, node: Node, index: int) -> Span:
        """The columns of an input that a node reads."""
        return _reads(node, index, self.spans[node.output])


def with_crops(stage: Stage) -> Stage:
    """The stage with a copy of the window's columns wherever a window of several rows of a tensor outside the stage is
    read by strips: to the kernel a window is a dense tensor."""
    if stage.strips == 1:
        return stage
    made = {n.output for n in stage.nodes}
    copies: dict[Value, Value] = {}
    nodes: list[Node] = []
    for n in stage.nodes:
        inputs = list(n.inputs)
        for i in image_inputs(n):
            x = n.input(i)
            if x in made or n.op.strides_over_image or window(n, i, (0, 1), (0, 1)).size[0] == 1:
                continue
            if x not in copies:
                copies[x] = Value(f"{x.name}.window", x.type)
                nodes.append(Node(Crop((x.shape[1], x.shape[2])), (x,), (copies[x],), f"columns of {x.name}"))
            inputs[i] = copies[x]
        nodes.append(replace(n, inputs=tuple(inputs)))
    return replace(stage, nodes=tuple(nodes))


def strips(graph: Graph, stage: Stage) -> list[Strip]:
    """The strips of a stage from left to right."""
    columns = stage.nodes[-1].output.shape[2]
    width = -(-columns // stage.strips)
    return [_strip(graph, stage, (left, min(left + width, columns))) for left in range(0, columns, width)]


def _strip(graph: Graph, stage: Stage, last: Span) -> Strip:
    spans: dict[Value, Span] = {}
    for v in kept(graph, stage):
        spans[v] = (0, v.shape[2])
    spans[stage.nodes[-1].output] = last
    for n in reversed(stage.nodes):
        for i in image_inputs(n):
            x = n.input(i)
            span = _reads(n, i, spans[n.output])
            old = spans.get(x, span)
            spans[x] = min(old[0], span[0]), max(old[1], span[1])
    return Strip(spans)


@lru_cache(maxsize=65536)
def _reads(node: Node, index: int, columns: Span) -> Span:
    """The columns of an input that some columns of the output are made of; all for all, also those never read."""
    size = image_size(node, index)
    box = window(node, index, (0, 1), columns).inside(size)
    return (0, size[1]) if columns == (0, node.output.shape[2]) else (box.left, box.right)


def why_not_strips(graph: Graph, stage: Stage) -> str:
    """Why a stage can not be cut into its strips; empty if it can."""
    if stage.strips == 1:
        return ""
    if kept(graph, stage) != (stage.nodes[-1].output,):
        return "more than its last value is needed later"
    stage = with_crops(stage)
    made = {n.output for n in stage.nodes}
    for strip in strips(graph, stage):
        for n in stage.nodes:
            for i in image_inputs(n):
                left, right = strip.reads(n, i)
                if left == right:
                    return "a strip lies in the padding alone"
                several = window(n, i, (0, 1), (0, 1)).size[0] > 1
                if several and n.input(i) in made and strip.spans[n.input(i)] != (left, right):
                    return f"windows of {n.input(i).name} differ in their columns"
    return ""
