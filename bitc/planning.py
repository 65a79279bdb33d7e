"""Which schedule a model runs by: kernels, calls and memory of each, and the choice among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from bitc.errors import UsageError
from bitc.ir.graph import Graph
from bitc.ir.plan import MemoryPlan
from bitc.ir.program import Program
from bitc.ir.schedule import Schedule
from bitc.kernels import Goal, Selection, assign_layouts, choose_few_bits, select
from bitc.lower import RowCache, lower, ways
from bitc.ops.repeat import with_bodies
from bitc.schedule import Order, best_order, plan_memory
from bitc.schedule.estimate import macs
from bitc.schedule.row_costs import RowCosts
from bitc.schedule.rows_first import rows_first
from bitc.schedule.search import Cost, Point, Search, by_macs, by_work
from bitc.schedule.streaming import by_rows
from bitc.target import Target

__all__ = ["Planned", "Planner", "by_macs", "by_work"]

STACK, STAGES_STACK = 1024, 1536
"""Bytes set aside for the stack while a schedule is chosen, layer by layer and with stages: frames are known only after
compilation."""
SHOWN = 7
"""Points of a front that are worked out: each is lowered and placed, which takes most of the time of a plan."""
TRIED = 8
"""Schedules that are worked out to find one that fits."""
NEAR = 1.05
"""How much more than they really need schedules are estimated to take, at most."""
LEAN = 1024
"""Bytes of RAM for which kernels are chosen where memory is what matters."""


@dataclass(frozen=True, eq=False)
class Planned:
    """A schedule with all that follows from it."""

    schedule: Schedule
    selection: Selection
    program: Program
    plan: MemoryPlan
    work: int
    """Instructions of all layers, or fuel in WebAssembly: roughly where kernels have no price."""

    @property
    def mac_factor(self) -> float:
        """Multiply-accumulates in units of those without anything computed twice."""
        macs = sum(layer.macs for layer in self.program.layers)
        return 1 + sum(layer.recomputed for layer in self.program.layers) / macs if macs else 1.0

    @property
    def predicted(self) -> int | None:
        """Instructions, or fuel in WebAssembly, of the layers that multiply; None if one of them has no prediction."""
        costs = [layer.predicted for layer in self.program.layers if layer.macs]
        return None if None in costs else sum(c for c in costs if c is not None)

    @property
    def ram_bytes(self) -> int:
        """Arena, input and output, and what is set aside for the stack."""
        outputs = sum(b.type.nbytes for b in self.program.outputs)
        stack = STAGES_STACK if self.schedule.stages else STACK
        return self.plan.arena_bytes + self.program.given_bytes + outputs + stack


@dataclass(frozen=True, eq=False)
class Planner:
    """Plans of one model for one target. `states`: pairs of inputs and outputs that stay in the arena.
    `overwrite_input`: whether inputs lie in the arena, where their memory is used again."""

    graph: Graph
    target: Target
    goal: Goal = Goal.BALANCED
    without: tuple[str, ...] = ()
    """Kernel rows that must not be chosen."""
    states: Sequence[tuple[str, str]] = ()
    stream: bool = False
    """Whether the input comes row by row."""
    overwrite_input: bool = False

    @cached_property
    def by_layers(self) -> Planned:
        """The plan without stages."""
        return self._lowered(Schedule(self.ordered.graph), self._fast)

    @cached_property
    def ordered(self) -> Order:
        """The layers in the order in which they run."""
        return self._rows_ordered if self.stream else self._laid_out(self.graph)

    @cached_property
    def _fast(self) -> _Kernels:
        return _Kernels(self.target)

    @cached_property
    def _lean(self) -> _Kernels:
        """Kernels without large tables in RAM."""
        return _Kernels(replace(self.target, memory=replace(self.target.memory, ram=LEAN)))

    @cached_property
    def _by_rows(self) -> Graph:
        return self._rows_ordered.graph

    @cached_property
    def _lean_layers(self) -> Planned:
        """Layer by layer, with as little working memory as possible."""
        return self._lowered(Schedule(self._by_rows), self._lean)

    @cached_property
    def _search(self) -> Search:
        costs = RowCosts(self._lean.target, self._lean_layers.selection)
        layers = _bytes_of(self._lean_layers)
        return Search(self._by_rows, costs, layers, self.overwrite_input)

    @cached_property
    def _rows_ordered(self) -> Order:
        kept = tuple(i for i, _ in self.states)
        return self._laid_out(by_rows(self.graph, kept) if self.stream else rows_first(self.graph))

    def front(self, cost: Cost = by_macs, shown: int = SHOWN) -> list[Planned]:
        """Plans of which none needs both less memory and less work than another, least work first."""
        points = [p for p in self._search.front(cost) if p.stages]
        found = [self.by_layers, self._lean_layers, *(self._at(p, self._lean) for p in thinned(points, shown))]
        found.append(self._least_memory(float("inf"), cost))
        counted = _macs if cost is by_macs else _work
        found.sort(key=lambda p: (p is not self.by_layers, counted(p), p.plan.arena_bytes))
        best: list[Planned] = []
        for p in found:
            if all(p.plan.arena_bytes < other.plan.arena_bytes for other in best):
                best.append(p)
        return best

    def choose(self, max_overhead: float | None = None) -> Planned:
        """The least memory within `max_overhead`, a factor of multiply-accumulates, if that is given; else the fewest
        instructions that fit the target's RAM, or the least memory if nothing fits. Where the input comes by rows, the
        least memory without extra work is taken if it fits."""
        if max_overhead is not None:
            return self._least_memory(max_overhead)
        first = self._least_memory(1.0) if self.stream else self.by_layers
        return first if self.fits(first) else self._fitting(first)

    def fits(self, planned: Planned) -> bool:
        """Whether the target has the RAM."""
        limit = self.target.memory.ram
        return limit is None or planned.ram_bytes <= limit

    def _fitting(self, first: Planned) -> Planned:
        """The fewest instructions that fit. What is tried and does not fit tells what its parts really need."""
        assert self.target.memory.ram is not None
        layers = self._lean_layers
        room = self.target.memory.ram - (layers.ram_bytes - layers.plan.arena_bytes) - (STAGES_STACK - STACK)
        tried = [first, layers]
        for slack in (1.0, NEAR):
            for _ in range(TRIED):
                point = self._search.cheapest(int(room * slack), by_work)
                if point is None:
                    break
                found = self._at(point, self._lean)
                tried.append(found)
                if self.fits(found):
                    faster = self._at(point, self._fast)
                    return faster if self.fits(faster) else found
                if point.bytes <= room:
                    self._search.avoid(point, found.plan.arena_bytes)
        return min([*tried, self._least_memory(float("inf"))], key=lambda p: p.plan.arena_bytes)

    def _least_memory(self, max_overhead: float, cost: Cost = by_macs) -> Planned:
        """The least memory within so many multiply-accumulates; of several ways, that of least cost."""
        if max_overhead < 1:
            raise UsageError(f"--max-overhead {max_overhead:g} is below 1", hint="1.25 allows a quarter of extra work")
        most = max_overhead * macs(self._by_rows.nodes)
        best = min(self.by_layers, self._lean_layers, key=lambda p: p.plan.arena_bytes)
        for _ in range(TRIED):
            point = [p for p in self._search.front(cost) if p.macs <= most][-1]
            if point.bytes >= best.plan.arena_bytes:
                break
            found = self._at(point, self._lean)
            best = min(best, found, key=lambda p: p.plan.arena_bytes)
            if found.plan.arena_bytes > point.bytes:
                self._search.avoid(point, found.plan.arena_bytes)
        return best

    def _at(self, point: Point, kernels: _Kernels) -> Planned:
        """The plan of a point; the search learns what it needs."""
        key = tuple(map(id, point.parts))
        if key not in kernels.planned:
            found = self._lowered(Schedule(self._by_rows, point.stages), kernels, point.work)
            kernels.planned[key] = found
        found = kernels.planned[key]
        if kernels is self._lean:
            self._search.learn(point, _bytes_of(found))
        return found

    def _laid_out(self, graph: Graph) -> Order:
        graph = with_bodies(graph, lambda body: self._laid_out(body).graph)
        few = choose_few_bits(graph, self.target, self.goal)  # before layouts: planes are packed, bytes are not
        return best_order(assign_layouts(few, self.target))

    def _lowered(self, schedule: Schedule, kernels: _Kernels, work: int | None = None) -> Planned:
        graph = schedule.graph
        if graph not in kernels.selections:
            kernels.selections[graph] = select(graph, kernels.target, self.goal, self.without)
        selection = kernels.selections[graph]
        if work is None:
            costs = RowCosts(kernels.target, selection)
            work = round(sum(costs.whole(n) for n in graph.nodes))
        found: list[Planned] = []
        for apart in ways(graph):
            program = lower(schedule, selection, kernels.target, self.states, kernels.rows, self.overwrite_input, apart)
            found.append(Planned(schedule, selection, program, plan_memory(program), work))
        return min(found, key=lambda p: p.plan.arena_bytes)


def _macs(planned: Planned) -> int:
    return sum(layer.macs + layer.recomputed for layer in planned.program.layers)


def _work(planned: Planned) -> int:
    return planned.work


def _bytes_of(planned: Planned) -> dict[str, int]:
    """The most bytes alive, without states, while a value is made, by its name."""
    plan, layers = planned.plan, planned.program.layers
    found: dict[str, int] = {}
    for at, call in enumerate(planned.program.calls):
        name = layers[call.layer].value
        found[name] = max(found.get(name, 0), plan.alive_at(at) - plan.state_bytes)
    return found


@dataclass(frozen=True, eq=False)
class _Kernels:
    """What was chosen for a target, kept from one schedule to the next."""

    target: Target
    selections: dict[Graph, Selection] = field(default_factory=dict)
    rows: RowCache = field(default_factory=dict)
    planned: dict[tuple[int, ...], Planned] = field(default_factory=dict)
    """By the parts of the point."""


def thinned(points: Sequence[Point], count: int) -> list[Point]:
    """At most `count` of the points, evenly, the first and the last among them."""
    if len(points) <= count:
        return list(points)
    return [points[round(i * (len(points) - 1) / (count - 1))] for i in range(count)]
