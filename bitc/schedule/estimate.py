"""What a stage needs, without building its kernels: bytes of its line buffers and multiply-accumulates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

from bitc.ir.graph import Graph, Node, Value
from bitc.ir.schedule import Stage
from bitc.ops.linear import AddProducts, Conv2D
from bitc.schedule.columns import Strip, fault, store_bytes, stores, strips
from bitc.schedule.parts import Parts, parts
from bitc.schedule.rows import Make, RowPlan, turns

CALL = 50
"""What a call takes, in multiply-accumulates; copying a byte takes about one."""


@dataclass(frozen=True)
class Estimate:
    """Bytes of line buffers alive at once; multiply-accumulates, those done twice included; and these with what calls
    and copies of kept columns take."""

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
    def alive(self) -> frozenset[frozenset[Value]]:
        return _alive(self.parts, self.plan)

    @cached_property
    def made(self) -> dict[Value, int]:
        """Rows of each value."""
        found = dict.fromkeys((n.output for n in self.parts.nodes), 0)
        for step in self.plan.steps:
            if isinstance(step, Make):
                found[self.parts.nodes[step.node].output] += 1
        return found


class StageEstimates:
    """Estimates of stages of the same nodes."""

    def __init__(self, graph: Graph, nodes: tuple[Node, ...]) -> None:
        self.graph, self.nodes = graph, nodes
        self._rows: dict[tuple[bool, int, frozenset[Value]], _Rows] = {}

    def of(self, stage: Stage) -> Estimate | None:
        """The estimate for a stage of the nodes; None if it is not possible."""
        running, rows = self._running(stage)
        found = strips(running)
        if fault(running, found):
            return None
        most = total = extra = 0
        for strip in found:
            pixels = {v: strip.width(v) * (v.type.nbytes // v.type.rows) for v in strip.spans}
            size = {v: count * pixels[v] for v, count in rows.plan.capacity.items()}
            most = max(most, max((sum(size[v] for v in alive) for alive in rows.alive), default=0))
            total += sum(rows.made[n.output] * strip.making(n.output) * per_pixel(n) for n in running.nodes)
            for y in (n.output for n in running.nodes if strip.width(n.output)):
                kept = strip.kept(y)
                extra += rows.made[y] * (CALL + (2 * CALL + 2 * kept * (y.type.nbytes // y.type.rows) if kept else 0))
        most += sum(store_bytes(v, columns) for v, columns in stores(running, found).items())
        return Estimate(most, total, total + extra)

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


def _alive(running: Parts, plan: RowPlan) -> frozenset[frozenset[Value]]:
    """The sets of line buffers that hold something at the same time, while a row is made."""
    last: dict[tuple[Value, int], int] = {}
    version: dict[Value, int] = {}
    touched: list[list[tuple[Value, int]]] = []
    for step in plan.steps:
        if not isinstance(step, Make):
            touched.append([])
            continue
        node = running.nodes[step.node]
        y = node.output
        if step.fresh:
            version[y] = version.get(y, 0) + 1
        values = [y, *(x for x, r in zip(node.inputs, step.reads, strict=True) if x is not None and r is not None)]
        touched.append([(v, version[v]) for v in values if v in plan.capacity])
    for at, keys in enumerate(touched):
        last |= dict.fromkeys(keys, at)
    alive: set[tuple[Value, int]] = set()
    found: set[frozenset[Value]] = set()
    for at, keys in enumerate(touched):
        if not alive.issuperset(keys):
            alive.update(keys)
            found.add(frozenset(v for v, _ in alive))
        alive.difference_update(k for k in keys if last[k] == at)
    return frozenset(found)
