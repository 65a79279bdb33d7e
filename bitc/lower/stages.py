"""A stage → loops of calls: every row of every value is a node of its own, with a window of the image as its input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from bitc.errors import InternalError
from bitc.ir.graph import Graph, Node, Value
from bitc.ir.program import Buffer, Call, Function, Item, Kind, Loop, Place
from bitc.ir.schedule import Stage
from bitc.ir.types import TensorType
from bitc.kernels import Choice, Selection, choose
from bitc.kernels.costs import predict
from bitc.kernels.roll import roll
from bitc.kernels.step import Operand, Packed, Scratch, Step, View
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Crop
from bitc.schedule.columns import Strip, strips, with_crops
from bitc.schedule.loops import Again, Folded, Once, fold
from bitc.schedule.rows import Make, image_inputs, image_size, plan_rows, window
from bitc.target import Target


@dataclass(frozen=True)
class _Ring:
    """The buffer of a value within a stage: so many rows and columns of it. Strips of one width share their calls."""

    value: Value
    rows: int
    columns: int

    @property
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


RowCache = dict[object, _Row]


@dataclass(frozen=True)
class _Text:
    """One call before its buffers are known."""

    function: Function
    step: Step | None
    operands: tuple[_Ring | Buffer | Scratch, ...]
    writes: tuple[int, ...]
    node: int
    fresh: _Ring | None
    """The ring that the call writes into when nothing in it is needed any more."""


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
        self.graph, self.stage = graph, with_crops(stage)
        self.target, self.selection, self.operand = target, selection, operand
        self.nodes = self.stage.nodes
        self.plan = plan_rows(graph, self.stage)
        self.spent = [Spent() for _ in self.nodes]
        self._rows = rows
        self._constants: dict[Packed | Value, Buffer] = {}

    def run(self, first_layer: int) -> tuple[Item, ...]:
        """The calls, as loops."""
        items: list[Folded] = []
        for strip in strips(self.graph, self.stage):
            items += self._strip(strip)
        return _Instances(fold(items), first_layer).items()

    def _strip(self, strip: Strip) -> list[Once]:
        rings = {v: _Ring(v, rows, strip.width(v)) for v, rows in self.plan.capacity.items()}
        maker = {n.output: k for k, n in enumerate(self.nodes)}
        found: list[Once] = []
        for step in self.plan.steps:
            if isinstance(step, Make):
                found += self._make(step, strip, rings)
                continue
            ring = rings[step.value]
            row = ring.type.nbytes // ring.rows
            function = roll(step.rows * row, step.shift * row)
            found.append(Once(_Text(function, None, (ring,), (0,), maker[step.value], None), (0,)))
        return found

    def _make(self, make: Make, strip: Strip, rings: Mapping[Value, _Ring]) -> list[Once]:
        node, row, spent = self.nodes[make.node], self._row(make, strip), self.spent[make.node]
        spent.macs += row.macs
        spent.cost = None if spent.cost is None or row.cost is None else spent.cost + row.cost
        places = {row.y: self._place(node, -1, make.slot, strip, rings)}
        for v, i in row.images.items():
            reads = make.reads[i]
            assert reads is not None
            places[v] = self._place(node, i, reads[2], strip, rings)
        found: list[Once] = []
        for step, function in row.steps:
            operands: list[_Ring | Buffer | Scratch] = []
            at: list[int] = []
            for a in step.args:
                memory, offset = places.get(a.operand, (None, 0)) if isinstance(a.operand, Value) else (None, 0)
                operands.append(memory or self._other(a.operand, f"{node.output.name}_{a.name}"))
                at.append(offset)
            target = places[row.y][0]
            fresh = target if make.fresh and isinstance(target, _Ring) and not found else None
            writes = tuple(i for i, a in enumerate(step.args) if a.written)
            found.append(Once(_Text(function, step, tuple(operands), writes, make.node, fresh), tuple(at)))
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
        columns = strip.spans[node.output]
        left = columns[0] if index < 0 else strip.reads(node, index)[0]
        if v in rings:
            t = rings[v].type
            return rings[v], (slot * t.shape[2] + left - strip.spans[v][0]) * (t.nbytes // t.rows)
        planar = index >= 0 and isinstance(node.op, Crop) and node.op.planar
        pixel = v.type.dtype.carrier.itemsize if planar else v.type.nbytes // v.type.rows
        return self.operand(v, ""), (slot * v.shape[3 if planar else 2] + left) * pixel

    def _row(self, make: Make, strip: Strip) -> _Row:
        """The kernel for one row, the same object for every row of the same form."""
        node = self.nodes[make.node]
        columns = strip.spans[node.output]
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
            self._rows[form] = self._build(make.node, pads, shapes, columns[1] - columns[0])
        row, spent = self._rows[form], self.spent[make.node]
        spent.choice = spent.choice or row.choice
        spent.weights = max(spent.weights, row.weights)
        return row

    def _build(
        self, k: int, pads: tuple[int, int, int, int], shapes: Mapping[int, tuple[int, ...]], columns: int
    ) -> _Row:
        node = self.nodes[k]
        images = {Value(node.input(i).name, node.input(i).type.with_shape(shape)): i for i, shape in shapes.items()}
        by_input = {i: v for v, i in images.items()}
        y = Value(node.output.name, node.output.type.with_shape((1, 1, columns, node.output.type.channels)))
        inputs = tuple(by_input.get(i, v) for i, v in enumerate(node.inputs))
        small = replace(node, op=node.op.on_window(pads, (1, columns)), inputs=inputs, outputs=(y,))
        types = small.op.infer(*(None if v is None else v.type for v in inputs))
        if types[0].shape != y.shape:
            raise InternalError(f"a row of {node.output.name} is {types[0]}, not {y.type}", where="stage lowering")
        choice = self._choose(k, small)
        built = choice.variant.build(small, self.target)
        if isinstance(built, View):
            raise InternalError(f"a row of {node.output.name} would be a view", where="stage lowering")
        op = small.op
        macs = op.macs(inputs[0].type, inputs[1].type) if isinstance(op, Conv2D) and inputs[0] and inputs[1] else 0
        cost = predict(choice.variant, small, self.target)
        steps = tuple((step, step.function) for step in built)
        return _Row(node, steps, y, images, macs, cost, choice, weights_of(built))

    def _choose(self, k: int, small: Node) -> Choice:
        """One kernel row for all rows of a node, where it takes them: weights are packed once."""
        known = self.spent[k].choice
        if known and not known.variant.accepts(small, self.target):
            return known
        choice = choose(small, self.target, self.selection.goal, self.selection.without)
        if not isinstance(choice, Choice):
            raise InternalError(f"no kernel for a row of {small.output.name}: {choice}", where="stage lowering")
        return choice


def weights_of(steps: Sequence[Step]) -> int:
    """Bytes of weights and parameters of a layer."""
    operands = [a.operand for step in steps for a in step.args]
    packed = sum(o.data.nbytes for o in operands if isinstance(o, Packed) and o.is_weight)
    return packed + sum(o.type.nbytes for o in operands if isinstance(o, Value) and o.is_const)


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
        step, layer = text.step, self.first_layer + text.node
        read = next((i for i, a in enumerate(step.args) if a.name == step.inplace), -1) if step else -1
        return Call(text.function, tuple(places), text.writes, layer, ((0, read),) if read >= 0 else ())

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
        assert isinstance(f.key, _Text)
        for operand in f.key.operands:
            if isinstance(operand, _Ring):
                found.setdefault(operand, operand == f.key.fresh)
    return found
