"""Rows that wait for late readers.

    total[r] = x[r] + f(x[r - 1], x[r], x[r + 1])

A reader that takes row r of a value only when later rows are there makes the value's buffer hold all of these, and
throughout: the next row comes beside those that wait. Where every reader takes single rows, those that wait are moved
to a buffer of their own. The one that rows are made in then holds a single row, and that only for a while: a chain of
sums needs one waiting row for each, and all else is in the same memory for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from bitc.ir.graph import Node, Value
from bitc.ops.movement import Crop
from bitc.schedule.rows import image_inputs, late_readers, row_windows
from bitc.schedule.totals import adds_up


@lru_cache(maxsize=4096)
def with_waiting(
    nodes: tuple[Node, ...], whole: tuple[Value, ...], at_once: frozenset[Value]
) -> tuple[tuple[Node, ...], frozenset[Value]]:
    """The nodes of a stage with those that move rows, and the values of rows that wait."""
    possible = _read_by_rows(nodes) - {*whole, *at_once}
    late = late_readers(nodes, whole, at_once) if possible else {}
    waiting = {v: Value(f"{v.name}.waiting", v.type) for v in possible if late.get(v)}
    found: list[Node] = []
    for k, n in enumerate(nodes):
        inputs = tuple(waiting[v] if v in waiting and (k, i) in late[v] else v for i, v in enumerate(n.inputs))
        found.append(n if inputs == n.inputs else replace(n, inputs=inputs))
        y = n.output
        if y in waiting:
            found.append(Node(Crop((y.shape[1], y.shape[2])), (y,), (waiting[y],), f"waiting rows of {y.name}"))
    return tuple(found), frozenset(waiting.values())


def _read_by_rows(nodes: Sequence[Node]) -> set[Value]:
    """What is made and has several readers, each of which takes single rows."""
    tallest: dict[Value, int] = {}
    readers: dict[Value, int] = {}
    for n in nodes:
        for i in image_inputs(n):
            x = n.input(i)
            readers[x] = readers.get(x, 0) + 1
            tallest[x] = max(tallest.get(x, 0), *(bottom - top for top, bottom in row_windows(n, i)))
    return {y for n in nodes if not adds_up(n) for y in n.outputs if readers.get(y, 0) > 1 and tallest[y] == 1}
