"""How far apart float32 evaluations of each operator may be: one rule per operator class.

A rule takes the operator's site and its operands with their bounds, and returns the result with its bound. Steps (Sign,
Round, comparisons) have a bound of a whole step where an operand lies within its own bound of the step, else 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bitc.ir.graph import Array, Op
from bitc.ops import binary as b
from bitc.ops import bits, pool, reduce, trig
from bitc.ops import movement as m
from bitc.ops import unary as u
from bitc.ops.linear import Conv2D, MatMul
from bitc.ops.quantize import Dequantize, Quantize
from bitc.ops.recurrent import Recurrent
from bitc.ops.repeat import Repeat
from bitc.ops.window import Window, empty_output, spatial
from bitc.verification import rules_indexing
from bitc.verification.bounded import (
    SLACK,
    TINY,
    Bounded,
    U,
    bounded,
    exact,
    folded,
    gamma,
    rounded,
    spread,
    sums_exactly,
)

FUNCTION = 1e-6
"""Error of a transcendental function, relative to max(1, |y|). The worst of onnxruntime 1.31 (vectorised rational
approximations of tanh, sigmoid, erf) and of bitc's own over 200 000 arguments is 2.7e-7; this is four times that."""
EXP = 4e-7
"""Relative error of exp; the worst of both is 0.8e-7."""

_erf = np.frompyfunc(math.erf, 1, 1)


@dataclass(frozen=True)
class Site:
    """Where an operator stands. `folds`: a constant factor follows, which a compiler may fold into this sum's weights.
    `deviation`: how far the compiler moved this layer's weights when it found them two-valued; None if not at all."""

    op: Op
    folds: bool = False
    deviation: Array | None = None


Rule = Callable[..., Bounded]

# Arithmetic


def add(site: Site, x: Bounded, y: Bounded) -> Bounded:
    x, y = folded(x), folded(y)
    return rounded(x.value + y.value, x.err + y.err)


def sub(site: Site, x: Bounded, y: Bounded) -> Bounded:
    x, y = folded(x), folded(y)
    return rounded(x.value - y.value, x.err + y.err)


def straight_through(a: Bounded, t: Bounded) -> Bounded:
    """``(a - t) + t`` with the same t twice, so that its own error cancels: two roundings."""
    return bounded(a.value, a.err + U * (a.size + t.size) + U * a.size * (1 + U) + TINY)


def mul(site: Site, x: Bounded, y: Bounded) -> Bounded:
    x, y = folded(x), folded(y)
    err = np.abs(x.value) * y.err + np.abs(y.value) * x.err + x.err * y.err
    return rounded(x.value * y.value, np.where((x.err == 0) & (y.err == 0), 0.0, err))


def div(site: Site, x: Bounded, y: Bounded) -> Bounded:
    if not x.is_float:
        (value,) = site.op.reference(x.value, y.value)
        return bounded(value, np.where(x.err + y.err > 0, np.inf, 0.0))
    x, y = folded(x), folded(y)
    value = x.value / y.value
    room = np.abs(y.value) - y.err
    err = np.where(room > 0, (x.err + np.abs(value) * y.err) / np.where(room > 0, room, 1), np.inf)
    return rounded(value, np.where((x.err == 0) & (y.err == 0), 0.0, err))


def reciprocal(site: Site, x: Bounded) -> Bounded:
    return div(site, exact(np.ones(x.value.shape)), x)


def power(site: Site, x: Bounded, y: Bounded) -> Bounded:
    """``x ** y`` for exact exponents, from the ends of the interval around x and, if it contains 0, from 0."""
    if not x.is_float:
        (value,) = site.op.reference(x.value, y.value)
        return bounded(value, np.where(x.err + y.err > 0, np.inf, 0.0))

    def function(v: Array) -> Array:
        return np.asarray(np.power(v, y.value.astype(np.float64)))

    value = function(x.value)
    ends = [function(x.value - x.err), function(x.value + x.err)]
    ends += [np.where(np.abs(x.value) <= x.err, function(np.zeros(())), value)]
    err = np.max([np.abs(e - value) for e in ends], axis=0)
    err = np.where(y.err > 0, np.inf, np.where(x.err == 0, 0.0, err))
    return bounded(value, err + 4 * U * (np.abs(value) + err) + TINY)


def extreme(site: Site, x: Bounded, y: Bounded) -> Bounded:
    """Min and Max."""
    (value,) = site.op.reference(x.value, y.value)
    return bounded(value, np.maximum(x.err, y.err))


def modulo(site: Site, x: Bounded, y: Bounded) -> Bounded:
    (value,) = site.op.reference(x.value, y.value)
    size = y.size if y.is_float else np.abs(y.value.astype(np.float64))
    return rounded(value, np.where(x.err + y.err > 0, size + x.err + y.err, 0.0))


def prelu(site: Site, x: Bounded, slope: Bounded) -> Bounded:
    (value,) = site.op.reference(x.value, slope.value)
    err = np.maximum(1, slope.size) * x.err + np.where(x.value - x.err < 0, np.abs(x.value) * slope.err, 0.0)
    return rounded(value, err)


def negate(site: Site, x: Bounded) -> Bounded:
    return bounded(-x.value, x.err)


def absolute(site: Site, x: Bounded) -> Bounded:
    return bounded(np.abs(x.value), x.err)


# Functions of one operand


def step(site: Site, x: Bounded) -> Bounded:
    """A monotone function without rounding of its own: Relu, Clip, and the steps Sign, Round, Floor, Ceil, Trunc."""
    return spread(lambda v: site.op.reference(v)[0], x)


def clip(site: Site, x: Bounded) -> Bounded:
    op = site.op
    assert isinstance(op, u.Clip)
    return step(replace(site, op=u.Clip(float(np.float32(op.lo)), float(np.float32(op.hi)))), x)


def smooth(function: Callable[[Array], Array]) -> Rule:
    """A monotone transcendental function."""

    def rule(site: Site, x: Bounded) -> Bounded:
        y = spread(function, x)
        return bounded(y.value, y.err + FUNCTION * np.maximum(1, np.abs(y.value) + y.err))

    return rule


def lipschitz(function: Callable[[Any, Array], Array], constant: Callable[[Any], float]) -> Rule:
    """A function of which `constant` bounds the slope; it gets its operator, for attributes."""

    def rule(site: Site, x: Bounded) -> Bounded:
        y = function(site.op, x.value)
        err = constant(site.op) * x.err
        return bounded(y, err + FUNCTION * np.maximum(1, np.abs(y) + err))

    return rule


def arithmetic(site: Site, x: Bounded) -> Bounded:
    """A rising function that is one or two roundings of float arithmetic: LeakyRelu, Softsign, ..."""
    if site.op.direction(0, None) is None:  # type: ignore[attr-defined]
        return bounded(site.op.reference(x.value)[0], np.where(x.err > 0, np.inf, 4 * U * np.abs(x.value)))
    y = spread(lambda v: site.op.reference(v)[0], x)
    return bounded(y.value, np.where(x.value == 0, 0.0, 4 * U * np.maximum(1, np.abs(y.value))) + y.err)


def exponential(site: Site, x: Bounded) -> Bounded:
    y = spread(np.exp, x)
    return bounded(y.value, y.err + EXP * (np.abs(y.value) + y.err) + TINY)


def positive(function: Callable[[Array], Array], tolerance: float) -> Rule:
    """A rising function of positive reals; nothing is known where the argument may not be positive."""

    def rule(site: Site, x: Bounded) -> Bounded:
        y = spread(function, x)
        safe = (x.value - x.err > 0) | ((x.value >= 0) & (x.err == 0))
        return bounded(y.value, np.where(safe, y.err + tolerance * np.maximum(1, np.abs(y.value)), np.inf))

    return rule


def square_root(site: Site, x: Bounded) -> Bounded:
    y = spread(np.sqrt, x)
    return rounded(y.value, np.where((x.value - x.err >= 0) | (x.err == 0), y.err, np.inf))


def hard_swish(op: u.HardSwish, x: Array) -> Array:
    return np.asarray(x * np.clip(x / 6 + 0.5, 0, 1))


def softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(0, x))


def logistic(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, e, 1) / (1 + e))


def cast(site: Site, x: Bounded) -> Bounded:
    op = site.op
    assert isinstance(op, u.Cast)
    (value,) = op.reference(x.value)
    if op.dtype.is_float:
        return rounded(x.value.astype(np.float64), x.err)
    if op.dtype.carrier.kind == "b":
        return bounded(value, np.where((x.err > 0) & (np.abs(x.value.astype(np.float64)) <= x.err), 1.0, 0.0))
    return step(site, x) if x.is_float else bounded(value, x.err)


def quantize(site: Site, x: Bounded, scale: Bounded, zero: Bounded) -> Bounded:
    op = site.op
    assert isinstance(op, Quantize)
    y = spread(lambda v: np.clip(np.rint(v) + zero.value, op.lo, op.hi), div(site, x, scale))
    return bounded(np.nan_to_num(y.value).astype(op.dtype.carrier), y.err)


# Logic


def comparison(site: Site, x: Bounded, y: Bounded) -> Bounded:
    (value,) = site.op.reference(x.value, y.value)
    err = x.err + y.err
    distance = np.abs(x.value.astype(np.float64) - y.value.astype(np.float64))
    return bounded(value, np.where((err > 0) & ~(distance > err), 1.0, 0.0))


def logic(site: Site, *args: Bounded) -> Bounded:
    (value,) = site.op.reference(*(a.value for a in args))
    return bounded(value, np.max(np.broadcast_arrays(*(a.err for a in args)), axis=0))


def is_nan(site: Site, x: Bounded) -> Bounded:
    return bounded(np.isnan(x.value), 0.0)


def where(site: Site, condition: Bounded, x: Bounded, y: Bounded) -> Bounded:
    value = np.where(condition.value, x.value, y.value)
    other = np.abs(x.value.astype(np.float64) - y.value.astype(np.float64)) + np.maximum(x.err, y.err)
    return bounded(value, np.where(condition.err > 0, other, np.where(condition.value, x.err, y.err)))


def multi_threshold(site: Site, x: Bounded, t: Bounded) -> Bounded:
    y = spread(lambda v: site.op.reference(v, t.value)[0].astype(np.float64), x)
    return bounded(y.value, y.err + 2 * U * np.abs(y.value))


# Sums


def window_sum(x: Array, w: Array, window: Window, group: int) -> Array:
    """Convolution of NHWC arrays in float64; integers are exact."""
    outputs, channels = w.shape[0] // group, x.shape[3] // group
    acc = empty_output(x, window, w.shape[0], np.dtype(np.float64))
    for g in range(group):
        xs = x[..., g * channels : (g + 1) * channels].astype(np.float64)
        ws = w[g * outputs : (g + 1) * outputs].astype(np.float64)
        out = acc[..., g * outputs : (g + 1) * outputs]
        for ky, kx, (oy, ox), (iy, ix) in window.taps(spatial(x)):
            out[:, oy, ox] += xs[:, iy, ix] @ ws[:, ky, kx].T
    return acc


def conv2d(site: Site, x: Bounded, w: Bounded) -> Bounded:
    op = site.op
    assert isinstance(op, Conv2D) and op.epilogue is None

    def total(p: Array, q: Array) -> Array:
        return window_sum(p, q, op.window, op.group)

    value, weights = total(x.value, w.value), np.abs(w.value)
    if not x.is_float and not w.is_float:
        err = total(x.err, weights.astype(np.float64) + w.err) + total(np.abs(x.value), w.err)
        return bounded(value.astype(np.int32), err)
    g = gamma(w.value[0].size + SLACK)
    err = total(g * np.abs(x.value) + (1 + g) * x.err, weights)
    if not site.folds and not x.err.any() and sums_exactly(x, w, err / g):
        err = np.zeros(err.shape)
    if w.err.any():
        err = err + (1 + g) * total(x.size, w.err)
    if site.deviation is not None:
        err = err + (1 + g) * total(x.size, site.deviation)
    return bounded(value, err)


def matmul(site: Site, x: Bounded, w: Bounded) -> Bounded:
    value = np.matmul(x.value, w.value)
    p, q = np.abs(x.value.astype(np.float64)), np.abs(w.value.astype(np.float64))
    errors = np.matmul(x.err, q + w.err) + np.matmul(p, w.err)
    if not x.is_float:
        return bounded(value, errors)
    magnitude = np.matmul(p, q)
    g = gamma(x.value.shape[-1] + SLACK)
    err = g * magnitude + (1 + g) * errors
    if not site.folds and sums_exactly(x, w, magnitude):
        err = np.zeros(err.shape)
    if site.deviation is not None:
        err = err + (1 + g) * np.matmul(x.size, site.deviation)
    return bounded(value, err)


def _terms(site: Site, x: Bounded) -> int:
    op = site.op
    if isinstance(op, pool.AveragePool):
        return op.window.kernel[0] * op.window.kernel[1]
    assert isinstance(op, reduce.Reduce)
    return int(np.prod([x.value.shape[a] for a in op.axes]))


def linear_sum(site: Site, x: Bounded) -> Bounded:
    """Sums and means: the operator itself, applied to magnitudes and to errors."""
    (value,) = site.op.reference(x.value)
    (errors,) = site.op.reference(x.err)
    if not x.is_float:
        return bounded(value, errors + isinstance(site.op, reduce.ReduceMean) * (errors > 0))
    (magnitude,) = site.op.reference(np.abs(x.value))
    terms = _terms(site, x)
    g = gamma(terms + SLACK)
    if not errors.any() and not site.folds and sums_exactly(x, exact(np.ones(1)), magnitude * terms):
        return rounded(value, np.zeros(value.shape))
    return bounded(value, g * magnitude + (1 + g) * errors)


def product(site: Site, x: Bounded) -> Bounded:
    (value,) = site.op.reference(x.value)
    (upper,) = site.op.reference(x.size)
    if not x.is_float:
        return bounded(value, np.where(upper > np.abs(value), np.inf, 0.0))
    return bounded(value, (upper - np.abs(value)) + gamma(_terms(site, x) + SLACK) * upper + TINY)


def largest_error(site: Site, x: Bounded) -> Bounded:
    """Max pools and extremes: no further off than the worst element of the window."""
    op = site.op
    (value,) = op.reference(x.value)
    worst: Op = reduce.ReduceMax(op.axes, op.keepdims) if isinstance(op, reduce.Reduce) else op
    return bounded(value, worst.reference(x.err)[0])


def arg(site: Site, x: Bounded) -> Bounded:
    """The index may be any whose element may be the extreme one."""
    op = site.op
    assert isinstance(op, reduce.ArgMax | reduce.ArgMin)
    (value,) = op.reference(x.value)
    signed = x.value.astype(np.float64) * (1 if isinstance(op, reduce.ArgMax) else -1)
    possible = signed + x.err >= (signed - x.err).max(axis=op.axis, keepdims=True)
    if not x.err.any():
        return bounded(value, 0.0)
    shape = [1] * signed.ndim
    shape[op.axis] = -1
    index = np.arange(signed.shape[op.axis]).reshape(shape)
    best = value if op.keepdims else np.expand_dims(value, op.axis)
    far = np.where(possible, np.abs(index - best), 0).max(axis=op.axis, keepdims=True)
    return bounded(value, far.reshape(value.shape))


def softmax(site: Site, x: Bounded) -> Bounded:
    """With d bounding the errors of x along the axis, shift included, each e is off by a factor of exp(±d) and so is
    their sum."""
    shifted, total, drift = _softmax_parts(site, x)
    value = np.exp(shifted) / total
    relative = np.expm1(2 * drift) + gamma(x.value.shape[site.op.axis] + SLACK)  # type: ignore[attr-defined]
    return bounded(value, np.minimum(value * relative, 1.0) + TINY)


def log_softmax(site: Site, x: Bounded) -> Bounded:
    shifted, total, drift = _softmax_parts(site, x)
    value = shifted - np.log(total)
    terms = gamma(x.value.shape[site.op.axis] + SLACK)  # type: ignore[attr-defined]
    return bounded(value, 2 * drift + terms + FUNCTION * np.maximum(1, np.abs(value)))


def _softmax_parts(site: Site, x: Bounded) -> tuple[Array, Array, Array]:
    axis = site.op.axis  # type: ignore[attr-defined]
    shifted = x.value - x.value.max(axis=axis, keepdims=True)
    worst = x.err.max(axis=axis, keepdims=True)
    # Far below the maximum, e vanishes whatever its relative error: the shift's rounding counts up to 104.
    drift = 2 * worst + U * np.minimum(np.abs(shifted).max(axis=axis, keepdims=True), 104) + 2 * EXP
    return shifted, np.exp(shifted).sum(axis=axis, keepdims=True), drift


# Movement


def moved(site: Site, *args: Bounded) -> Bounded:
    (value,) = site.op.reference(*(a.value for a in args))
    (err,) = site.op.reference(*(a.err for a in args))
    return bounded(value, err)


def pad(site: Site, x: Bounded) -> Bounded:
    op = site.op
    assert isinstance(op, m.Pad)
    (value,) = op.reference(x.value)
    return bounded(value, replace(op, value=0.0).reference(x.err)[0])


def gather(site: Site, x: Bounded, index: Bounded) -> Bounded:
    (value,) = site.op.reference(x.value, index.value)
    return bounded(value, site.op.reference(x.err, index.value)[0])


def dequantize(site: Site, x: Bounded) -> Bounded:
    op = site.op
    assert isinstance(op, Dequantize)
    scale, offset = np.asarray(op.quant.scale), np.asarray(op.quant.offset)
    scaled = (x.value.astype(np.float64) - op.quant.zero) * scale
    return bounded(scaled + offset, x.err * np.abs(scale) + 4 * U * (np.abs(scaled) + np.abs(offset)))


def unknown(site: Site, *args: Bounded | None) -> Bounded:
    """An operator without a rule: nothing is known of its result, not even where its operands are exact. In a
    recurrence the error grows with every step as the weights say."""
    arrays = [None if a is None else (a.value.astype(np.float32) if a.is_float else a.value) for a in args]
    (value, *_) = site.op.reference(*arrays)
    return bounded(exact(value).value, np.inf)


RULES: dict[type[Op], Rule] = {
    b.Add: add, b.Sub: sub, b.Mul: mul, b.Div: div, b.Pow: power, b.Min: extreme, b.Max: extreme, b.Mod: modulo,
    b.PRelu: prelu, b.Comparison: comparison, b.And: logic, b.Or: logic, b.Xor: logic, b.Where: where,
    b.MultiThreshold: multi_threshold,
    u.Neg: negate, u.Abs: absolute, u.Sign: step, u.Relu: step, u.Clip: clip, u.Floor: step, u.Ceil: step,
    u.Trunc: step, u.Round: step, u.Not: logic, u.IsNaN: is_nan, u.Cast: cast,
    u.LeakyRelu: arithmetic, u.Softsign: arithmetic, u.HardSigmoid: arithmetic,
    u.Elu: lipschitz(lambda op, x: np.where(x < 0, op.alpha * np.expm1(x), x), lambda op: max(1, abs(op.alpha))),
    u.Selu: lipschitz(
        lambda op, x: op.gamma * np.where(x <= 0, op.alpha * np.expm1(x), x),
        lambda op: abs(op.gamma) * max(1, abs(op.alpha)),
    ),
    u.Line: lipschitz(lambda op, x: op.slope * x + op.offset, lambda op: abs(op.slope)),
    u.ThresholdedRelu: step, u.Narrow: step,
    u.HardSwish: lipschitz(hard_swish, lambda op: 1.5),
    u.Exp: exponential, u.Log: positive(np.log, FUNCTION), u.Sqrt: square_root, u.Reciprocal: reciprocal,
    u.Tanh: smooth(np.tanh), u.Sigmoid: smooth(logistic), u.Softplus: smooth(softplus),
    u.Erf: smooth(lambda x: np.asarray(_erf(x)).astype(np.float64)),
    bits.BitAnd: logic, bits.BitOr: logic, bits.BitXor: logic, bits.Invert: logic, bits.Shift: logic,
    bits.BitCast: unknown, trig.Sin: smooth(np.sin), trig.Cos: smooth(np.cos), trig.Tan: unknown,
    trig.Asin: unknown, trig.Acos: unknown, trig.Atan: smooth(np.arctan), trig.Sinh: unknown, trig.Cosh: unknown,
    trig.Asinh: smooth(np.arcsinh), trig.Acosh: unknown, trig.Atanh: unknown,
    Conv2D: conv2d, MatMul: matmul, pool.MaxPool: largest_error, pool.ArgMaxPool: unknown, pool.AveragePool: linear_sum,
    reduce.ReduceSum: linear_sum, reduce.ReduceMean: linear_sum, reduce.ReduceProd: product,
    reduce.ReduceMax: largest_error, reduce.ReduceMin: largest_error, reduce.ArgMax: arg, reduce.ArgMin: arg,
    reduce.Softmax: softmax, reduce.LogSoftmax: log_softmax,
    m.Reshape: moved, m.Transpose: moved, m.Concat: moved, m.Slice: moved, m.Pad: pad, m.Expand: moved,
    m.Tile: moved, m.Gather: gather, Quantize: quantize, Dequantize: dequantize, **rules_indexing.RULES,
    Recurrent: unknown, Repeat: unknown,
}  # fmt: skip


def rule_for(op: Op) -> Rule | None:
    """The rule of an operator's class, or of the nearest base class that has one."""
    return next((RULES[c] for c in type(op).__mro__ if c in RULES), None)
