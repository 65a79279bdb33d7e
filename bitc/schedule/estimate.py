"""What a stage needs, without building its kernels: bytes of its line buffers and multiply-accumulates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bitc.ir.graph import Graph, Node, Value
from bitc.ir.schedule import Stage
from bitc.ops.linear import AddProducts, Conv2D
from bitc.ops.movement import Rows
from bitc.schedule.columns import Strip, fault, store_bytes, stores, strips
from bitc.schedule.parts import Parts, parts
from bitc.schedule.row_costs import RowCost, RowCosts
from bitc.schedule.rows import Make, Roll, RowPlan, turns

CALL = 30
"""Instructions around a call of a kernel that only moves bytes."""
ALIGN = 4
"""Bytes to which line buffers are aligned."""
MOVED = 0.7
"""Instructions to move a byte."""


@dataclass(frozen=True)
class Estimate:
    """Bytes of line buffers alive at once, with working memory; multiply-accumulates, those done twice included; and
    instructions, with those that move rows and kept columns."""

    bytes: int
    macs: int
    work: int


@dataclass(frozen=True, eq=False)
class _Rows:
    """What stages of the same nodes have in common, whatever their strips."""

    parts: Parts

    @cached_property
    def plan(self) -> RowPlan:
        return self.parts.rows()

    @cached_property
    def times(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Both ``[times, nodes]``: 1 if the line buffer of a node holds something, and 1 if the node runs then."""
        return _alive(self.parts, self.plan)

    @cached_property
    def made(self) -> dict[Value, int]:
        """Rows of each value."""
        found = dict.fromkeys((n.output for n in self.parts.nodes), 0)
        for step in self.plan.steps:
            if isinstance(step, Make):
                found[self.parts.nodes[step.node].output] += 1
        return found

    @cached_property
    def rolls(self) -> dict[Value, tuple[int, int]]:
        """How often rows of a value are moved to the start of its buffer, and how many in all."""
        found: dict[Value, tuple[int, int]] = {}
        for step in self.plan.steps:
            if isinstance(step, Roll):
                times, moved = found.get(step.value, (0, 0))
                found[step.value] = times + 1, moved + step.rows
        return found


class StageEstimates:
    """Estimates of stages of the same nodes."""

    def __init__(self, graph: Graph, nodes: tuple[Node, ...], costs: RowCosts) -> None:
        self.graph, self.nodes, self.costs = graph, nodes, costs
        self._rows: dict[tuple[bool, int, frozenset[Value]], _Rows] = {}

    def of(self, stage: Stage) -> Estimate | None:
        """The estimate for a stage of the nodes; None if it is not possible."""
        running, rows = self._running(stage)
        found = strips(running)
        if fault(running, found):
            return None
        alike = Counter(
            tuple((strip.width(n.output), strip.making(n.output)) for n in running.nodes) for strip in found
        )
        most = total = 0
        work = 0.0
        for widths, count in alike.items():
            memory, products, instructions = self._strip(running, rows, widths)
            most = max(most, memory)
            total += count * products
            work += count * instructions
        most += sum(store_bytes(v, columns) for v, columns in stores(running, found).items())
        return Estimate(most, total, round(work))

    def _strip(self, running: Parts, rows: _Rows, widths: Sequence[tuple[int, int]]) -> tuple[int, int, float]:
        """Bytes, multiply-accumulates and instructions of a strip that holds so many columns of what each node makes,
        and makes so many of them."""
        size, scratch = np.zeros((2, len(running.nodes)), np.int64)
        total, work = 0, 0.0
        for k, (n, (width, making)) in enumerate(zip(running.nodes, widths, strict=True)):
            y, made = n.output, rows.made[n.output]
            pixel = y.type.nbytes // y.type.rows
            cost = self.costs.of(n, making) if making and made else RowCost(0, 0)
            scratch[k] = cost.scratch
            total += made * making * per_pixel(n)
            work += made * cost.instructions
            kept = width - making
            if kept:
                work += made * 2 * (CALL + MOVED * kept * pixel)
            direct = isinstance(n.op, Rows) and rows.plan.capacity.get(y) == 1  # read where the caller has it
            if y in rows.plan.capacity and not direct:
                size[k] = -(-rows.plan.capacity[y] * width * pixel // ALIGN) * ALIGN
            if width and y in rows.rolls:
                times, moved = rows.rolls[y]
                work += times * CALL + MOVED * moved * width * pixel
        held, makers = rows.times
        memory = held @ size + (makers * scratch).max(axis=1)
        return int(memory.max(initial=0)), total, work

    def halos(self, stage: Stage) -> dict[Value, int]:
        """Values of which strips next to each other need the same columns, and the bytes that keeping them takes."""
        running, _ = self._running(stage)
        found = strips(running)
        common = dict[Value, int]()
        for before, strip in pairwise(found):
            for v in (v for v in strip.made if v not in running.waiting):
                common[v] = max(common.get(v, 0), _common(before, strip, v))
        return {v: store_bytes(v, columns) for v, columns in common.items() if columns}

    def _running(self, stage: Stage) -> tuple[Parts, _Rows]:
        outside = stage.keep - {n.output for n in self.nodes}
        key = stage.strips > 1, stage.block, outside  # what changes the nodes
        if key not in self._rows:
            self._rows[key] = _Rows(parts(self.graph, stage))
        rows = self._rows[key]
        return rows.parts.cut(stage), rows


def _common(before: Strip, strip: Strip, v: Value) -> int:
    """How many columns of a value two strips need."""
    return min(before.spans[v][1], strip.spans[v][1]) - strip.spans[v][0] if before.width(v) and strip.width(v) else 0


@lru_cache(maxsize=65536)
def per_pixel(node: Node) -> int:
    """Multiply-accumulates of one pixel of a node's output, or of one row that it adds up."""
    return macs_of(node) // (turns(node) if isinstance(node.op, AddProducts) else node.output.type.rows)


def macs_of(node: Node) -> int:
    """Multiply-accumulates of a node."""
    op, types = node.op, [v.type for v in node.inputs if v is not None]
    if isinstance(op, AddProducts):
        return op.macs(types[1], types[2])
    return op.macs(types[0], types[1]) if isinstance(op, Conv2D) else 0


def macs(nodes: Iterable[Node]) -> int:
    """Multiply-accumulates of nodes that run once."""
    return sum(macs_of(n) for n in nodes)


def _alive(running: Parts, plan: RowPlan) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which line buffers hold something at the same time, while a row is made, and who makes rows then."""
    last: dict[tuple[Value, int], int] = {}
    version: dict[Value, int] = {}
    touched: list[tuple[int, list[tuple[Value, int]]]] = []
    for step in plan.steps:
        if not isinstance(step, Make):
            continue
        node = running.nodes[step.node]
        y = node.output
        if step.fresh:
            version[y] = version.get(y, 0) + 1
        values = [y, *(x for x, r in zip(node.inputs, step.reads, strict=True) if x is not None and r is not None)]
        touched.append((step.node, [(v, version[v]) for v in values if v in plan.capacity]))
    for at, (_, keys) in enumerate(touched):
        last |= dict.fromkeys(keys, at)
    alive: set[tuple[Value, int]] = set()
    found: dict[frozenset[Value], set[int]] = {}
    held: frozenset[Value] | None = None
    for at, (maker, keys) in enumerate(touched):
        if held is None or not alive.issuperset(keys):
            alive.update(keys)
            held = frozenset(v for v, _ in alive)
        found.setdefault(held, set()).add(maker)
        gone = [k for k in keys if last[k] == at]
        if gone:
            alive.difference_update(gone)
            held = None
    shape = len(found), len(running.nodes)
    held_by = [[n.output in values for n in running.nodes] for values in found]
    making = [[k in makers for k in range(shape[1])] for makers in found.values()]
    return np.array(held_by, np.int64).reshape(shape), np.array(making, np.int64).reshape(shape)
