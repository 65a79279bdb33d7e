"""Loops that stay loops: the body is imported once, on stand-ins for what changes from step to step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bitc.errors import ModelError
from bitc.frontend.context import Context, Refused, Session, check_size
from bitc.frontend.extents import fixed, ragged
from bitc.frontend.movement import reshaped
from bitc.ir import BOOL, INT32, INT64, Graph, TensorType, Value
from bitc.ir.graph import Node
from bitc.ir.rewrite import Builder, dead_code
from bitc.ir.verify import verify
from bitc.ops import binary as b
from bitc.ops.movement import Reshape
from bitc.ops.repeat import UNBOUNDED, Repeat

Body = Callable[..., list[Value]]
"""Imports a subgraph once, with these values for its inputs; raises Incomplete where a node in it is not supported."""
Opened = Callable[[Session | None], Body]
"""A subgraph to import into another session's builder, or into the node's own."""
Step = Callable[[Context, list[Value], list[Value]], tuple[list[Value], list[Value]]]
"""From states and rows of one step to new states and what is collected, emitted into the context's builder."""


class Incomplete(Exception):
    """A node of a subgraph is not supported; the walk has noted which."""


def repeated(
    ctx: Context, step: Step, steps: int, states: Sequence[Value], rows: Sequence[Value], conditional: bool = False
) -> tuple[list[Value], list[Value]]:
    """Emit a loop; returns the states after it, and what it collected as ``[steps, ...]``. A state that no step changes
    is taken from outside. Raises Refused where one step is not like the others."""
    still: set[int] = set()
    while True:
        inner = ctx.within(replace(ctx.session, builder=Builder()))
        given = [v if i in still else _stand_in(f"state{i}", v.shape, v) for i, v in enumerate(states)]
        parts_in = [_stand_in(f"row{i}", v.shape[1:], v) for i, v in enumerate(rows)]
        try:
            after, parts = step(inner, given, parts_in)
        except ModelError as e:
            raise Refused(f"its body can not be imported for any step: {e.what}") from e
        fixed(ctx, *after, *parts)
        same = {i for i, (x, y) in enumerate(zip(given, after, strict=True)) if x is y and not (conditional and i == 0)}
        if same <= still:
            break
        still |= same
    for x, y in zip(given, after, strict=True):
        if (x.shape, x.type.dtype) != (y.shape, y.type.dtype):
            raise Refused(f"a state is {x.type} before a step and {y.type} after it", "give it one shape")
    moving = [i for i in range(len(states)) if i not in still]
    body, outside = _body(ctx, inner, [given[i] for i in moving], parts_in, [*(after[i] for i in moving), *parts])
    op = Repeat(body, steps, len(moving), len(rows), conditional)
    inputs = [*(states[i] for i in moving), *rows, *outside]
    for t in op.infer(*(v.type for v in inputs)):
        check_size(t, ctx.at)
    results = ctx.session.builder.emit_all(op, inputs, ctx.at)
    final = dict(zip(moving, results, strict=False))
    return [final.get(i, v) for i, v in enumerate(states)], list(results[len(moving) :])


def _stand_in(name: str, shape: tuple[int, ...], like: Value) -> Value:
    return Value(name, TensorType(shape, like.type.dtype))


def _body(
    ctx: Context, inner: Context, states: list[Value], rows: list[Value], outputs: list[Value]
) -> tuple[Graph, list[Value]]:
    """The graph of a step, and the values from outside that it reads. What is the same in every step moves outside."""
    changing = {*states, *rows}
    nodes: list[Node] = []
    for node in inner.session.builder.nodes:
        if changing.isdisjoint(node.inputs):
            ctx.session.builder.add(node)
        else:
            changing.update(node.outputs)
            nodes.append(node)
    last = len(inner.session.builder.nodes)
    taken: set[Value] = {*states, *rows}
    for i, v in enumerate(outputs):
        if not v.is_const and (v in taken or v not in changing):  # an output needs a value of its own
            outputs[i] = inner.session.builder.emit(Reshape(v.shape), v)
        taken.add(outputs[i])
    nodes += inner.session.builder.nodes[last:]
    made = {*states, *rows, *(o for n in nodes for o in n.outputs)}
    outside = list(dict.fromkeys(v for n in nodes for v in n.inputs if v is not None and not v.is_const))
    outside = [v for v in outside if v not in made]
    inputs = {v: _stand_in(f"outer{i}", v.shape, v) for i, v in enumerate(outside)}
    nodes = [replace(n, inputs=tuple(v if v is None else inputs.get(v, v) for v in n.inputs)) for n in nodes]
    graph = dead_code(Graph("body", (*states, *rows, *inputs.values()), tuple(outputs), tuple(nodes)))
    return verify(graph, after="import of a loop"), outside


@dataclass(frozen=True)
class RolledLoop:
    """An ONNX Loop. `steps`: a number, computed, or None if there is none. `collected`: which results are wanted of
    those that the body leaves at each step."""

    ctx: Context
    opened: Opened
    steps: Value | int | None
    running: Value
    states: Sequence[Value]
    collected: Sequence[bool]

    @property
    def _most(self) -> int:
        return self.steps if isinstance(self.steps, int) else UNBOUNDED

    def run(self) -> list[Value]:
        """The states after it, then what it collected (anything for what is not wanted)."""
        if self._most > UNBOUNDED:
            raise Refused(f"it makes {self._most} steps", "bound it by fewer")
        found = None
        if self.running.is_const and not isinstance(self.steps, Value):
            found = self._unconditional()
        final, parts = found or self._conditional()
        left = iter(parts)
        return [*final, *(next(left) if wanted else self.ctx.const(0.0) for wanted in self.collected)]

    def _unconditional(self) -> tuple[list[Value], list[Value]] | None:
        """All steps; None if the body computes a condition."""
        goes_on: list[bool] = []

        def step(inner: Context, given: list[Value], rows: list[Value]) -> tuple[list[Value], list[Value]]:
            i, *states = given
            going, new, parts = self._step(inner, i, states)
            goes_on.append(going.is_const and bool(going.array.reshape(-1)[0]))
            read = any(i in n.inputs for n in inner.session.builder.nodes)
            return [_after(inner, i) if read else i, *new], parts

        final, parts = repeated(self.ctx, step, self._most, [self._zero(), *self.states], [])
        if not goes_on[-1]:
            return None
        if self._most == UNBOUNDED:
            raise Refused("it has no end", "bound its steps by a constant")
        return final[1:], parts

    def _conditional(self) -> tuple[list[Value], list[Value]]:
        """While the condition is true, which is the first state; the number of the step is the second."""
        ctx = self.ctx
        if any(self.collected) and isinstance(self.steps, Value):
            raise ctx.session.not_constant(self.steps, "the number of steps, which is that of its results,")
        if any(self.collected) and self._most == UNBOUNDED:
            raise Refused("it collects as many results as it makes steps", "bound its steps by a constant")
        limit, first = None, self.running
        if isinstance(self.steps, Value):
            limit = ctx.cast(reshaped(ctx, self.steps, ()), INT64)
            first = ctx.emit(b.And(), first, ctx.emit(b.Less(), self._zero(), limit))

        def step(inner: Context, given: list[Value], rows: list[Value]) -> tuple[list[Value], list[Value]]:
            _, i, *states = given
            going, new, parts = self._step(inner, i, states)
            following = _after(inner, i)
            if limit is not None:
                going = inner.emit(b.And(), going, inner.emit(b.Less(), following, limit))
            return [going, following, *new], parts

        final, parts = repeated(ctx, step, self._most, [first, self._zero(), *self.states], [], conditional=True)
        count = ctx.cast(final[1], INT32)
        return final[2:], [ragged(ctx, p, 0, count, zeroed=True) for p in parts]

    def _step(self, inner: Context, i: Value, states: Sequence[Value]) -> tuple[Value, list[Value], list[Value]]:
        """The condition, the new states, and what is collected and wanted. No step is made on a false condition."""
        going, *results = self.opened(inner.session)(i, inner.const(np.array(True)), *states)
        if going.type.size != 1 or going.type.dtype is not BOOL:
            raise inner.invalid(f"its condition is {going.type}")
        new, parts = results[: len(states)], results[len(states) :]
        kept = [p for p, wanted in zip(parts, self.collected, strict=True) if wanted]
        return reshaped(inner, going, ()), new, kept

    def _zero(self) -> Value:
        return self.ctx.const(np.array(0, np.int64))


def _after(ctx: Context, i: Value) -> Value:
    return ctx.emit(b.Add(), i, ctx.const(np.array(1, np.int64)))
