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
from bitc.schedule.rows_first import rows_first
from bitc.schedule.search import Point, by_work, candidates
from bitc.schedule.streaming import by_rows
from bitc.target import Target

STACK = 1024
"""Bytes set aside for the stack while a schedule is chosen: frames are known only after compilation."""
SHOWN = 9
"""Points of a front that are worked out."""
TRIED = 6
"""Schedules that are worked out before the least memory is taken."""
LEAN = 1024
"""Bytes of RAM for which kernels are chosen where memory is what matters."""


@dataclass(frozen=True, eq=False)
class Planned:
    """A schedule with all that follows from it."""

    schedule: Schedule
    selection: Selection
    program: Program
    plan: MemoryPlan

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
        return self.plan.arena_bytes + self.program.given_bytes + outputs + STACK


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
    def _points(self) -> list[Point]:
        """Memory against multiply-accumulates."""
        return candidates(self._by_rows)

    @cached_property
    def _rows_ordered(self) -> Order:
        kept = tuple(i for i, _ in self.states)
        return self._laid_out(by_rows(self.graph, kept) if self.stream else rows_first(self.graph))

    def front(self) -> list[Planned]:
        """Plans of which none needs both less memory and less work than another, least work first."""
        found = [self.by_layers, self._lowered(Schedule(self._by_rows), self._lean)]
        found += [self._at(p, self._lean) for p in thinned([p for p in self._points if p.stages], SHOWN)]
        found.sort(key=lambda p: (p is not self.by_layers, round(p.mac_factor, 4), p.plan.arena_bytes))
        best: list[Planned] = []
        for p in found:
            if all(p.plan.arena_bytes < other.plan.arena_bytes for other in best):
                best.append(p)
        return best

    def choose(self, max_overhead: float | None = None) -> Planned:
        """The least memory within `max_overhead`, a factor of multiply-accumulates, if that is given; else the least
        extra work that fits the target's RAM (of as many multiply-accumulates, the least calls and copies), or the
        least memory if nothing fits. Where the input comes by rows, the least memory without extra work is taken if it
        fits."""
        if max_overhead is not None:
            return self._least_memory(max_overhead)
        best = self._least_memory(1.0) if self.stream else self.by_layers
        limit = self.target.memory.ram
        if limit is None or best.ram_bytes <= limit:
            return best
        room = limit - (best.ram_bytes - best.plan.arena_bytes)
        points = [p for p in (*self._points, *candidates(self._by_rows, by_work)) if p.bytes <= room]
        points.sort(key=lambda p: (p.macs, p.work))
        for point in thinned(points or self._points[-1:], TRIED):
            for kernels in (self._fast, self._lean):
                found = self._at(point, kernels)
                best = min(best, found, key=lambda p: p.plan.arena_bytes)
                if found.ram_bytes <= limit:
                    return found
        return best

    def _least_memory(self, max_overhead: float) -> Planned:
        if max_overhead < 1:
            raise UsageError(f"--max-overhead {max_overhead:g} is below 1", hint="1.25 allows a quarter of extra work")
        most = max_overhead * macs(self._by_rows.nodes)
        allowed = [p for p in self._points if p.macs <= most][-TRIED:]
        found = [self.by_layers, *(self._at(p, self._lean) for p in allowed)]
        return min((p for p in found if p.mac_factor <= max_overhead), key=lambda p: p.plan.arena_bytes)

    def _at(self, point: Point, kernels: _Kernels) -> Planned:
        return self._lowered(Schedule(self._by_rows, point.stages), kernels)

    def _laid_out(self, graph: Graph) -> Order:
        graph = with_bodies(graph, lambda body: self._laid_out(body).graph)
        few = choose_few_bits(graph, self.target, self.goal)  # before layouts: planes are packed, bytes are not
        return best_order(assign_layouts(few, self.target))

    def _lowered(self, schedule: Schedule, kernels: _Kernels) -> Planned:
        graph = schedule.graph
        if graph not in kernels.selections:
            kernels.selections[graph] = select(graph, kernels.target, self.goal, self.without)
        selection = kernels.selections[graph]
        found: list[Planned] = []
        for apart in ways(graph):
            program = lower(schedule, selection, kernels.target, self.states, kernels.rows, self.overwrite_input, apart)
            found.append(Planned(schedule, selection, program, plan_memory(program)))
        return min(found, key=lambda p: p.plan.arena_bytes)


@dataclass(frozen=True, eq=False)
class _Kernels:
    """What was chosen for a target, kept from one schedule to the next."""

    target: Target
    selections: dict[Graph, Selection] = field(default_factory=dict)
    rows: RowCache = field(default_factory=dict)


def thinned(points: Sequence[Point], count: int) -> list[Point]:
    """At most `count` of the points, evenly, the first and the last among them."""
    if len(points) <= count:
        return list(points)
    return [points[round(i * (len(points) - 1) / (count - 1))] for i in range(count)]
