"""What a stage needs, without building its kernels: bytes of its line buffers and multiply-accumulates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bitc.ir.graph import Graph, Node, Value
from bitc.ir.schedule import Stage
from bitc.ops.linear import Conv2D
from bitc.schedule.columns import strips, why_not_strips, with_crops
from bitc.schedule.rows import Make, RowPlan, plan_rows


@dataclass(frozen=True)
class Estimate:
    """Bytes of line buffers alive at once, and multiply-accumulates, those done twice included."""

    bytes: int
    macs: int


class StageEstimates:
    """Estimates of one stage for any number of strips."""

    def __init__(self, graph: Graph, nodes: tuple[Node, ...]) -> None:
        self.graph, self.nodes = graph, nodes
        self._plans: dict[bool, tuple[Stage, RowPlan, frozenset[frozenset[Value]], dict[Value, int]]] = {}

    def strips(self, count: int) -> Estimate | None:
        """The estimate for so many strips; None if they are not possible."""
        if why_not_strips(self.graph, Stage(self.nodes, count)):
            return None
        stage, plan, together, made = self._plan(count)
        most = total = 0
        for strip in strips(self.graph, stage):
            width = {v: strip.width(v) for v in strip.spans}
            size = {v: rows * width[v] * (v.type.nbytes // v.type.rows) for v, rows in plan.capacity.items()}
            most = max(most, max((sum(size[v] for v in alive) for alive in together), default=0))
            total += sum(made[n.output] * width[n.output] * per_pixel(n) for n in stage.nodes)
        return Estimate(most, total)

    def _plan(self, count: int) -> tuple[Stage, RowPlan, frozenset[frozenset[Value]], dict[Value, int]]:
        key = count > 1  # strips only add the copies of what they read
        if key not in self._plans:
            stage = with_crops(Stage(self.nodes, count))
            plan = plan_rows(self.graph, stage)
            made = dict.fromkeys((n.output for n in stage.nodes), 0)
            for step in plan.steps:
                if isinstance(step, Make):
                    made[stage.nodes[step.node].output] += 1
            self._plans[key] = stage, plan, _alive(stage, plan), made
        stage, plan, alive, rows = self._plans[key]
        return Stage(stage.nodes, count), plan, alive, rows


def per_pixel(node: Node) -> int:
    """Multiply-accumulates of one pixel of a node's output."""
    op = node.op
    return op.macs(node.input(0).type, node.input(1).type) // node.output.type.rows if isinstance(op, Conv2D) else 0


def macs(nodes: Iterable[Node]) -> int:
    """Multiply-accumulates of nodes that run once."""
    return sum(per_pixel(n) * n.output.type.rows for n in nodes)


def _alive(stage: Stage, plan: RowPlan) -> frozenset[frozenset[Value]]:
    """The sets of line buffers that hold something at the same time, while a row is made."""
    last: dict[tuple[Value, int], int] = {}
    version: dict[Value, int] = {}
    touched: list[list[tuple[Value, int]]] = []
    for step in plan.steps:
        if not isinstance(step, Make):
            touched.append([])
            continue
        node = stage.nodes[step.node]
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
