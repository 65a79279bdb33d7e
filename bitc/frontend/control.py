"""Importers of If, Loop and Scan.

An `If` on a constant becomes the branch that is taken; on a value of run time both branches are computed and one's
outputs chosen: operators have no side effects. Short loops are unrolled: each step is imported anew, so that what
depends on the step number or on shapes is known. Long ones become loops in C where every step is like the others; else
they are unrolled too: equal steps share their C functions, and cost a call each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

import numpy as np
from onnx import GraphProto

from bitc.errors import InvalidModel
from bitc.frontend.context import Context, Refused, Session
from bitc.frontend.extents import fixed
from bitc.frontend.movement import reshaped, sliced
from bitc.frontend.rolled import Body, Incomplete, Opened, RolledLoop, repeated
from bitc.ir import BOOL, INT64, Value
from bitc.ops import binary as b
from bitc.ops.movement import Concat, Transpose

LIMIT_NODES = 10_000
"""Operators to which a loop may unroll."""
LIMIT_STEPS = 10_000

SHORT = 128
"""Operators to which a loop is unrolled in any case."""


class Open(Protocol):
    """Prepares a subgraph for import, into another session's builder if one is given."""

    def __call__(self, graph: GraphProto, session: Session | None = None) -> Body: ...


Flow = Callable[[Context, Open], list[Value]]


def _truth(v: Value) -> bool | None:
    """A condition that is known; None if it is computed at run time."""
    return bool(np.asarray(v.array).reshape(-1)[0]) if v.is_const else None


def _condition(ctx: Context, v: Value) -> Value:
    """A condition as a scalar."""
    if v.type.size != 1 or v.type.dtype is not BOOL:
        raise ctx.invalid(f"its condition is {v.type}")
    return reshaped(ctx, v, ())


def _chosen(ctx: Context, condition: Value, yes: Value, no: Value) -> Value:
    if yes is no:
        return yes
    fixed(ctx, yes, no)
    if yes.type.shape != no.type.shape or yes.type.dtype is not no.type.dtype:
        raise Refused(
            f"the condition is computed at run time, and its results differ in type: {yes.type} and {no.type}",
            "make them alike, or the condition constant",
        )
    return ctx.emit(b.Where(), condition, yes, no)


def if_(ctx: Context, open_: Open) -> list[Value]:
    condition = _condition(ctx, ctx.input())
    known = _truth(condition)
    graphs = [ctx.attrs.graph(name) for name in ("then_branch", "else_branch")]
    if any(len(g.output) != len(ctx.node.output) for g in graphs):
        raise ctx.invalid("its branches have another number of outputs")
    if known is not None:
        return open_(graphs[0 if known else 1])()
    yes, no = (open_(g)() for g in graphs)
    return [_chosen(ctx, condition, y, n) for y, n in zip(yes, no, strict=True)]


class _TooLong(Exception):
    """A loop unrolls to more than a few operators."""


class _Limit:
    """Counts what a loop unrolls to. `reason`: why it is no loop in C, where unrolling is all there is to try."""

    def __init__(self, ctx: Context, nodes: int, reason: str = "") -> None:
        self._ctx, self._nodes, self._reason = ctx, nodes, reason
        self._start = len(ctx.session.builder.nodes)

    def check(self, step: int) -> None:
        nodes = len(self._ctx.session.builder.nodes) - self._start
        if nodes > self._nodes or step > LIMIT_STEPS:
            hint = "bound it by fewer steps, or run one step at a time with its state as inputs and outputs"
            self.stop(f"unrolls to more than {LIMIT_NODES} operators or steps", hint)

    def stop(self, what: str, hint: str) -> NoReturn:
        if not self._reason:
            raise _TooLong
        raise Refused(f"it {what}, and is no loop in C: {self._reason}", hint)


def _short_or_rolled(
    ctx: Context, unrolled: Callable[[_Limit], list[Value]], rolled: Callable[[], list[Value]]
) -> list[Value]:
    """Unrolled if that is short, else a loop, else unrolled."""
    start = len(ctx.session.builder.nodes)
    try:
        return unrolled(_Limit(ctx, SHORT))
    except _TooLong:
        del ctx.session.builder.nodes[start:]
    try:
        return rolled()
    except (Refused, Incomplete) as e:
        reason = e.reason if isinstance(e, Refused) else "its body is not supported"
        return unrolled(_Limit(ctx, LIMIT_NODES, reason))


def _collected(ctx: Context, parts: Sequence[Value], axis: int, index: int) -> Value:
    """What the steps left, along a new axis."""
    if not parts:
        if ctx.wanted(index):
            raise Refused("it makes no step, so that its result is empty", "remove it before export")
        return ctx.const(0.0)
    shape = parts[0].shape
    at = ctx.axis(axis, len(shape) + 1)
    if any(p.shape != shape for p in parts):
        raise ctx.invalid("its steps make tensors of different shapes")
    grown = [reshaped(ctx, p, (*shape[:at], 1, *shape[at:])) for p in parts]
    return grown[0] if len(grown) == 1 else ctx.emit(Concat(at), *grown)


def loop(ctx: Context, open_: Open) -> list[Value]:
    """Inputs: the number of steps, the condition (both may be absent), the states. The body takes the step number, the
    condition and the states; it gives the condition, the states, and what is collected."""
    graph = ctx.attrs.graph("body")
    fixed(ctx, *(v for v in ctx.inputs if v is not None))
    states = [ctx.input(i) for i in range(2, len(ctx.inputs))]
    collects = len(graph.output) - 1 - len(states)
    if len(graph.input) != 2 + len(states) or collects < 0 or len(ctx.node.output) > len(graph.output) - 1:
        raise ctx.invalid("its body has another number of inputs or outputs")
    given = ctx.optional(0)
    if given is not None and given.type.size != 1:
        raise ctx.invalid(f"its number of steps is {given.type}")
    known = given is None or given.is_const
    steps = None if given is None or not known else int(given.array.reshape(-1)[0])
    running = ctx.const(np.array(True)) if ctx.optional(1) is None else _condition(ctx, ctx.input(1))
    wanted = [ctx.wanted(len(states) + i) for i in range(collects)]

    def rolled() -> list[Value]:
        return RolledLoop(ctx, lambda s: open_(graph, s), steps if known else given, running, states, wanted).run()

    def unrolled(limit: _Limit) -> list[Value]:
        return _unrolled(ctx, open_(graph), limit, steps, running, states, wanted)

    return _short_or_rolled(ctx, unrolled, rolled) if known else rolled()


def _unrolled(
    ctx: Context,
    body: Body,
    limit: _Limit,
    steps: int | None,
    running: Value,
    states: list[Value],
    wanted: Sequence[bool],
) -> list[Value]:
    collected: list[list[Value]] = [[] for _ in wanted]
    step = 0
    while (steps is None or step < steps) and _truth(running) is not False:
        limit.check(step)
        if _truth(running) is None and any(wanted):
            hint = ctx.session.not_constant(running, "its condition").hint
            limit.stop("collects as many results as a condition says at run time", hint)
        going, *results = body(ctx.const(np.array(step, np.int64), INT64), running, *states)
        going = _condition(ctx, going)
        fixed(ctx, *results)
        new, parts = results[: len(states)], results[len(states) :]
        if _truth(running) is None:
            states = [_chosen(ctx, running, y, n) for y, n in zip(new, states, strict=True)]
            running = ctx.emit(b.And(), running, going)
        else:
            states, running = new, going
        for kept, part in zip(collected, parts, strict=True):
            kept.append(part)
        step += 1
    return [*states, *(_collected(ctx, parts, 0, len(states) + i) for i, parts in enumerate(collected))]


def scan(ctx: Context, open_: Open) -> list[Value]:
    """Inputs: the states, then what is read step by step. The body gives the states, then what is collected. Opset 8,
    which has lengths first and a batch axis, is run once per element of the batch."""
    graph, count = ctx.attrs.graph("body"), ctx.attrs.int_("num_scan_inputs")
    old = ctx.opset < 9
    values = [ctx.input(i) for i in range(1 if old else 0, len(ctx.inputs))]
    if old and ctx.optional(0) is not None:
        raise Refused("it has sequence lengths", "export with opset 9 or newer")
    if not 1 <= count <= len(values) or len(graph.input) != len(values):
        raise ctx.invalid("its body has another number of inputs")
    fixed(ctx, *values)
    kept = len(values) - count
    outputs = len(graph.output) - kept
    if outputs < 0 or len(ctx.node.output) > len(graph.output):
        raise ctx.invalid("its body has another number of outputs")
    opened: Opened = lambda s: open_(graph, s)  # noqa: E731  (a name for the type)
    if not old:
        axes = [_listed(ctx, f"scan_{side}_axes", n, 0) for side, n in (("input", count), ("output", outputs))]
        back = [_listed(ctx, f"scan_{side}_directions", n, 0) for side, n in (("input", count), ("output", outputs))]
        return _scanned(ctx, opened, values[:kept], values[kept:], axes, back)
    back = [_listed(ctx, "directions", count, 0), [0] * outputs]
    runs = [
        _scanned(ctx, opened, *_element(ctx, values, kept, n), [[0] * count, [0] * outputs], back)
        for n in range(values[0].shape[0])
    ]
    return [_collected(ctx, parts, 0, i) for i, parts in enumerate(zip(*runs, strict=True))]


def _element(ctx: Context, values: Sequence[Value], kept: int, n: int) -> tuple[list[Value], list[Value]]:
    """States and scanned values of one element of the batch."""
    one = [_at(ctx, v, 0, n) for v in values]
    return one[:kept], one[kept:]


def _listed(ctx: Context, name: str, count: int, default: int) -> list[int]:
    found = ctx.attrs.ints(name)
    if found is not None and len(found) != count:
        raise ctx.invalid(f"{name} has {len(found)} entries, not {count}")
    return [default] * count if found is None else list(found)


def _at(ctx: Context, v: Value, axis: int, index: int) -> Value:
    """One element along an axis, without the axis."""
    ranges = [(index, index + 1, 1) if i == axis else (0, d, 1) for i, d in enumerate(v.shape)]
    return reshaped(ctx, sliced(ctx, v, ranges), [d for i, d in enumerate(v.shape) if i != axis])


def _scanned(
    ctx: Context,
    opened: Opened,
    states: Sequence[Value],
    values: Sequence[Value],
    axes: Sequence[Sequence[int]],
    backwards: Sequence[Sequence[int]],
) -> list[Value]:
    at = [ctx.axis(a, v.type.rank) for a, v in zip(axes[0], values, strict=True)]
    lengths = {v.shape[a] for a, v in zip(at, values, strict=True)}
    if len(lengths) != 1:
        raise ctx.invalid(f"the sequences that it reads have lengths {sorted(lengths)}")
    steps = lengths.pop()

    def unrolled(limit: _Limit) -> list[Value]:
        body, current = opened(None), list(states)
        collected: list[list[Value]] = [[] for _ in axes[1]]
        for step in range(steps):
            limit.check(step)
            read = [
                _at(ctx, v, a, steps - 1 - step if back else step)
                for v, a, back in zip(values, at, backwards[0], strict=True)
            ]
            results = body(*current, *read)
            fixed(ctx, *results)
            current = results[: len(current)]
            for parts, part in zip(collected, results[len(current) :], strict=True):
                parts.append(part)
        ordered = [parts[::-1] if back else parts for parts, back in zip(collected, backwards[1], strict=True)]
        both = enumerate(zip(ordered, axes[1], strict=True))
        return [*current, *(_collected(ctx, p, a, len(current) + i) for i, (p, a) in both)]

    def rolled() -> list[Value]:
        rows = [_reversed(ctx, moved(ctx, v, a, 0), back) for v, a, back in zip(values, at, backwards[0], strict=True)]

        def step(inner: Context, given: list[Value], parts: list[Value]) -> tuple[list[Value], list[Value]]:
            results = opened(inner.session)(*given, *parts)
            return results[: len(given)], results[len(given) :]

        final, wholes = repeated(ctx, step, steps, states, rows)
        ends = zip(wholes, axes[1], backwards[1], strict=True)
        return [*final, *(moved(ctx, _reversed(ctx, v, back), 0, ctx.axis(a, v.type.rank)) for v, a, back in ends)]

    return _short_or_rolled(ctx, unrolled, rolled)


def moved(ctx: Context, v: Value, source: int, to: int) -> Value:
    """The tensor with an axis in another place."""
    perm = [a for a in range(v.type.rank) if a != source]
    perm.insert(to, source)
    return v if source == to else ctx.emit(Transpose(tuple(perm)), v)


def _reversed(ctx: Context, v: Value, back: int) -> Value:
    """The rows from the last to the first, if wanted."""
    return sliced(ctx, v, [(v.shape[0] - 1, -1, -1), *((0, d, 1) for d in v.shape[1:])]) if back else v


CONTROL: dict[str, Flow] = {"If": if_, "Loop": loop, "Scan": scan}
"""By operator of the default domain."""


def check_inputs(graph: GraphProto, values: Sequence[Value], at: str) -> None:
    if len(graph.input) != len(values):
        raise InvalidModel(
            f"a subgraph takes {len(graph.input)} inputs, {len(values)} are given", where=at, hint="export it again"
        )
