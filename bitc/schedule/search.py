"""The schedules worth having: the least memory for each amount of extra work.

A graph is cut where few bytes cross. Between two cuts the layers run one by one, or as one stage with any number of
strips; which cuts and stages give the best pairs of memory and work is found by dynamic programming over the cuts,
on estimates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bitc.ir.graph import Graph, Value
from bitc.ir.schedule import Blocks, Stage
from bitc.ops.movement import Reshape
from bitc.schedule.blocks import SIZE, chains, splits
from bitc.schedule.estimate import StageEstimates, macs
from bitc.schedule.overlay import operands, overwritten
from bitc.schedule.rows import reads_own_pixels, why_not
from bitc.schedule.streaming import downstream

STRIPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24)
"""Numbers of strips that are tried."""
BLOCKS = (16,)
"""Sizes of blocks of channels that are tried."""
MOST = 64
"""Partial schedules kept per cut."""
NO_WORK = 1 << 62


@dataclass(frozen=True)
class Point:
    """A schedule: bytes of the arena, as estimated, multiply-accumulates, and these with what calls and copies take."""

    bytes: int
    macs: int
    work: int
    stages: tuple[Stage | Blocks, ...]


Cost = Callable[[Point], int]


def by_macs(point: Point) -> int:
    """Multiply-accumulates."""
    return point.macs


def by_work(point: Point) -> int:
    """Multiply-accumulates, calls and copies."""
    return point.work


def candidates(graph: Graph, cost: Cost = by_macs) -> list[Point]:
    """Schedules of which none needs less memory at no higher cost than another, the least cost first."""
    graph = downstream(graph)
    cuts = _cuts(graph)
    live = _Live(graph)
    ok = [not why_not(n) for n in graph.nodes]
    blocks = [Blocks(nodes, SIZE) for nodes in chains(graph)]
    inside = {i for b in blocks for i in range(graph.nodes.index(b.nodes[0]) + 1, graph.nodes.index(b.nodes[-1]) + 1)}
    cuts = [c for c in cuts if c not in inside]
    best: dict[int, list[Point]] = {0: [Point(0, 0, 0, ())]}
    for k, stop in enumerate(cuts[1:], 1):
        found: list[Point] = []
        for start in cuts[:k]:
            for option in _options(graph, live, ok, blocks, start, stop, start == cuts[k - 1]):
                found += [
                    Point(
                        max(p.bytes, option.bytes),
                        p.macs + option.macs,
                        p.work + option.work,
                        p.stages + option.stages,
                    )
                    for p in best[start]
                ]
        best[stop] = pareto(found, cost)
    return best[cuts[-1]]


def pareto(points: Iterable[Point], cost: Cost) -> list[Point]:
    """Those of which no other is better in one and as good in the other, at most `MOST`, the least cost first."""
    kept: list[Point] = []
    for p in sorted(points, key=lambda p: (cost(p), p.bytes, p.work, len(p.stages))):
        if not kept or p.bytes < kept[-1].bytes:
            kept.append(p)
    if len(kept) <= MOST:
        return kept
    step = (len(kept) - 1) / (MOST - 1)
    return [kept[round(i * step)] for i in range(MOST)]


def _options(
    graph: Graph, live: _Live, ok: Sequence[bool], blocks: Sequence[Blocks], start: int, stop: int, adjacent: bool
) -> list[Point]:
    """How nodes [start, stop) may run; one after the other only if no cut is between."""
    nodes = graph.nodes[start:stop]
    found = []
    if adjacent:
        work, stages, sizes = macs(nodes), tuple(b for b in blocks if b.nodes[0] in nodes), dict[Value, int]()
        found.append(Point(live.one_by_one(start, stop, sizes), work, work, ()))
        for b in stages:
            channels = b.nodes[0].output.type.channels
            sizes |= {n.output: n.output.type.nbytes * b.size // channels for n in b.nodes[:-1]}
        if stages:
            found.append(Point(live.one_by_one(start, stop, sizes), work, work, stages))
    if not all(ok[start:stop]) or len(nodes) < 2 or reads_own_pixels(nodes):
        return found
    estimates = StageEstimates(graph, tuple(nodes))
    around = live.around(start, stop)
    for stage in _stages(graph, estimates, adjacent):
        estimate = estimates.of(stage)
        if estimate is not None:
            taken = nodes[-1].output.type.nbytes if overwritten(graph, stage) else 0
            found.append(Point(around - taken + estimate.bytes, estimate.macs, estimate.work, (stage,)))
    return found


def _stages(graph: Graph, estimates: StageEstimates, short: bool) -> Iterator[Stage]:
    """The ways to run nodes as a stage that are tried; `short`: there is no cut between them."""
    nodes = estimates.nodes
    width = nodes[-1].output.shape[2]
    operand = frozenset(operands(graph, nodes)[:1])
    wide = [n.output.type.channels for n in splits(graph, nodes)] if short else []
    blocks = (0, *(size for size in BLOCKS if max(wide, default=0) > size))
    for count in sorted({-(-width // -(-width // count)) for count in (*STRIPS, width) if count <= width}):
        for block in blocks:
            stage = Stage(nodes, count, block=block)
            yield stage
            if count == 1:
                continue
            if operand:
                yield replace(stage, keep=operand)
            halos = estimates.halos(stage)
            if halos:
                yield replace(stage, keep=frozenset(halos))


class _Live:
    """Which bytes of the arena are in use around a range of nodes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        owner: dict[Value, Value] = {}
        self.first: dict[Value, int] = {}
        self.last: dict[Value, int] = {}
        for i, n in enumerate(graph.nodes):
            for v in n.outputs:
                view = isinstance(n.op, Reshape) and n.inputs[0] is not None
                owner[v] = owner.get(n.input(0), n.input(0)) if view else v
                self.first.setdefault(owner[v], i)
            for x in n.inputs:
                if x is not None and owner.get(x) in self.first:
                    self.last[owner[x]] = i
        outside = {owner.get(v, v) for v in graph.outputs} | set(graph.inputs)
        self.values = [v for v in self.first if v not in outside and v in self.last and v not in graph.inputs]

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


def _cuts(graph: Graph) -> list[int]:
    """Places between nodes where a stage may start or stop: where the bytes that cross are no more than at both
    neighbouring places."""
    live, count = _Live(graph), len(graph.nodes)
    crossing = [sum(v.type.nbytes for v in live.crossing(i)) for i in range(count + 1)]
    inner = [
        i
        for i in range(1, count)
        if crossing[i] <= min(crossing[i - 1] or NO_WORK, crossing[i + 1] or NO_WORK) and len(live.crossing(i)) <= 1
    ]
    return [0, *inner, count]
