"""The columns of a stage in strips: which columns of each value a strip needs, and which it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from bitc.ir.graph import Graph, Node, Value
from bitc.ir.schedule import Stage
from bitc.ops.movement import Rows
from bitc.schedule.parts import Parts, parts
from bitc.schedule.rows import image_inputs, image_size, window

Span = tuple[int, int]
NONE: Span = (0, 0)


@dataclass(frozen=True, eq=False)
class Strip:
    """The columns [left, right) of each value that a strip holds, and those of them that it makes; the others, at the
    left, were kept by the strip before."""

    spans: Mapping[Value, Span]
    made: Mapping[Value, Span]

    def width(self, value: Value) -> int:
        left, right = self.spans[value]
        return right - left

    def making(self, value: Value) -> int:
        """How many columns of a value the strip makes."""
        left, right = self.made[value]
        return right - left

    def kept(self, value: Value) -> int:
        """How many columns of a value come from the strip before."""
        return self.width(value) - self.making(value)

    def reads(self, node: Node, index: int) -> Span:
        """The columns of an input that a node reads."""
        return _reads(node, index, self.made[node.output])


def strips(running: Parts) -> list[Strip]:
    """The strips of a stage from left to right."""
    columns = running.nodes[-1].output.shape[2]
    width = -(-columns // running.strips)
    found: list[Strip] = []
    for left in range(0, columns, width):
        last = left, min(left + width, columns)
        found.append(_strip(running, last, found[-1].spans if found else {}))
    return found


def _strip(running: Parts, last: Span, before: Mapping[Value, Span]) -> Strip:
    spans: dict[Value, Span] = {v: (0, v.shape[2]) for v in running.whole}
    spans[running.nodes[-1].output] = last
    made: dict[Value, Span] = {}
    for n in reversed(running.nodes):
        y = n.output
        left, right = spans.setdefault(y, NONE)
        there = before.get(y, NONE)[1] if y in running.keep else 0
        made[y] = min(max(left, there), right), right
        if made[y][0] == right:
            continue
        for i in image_inputs(n):
            x = n.input(i)
            span = _reads(n, i, made[y])
            old = spans.get(x, NONE)
            spans[x] = (min(old[0], span[0]), max(old[1], span[1])) if old != NONE else span
    return Strip(spans, made)


@lru_cache(maxsize=65536)
def _reads(node: Node, index: int, columns: Span) -> Span:
    """The columns of an input that some columns of the output are made of; all for all, also those never read."""
    size = image_size(node, index)
    box = window(node, index, (0, 1), columns).inside(size)
    return (0, size[1]) if columns == (0, node.output.shape[2]) else (box.left, box.right)


def stores(running: Parts, found: Sequence[Strip]) -> dict[Value, int]:
    """How many columns of each value are kept from one strip to the next, at most."""
    most = {v: max(strip.kept(v) for strip in found) for v in running.keep if v in found[0].made}
    return {v: columns for v, columns in most.items() if columns}


def store_bytes(value: Value, columns: int) -> int:
    """Bytes of so many columns of all rows of a value."""
    return value.shape[1] * columns * (value.type.nbytes // value.type.rows)


def why_not_strips(graph: Graph, stage: Stage) -> str:
    """Why a stage can not be cut into its strips; empty if it can."""
    running = parts(graph, stage)
    return fault(running, strips(running))


def fault(running: Parts, found: Sequence[Strip]) -> str:
    """Why these strips are not possible; empty if they are."""
    if running.strips == 1:
        return ""
    if any(isinstance(n.op, Rows) for n in running.nodes):
        return "rows of the input come once"
    if running.whole != (running.nodes[-1].output,):
        return "more than its last value is needed later"
    inside = {n.output for n in running.nodes}
    before: Mapping[Value, Span] = {}
    for strip in found:
        for n in running.nodes:
            y = n.output
            if strip.kept(y) and strip.spans[y][0] < before[y][0]:
                return f"strips do not go from left to right in {y.name}"
            for i in image_inputs(n) if strip.making(y) else ():
                left, right = strip.reads(n, i)
                if left == right:
                    return "a strip lies in the padding alone"
                several = window(n, i, (0, 1), (0, 1)).size[0] > 1
                if several and n.input(i) in inside and strip.spans[n.input(i)] != (left, right):
                    return f"windows of {n.input(i).name} differ in their columns"
        before = strip.spans
    return ""
