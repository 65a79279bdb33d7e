"""Which bytes of the arena are in use around a range of nodes, and where a graph may be cut."""

from __future__ import annotations

from collections.abc import Mapping

from bitc.ir.graph import Graph, Value
from bitc.ops.movement import Reshape

EVERYTHING = 1 << 62


class Live:
    """Which bytes of the arena are in use around a range of nodes. `inputs_inside`: inputs of the graph are there."""

    def __init__(self, graph: Graph, inputs_inside: bool = False) -> None:
        self.graph = graph
        owner: dict[Value, Value] = {}
        self.first: dict[Value, int] = {}
        self.last: dict[Value, int] = {}
        if inputs_inside:
            self.first |= dict.fromkeys(graph.inputs, -1)
            owner |= {v: v for v in graph.inputs}
        for i, n in enumerate(graph.nodes):
            for v in n.outputs:
                view = isinstance(n.op, Reshape) and n.inputs[0] is not None
                owner[v] = owner.get(n.input(0), n.input(0)) if view else v
                self.first.setdefault(owner[v], i)
            for x in n.inputs:
                if x is not None and owner.get(x) in self.first:
                    self.last[owner[x]] = i
        outside = {owner.get(v, v) for v in graph.outputs} | (set() if inputs_inside else set(graph.inputs))
        self.values = [v for v in self.first if v not in outside and v in self.last]

    def crossing(self, at: int) -> list[Value]:
        """Values made before node `at` and read from it on."""
        return [v for v in self.values if self.first[v] < at <= self.last[v]]

    def one_by_one(self, start: int, stop: int, sizes: Mapping[Value, int]) -> int:
        """The most bytes in use while the nodes run one after the other; `sizes` of values that are never whole."""
        peak = 0
        for i in range(start, stop):
            used = sum(sizes.get(v, v.type.nbytes) for v in self.values if self.first[v] <= i <= self.last[v])
            peak = max(peak, used)
        return peak

    def around(self, start: int, stop: int) -> int:
        """Bytes of what is made before and read from `start` on, and of what is made in the range and read after it."""
        before = sum(v.type.nbytes for v in self.crossing(start))
        return before + sum(v.type.nbytes for v in self.values if start <= self.first[v] < stop <= self.last[v])


def cuts(graph: Graph) -> list[int]:
    """Places between nodes where a stage may start or stop: where one value at most crosses, of no more bytes than at
    both neighbouring places."""
    live, count = Live(graph), len(graph.nodes)
    crossing = [sum(v.type.nbytes for v in live.crossing(i)) for i in range(count + 1)]
    inner = [
        i
        for i in range(1, count)
        if crossing[i] <= min(crossing[i - 1] or EVERYTHING, crossing[i + 1] or EVERYTHING)
        and len(live.crossing(i)) <= 1
    ]
    return [0, *inner, count]
