"""Importers of RNN, GRU and LSTM: one operator per direction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bitc.frontend.context import Context, Importer, Table
from bitc.frontend.movement import reshaped, sliced
from bitc.ir import INT32, Value
from bitc.ops import binary as b
from bitc.ops import unary as u
from bitc.ops.movement import Concat, Transpose
from bitc.ops.recurrent import Activation, Gru, Lstm, Recurrent, Rnn

Numbers = Iterator[float]


def _next(numbers: Numbers, default: float) -> float:
    return next(numbers, default)


def _scaled_tanh(alpha: float, beta: float) -> Activation:
    return (u.Line(beta), u.Tanh(), u.Line(alpha))


_ACTIVATIONS: dict[str, Callable[[Numbers, Numbers], Activation]] = {
    "relu": lambda a, b: (u.Relu(),),
    "tanh": lambda a, b: (u.Tanh(),),
    "sigmoid": lambda a, b: (u.Sigmoid(),),
    "softsign": lambda a, b: (u.Softsign(),),
    "softplus": lambda a, b: (u.Softplus(),),
    "affine": lambda a, b: (u.Line(_next(a, 1.0), _next(b, 0.0)),),
    "leakyrelu": lambda a, b: (u.LeakyRelu(_next(a, 0.01)),),
    "thresholdedrelu": lambda a, b: (u.ThresholdedRelu(_next(a, 1.0)),),
    "scaledtanh": lambda a, b: _scaled_tanh(_next(a, 1.0), _next(b, 1.0)),
    "hardsigmoid": lambda a, b: (u.HardSigmoid(_next(a, 0.2), _next(b, 0.5)),),
    "elu": lambda a, b: (u.Elu(_next(a, 1.0)),),
}
"""By lower-case name; each takes the parameters it needs from the lists of the node."""


@dataclass(frozen=True)
class _Layer:
    """The attributes of a node, for all its directions."""

    hidden: int
    reverse: tuple[bool, ...]
    activations: tuple[Activation, ...]
    clip: float
    batch_first: bool


def _layer(ctx: Context, kind: type[Recurrent], defaults: Sequence[str]) -> _Layer:
    direction = ctx.attrs.str_("direction", "forward").lower()
    reverse = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}.get(direction)
    if reverse is None:
        raise ctx.invalid(f"direction {direction!r}")
    r = ctx.floats(2)
    if r.type.rank != 3 or r.shape[0] != len(reverse) or r.shape[1] != kind.gates * r.shape[2]:
        raise ctx.invalid(f"its recurrent weights are {r.type}")
    hidden = ctx.attrs.int_("hidden_size", r.shape[2])
    if hidden != r.shape[2]:
        raise ctx.invalid(f"hidden_size is {hidden}, the recurrent weights are {r.type}")
    names = [n.lower() for n in ctx.attrs.strs("activations") or [*defaults] * len(reverse)]
    unknown = [n for n in names if n not in _ACTIVATIONS]
    if unknown or len(names) != len(defaults) * len(reverse):
        raise ctx.invalid(f"its activations are {names}")
    alpha, beta = (iter(ctx.attrs.floats(f"activation_{name}") or ()) for name in ("alpha", "beta"))
    chains = tuple(_ACTIVATIONS[n](alpha, beta) for n in names)
    clip = ctx.attrs.float_("clip", 0.0)
    return _Layer(hidden, reverse, chains, clip if clip > 0 else float("inf"), ctx.attrs.flag("layout"))


def _part(ctx: Context, v: Value | None, direction: int, start: int = 0, stop: int | None = None) -> Value | None:
    """``v[direction, start:stop]``."""
    if v is None:
        return None
    stop = v.shape[1] if stop is None else stop
    rest = [(0, d, 1) for d in v.shape[2:]]
    part = sliced(ctx, v, [(direction, direction + 1, 1), (start, stop, 1), *rest])
    return reshaped(ctx, part, (stop - start, *v.shape[2:]))


def _swapped(ctx: Context, v: Value) -> Value:
    """The first two axes swapped."""
    first, second, *rest = v.shape
    if 1 in (first, second):
        return reshaped(ctx, v, (second, first, *rest))
    return ctx.emit(Transpose((1, 0, *range(2, v.type.rank))), v)


def _lengths(ctx: Context, steps: int, batch: int) -> Value | None:
    """The lengths of the sequences, None if all are whole."""
    lengths = ctx.optional(4)
    if lengths is None or (lengths.is_const and (np.asarray(lengths.array) == steps).all()):
        return None
    if lengths.shape != (batch,):
        raise ctx.invalid(f"its sequence lengths are {lengths.type}")
    return ctx.cast(lengths, INT32)


def _sums(ctx: Context, *values: Value | None) -> Value | None:
    present = [v for v in values if v is not None]
    if not present:
        return None
    total = present[0]
    for v in present[1:]:
        total = ctx.emit(b.Add(), total, v)
    return total


def _stack(ctx: Context, values: list[Value], axis: int) -> Value:
    return values[0] if len(values) == 1 else ctx.emit(Concat(axis), *values)


def _state(ctx: Context, index: int, layer: _Layer) -> Value | None:
    """An initial state ``[directions, B, H]``; None for zeros."""
    v = ctx.optional(index)
    if v is None or (v.is_const and not v.array.any()):
        return None
    return _swapped(ctx, v) if layer.batch_first else v


def _bias(ctx: Context, direction: int, gates: int, hidden: int) -> tuple[Value | None, Value | None]:
    """Wb and Rb of a direction."""
    v = ctx.optional(3)
    if v is not None and v.shape[1:] != (2 * gates * hidden,):
        raise ctx.invalid(f"its bias is {v.type}")
    return _part(ctx, v, direction, 0, gates * hidden), _part(ctx, v, direction, gates * hidden)


@dataclass(frozen=True)
class _Cell:
    """One direction: the operator, its bias, and its further inputs."""

    op: Recurrent
    bias: Value | None
    more: tuple[Value | None, ...] = ()


Fields = tuple[tuple[Activation, ...], bool, bool, float]
"""The first fields of a `Recurrent`."""


def _rnn(ctx: Context, layer: _Layer, d: int, fields: Fields) -> _Cell:
    return _Cell(Rnn(*fields), _sums(ctx, *_bias(ctx, d, 1, layer.hidden)))


def _gru(ctx: Context, layer: _Layer, d: int, fields: Fields) -> _Cell:
    n = layer.hidden
    op = Gru(*fields, ctx.attrs.flag("linear_before_reset"))
    ours, theirs = _bias(ctx, d, 3, n)
    if not op.reset_after or theirs is None:
        return _Cell(op, _sums(ctx, ours, theirs))
    gates = sliced(ctx, theirs, [(0, 2 * n, 1)])
    rest = ctx.const(np.zeros(n, np.float32))
    inside = sliced(ctx, theirs, [(2 * n, 3 * n, 1)])
    return _Cell(op, _sums(ctx, ours, ctx.emit(Concat(0), gates, rest)), (inside,))


def _lstm(ctx: Context, layer: _Layer, d: int, fields: Fields) -> _Cell:
    op = Lstm(*fields, ctx.attrs.flag("input_forget"))
    bias = _sums(ctx, *_bias(ctx, d, 4, layer.hidden))
    peepholes = ctx.optional(7)
    if peepholes is not None and peepholes.is_const and not peepholes.array.any():
        peepholes = None
    return _Cell(op, bias, (_part(ctx, _state(ctx, 6, layer), d), _part(ctx, peepholes, d)))


def recurrent(
    kind: type[Recurrent], defaults: Sequence[str], cell: Callable[[Context, _Layer, int, Fields], _Cell]
) -> Importer:
    """Outputs Y, Y_h and, of an LSTM, Y_c. `defaults`: the activations of one direction."""

    def run(ctx: Context) -> list[Value]:
        layer = _layer(ctx, kind, defaults)
        x, initial = ctx.floats(), _state(ctx, 5, layer)
        if x.type.rank != 3:
            raise ctx.invalid(f"its input is {x.type}")
        x = _swapped(ctx, x) if layer.batch_first else x
        steps, batch, _ = x.shape
        lengths = _lengths(ctx, steps, batch)
        last: list[list[Value]] = [[] for _ in range(kind.states)]
        whole: list[Value] = []
        for d, reverse in enumerate(layer.reverse):
            chains = layer.activations[d * len(defaults) : (d + 1) * len(defaults)]
            one = cell(ctx, layer, d, (chains, reverse, ctx.wanted(0), layer.clip))
            w, r = _part(ctx, ctx.floats(1), d), _part(ctx, ctx.floats(2), d)
            if w is None or w.shape != (kind.gates * layer.hidden, x.shape[2]):
                raise ctx.invalid(f"its weights are {ctx.input(1).type}, its input is {x.type}")
            found = ctx.emit_all(one.op, x, w, r, one.bias, _part(ctx, initial, d), lengths, *one.more)
            for states, v in zip(last, found, strict=False):
                states.append(reshaped(ctx, v, (1, batch, layer.hidden)))
            if ctx.wanted(0):
                whole.append(reshaped(ctx, found[-1], (steps, 1, batch, layer.hidden)))
        states_out = [_stack(ctx, v, 0) for v in last]
        if layer.batch_first:
            states_out = [_swapped(ctx, v) for v in states_out]
        return [_whole(ctx, whole, layer) if whole else states_out[0], *states_out]

    return run


def _whole(ctx: Context, parts: list[Value], layer: _Layer) -> Value:
    """Y ``[T, directions, B, H]``, or ``[B, T, directions, H]``."""
    y = _stack(ctx, parts, 1)
    if not layer.batch_first:
        return y
    steps, directions, batch, hidden = y.shape
    if batch == 1:
        return reshaped(ctx, y, (batch, steps, directions, hidden))
    return ctx.emit(Transpose((2, 0, 1, 3)), y)


TABLE: Table = {
    ("", "RNN"): recurrent(Rnn, ["Tanh"], _rnn),
    ("", "GRU"): recurrent(Gru, ["Sigmoid", "Tanh"], _gru),
    ("", "LSTM"): recurrent(Lstm, ["Sigmoid", "Tanh", "Tanh"], _lstm),
}
