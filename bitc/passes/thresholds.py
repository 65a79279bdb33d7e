"""Exact search for thresholds: where does a chain's output change, as its root grows?

    f(x) in {lo, hi}, f never falls:    f(x) = hi  iff  x >= t,    t = min { x : f(x) = hi }
                      f never rises:    f(x) = hi  iff  x <= t,    t = max { x : f(x) = hi }

    f(x) in {lo, lo + d, lo + 2d, ...}: one threshold for each step

Never by a rounded formula. Where f is monotone by its operators (rounding is monotone too), t is found by bisection
over the accumulators that can occur, or over all finite floats; else f is evaluated on every reachable accumulator. So
gamma < 0, gamma = 0, an activation or a second quantizer inside the chain need no cases of their own.

Both ways work on *positions*: 0 ... n - 1 numbers the roots so that f never falls, channel by channel; n is "never".
Float roots so large that the chain overflows into NaN (infinity times a gamma of 0), and infinite ones, are taken like
the largest that does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bitc.ir.dtypes import few_levels
from bitc.ir.graph import Array
from bitc.ir.types import Quant
from bitc.ops.binary import Pow
from bitc.ops.epilogue import Epilogue, Levels, TernThreshold, Threshold
from bitc.ops.unary import Elu, Erf, Exp, Selu, Sigmoid, Softplus, Softsign, Tanh
from bitc.passes.chain import Chain

_FEW = 1 << 14
"""Evaluations up to which sampling is as quick as bisection."""
_MANY = 1 << 23
"""Evaluations from which sampling takes too much memory."""
MOST_LEVELS = 16
"""Values up to which a quantizer's output is codes in bit planes."""
_EVEN = 1e-4
"""Share of a step by which values may be off their place."""
_WAVY = (Exp, Tanh, Sigmoid, Erf, Softplus, Softsign, Elu, Selu, Pow)
"""Monotone as functions, but as float algorithms only up to rounding: integers are sampled where possible."""
_BOUNDS = [np.float32(np.finfo(np.float32).max), *np.logspace(36, 6, 16).astype(np.float32)]

At = Callable[[Array], Array]


@dataclass(frozen=True)
class Quantizer:
    """A chain as an epilogue on its root: parameters as `epilogue.param_names`, each of shape ``[C]`` or the chain's
    varying shape. `minimum` tells, per pool of the chain, the channels in which it becomes a minimum."""

    epilogue: Epilogue
    params: tuple[Array, ...]
    minimum: tuple[Array, ...]
    zero_reachable: bool


class NotAQuantizer(Exception):
    """Why a chain is not a quantizer."""


@dataclass(frozen=True)
class _Levels:
    """A monotone function as steps: per channel `values[i]` from position `starts[i]` on; ascending."""

    starts: list[Array]
    values: list[Array]


def search(chain: Chain, reachable: Array | None) -> Quantizer:
    """Find the thresholds of a chain. `reachable`: every value the integer root can take, ascending; None for a float
    root. Raises NotAQuantizer with the reason if the output is not monotone, or not a few evenly spaced values."""
    shape = chain.varying()
    direction = chain.direction()
    evaluations = 0 if reachable is None else len(reachable) * int(np.prod(shape))
    if direction is None and (reachable is None or evaluations > _MANY):
        raise NotAQuantizer("it is not monotone, or not known to be")
    doubtful = direction is None or any(isinstance(n.op, _WAVY) for n in chain.nodes)
    if reachable is not None and (evaluations <= _FEW or (doubtful and evaluations <= _MANY)):
        roots = _Roots(reachable, chain.root.type.dtype.carrier)
        levels, flip, minimum = _by_sampling(chain, reachable, shape)
    else:
        assert direction is not None
        roots = _float_roots(chain, shape) if reachable is None else _Roots(reachable, chain.root.type.dtype.carrier)
        flip = np.broadcast_to(direction < 0, shape)
        levels = _by_bisection(chain, flip, roots)
        minimum = tuple(_pool_direction(chain, i, shape) for i in range(len(chain.pools)))
    epilogue = _code_type(np.unique(np.stack(levels.values)))

    def first(at_least: float) -> Array:
        """The root from which the output is at least that."""
        position = np.full(shape, roots.count)
        for start, value in zip(levels.starts[::-1], levels.values[::-1], strict=True):
            position = np.where(value >= at_least, start, position)
        trim = shape[next((i for i, d in enumerate(shape) if d != 1), len(shape) - 1) :]
        return roots.threshold(position, flip).reshape(trim)

    quant, params = epilogue.quant, tuple[Array, ...]()
    if isinstance(epilogue, Threshold):
        nan_low = roots.is_float and bool((chain(np.full(shape, np.nan, np.float32)) == quant.low).all())
        epilogue, params = replace(epilogue, nan_low=nan_low), (first(quant.high),)
    elif isinstance(epilogue, TernThreshold):
        # +1 from t_high on, -1 below t_low, so t_low is where the output reaches 0.
        params = first(0.0), first(quant.scale[0])
    else:
        params = tuple(first(quant.offset[0] + (i + 0.5) * quant.scale[0]) for i in range(epilogue.largest))
    if flip.any():
        params += (np.ascontiguousarray(flip).reshape(params[0].shape),)
    zero = any((v == 0).any() for v in levels.values)
    return Quantizer(epilogue, params, minimum, zero)


class _Roots:
    """The values that a chain's root can take, by index: `reachable`, or all floats from -bound to bound in order."""

    def __init__(self, reachable: Array | None, carrier: np.dtype, bound: np.float32 = _BOUNDS[0]) -> None:
        self.reachable = reachable
        self.carrier = carrier
        self.is_float = reachable is None
        self._zero = int(bound.view(np.int32))
        self.count = 2 * self._zero + 1 if reachable is None else len(reachable)

    def at(self, index: Array) -> Array:
        """Roots of these indices. Both float zeros are the index in the middle."""
        if self.reachable is not None:
            return self.reachable[index].astype(self.carrier)
        key = index - self._zero
        return np.where(key < 0, -key | 0x80000000, key).astype(np.uint32).view(np.float32)

    def threshold(self, position: Array, flip: Array) -> Array:
        """t such that the output is reached where ``x >= t``, or where flipped ``x <= t``."""
        index = np.where(flip, self.count - 1 - position, position)
        inside = self.at(np.clip(index, 0, self.count - 1))
        if self.reachable is None:
            below = (index < 0) | (~flip & (position == 0))
            above = (index >= self.count) | (flip & (position == 0))
            return np.where(below, -np.inf, np.where(above, np.inf, inside)).astype(np.float32)
        t = np.where(index < 0, self.reachable[0] - 1, np.where(index >= self.count, self.reachable[-1] + 1, inside))
        return np.asarray(t, np.int32)


def _float_roots(chain: Chain, shape: tuple[int, ...]) -> _Roots:
    """The floats for which no step of the chain is NaN."""
    for bound in _BOUNDS:
        ends = np.stack([np.full(shape, -bound), np.full(shape, bound)])
        if not any(np.isnan(v).any() for v in chain.evaluate(ends).values()):
            return _Roots(None, chain.root.type.dtype.carrier, bound)
    raise NotAQuantizer("it is NaN for moderate inputs")


def _code_type(points: Array) -> Threshold | TernThreshold | Levels:
    """The epilogue that gives codes for these output values."""
    if np.isnan(points).any():
        raise NotAQuantizer("its output can be NaN")
    if len(points) == 1:  # constant: any two-valued code that contains the value will do
        points = np.unique([points[0], -points[0] if points[0] else 1.0])
    if len(points) == 2 and not (points == 0).any():
        return Threshold(Quant.two_valued(float(points[0]), float(points[1])))
    if len(points) == 3 and points[1] == 0 and points[0] == -points[2]:
        return TernThreshold(Quant((float(points[2]),)))
    codes, step = even(points)
    if codes is not None and codes[-1] < MOST_LEVELS:
        zero = float(np.rint(-points[0] / step))
        offset = -zero * step if abs(points[0] + zero * step) <= _EVEN * step else float(points[0])
        return Levels(Quant((step,), (offset + 0.0,)), few_levels(int(codes[-1])), int(codes[-1]))
    shown = ", ".join(f"{p:g}" for p in points[:4])
    raise NotAQuantizer(f"its output takes {len(points)} values ({shown}{', ...' if len(points) > 4 else ''})")


def even(points: Array) -> tuple[Array | None, float]:
    """Ascending values as integers from 0 on, and the step between these; None if they are not evenly spaced."""
    distance = (points - points[0]).astype(np.float64)
    codes = np.rint(distance / np.diff(distance).min())
    step = float(distance[-1] / codes[-1])
    fits = np.abs(distance - codes * step).max() <= _EVEN * step
    return (codes.astype(np.int64) if fits else None), step


def _by_sampling(chain: Chain, reachable: Array, shape: tuple[int, ...]) -> tuple[_Levels, Array, tuple[Array, ...]]:
    """Steps, flipped channels and pools from the function's value on every reachable root."""
    count = len(reachable)
    column = reachable.reshape(-1, *(1,) * len(shape)).astype(chain.root.type.dtype.carrier)
    env = chain.evaluate(np.broadcast_to(column, (count, *shape)))

    def table(of: Array) -> Array:
        return np.broadcast_to(of, (count, *shape))

    values = table(env[chain.end])
    points = np.unique(values)
    _code_type(points)
    flip = _falls(values)
    minimum = []
    for pool in chain.pools:
        before = table(env[pool.input(0)])
        if np.isnan(before).any():
            raise NotAQuantizer("a pool's input can be NaN")
        order = np.argsort(before, axis=0, kind="stable")
        minimum.append(_falls(np.take_along_axis(values, order, 0)).reshape(-1))
    ordered = np.where(flip, values[::-1], values)
    starts = [np.where(hit.any(axis=0), np.argmax(hit, axis=0), count) for hit in (ordered >= p for p in points)]
    return _Levels(starts, [np.full(shape, p) for p in points]), flip, tuple(minimum)


def _falls(values: Array) -> Array:
    """Per channel: True if values never rise along axis 0 and do fall. Raises if they do both."""
    rises, falls = (values[1:] > values[:-1]).any(axis=0), (values[1:] < values[:-1]).any(axis=0)
    if (rises & falls).any():
        raise NotAQuantizer("it rises and falls: not one threshold per channel")
    return np.asarray(falls)


def _by_bisection(chain: Chain, flip: Array, roots: _Roots) -> _Levels:
    """Steps of a chain that is monotone by its operators."""
    last = roots.count - 1

    def f(position: Array) -> Array:
        index = np.where(flip, last - position, position)
        return np.broadcast_to(chain(roots.at(index)), flip.shape)

    position = np.zeros(flip.shape, np.int64)
    levels = _Levels([position], [f(position)])
    top = f(np.full(flip.shape, last))
    while (levels.values[-1] < top).any():
        if len(levels.starts) == MOST_LEVELS:
            raise NotAQuantizer(f"its output takes more than {MOST_LEVELS} values")
        here = levels.values[-1]
        low, high = position, np.full(flip.shape, roots.count)  # f(low) <= here < f(high)
        while (high - low > 1).any():
            middle = (low + high) // 2
            above = f(middle) > here
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        position = np.minimum(high, last)
        levels.starts.append(high)
        levels.values.append(f(position))
    if not (levels.values[-1] == top).all():
        raise NotAQuantizer("its output can be NaN, or is not monotone for large inputs")
    return levels


def _pool_direction(chain: Chain, index: int, shape: tuple[int, ...]) -> Array:
    """Channels in which what follows pool `index` never rises, so that the pool becomes a minimum behind it."""
    pool = chain.pools[index]
    after = Chain(pool.output, chain.end, chain.nodes[chain.nodes.index(pool) + 1 :])
    direction = after.direction()
    assert direction is not None, "the whole chain is monotone by its operators"
    return np.broadcast_to(direction < 0, shape).reshape(-1)
