"""A stage row by row: which node makes which row when, and which rows are in memory at that time.

Rows are made on demand. A node that is asked for row r of its output first asks for the rows of its inputs that r is
made of, unless they are there. A value keeps its rows in a buffer that holds as many as are ever needed at once, lowest
row first and without a gap, so that each window is a dense tensor to the kernel. Where the next row does not fit, the
rows still needed are moved to the buffer's start.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from bitc.ir.box import Box
from bitc.ir.graph import Node, Value
from bitc.ops.movement import Crop, Rows
from bitc.schedule.totals import IMAGE, adds_up, is_pool


@dataclass(frozen=True)
class Make:
    """Node number `node` of the stage makes row `row` of its output, in slot `slot` of the buffer; a node that adds up
    adds row `row` of its image to the total."""

    node: int
    row: int
    slot: int
    fresh: bool
    """Whether nothing in the output's buffer is needed any more."""
    reads: tuple[tuple[int, int, int] | None, ...]
    """Per input of the node the rows [top, bottom) that it reads, and the slot of the first; None: all of it."""


@dataclass(frozen=True)
class Drop:
    """A row from outside that nobody reads."""


@dataclass(frozen=True)
class Roll:
    """Move `rows` rows of a value from slot `shift` to slot 0."""

    value: Value
    rows: int
    shift: int


@dataclass(frozen=True, eq=False)
class RowPlan:
    """The steps of a stage, and how many rows the buffer of each value holds (those that are stored whole left out)."""

    steps: tuple[Make | Roll | Drop, ...]
    capacity: Mapping[Value, int]


@lru_cache(maxsize=4096)
def image_inputs(node: Node) -> tuple[int, ...]:
    """The inputs of a node that are read by windows: images of which an output window depends on a window."""
    if adds_up(node):
        return (IMAGE,)
    y = node.output.shape
    found = []
    for i, v in enumerate(node.inputs):
        if v is None or v.is_const or node.op.input_window(Box(0, 1, 0, 1), i) is None:
            continue
        broadcast = v.type.rank < 4 or (v.shape[1:3] == (1, 1) and y[1:3] != (1, 1))
        if not broadcast:
            found.append(i)
    return tuple(found)


def image_size(node: Node, index: int) -> tuple[int, int]:
    """Rows and columns of an input that is read by windows."""
    x = node.input(index).type
    shape = (node.op.pixels(x) if isinstance(node.op, Crop) else x).shape
    return shape[1], shape[2]


def window(node: Node, index: int, rows: tuple[int, int], columns: tuple[int, int]) -> Box:
    """The window of an input that an output window depends on. (A total has one pixel, whatever the rows.)"""
    if adds_up(node):
        return Box(*rows, 0, node.input(index).shape[2])
    box = node.op.input_window(Box(*rows, *columns), index)
    assert box is not None
    return box


@lru_cache(maxsize=4096)
def row_windows(node: Node, index: int) -> tuple[tuple[int, int], ...]:
    """Per row of the output the rows [top, bottom) of an input that it is made of."""
    size = image_size(node, index)
    parts = (window(node, index, (row, row + 1), (0, 1)).inside(size) for row in range(turns(node)))
    return tuple((p.top, p.bottom) for p in parts)


def turns(node: Node) -> int:
    """How often a node runs for all of its output: once for each row of it, or of what it adds up."""
    return node.input(IMAGE).shape[1] if adds_up(node) else node.output.shape[1]


def why_not(node: Node) -> str:
    """Why a node can not be part of a stage; empty if it can."""
    y = node.output
    if len(node.outputs) != 1 or y.type.rank != 4 or y.shape[0] != 1:
        return "its output is not one image"
    if is_pool(node):
        return ""
    images = image_inputs(node)
    if not images:
        return "its output rows depend on more than a window of its input"
    for i, v in enumerate(node.inputs):
        if v is None or i in images:
            continue
        spread = v.type.rank > 1 and v.type.rows != 1 and node.op.input_window(Box(0, 1, 0, 1), i) is not None
        if spread:
            return f"{v.name} differs by pixel"
    for row in range(y.shape[1]):
        for i in images:
            if 0 in window(node, i, (row, row + 1), (0, y.shape[2])).inside(image_size(node, i)).size:
                return "a row of its output lies in the padding alone"
    return ""


def reads_own_pixels(nodes: Sequence[Node]) -> bool:
    """Whether one of the nodes, which each have passed `why_not`, spreads what another one makes over an image: all of
    that is needed for the first row, as in squeeze and excitation."""
    made = {n.output for n in nodes}
    return any(v in made for n in nodes if not is_pool(n) for i, v in enumerate(n.inputs) if i not in image_inputs(n))


def plan_rows(
    nodes: Sequence[Node], whole: Collection[Value], at_once: Collection[Value] = (), waiting: Collection[Value] = ()
) -> RowPlan:
    """Simulate the nodes of a stage, which have passed `why_not`. Values that are `whole` are stored as tensors; of
    those `at_once`, the first demand makes all rows. `waiting`: copies of values, made before a row is overwritten, or
    as soon as a reader of the copy has made room."""
    return _Simulation(nodes, whole, at_once, waiting).run()


def late_readers(
    nodes: Sequence[Node], whole: Collection[Value], at_once: Collection[Value] = ()
) -> Mapping[Value, Collection[tuple[int, int]]]:
    """Who still needs rows of a value when its next row is made: numbers of nodes, and of their inputs."""
    simulation = _Simulation(nodes, whole, at_once, ())
    simulation.make_all()
    return simulation.late


class _Simulation:
    def __init__(
        self,
        nodes: Sequence[Node],
        whole: Collection[Value],
        at_once: Collection[Value],
        waiting: Collection[Value],
    ) -> None:
        self.nodes = nodes
        self.whole, self.at_once, self.waiting = set(whole), at_once, waiting
        self.moves = {n.input(0): n.output for n in nodes if n.output in waiting}
        """Values whose rows are moved, and where to."""
        self.late: dict[Value, set[tuple[int, int]]] = {}
        self.maker = {n.output: k for k, n in enumerate(nodes)}
        self.images = [image_inputs(n) for n in nodes]
        self.readers: dict[Value, list[tuple[int, int]]] = {}
        for k, n in enumerate(nodes):
            for i in self.images[k]:
                self.readers.setdefault(n.input(i), []).append((k, i))
        self.windows = {(k, i): row_windows(n, i) for k, n in enumerate(nodes) for i in self.images[k]}
        self.next = [0] * len(nodes)
        """Per node how many of its needed rows are made."""
        self.needed = self._needed()
        self.log: list[tuple[int, int, tuple[tuple[int, int] | None, ...], dict[Value, int]] | None] = []
        self.capacity: dict[Value, int] = {}

    def _needed(self) -> list[list[int]]:
        """Per node the rows of its output that are ever read."""
        rows: dict[Value, set[int]] = {n.output: set() for n in self.nodes}
        for k in reversed(range(len(self.nodes))):
            y = self.nodes[k].output
            if y in self.whole or isinstance(self.nodes[k].op, Rows) or (adds_up(self.nodes[k]) and rows[y]):
                rows[y] = set(range(turns(self.nodes[k])))
            for i in self.images[k]:
                x = self.nodes[k].input(i)
                if x in rows:
                    for row in rows[y]:
                        rows[x].update(range(*self.windows[k, i][row]))
        return [sorted(rows[n.output]) for n in self.nodes]

    def lowest(self, v: Value) -> int | None:
        """The lowest row of v that will still be read; None if there is none."""
        return min(self._tops(v).values(), default=None)

    def _tops(self, v: Value) -> dict[tuple[int, int], int]:
        """The lowest row of v that each of its readers will still read."""
        return {(k, i): self.windows[k, i][self.needed[k][self.next[k]]][0]
                for k, i in self.readers.get(v, ()) if self.next[k] < len(self.needed[k])}  # fmt: skip

    def demand(self, v: Value, bottom: int) -> None:
        """Make the needed rows of v above `bottom`."""
        k = self.maker.get(v)
        if k is None:
            return
        at_once = v in self.at_once or adds_up(self.nodes[k])
        while self.next[k] < len(self.needed[k]) and (at_once or self.needed[k][self.next[k]] < bottom):
            self.make(k)

    def make(self, k: int) -> None:
        row = self.needed[k][self.next[k]]
        y = self.nodes[k].output
        if y in self.moves:
            self.demand(self.moves[y], row)
        windows = {i: self.windows[k, i][row] for i in self.images[k]}
        for i, (_, bottom) in windows.items():
            self.demand(self.nodes[k].input(i), bottom)
        if y not in self.whole:
            tops = self._tops(y)
            low = min(tops.values(), default=None)
            if isinstance(self.nodes[k].op, Rows) and (low is None or low > row):
                self.log.append(None)
                self.next[k] += 1
                return
            assert low is not None and low <= row
            self.late.setdefault(y, set()).update(reader for reader, top in tops.items() if top < row)
            self.capacity[y] = max(self.capacity.get(y, 0), self._in_output(k, row) + 1 - low)
        lows = {} if y in self.whole else {y: self.lowest(y) or 0}
        self.log.append((k, row, tuple(windows.get(i) for i in range(len(self.nodes[k].inputs))), lows))
        self.next[k] += 1
        for i in windows:
            if self.nodes[k].input(i) in self.waiting:
                self._refill(self.nodes[k].input(i))

    def _refill(self, v: Value) -> None:
        """Move rows that are there to those that wait, as far as that takes no more room than before."""
        k = self.maker[v]
        source = self.maker[self.nodes[k].input(0)]
        there = self.needed[source][self.next[source] - 1]
        while self.next[k] < len(self.needed[k]):
            row, low = self.needed[k][self.next[k]], self.lowest(v)
            if row > there or low is None or row + 1 - low > self.capacity[v]:
                return
            self.make(k)

    def _in_output(self, k: int, row: int) -> int:
        """The row of its output that node k writes."""
        return 0 if adds_up(self.nodes[k]) else row

    def make_all(self) -> None:
        """Make what is needed, in order."""
        for v in reversed([n.output for n in self.nodes if n.output in self.whole]):
            self.demand(v, v.shape[1])
        for n in self.nodes:
            if isinstance(n.op, Rows):
                self.demand(n.output, n.output.shape[1])  # what is left, for nobody

    def run(self) -> RowPlan:
        self.make_all()
        base: dict[Value, int] = {}
        top: dict[Value, int] = {}
        steps: list[Make | Roll | Drop] = []
        for entry in self.log:
            if entry is None:
                steps.append(Drop())
                continue
            k, row, windows, lows = entry
            y, at, fresh = self.nodes[k].output, self._in_output(k, row), False
            for v, low in lows.items():
                fresh = v not in base or low >= top[v]
                if fresh:
                    base[v] = at
                elif at + 1 - base[v] > self.capacity[v]:
                    steps.append(Roll(v, top[v] - low, low - base[v]))
                    base[v] = low
                top[v] = at + 1
            inputs = self.nodes[k].inputs
            reads = tuple(None if w is None or x is None else (*w, w[0] - base.get(x, 0))
                          for w, x in zip(windows, inputs, strict=True))  # fmt: skip
            steps.append(Make(k, row, at - base.get(y, 0), fresh, reads))
        return RowPlan(tuple(steps), self.capacity)
