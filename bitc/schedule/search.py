"""The schedules worth having: the least memory for each amount of extra work.

A graph is cut where few bytes cross. Between two cuts the layers run one by one, or as one stage with any number of
strips; which cuts and ways to run give the best pairs of memory and work is found by dynamic programming over the cuts.
That is done on estimates; once a schedule has been lowered, what its parts really need takes their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from bitc.ir.graph import Graph
from bitc.ir.schedule import Blocks, Stage
from bitc.schedule.blocks import SIZE, chains, splits
from bitc.schedule.estimate import StageEstimates
from bitc.schedule.estimate import macs as products
from bitc.schedule.live import Live, cuts
from bitc.schedule.overlay import operands, overwritten
from bitc.schedule.row_costs import RowCosts
from bitc.schedule.rows import reads_own_pixels, why_not
from bitc.schedule.streaming import downstream

STRIPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24)
"""Numbers of strips that are tried."""
BLOCKS = (16,)
"""Sizes of blocks of channels that are tried."""
MOST = 64
"""Partial schedules kept per cut."""


class Costed(Protocol):
    """What can be weighed: bytes of the arena, multiply-accumulates, predicted instructions."""

    @property
    def bytes(self) -> int: ...
    @property
    def macs(self) -> int: ...
    @property
    def work(self) -> int: ...


@dataclass(eq=False)
class Part:
    """Nodes [start, stop) of the graph in one way to run; without stages one by one. `bytes` are estimated until the
    part is lowered."""

    start: int
    stop: int
    stages: tuple[Stage | Blocks, ...]
    bytes: int
    macs: int
    work: int
    known: bool = False


@dataclass(frozen=True)
class Point:
    """A schedule: bytes of the arena, multiply-accumulates, and instructions as predicted."""

    bytes: int
    macs: int
    work: int
    parts: tuple[Part, ...]

    @property
    def stages(self) -> tuple[Stage | Blocks, ...]:
        return tuple(stage for part in self.parts for stage in part.stages)

    def then(self, part: Part) -> Point:
        """This, and then a part."""
        return Point(max(self.bytes, part.bytes), self.macs + part.macs, self.work + part.work, (*self.parts, part))


NOTHING = Point(0, 0, 0, ())
Cost = Callable[[Costed], int]


def by_macs(point: Costed) -> int:
    """Multiply-accumulates."""
    return point.macs


def by_work(point: Costed) -> int:
    """Instructions."""
    return point.work


class Search:
    """The schedules of a graph. `layers`: bytes of the arena while a value is made by a node that runs by itself, by
    the value's name, where this is known. `inputs_inside`: the inputs lie in the arena."""

    def __init__(
        self, graph: Graph, costs: RowCosts, layers: Mapping[str, int] | None = None, inputs_inside: bool = False
    ) -> None:
        self.graph, self.costs = downstream(graph), costs
        self.layers = layers or {}
        self.live = Live(self.graph, inputs_inside)
        self.cuts, self._parts = self._found()

    def front(self, cost: Cost = by_macs) -> list[Point]:
        """Schedules of which none needs less memory at no higher cost than another, the least cost first."""
        best: dict[int, list[Point]] = {0: [NOTHING]}
        for stop in self.cuts[1:]:
            found = [p.then(part) for parts in self._ending(stop) for part in pareto(parts, cost)
                     for p in best[part.start]]  # fmt: skip
            best[stop] = pareto(found, cost)
        eased = [self.cheapest(p.bytes, cost) for p in best[self.cuts[-1]]]
        return pareto([p for p in eased if p is not None], cost)

    def cheapest(self, room: int, cost: Cost = by_work) -> Point | None:
        """The least cost of all that fit in so many bytes; None if nothing does."""
        best: dict[int, Point] = {0: NOTHING}
        for stop in self.cuts[1:]:
            parts = [part for parts in self._ending(stop) for part in parts if part.bytes <= room]
            found = [best[part.start].then(part) for part in parts if part.start in best]
            if found:
                best[stop] = min(found, key=lambda p: (cost(p), p.work, p.macs, len(p.stages), p.bytes))
        return best.get(self.cuts[-1])

    def learn(self, point: Point, bytes_of: Mapping[str, int]) -> None:
        """Take what the parts of a schedule have turned out to need for their estimates: the bytes alive while a value
        is made, by its name."""
        for part in point.parts:
            if part.known:
                continue
            nodes, part.known = self.graph.nodes[part.start : part.stop], True
            part.bytes = max(bytes_of.get(n.outputs[0].name, 0) for n in nodes)

    def avoid(self, point: Point, arena: int) -> None:
        """The schedule as a whole takes so many bytes, since there are gaps: count them for its largest parts."""
        most = max((part.bytes for part in point.parts), default=0)
        for part in point.parts:
            part.bytes = arena if part.bytes == most else part.bytes

    def _ending(self, stop: int) -> Iterable[list[Part]]:
        """The parts that end at a cut, by their start."""
        return self._parts[stop].values()

    def _found(self) -> tuple[list[int], dict[int, dict[int, list[Part]]]]:
        """The cuts, and by where they end and start the parts between them."""
        graph = self.graph
        blocks = [Blocks(nodes, SIZE) for nodes in chains(graph)]
        inside = {i for b in blocks for i in range(graph.nodes.index(b.nodes[0]) + 1,
                                                   graph.nodes.index(b.nodes[-1]) + 1)}  # fmt: skip
        at = [c for c in cuts(graph) if c not in inside]
        ok = [not why_not(n) for n in graph.nodes]
        found: dict[int, dict[int, list[Part]]] = {}
        for k, stop in enumerate(at[1:], 1):
            for start in at[:k]:
                adjacent = start == at[k - 1]
                parts = self._one_by_one(start, stop, blocks) if adjacent else []
                if all(ok[start:stop]) and stop - start > 1 and not reads_own_pixels(graph.nodes[start:stop]):
                    parts += self._as_stage(start, stop, adjacent)
                found.setdefault(stop, {})[start] = parts
        return at, found

    def _one_by_one(self, start: int, stop: int, blocks: Sequence[Blocks]) -> list[Part]:
        """The nodes one after the other, and with those in blocks of channels that can be."""
        nodes = self.graph.nodes[start:stop]
        macs = products(nodes)
        work = round(sum(self.costs.whole(n) for n in nodes))
        known = max((self.layers.get(n.outputs[0].name, 0) for n in nodes), default=0)
        size = known if self.layers else self.live.one_by_one(start, stop, {})
        found = [Part(start, stop, (), size, macs, work)]
        mine = tuple(b for b in blocks if b.nodes[0] in nodes)
        if mine:
            sizes = {n.output: n.output.type.nbytes * b.size // b.nodes[0].output.type.channels
                     for b in mine for n in b.nodes[:-1]}  # fmt: skip
            found.append(Part(start, stop, mine, self.live.one_by_one(start, stop, sizes), macs, work))
        return found

    def _as_stage(self, start: int, stop: int, short: bool) -> Iterator[Part]:
        """The ways to run the nodes as a stage that are tried; `short`: there is no cut between them."""
        nodes = tuple(self.graph.nodes[start:stop])
        estimates = StageEstimates(self.graph, nodes, self.costs)
        around = self.live.around(start, stop)
        for stage in self._stages(estimates, short):
            estimate = estimates.of(stage)
            if estimate is not None:
                taken = nodes[-1].output.type.nbytes if overwritten(self.graph, stage) else 0
                yield Part(start, stop, (stage,), around - taken + estimate.bytes, estimate.macs, estimate.work)

    def _stages(self, estimates: StageEstimates, short: bool) -> Iterator[Stage]:
        nodes = estimates.nodes
        width = nodes[-1].output.shape[2]
        operand = frozenset(operands(self.graph, nodes)[:1])
        wide = [n.output.type.channels for n in splits(self.graph, nodes)] if short else []
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


Weighed = TypeVar("Weighed", bound=Costed)


def pareto(points: Iterable[Weighed], cost: Cost) -> list[Weighed]:
    """Those of which no other is better in one and as good in the other, at most `MOST`, the least cost first."""
    kept: list[Weighed] = []
    for p in sorted(points, key=lambda p: (cost(p), p.bytes, p.work)):
        if not kept or p.bytes < kept[-1].bytes:
            kept.append(p)
    if len(kept) <= MOST:
        return kept
    step = (len(kept) - 1) / (MOST - 1)
    return [kept[round(i * step)] for i in range(MOST)]
