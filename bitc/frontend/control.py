"""Importers of If, Loop and Scan.

An `If` on a constant becomes the branch that is taken; on a value of run time both branches are computed and one's
outputs chosen: operators have no side effects. Loops are unrolled: each step is imported anew, so that what depends on
the step number or on shapes is known. Equal steps share their C functions, and cost a call each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import GraphProto

from bitc.errors import InvalidModel
from bitc.frontend.context import Context, Refused
from bitc.frontend.extents import fixed
from bitc.frontend.movement import reshaped, sliced
from bitc.ir import BOOL, INT64, Value
from bitc.ops import binary as b
from bitc.ops.movement import Concat

LIMIT_NODES = 10_000
"""Operators to which a loop may unroll."""
LIMIT_STEPS = 10_000

Body = Callable[..., list[Value]]
"""Imports a subgraph once, with these values for its inputs; raises Incomplete where a node in it is not supported."""
Open = Callable[[GraphProto], Body]
Flow = Callable[[Context, Open], list[Value]]


class Incomplete(Exception):
    """A node of a subgraph is not supported; the walk has noted which."""


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


class _Limit:
    """Counts what a loop unrolls to."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._start = len(ctx.session.builder.nodes)

    def check(self, step: int) -> None:
        nodes = len(self._ctx.session.builder.nodes) - self._start
        if nodes > LIMIT_NODES or step > LIMIT_STEPS:
            raise Refused(
                f"it unrolls to more than {LIMIT_NODES} operators or steps",
                "bound it by fewer steps, or run one step at a time with its state as inputs and outputs",
            )


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
    given = ctx.optional_array(0, "the number of steps")
    if given is not None and given.size != 1:
        raise ctx.invalid(f"its number of steps is {ctx.input(0).type}")
    steps = None if given is None else int(given.reshape(-1)[0])
    running = ctx.const(np.array(True)) if ctx.optional(1) is None else _condition(ctx, ctx.input(1))
    body, limit = open_(graph), _Limit(ctx)
    collected: list[list[Value]] = [[] for _ in range(collects)]
    step = 0
    while (steps is None or step < steps) and _truth(running) is not False:
        limit.check(step)
        going, *results = body(ctx.const(np.array(step, np.int64), INT64), running, *states)
        going = _condition(ctx, going)
        fixed(ctx, *results)
        new, parts = results[: len(states)], results[len(states) :]
        if _truth(running) is None:
            if any(ctx.wanted(len(states) + i) for i in range(collects)):
                raise Refused("it collects as many results as a condition says at run time", "bound it by a constant")
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
    body, limit = open_(graph), _Limit(ctx)
    if not old:
        axes = [_listed(ctx, f"scan_{side}_axes", n, 0) for side, n in (("input", count), ("output", outputs))]
        back = [_listed(ctx, f"scan_{side}_directions", n, 0) for side, n in (("input", count), ("output", outputs))]
        return _scanned(ctx, body, limit, values[:kept], values[kept:], axes, back)
    back = [_listed(ctx, "directions", count, 0), [0] * outputs]
    runs = [
        _scanned(ctx, body, limit, *_element(ctx, values, kept, n), [[0] * count, [0] * outputs], back)
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
    body: Body,
    limit: _Limit,
    states: Sequence[Value],
    values: Sequence[Value],
    axes: Sequence[Sequence[int]],
    backwards: Sequence[Sequence[int]],
) -> list[Value]:
    at = [ctx.axis(a, v.type.rank) for a, v in zip(axes[0], values, strict=True)]
    lengths = {v.shape[a] for a, v in zip(at, values, strict=True)}
    if len(lengths) != 1:
        raise ctx.invalid(f"the sequences that it reads have lengths {sorted(lengths)}")
    steps, current = lengths.pop(), list(states)
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
    stacked = [_collected(ctx, p, a, len(current) + i) for i, (p, a) in enumerate(zip(ordered, axes[1], strict=True))]
    return [*current, *stacked]


CONTROL: dict[str, Flow] = {"If": if_, "Loop": loop, "Scan": scan}
"""By operator of the default domain."""


def check_inputs(graph: GraphProto, values: Sequence[Value], at: str) -> None:
    if len(graph.input) != len(values):
        raise InvalidModel(
            f"a subgraph takes {len(graph.input)} inputs, {len(values)} are given", where=at, hint="export it again"
        )
