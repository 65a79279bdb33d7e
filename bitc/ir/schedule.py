"""When and where nodes run: beside the graph, so that the graph keeps its meaning and kernels know nothing of it."""

from __future__ import annotations

from dataclasses import dataclass

from bitc.ir.graph import Graph, Node, Value


@dataclass(frozen=True, eq=False)
class Stage:
    """Consecutive nodes of a graph that run together, row by row: each makes one row of its output as soon as a reader
    asks for it, and keeps as many rows as its readers still need.

    With `strips`, the columns of the last node's output are made in so many strips, one after the other; what two
    strips both need is computed twice, or kept.
    """

    nodes: tuple[Node, ...]
    strips: int = 1
    keep: frozenset[Value] = frozenset()
    """Values of which each strip keeps the columns that the next one needs too: line buffers in both dimensions. Those
    that the stage reads are copied for it, so that its last value can take over their memory."""
    block: int = 0
    """Channels at a time of what convolutions make for depthwise ones; 0: all."""

    def __str__(self) -> str:
        names = f"{self.nodes[0].output.name} .. {self.nodes[-1].output.name}"
        names += f" in {self.strips} strips" if self.strips > 1 else ""
        if self.keep:
            names += f" keeping columns of {len(self.keep)} tensor{'s' if len(self.keep) > 1 else ''}"
        return names + (f" by {self.block} channels" if self.block else "")


@dataclass(frozen=True, eq=False)
class Blocks:
    """A chain of nodes that runs for a few output channels of its first node at a time, up to a value of one pixel:
    a convolution consumed by a global pool. Nothing is computed twice."""

    nodes: tuple[Node, ...]
    size: int
    """Channels at a time."""

    def __str__(self) -> str:
        return f"{self.nodes[0].output.name} .. {self.nodes[-1].output.name} by {self.size} channels"


@dataclass(frozen=True, eq=False)
class Schedule:
    """The order of a graph's nodes (that of the graph), and which of them run as stages."""

    graph: Graph
    stages: tuple[Stage | Blocks, ...] = ()

    def __str__(self) -> str:
        return "; ".join(map(str, self.stages)) or "layer by layer"


def kept(graph: Graph, stage: Stage | Blocks) -> tuple[Value, ...]:
    """Values of a stage that are needed after it: they are stored whole."""
    made = {n.output for n in stage.nodes}
    return tuple(
        v
        for n in stage.nodes
        for v in n.outputs
        if v in graph.outputs or any(c.output not in made for c in graph.consumers.get(v, ()))
    )
