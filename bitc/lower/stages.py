"""A stage → loops of calls: every row of every value is a node of its own, with a window of the image as its input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from bitc.errors import InternalError
from bitc.ir.graph import Graph, Node, Value
from bitc.ir.program import Buffer, Call, Function, Item, Kind, Loop, NextRow, Place
from bitc.ir.schedule import Stage
from bitc.ir.types import TensorType
from bitc.kernels import Choice, Selection, choose
from bitc.kernels.costs import predict
from bitc.kernels.reduce import start_step
from bitc.kernels.roll import move, roll
from bitc.kernels.step import Operand, Packed, Scratch, Step, View
from bitc.lower.stack import stack
from bitc.ops.movement import Concat, Crop, Rows
from bitc.ops.quantize import Requantize
from bitc.schedule.columns import Strip, stores, strips
from bitc.schedule.estimate import macs_of
from bitc.schedule.loops import Again, Folded, Once, fold_parts
from bitc.schedule.parts import parts
from bitc.schedule.row_costs import row_node
from bitc.schedule.rows import Drop, Make, image_inputs, image_size, window
from bitc.schedule.totals import adds_up, rows_of
from bitc.target import Target


@dataclass(frozen=True)
class _Ring:
    """The buffer of a value within a stage: so many rows and columns of it. Strips of one width share their calls."""

    value: Value
    rows: int
    columns: int

    @cached_property
    def type(self) -> TensorType:
        return self.value.type.with_shape((1, self.rows, self.columns, self.value.type.channels))


@dataclass(frozen=True, eq=False)
class _Row:
    """The steps of one form of window of a node, with the values that they name."""

    node: Node
    steps: tuple[tuple[Step, Function], ...]
    y: Value
    images: Mapping[Value, int]
    """The values that stand for windows, by input."""
    macs: int
    cost: float | None
    choice: Choice
    weights: int
    """Bytes."""
    at: Mapping[Operand, int] = field(default_factory=dict)
    """Where constants that differ by row start, in bytes."""


RowCache = dict[object, list[_Row]]
"""By the form of a window, the steps for all rows, or for each row if their constants differ."""


@dataclass(frozen=True)
class _Text:
    """One call before its buffers are known."""

    function: Function
    step: Step | None
    operands: tuple[_Ring | Buffer | Scratch, ...]
    writes: tuple[int, ...]
    layer: int
    """Of the stage's."""
    fresh: _Ring | None
    """The ring that the call writes into when nothing in it is needed any more."""


_NEXT = Once(NextRow(), ())


@dataclass
class Spent:
    """What the calls of a node of a stage come to, over all rows."""

    choice: Choice | None = None
    macs: int = 0
    cost: float | None = 0.0
    weights: int = 0


class StageLowering:
    """Lowers one stage. `operand` gives the buffer of a value outside the stage or of a constant; `layers` the number
    of the first layer."""

    def __init__(
        self,
        graph: Graph,
        stage: Stage,
        target: Target,
        selection: Selection,
        operand: Callable[[Operand, str], Buffer],
        rows: RowCache,
    ) -> None:
        self.parts = parts(graph, stage)
        self.target, self.selection, self.operand = target, selection, operand
        self.nodes, self.layers = self.parts.nodes, self.parts.layers
        self.plan = self.parts.rows()
        self.direct = [n for n in self.nodes if isinstance(n.op, Rows) and self.plan.capacity.get(n.output) == 1]
        """Rows from outside that are done with before the next one comes: they are read where the caller has them."""
        self.spent = [Spent() for _ in self.layers]
        self.choices: dict[int, Choice] = {}
        self._rows = rows
        self._stores: dict[Value, Buffer] = {}
        self._weights: dict[int, int] = {}
        self._constants: dict[Packed | Value, Buffer] = {}

    def run(self, first_layer: int) -> tuple[Item, ...]:
        """The calls, as loops."""
        items: list[list[Once]] = []
        found = strips(self.parts)
        for v, columns in stores(self.parts, found).items():
            t = v.type.with_shape((1, v.shape[1], columns, v.type.channels))
            self._stores[v] = Buffer(f"{v.name}.columns", t, Kind.ARENA, min_alignment=4)
        for strip, after in zip(found, [*found[1:], None], strict=True):
            items.append(self._strip(strip, after))
        for node, weights in self._weights.items():
            self.spent[self.parts.layer[node]].weights += weights
        return _Instances(fold_parts(items), first_layer).items()

    def _strip(self, strip: Strip, after: Strip | None) -> list[Once]:
        outside = {n.output for n in self.direct}
        capacity = self.plan.capacity
        rings = {v: _Ring(v, rows, strip.width(v)) for v, rows in capacity.items() if v not in outside}
        maker = {n.output: k for k, n in enumerate(self.nodes)}
        found: list[Once] = []
        for step in self.plan.steps:
            if isinstance(step, Drop):
                found.append(_NEXT)
                continue
            if isinstance(step, Make):
                if isinstance(self.nodes[step.node].op, Rows):
                    found.append(_NEXT)
                calls = self._row_of(step, strip, after, rings)
                found += calls if self.nodes[step.node] not in self.direct else []
                continue
            ring = rings[step.value]
            if not ring.columns:
                continue
            row = ring.type.nbytes // ring.rows
            function = roll(step.rows * row, step.shift * row)
            found.append(Once(_Text(function, None, (ring,), (0,), self.parts.layer[maker[step.value]], None), (0,)))
        return _with_alive(found)

    def _row_of(self, make: Make, strip: Strip, after: Strip | None, rings: Mapping[Value, _Ring]) -> list[Once]:
        """One row: the columns that the strip before has kept, those that are made, and those kept for the next."""
        y = self.nodes[make.node].output
        found = self._carried(make, strip, strip, rings, restore=True) if strip.kept(y) else []
        found += self._make(make, strip, rings, not found) if strip.making(y) else []
        return found + (self._carried(make, strip, after, rings, restore=False) if after and after.kept(y) else [])

    def _carried(self, make: Make, strip: Strip, to: Strip, rings: Mapping[Value, _Ring], restore: bool) -> list[Once]:
        """Copy what strip `to` finds kept of a row: from where it is kept, or there."""
        y = self.nodes[make.node].output
        store, ring = self._stores[y], rings[y]
        pixel = y.type.nbytes // y.type.rows
        kept = make.row * store.type.shape[2] * pixel
        here = (make.slot * ring.columns + to.spans[y][0] - strip.spans[y][0]) * pixel
        function = move(to.kept(y) * pixel, pixel)
        layer, fresh = self.parts.layer[make.node], ring if restore and make.fresh else None
        places: tuple[_Ring | Buffer, ...] = (ring, store) if restore else (store, ring)
        return [Once(_Text(function, None, places, (0,), layer, fresh), (here, kept) if restore else (kept, here))]

    def _make(self, make: Make, strip: Strip, rings: Mapping[Value, _Ring], starts: bool) -> list[Once]:
        """The calls that make a row; `starts`: nothing of it is there."""
        layer = self.parts.layer[make.node]
        node, row, spent = self.nodes[make.node], self._row(make, strip), self.spent[layer]
        spent.macs += row.macs
        if row.cost is not None or not isinstance(node.op, Concat | Requantize):  # without a price, and take little
            spent.cost = None if spent.cost is None or row.cost is None else spent.cost + row.cost
        places = {row.y: self._place(node, -1, make.slot, strip, rings)}
        for v, i in row.images.items():
            reads = make.reads[i]
            assert reads is not None
            places[v] = self._place(node, i, reads[2], strip, rings)
        found: list[Once] = []
        steps = row.steps
        if adds_up(node) and make.row == 0:
            start = start_step(node.op, row.y)
            steps = ((start, start.function), *steps)
        for step, function in steps:
            operands: list[_Ring | Buffer | Scratch] = []
            at: list[int] = []
            for a in step.args:
                known = places.get(a.operand) if isinstance(a.operand, Value) else None
                memory, offset = known or (None, row.at.get(a.operand, 0))
                operands.append(memory or self._other(a.operand, f"{node.output.name}_{a.name}"))
                at.append(offset)
            target = places[row.y][0]
            fresh = target if make.fresh and starts and isinstance(target, _Ring) and not found else None
            writes = tuple(i for i, a in enumerate(step.args) if a.written)
            found.append(Once(_Text(function, step, tuple(operands), writes, layer, fresh), tuple(at)))
        return found

    def _other(self, operand: Operand, name: str) -> Buffer | Scratch:
        """What is no window: constants, tensors that are read whole, working memory."""
        if isinstance(operand, Scratch):
            return operand
        if operand not in self._constants:
            self._constants[operand] = self.operand(operand, name)
        return self._constants[operand]

    def _place(
        self, node: Node, index: int, slot: int, strip: Strip, rings: Mapping[Value, _Ring]
    ) -> tuple[_Ring | Buffer, int]:
        """The memory of the output (index -1) or of an input, and where in it the window starts, in bytes; `slot`
        counts rows of the memory."""
        v = node.output if index < 0 else node.input(index)
        left = strip.made[node.output][0] if index < 0 else strip.reads(node, index)[0]
        if v in rings:
            t = rings[v].type
            return rings[v], (slot * t.shape[2] + left - strip.spans[v][0]) * (t.nbytes // t.rows)
        source = next((n for n in self.direct if n.output is v), node if index >= 0 else None)
        if source is not None and isinstance(source.op, Rows):
            return self.operand(source.input(0), ""), 0  # always the row that has come
        planar = index >= 0 and isinstance(node.op, Crop) and node.op.planar
        pixel = v.type.dtype.carrier.itemsize if planar else v.type.nbytes // v.type.rows
        return self.operand(v, ""), (slot * v.shape[3 if planar else 2] + left) * pixel

    def _row(self, make: Make, strip: Strip) -> _Row:
        """The kernel for one row, the same object for every row of the same form."""
        node = self.nodes[make.node]
        columns = strip.made[node.output]
        pads: tuple[int, int, int, int] = (0, 0, 0, 0)
        shapes: dict[int, tuple[int, ...]] = {}
        for i in image_inputs(node):
            x, size = node.input(i), image_size(node, i)
            box = window(node, i, (make.row, make.row + 1), columns)
            left, right = strip.reads(node, i)
            pads = box.beyond(size) if any(box.beyond(size)) else pads
            dense = (1, box.inside(size).size[0], right - left, x.type.channels)
            shapes[i] = x.shape if node.op.strides_over_image else dense
        form = (node.output, pads, tuple(shapes.items()), columns[1] - columns[0])
        if form not in self._rows:
            rows = [self._build(make.node, on, pads, shapes, form[-1]) for on in rows_of(node)]
            self._rows[form] = _stacked(rows) if len(rows) > 1 else rows
        rows, spent = self._rows[form], self.spent[self.parts.layer[make.node]]
        row = rows[make.row] if len(rows) > 1 else rows[0]
        self.choices.setdefault(make.node, row.choice)
        spent.choice = spent.choice or row.choice
        self._weights[make.node] = max(self._weights.get(make.node, 0), row.weights)
        return row

    def _build(
        self, k: int, node: Node, pads: tuple[int, int, int, int], shapes: Mapping[int, tuple[int, ...]], columns: int
    ) -> _Row:
        """One row of node number k; `node` is that, as it is on this row."""
        small, images = row_node(node, pads, shapes, columns)
        y = small.output
        choice = self._choose(k, small)
        built = choice.variant.build(small, self.target)
        if isinstance(built, View):
            raise InternalError(f"a row of {node.output.name} would be a view", where="stage lowering")
        cost = predict(choice.variant, small, self.target)
        steps = tuple((step, step.function) for step in built)
        return _Row(node, steps, y, images, macs_of(small), cost, choice, weights_of(built))

    def _choose(self, k: int, small: Node) -> Choice:
        """One kernel row for all rows of a node, where it takes them: weights are packed once."""
        known = self.choices.get(k)
        if known and not known.variant.refuses(small, self.target):
            return known
        choice = choose(small, self.target, self.selection.goal, self.selection.without)
        if not isinstance(choice, Choice):
            raise InternalError(f"no kernel for a row of {small.output.name}: {choice}", where="stage lowering")
        self.choices.setdefault(k, choice)
        return choice


def _stacked(rows: Sequence[_Row]) -> list[_Row]:
    """Rows that share steps wherever only their constants differ."""
    found = stack([tuple(step for step, _ in row.steps) for row in rows])
    steps = {s.like: tuple((step, step.function) for step in s.steps) for s in found}
    weights = sum(weights_of([step for step, _ in shared]) for shared in steps.values())
    return [replace(rows[s.like], steps=steps[s.like], at=s.at, weights=weights) for s in found]


def weights_of(steps: Sequence[Step]) -> int:
    """Bytes of weights and parameters of a layer."""
    operands = [a.operand for step in steps for a in step.args]
    packed = sum(o.data.nbytes for o in operands if isinstance(o, Packed) and o.is_weight)
    return packed + sum(o.type.nbytes for o in operands if isinstance(o, Value) and o.is_const)


def _with_alive(items: Sequence[Once]) -> list[Once]:
    """Calls with the bytes of line buffers that are needed after each."""
    needed = set[_Ring]()
    found: list[Once] = []
    for item in reversed(items):
        found.append(replace(item, alive=sum(ring.type.nbytes for ring in needed)))
        if isinstance(item.key, _Text):
            needed.update(o for o in item.key.operands if isinstance(o, _Ring))
            needed.discard(item.key.fresh)
    return found[::-1]


class _Instances:
    """From folded calls to items: rings become buffers, a new one whenever nothing in the old one is needed."""

    def __init__(self, folded: Sequence[Folded], first_layer: int) -> None:
        self.folded, self.first_layer = folded, first_layer
        self.current: dict[_Ring, Buffer] = {}
        self.loops: list[dict[_Ring, bool]] = []
        """Per enclosing loop, for each ring whether its body starts it anew."""

    def items(self) -> tuple[Item, ...]:
        return tuple(self._item(f, f.at, []) for f in self.folded)

    def _item(self, folded: Folded, at: tuple[int, ...], steps: list[tuple[int, ...]]) -> Item:
        if isinstance(folded, Once):
            if isinstance(folded.key, NextRow):
                return folded.key
            assert isinstance(folded.key, _Text)
            return self._call(folded.key, at, steps)
        self.loops.append(_first_touch(folded))
        inner = [*steps, folded.steps]
        body, start = [], 0
        for f in folded.body:
            stop = start + len(f.at)
            body.append(self._item(f, at[start:stop], [s[start:stop] for s in inner]))
            start = stop
        self.loops.pop()
        return Loop(folded.count, tuple(body))

    def _call(self, text: _Text, at: tuple[int, ...], steps: list[tuple[int, ...]]) -> Call:
        if text.fresh and (text.fresh not in self.current or all(loop[text.fresh] for loop in self.loops)):
            ring = text.fresh
            self.current[ring] = Buffer(f"{ring.value.name}.rows", ring.type, Kind.ARENA, min_alignment=4)
        places = []
        for i, (operand, offset) in enumerate(zip(text.operands, at, strict=True)):
            moves = tuple(s[i] for s in steps)
            buffer = self._buffer(operand, text.function.params[i].name)
            places.append(Place(buffer, offset, moves if any(moves) else ()))
        layer = self.first_layer + text.layer
        if text.step:
            return text.step.call(text.function, tuple(places), layer)
        return Call(text.function, tuple(places), text.writes, layer)

    def _buffer(self, operand: _Ring | Buffer | Scratch, name: str) -> Buffer:
        if isinstance(operand, Scratch):
            return Buffer(name, operand.type, Kind.ARENA, is_scratch=True)
        return self.current[operand] if isinstance(operand, _Ring) else operand


def _first_touch(loop: Again) -> dict[_Ring, bool]:
    """For each ring in the body of a loop whether the first call that touches it starts it anew."""
    found: dict[_Ring, bool] = {}
    for f in loop.body:
        if isinstance(f, Again):
            found = _first_touch(f) | found
            continue
        if isinstance(f.key, NextRow):
            continue
        assert isinstance(f.key, _Text)
        for operand in f.key.operands:
            if isinstance(operand, _Ring):
                found.setdefault(operand, operand == f.key.fresh)
    return found
