"""Exact search for thresholds: where does a chain's output change, as its root grows?

    f(x) in {lo, hi}, f never falls:    f(x) = hi  iff  x >= t,    t = min { x : f(x) = hi }
                      f never rises:    f(x) = hi  iff  x <= t,    t = max { x : f(x) = hi }

Never by a rounded formula: for an integer accumulator f is evaluated on every value it can take; for a float root, f is
monotone by its operators and t is found by bisection over all floats. So gamma < 0, gamma = 0, an activation or a
second quantizer inside the chain need no cases of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bitc.ir.graph import Array, Value
from bitc.ir.types import Quant
from bitc.ops.epilogue import Epilogue, TernThreshold, Threshold
from bitc.passes.chain import Chain

_MAX_EVALUATIONS = 1 << 25


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


def search(chain: Chain, reachable: Array | None) -> Quantizer:
    """Find the thresholds of a chain. `reachable`: every value the integer root can take, ascending; None for a float
    root. Raises NotAQuantizer with the reason if the output is not two- or three-valued and monotone."""
    shape = chain.varying()
    if chain.pools and any(d != 1 for d in shape[:-1]):
        raise NotAQuantizer("a pool stands between, and the constants vary over the image")
    size = int(np.prod(shape))
    if reachable is not None and len(reachable) * size <= _MAX_EVALUATIONS:
        x = np.broadcast_to(reachable.reshape(-1, *(1,) * len(shape)), (len(reachable), *shape))
        return _from_samples(chain, reachable, x.astype(chain.root.type.dtype.carrier), shape)
    return _by_bisection(chain, shape, reachable)


def _classify(values: Array) -> tuple[Array, Quant, bool]:
    """Codes (-1, 0, 1, of int8) of two- or three-valued data, the quant of the code type, and whether it is ternary."""
    if np.isnan(values).any():
        raise NotAQuantizer("its output can be NaN")
    points = np.unique(values)  # -0.0 and 0.0 are one
    if len(points) == 1:
        # Constant everywhere: any two-valued code that contains the value will do.
        other = -points[0] if points[0] else 1.0
        points = np.unique([points[0], other])
    if len(points) == 2 and not (points == 0).any():
        lo, hi = float(points[0]), float(points[1])
        return np.where(values == hi, 1, -1).astype(np.int8), Quant.two_valued(lo, hi), False
    if len(points) == 2:
        scale = float(np.abs(points).max())
    elif len(points) == 3 and points[1] == 0 and points[0] == -points[2]:
        scale = float(points[2])
    else:
        shown = ", ".join(f"{p:g}" for p in points[:4])
        raise NotAQuantizer(f"its output takes {len(points)} values ({shown}{', ...' if len(points) > 4 else ''})")
    return np.sign(values).astype(np.int8), Quant((scale,)), True


def _from_samples(chain: Chain, reachable: Array, x: Array, shape: tuple[int, ...]) -> Quantizer:
    """Thresholds from the function's value on every reachable accumulator."""
    env = chain.evaluate(x)
    count = len(reachable)

    def table(v: Value) -> Array:
        return np.broadcast_to(env[v], x.shape).reshape(count, *shape)

    codes, quant, ternary = _classify(table(chain.end))
    minimum = []
    for pool in chain.pools:
        before = table(pool.input(0))
        if np.isnan(before).any():
            raise NotAQuantizer("a pool's input can be NaN")
        order = np.argsort(before, axis=0, kind="stable")
        falls = _falls(np.take_along_axis(codes, order, 0))
        minimum.append(falls.reshape(-1))
    flip = _falls(codes)
    ordered = np.where(flip, codes[::-1], codes)  # never falls, in every channel
    values = reachable.astype(np.int64)

    def first(at_least: int) -> Array:
        """Smallest value (largest where flipped) whose code is at least `at_least`; beyond the range if none is."""
        hit = ordered >= at_least
        index = np.argmax(hit, axis=0)
        up, down = values[index], values[::-1][index]
        never_up, never_down = values[-1] + 1, values[0] - 1
        found = hit.any(axis=0)
        return np.where(flip, np.where(found, down, never_down), np.where(found, up, never_up)).astype(np.int32)

    zero = bool((codes == 0).any())
    return _quantizer(quant, ternary, first, flip, tuple(minimum), zero, nan_low=False)


def _falls(codes: Array) -> Array:
    """Per channel: True if codes never rise along axis 0 and do fall. Raises if they do both."""
    steps = np.diff(codes.astype(np.int8), axis=0)
    rises, falls = (steps > 0).any(axis=0), (steps < 0).any(axis=0)
    if (rises & falls).any():
        raise NotAQuantizer("it rises and falls: not one threshold per channel")
    return falls


def _by_bisection(chain: Chain, shape: tuple[int, ...], reachable: Array | None) -> Quantizer:
    """Thresholds of a chain that is monotone by its operators, over all finite floats (or a large integer range)."""
    direction = chain.direction()
    if direction is None:
        raise NotAQuantizer("it is not monotone, or not known to be")
    dtype = chain.root.type.dtype
    flip = np.broadcast_to(direction < 0, shape)
    largest = np.finfo(np.float32).max  # infinity times gamma = 0 would be NaN
    limits = (-largest, largest) if reachable is None else (reachable[0], reachable[-1])
    ends = [np.full(shape, e, dtype.carrier) for e in limits]
    probes = np.stack([chain(e) for e in ends] + [chain(np.zeros(shape, dtype.carrier))])

    def bisect(at_least: float) -> Array:
        """Smallest root (largest where flipped) with ``f >= at_least``."""
        lo, hi = _key(ends[0]) - 1, _key(ends[1]) + 1
        good, bad = np.where(flip, lo, hi), np.where(flip, hi, lo)
        while (np.abs(good - bad) > 1).any():
            middle = (good + bad) // 2
            ok = np.broadcast_to(chain(_unkey(middle, dtype.carrier)) >= at_least, shape)
            good, bad = np.where(ok, middle, good), np.where(ok, bad, middle)
        return good

    # Values between the ends, at the places where the output changes, complete the set of outputs.
    seen = [probes]
    for value in np.unique(probes[~np.isnan(probes)]):
        edge = bisect(float(value))
        for step in (-1, 0, 1):
            at = np.clip(edge + step, _key(ends[0]), _key(ends[1]))
            seen.append(chain(_unkey(at, dtype.carrier))[None])
    values = np.concatenate([np.broadcast_to(s, (len(s), *shape)) for s in seen])
    codes, quant, ternary = _classify(values)
    scale = quant.scale[0]
    levels = {1: scale if ternary else quant.high, 0: 0.0}

    def first(at_least: int) -> Array:
        key = bisect(levels[at_least])
        inside = np.clip(key, _key(ends[0]), _key(ends[1]))
        t = _unkey(inside, dtype.carrier)
        if not dtype.is_float:
            return key.astype(dtype.carrier)
        # Beyond the largest float lies infinity, on either side.
        upper = key >= np.where(flip, _key(ends[1]), _key(ends[1]) + 1)
        lower = key <= np.where(flip, _key(ends[0]) - 1, _key(ends[0]))
        return np.where(upper, np.inf, np.where(lower, -np.inf, t)).astype(np.float32)

    with np.errstate(all="ignore"):
        at_nan = chain(np.full(shape, np.nan, dtype.carrier)) if dtype.is_float else probes[0]
    nan_low = bool(not ternary and (at_nan == quant.low).any())
    minimum = tuple(_pool_direction(chain, i, shape) for i in range(len(chain.pools)))
    return _quantizer(quant, ternary, first, flip, minimum, bool((codes == 0).any()), nan_low)


def _pool_direction(chain: Chain, index: int, shape: tuple[int, ...]) -> Array:
    """Channels in which what follows pool `index` never rises, so that the pool becomes a minimum behind it."""
    pool = chain.pools[index]
    after = Chain(pool.output, chain.end, chain.nodes[chain.nodes.index(pool) + 1 :])
    direction = after.direction()
    if direction is None:
        raise NotAQuantizer("what follows a pool is not monotone, or not known to be")
    return np.broadcast_to(direction < 0, shape).reshape(-1)


def _quantizer(
    quant: Quant,
    ternary: bool,
    first: Callable[[int], Array],
    flip: Array,
    minimum: tuple[Array, ...],
    zero: bool,
    nan_low: bool,
) -> Quantizer:
    flips = (_trim(flip),) if flip.any() else ()
    if ternary:
        # TernThreshold: +1 from t_high on, -1 below t_low, so t_low is where the code reaches 0.
        return Quantizer(TernThreshold(quant), (_trim(first(0)), _trim(first(1)), *flips), minimum, zero)
    return Quantizer(Threshold(quant, nan_low), (_trim(first(1)), *flips), minimum, zero)


def _trim(p: Array) -> Array:
    """A parameter without leading axes of length 1, and of one entry if all are equal."""
    if (p == p.reshape(-1)[0]).all():
        return np.ascontiguousarray(p.reshape(-1)[:1])
    used = next(i for i, d in enumerate(p.shape) if d != 1)
    return np.ascontiguousarray(p.reshape(p.shape[used:]))


def _key(x: Array) -> Array:
    """Order-preserving map of floats (or integers) to int64; both zeros map to 0."""
    if x.dtype.kind != "f":
        return x.astype(np.int64)
    bits = x.astype(np.float32).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _unkey(key: Array, dtype: np.dtype) -> Array:
    """Inverse of `_key`."""
    if np.dtype(dtype).kind != "f":
        return key.astype(dtype)
    bits = np.where(key < 0, -key | 0x80000000, key).astype(np.uint32)
    return bits.view(np.float32)
