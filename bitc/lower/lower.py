"""Schedule + Selection → Program: every value gets a buffer, every step of a kernel row becomes a call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bitc.ir.dtypes import BIT1, INT32, UINT8
from bitc.ir.graph import Node, Value
from bitc.ir.program import (
    Buffer,
    Call,
    Done,
    Item,
    Kind,
    Layer,
    Loop,
    NextRow,
    Place,
    Program,
    struct_layout,
    walk,
)
from bitc.ir.schedule import Blocks, Schedule, Stage, kept
from bitc.ir.types import TensorType, type_of
from bitc.kernels import Choice, Selection
from bitc.kernels.copy import copy_step, zero_step
from bitc.kernels.costs import predict
from bitc.kernels.pack import pack_tensor
from bitc.kernels.step import Operand, Packed, Part, Scratch, Step, View
from bitc.lower.blocks import lower_blocks
from bitc.lower.parts import Apart, Parts
from bitc.lower.stages import RowCache, Spent, StageLowering
from bitc.ops.linear import Conv2D, MatMul
from bitc.ops.recurrent import Recurrent
from bitc.ops.repeat import UNBOUNDED, Repeat
from bitc.schedule.overlay import overwritten
from bitc.schedule.streaming import rows_node, upstream
from bitc.target import Target


def lower(
    schedule: Schedule,
    selection: Selection,
    target: Target,
    states: Sequence[tuple[str, str]] = (),
    rows: RowCache | None = None,
    overwrite_input: bool = False,
    apart: Apart = Apart.CUT,
) -> Program:
    """Build the program. Graph inputs are read in place and outputs are written in place; an output that is an input,
    a constant or already another output is copied at the end. `states` pairs inputs with the outputs that take their
    place in the next run: they stay in the arena. `rows` keeps the kernels of rows from one schedule of a graph to the
    next. `overwrite_input`: inputs lie in the arena, as in their struct, and a run may overwrite them.
    `apart`: which parts of rows lie in the whole, where kernels bear it."""
    cache = {} if rows is None else rows
    return _Lowering(schedule, selection, target, states, cache, overwrite_input, apart).run()


class _Lowering:
    def __init__(
        self,
        schedule: Schedule,
        selection: Selection,
        target: Target,
        states: Sequence[tuple[str, str]],
        rows: RowCache,
        overwrite_input: bool = False,
        apart: Apart = Apart.CUT,
    ) -> None:
        self.overwrite_input = overwrite_input
        self.graph, self.selection, self.target, self.rows = schedule.graph, selection, target, rows
        self.stage_of = {n: stage for stage in schedule.stages for n in stage.nodes}
        self.rows_node = rows_node(self.graph)
        if self.rows_node:
            self.stage_of.setdefault(self.rows_node, Stage((self.rows_node,)))
        self.nodes = [n for n in self.graph.nodes if n not in upstream(self.graph)]
        inputs, outputs = ({v.name: v for v in side} for side in (self.graph.inputs, self.graph.outputs))
        self.states = {inputs[i]: outputs[o] for i, o in states}
        self.outputs = tuple(v for v in self.graph.outputs if v not in self.states.values())
        self.buffers: dict[Value, Buffer] = {}
        self.constants: dict[int, Buffer] = {}
        self.body: list[Item] = []
        self.layers: list[Layer] = []
        self.steps: dict[Buffer, tuple[int, ...]] = {}
        """Bytes by which buffers move on with each iteration of the loops around this graph."""
        self.depth, self.times = 0, 1
        """Loops around this graph, and how often they run it."""
        alone = [n for n in self.nodes if n not in self.stage_of]
        self.parts = Parts(self.graph, selection, target, tuple(alone), self.buffers.keys(), apart)
        self.offsets: dict[Buffer, int] = {}
        """Where values start whose rows lie apart, in bytes."""

    def run(self) -> Program:
        inputs = self._inputs([v for v in self.graph.inputs if v not in self.states])
        row = None
        if self.rows_node:
            (x,), pixels = inputs, self.rows_node.input(0)
            inputs = (Buffer(x.name, pixels.type, Kind.INPUT),)
            row = Buffer(x.name, pixels.type.with_shape((1, 1, *pixels.shape[2:])), Kind.ROW)
            self.buffers[pixels] = row
        kept = tuple(self._define(v, Kind.STATE) for v in self.states)
        owners = self._output_owners()
        outputs: dict[Value, Buffer] = {}
        for owner, out in owners.items():
            buffer = Buffer(out.name, out.type, Kind.OUTPUT)
            outputs[out] = buffer
            alias = owner is not out
            self.buffers[owner] = Buffer(owner.name, owner.type, Kind.OUTPUT, buffer) if alias else buffer
        self.parts.find()
        for node in self.nodes:
            stage = self.stage_of.get(node)
            if stage is None:
                self._node(node)
            elif node is stage.nodes[-1]:
                self._stage(stage)
        results = tuple(outputs[v] if v in outputs else self._copied(v, Kind.OUTPUT) for v in self.outputs)
        self._keep()
        progress = Buffer("progress", TensorType((1 + _depth(self.body),), INT32), Kind.STATE) if row else None
        return Program(
            self.graph.name, inputs, results, tuple(self.body), tuple(self.layers), self.buffers, kept, row, progress
        )

    def _inputs(self, values: Sequence[Value]) -> tuple[Buffer, ...]:
        if not self.overwrite_input or not values:
            return tuple(self._define(v, Kind.INPUT) for v in values)
        offsets, size, align = struct_layout([v.type for v in values])
        whole = Buffer("input", TensorType((size,), UINT8), Kind.ARENA, min_alignment=align)
        for v, at in zip(values, offsets, strict=True):
            self.buffers[v] = Buffer(v.name, v.type, Kind.ARENA, whole, offset=at)
        return tuple(self.buffers[v] for v in values)

    def _output_owners(self) -> dict[Value, Value]:
        """Computed values that own the memory of a graph output, with that output. Each owner and output once."""
        owners: dict[Value, Value] = {}
        for out in self.outputs:
            owner = self.parts.owner(out)
            computed = owner in self.graph.producers
            same = owner.type.nbytes == out.type.nbytes
            if computed and same and owner not in owners and out not in owners.values():
                owners[owner] = out
        return owners

    def _define(self, v: Value, kind: Kind) -> Buffer:
        """The buffer of a value, where it is a part of another one within that one's."""
        if v in self.parts.within:
            whole, part = self.parts.within[v]
            base = self.buffers[whole] if whole in self.buffers else self._define(whole, kind)
            if part.row:
                self._among_others(v, base, part)
            else:
                self.buffers[v] = Buffer(v.name, v.type, base.kind, base, offset=part.at)
        elif v not in self.buffers:
            self.buffers[v] = Buffer(v.name, v.type, kind)
        return self.buffers[v]

    def _copied(self, v: Value, kind: Kind) -> Buffer:
        """A copy of a graph output, which can not be written in place."""
        buffer = Buffer(v.name, v.type, kind)
        if v.type.size:
            self._copy(v, self._operand(v, ""), buffer)
        return buffer

    def _copy(self, v: Value, source: Buffer, to: Buffer) -> None:
        step = copy_step(v, Value(v.name, v.type))
        self.layers.append(Layer(f"output {v.name}", "Copy", step.kernel, "", 0, 0, ""))
        index = len(self.layers) - 1
        self.body += [Call(step.function, (Place(to), Place(source)), (0,), index), Done(index, to)]

    def _keep(self) -> None:
        """Put the new states in the place of the old ones. Those that are old states themselves, perhaps in another
        shape, are saved first."""
        sources: dict[Value, Buffer] = {}
        for before, after in self.states.items():
            source = self._operand(after, "")
            if source.root is self.buffers[before]:
                continue  # it stays as it is
            sources[before] = self._copied(after, Kind.ARENA) if source.root.kind is Kind.STATE else source
        for before, source in sources.items():
            self._copy(self.states[before], source, self.buffers[before])

    def _node(self, node: Node) -> None:
        built = self.parts.built[node]
        if isinstance(built, View):
            base = self._operand(node.input(0), node.output.name)
            if node.output in self.parts.within:
                self._among_others(node.output, base, self.parts.within[node.output][1])
            elif node.output not in self.buffers:
                self._inside(node.output, base, self.steps.get(base, ()), built.offset)
            return
        for v in node.outputs:
            if v not in self.buffers:
                self._define(v, Kind.ARENA)
        if isinstance(node.op, Repeat):
            self._repeat(node, node.op)
            return
        index = len(self.layers)
        built = tuple(step for step in built if not self._is_there(step))
        calls = [self._call(step, node, index) for step in built]
        weights = sum(
            b.type.nbytes
            for step, call in zip(built, calls, strict=True)
            for a, b in zip(step.args, (p.buffer for p in call.args), strict=True)
            if b.kind is Kind.CONST and not (isinstance(a.operand, Packed) and not a.operand.is_weight)
        )
        choice = self.selection.choices[node]
        guess = predict(choice.variant, self.parts.node(node), self.target)
        self._layer(node, choice, weights, guess)
        self.body += calls
        if self.parts.built[node] and not self.depth:
            apart = node.output in self.parts.as_it_lies  # is shown with the whole
            self.body.append(Done(index, calls[-1].written[0] if calls else self.buffers[node.output], apart))

    def _inside(self, v: Value, base: Buffer, steps: tuple[int, ...], offset: int = 0) -> Buffer:
        """Put a value into the memory of a buffer, from byte `offset` on or as the loops move it on."""
        self.buffers[v] = Buffer(v.name, v.type, base.kind, base, offset=offset)
        if steps:
            self.steps[self.buffers[v]] = steps
        return self.buffers[v]

    def _among_others(self, v: Value, base: Buffer, part: Part) -> None:
        """Put a value into the memory of another one, between the rows of other parts."""
        self.buffers[v] = Buffer(v.name, base.type, base.kind, base)
        self.offsets[self.buffers[v]] = self.offsets.get(base, 0) + part.at

    def _place(self, buffer: Buffer) -> Place:
        return Place(buffer, self.offsets.get(buffer, 0), self.steps.get(buffer, ()))

    def _repeat(self, node: Node, op: Repeat) -> None:
        """States lie where they are after the last step. Each step reads its rows where they are, and copies what it
        leaves to its place."""
        index = len(self.layers)
        self._layer(node, self.selection.choices[node], 0, 0)
        inner = _Lowering(Schedule(op.body), self.selection, self.target, (), self.rows)
        inner.layers, inner.depth, inner.times = (
            self.layers,
            self.depth + 1,
            self.times * (op.steps if op.steps < UNBOUNDED else 1),
        )
        outputs, last = [self.buffers[v] for v in node.outputs], op.states + op.rows
        states, wholes = outputs[: op.states], outputs[op.states :]

        def stepping(buffer: Buffer, stride: int) -> tuple[int, ...]:
            steps = self.steps.get(buffer, ())
            return (*steps, *(0,) * (self.depth - len(steps)), stride)

        def copied(v: Value, source: Place, to: Place) -> Call:
            return Call(copy_step(v, Value(v.name, v.type)).function, (to, source), (0,), index)

        for i, v in enumerate(op.body.inputs):
            outer = self._operand(node.input(i), f"{node.output.name}_{i}")
            if i < op.states:
                self.body.append(copied(v, self._place(outer), Place(states[i])))
                inner.buffers[v] = states[i]
            else:
                steps = stepping(outer, v.type.nbytes) if i < last else self.steps.get(outer, ())
                inner._inside(v, outer, steps)
        if op.conditional:
            for v, whole in zip(node.outputs[op.states :], wholes, strict=True):
                self.body.append(Call(zero_step(v).function, (Place(whole),), (0,), index))
        for n in op.body.nodes:
            inner._node(n)
        after, parts = op.body.outputs[: op.states], op.body.outputs[op.states :]
        for v, whole in zip(parts, wholes, strict=True):
            to = Place(whole, 0, stepping(whole, v.type.nbytes))
            inner.body.append(copied(v, inner._place(inner._operand(v, "")), to))
        new = [(v, inner._operand(v, ""), state) for v, state in zip(after, states, strict=True)]
        late: list[Item] = []
        for v, source, state in new:
            if source.root is state.root:
                continue  # it stays as it is
            if any(source.root is s.root for s in states):  # it takes another one's place: save it first
                saved = Buffer(v.name, v.type, Kind.ARENA)
                inner.body.append(copied(v, inner._place(source), Place(saved)))
                source = saved
            late.append(copied(v, inner._place(source), Place(state)))
        condition = Place(states[0]) if op.conditional else None
        self.body.append(Loop(op.steps, (*inner.body, *late), condition))
        if not self.depth:
            self.body.append(Done(index, outputs[0]))

    def _stage(self, stage: Stage | Blocks) -> None:
        results = kept(self.graph, stage)
        old = overwritten(self.graph, stage) if isinstance(stage, Stage) else None
        if old is not None and results[0] not in self.buffers and self._can_overwrite(stage.nodes[-1], old):
            y, base = results[0], self.buffers[old]
            self.buffers[y] = Buffer(y.name, y.type, Kind.ARENA, base)
        for v in results:
            if v not in self.buffers:
                self._define(v, Kind.ARENA)
        first = len(self.layers)
        nodes, spending = stage.nodes, list[Spent]()
        if isinstance(stage, Blocks):
            calls, spending = lower_blocks(stage, self.target, self.selection, self._operand, first)
            self.body += calls
        else:
            lowering = StageLowering(self.graph, stage, self.target, self.selection, self._operand, self.rows)
            self.body += lowering.run(first)
            nodes, spending = lowering.layers, lowering.spent
        for node, spent in zip(nodes, spending, strict=True):
            assert spent.choice is not None
            self._layer(node, spent.choice, spent.weights, spent.cost, spent.macs or None)
        numbers = {n.output: first + i for i, n in enumerate(nodes)}
        self.body += [Done(numbers[v], self.buffers[v]) for v in results]

    def _can_overwrite(self, node: Node, x: Value) -> bool:
        """Whether the result of a node may lie in the memory of x: x has its own, and the kernel bears it."""
        buffer = self.buffers.get(x)
        built = self.selection[node].build(node, self.target)
        if buffer is None or buffer.kind is not Kind.ARENA or x in self.parts.views or isinstance(built, View):
            return False
        return all(a.overlay for step in built for a in step.args if a.written or a.operand is x)

    def _is_there(self, step: Step) -> bool:
        """Whether a copy has nothing to do."""
        if step.part is None:
            return False
        y, x = (a.operand for a in step.args)
        assert isinstance(y, Value) and isinstance(x, Value)
        to, at = self._operand(y, ""), self._operand(x, "")
        start = to.start + self.offsets.get(to, 0) + step.part.at
        same = at.root is to.root and at.start + self.offsets.get(at, 0) == start
        return same and x.type.layout.pitch == step.part.row

    def _layer(
        self,
        node: Node,
        choice: Choice,
        weights: int,
        cost: float | None,
        spent: int | None = None,
    ) -> None:
        """`spent`: multiply-accumulates with what is computed twice."""
        arrow = " -> ".join(
            ", ".join(str(v.type) for v in vs if v is not None and not v.is_const) for vs in (node.inputs, node.outputs)
        )
        kind, macs = mac_kind(node)
        macs *= self.times
        name = node.origin or node.output.name
        guess = None if cost is None else round(cost) * self.times
        again = 0 if spent is None else spent - macs
        value, row = node.outputs[0].name, choice.variant.name
        self.layers.append(
            Layer(name, node.op.name, row, kind, macs, weights, arrow, guess, choice.rejected, again, value)
        )

    def _call(self, step: Step, node: Node, layer: int) -> Call:
        name = node.output.name
        args = tuple(self._place(self._operand(a.operand, f"{name}_{a.name}")) for a in step.args)
        starts = [(p.buffer.root, p.buffer.start + p.offset) for p in args]
        if starts[0] in starts[1:]:  # copied from one place of a tensor to another: one pointer, without `restrict`
            met = (
                replace(a, overlay=a.overlay or start == starts[0]) for a, start in zip(step.args, starts, strict=True)
            )
            step = replace(step, args=tuple(met))
        call = step.call(step.function, args, layer)
        dense = tuple(o for o in call.overlaps if not {args[i].buffer for i in o[:2]} & self.offsets.keys())
        return replace(call, overlaps=dense)

    def _operand(self, operand: Operand, name: str) -> Buffer:
        if isinstance(operand, Scratch):
            return Buffer(f"{name}", operand.type, Kind.ARENA, is_scratch=True)
        if isinstance(operand, Packed):
            return Buffer(name, type_of(operand.data), Kind.CONST, data=operand.data)
        operand = self.parts.original(operand)
        if operand in self.buffers:
            return self.buffers[operand]
        data = pack_tensor(operand.array, operand.type) if operand.type.dtype.is_packed else operand.array
        self.buffers[operand] = Buffer(operand.name, operand.type, Kind.CONST, data=data)
        return self.buffers[operand]


def _depth(items: Sequence[Item]) -> int:
    """How many loops are around the most deeply nested NextRow."""
    loops = [i for i in items if isinstance(i, Loop) and any(isinstance(j, NextRow) for j in walk(i.body))]
    return max((1 + _depth(loop.body) for loop in loops), default=0)


def mac_kind(node: Node) -> tuple[str, int]:
    """What a node multiplies, and how often."""
    op = node.op
    if isinstance(op, Recurrent):
        return "float", op.macs(*(v.type for v in node.inputs[:3] if v is not None))
    if isinstance(op, MatMul):
        return "float", node.output.type.size * node.input(0).type.channels
    if not isinstance(op, Conv2D):
        return "", 0
    x, w = node.input(0).type, node.input(1).type
    macs = op.macs(x, w)
    if x.dtype is BIT1 and w.dtype is BIT1:
        return "binary", macs
    if x.dtype.digits or (x.dtype.is_packed and not w.dtype.is_packed and w.dtype.is_integer):
        return "lowbit", macs
    if x.dtype.is_packed and w.dtype.is_packed:
        return "ternary", macs
    return ("int8" if x.dtype.is_integer and w.dtype.is_integer else "float"), macs
