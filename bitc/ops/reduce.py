"""Reductions over axes.

Sums and products run in row-major order of the reduced elements, one at a time from 0 (or 1), in the element type, so
that C can repeat them bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from bitc.ir.dtypes import INT32, INT64, from_numpy
from bitc.ir.graph import Array, Channels, Op
from bitc.ir.types import TensorType
from bitc.ops.math32 import exp, log


def _last(x: Array, axes: tuple[int, ...]) -> Array:
    """The reduced elements of each output element on one last axis, in row-major order."""
    kept = [a for a in range(x.ndim) if a not in axes]
    moved = x.transpose(*kept, *sorted(axes))
    return np.ascontiguousarray(moved).reshape([x.shape[a] for a in kept] + [prod(x.shape[a] for a in axes)])


def _fold_left(function: np.ufunc, x: Array, start: float) -> Array:
    """``function(...function(function(start, x[0]), x[1])...)`` along the last axis, in x's dtype."""
    first = np.full((*x.shape[:-1], 1), start, x.dtype)
    if not x.shape[-1]:
        return first[..., 0]
    rows = max(1, 1 << 22 >> x.shape[-1].bit_length())  # bounds the memory of the partial results
    flat, seed = x.reshape(-1, x.shape[-1]), first.reshape(-1, 1)
    out = np.empty(flat.shape[0], x.dtype)
    for i in range(0, flat.shape[0], rows):
        block = np.concatenate([seed[i : i + rows], flat[i : i + rows]], axis=1)
        out[i : i + rows] = function.accumulate(block, axis=1, dtype=x.dtype)[:, -1]
    return out.reshape(x.shape[:-1])


@dataclass(frozen=True)
class Reduce(Op):
    """Base. `axes` are sorted and not negative; `keepdims` leaves them with length 1."""

    axes: tuple[int, ...]
    keepdims: bool = True

    def on_channels(self, start: int, stop: int, of: int, constants: Sequence[Array | None]) -> Channels | None:
        return Channels(self, tuple(constants))

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = types
        assert x is not None
        assert all(0 <= a < x.rank for a in self.axes), f"axes {self.axes} of {x}"
        kept = [1 if a in self.axes else d for a, d in enumerate(x.shape) if self.keepdims or a not in self.axes]
        return (TensorType(tuple(kept), x.dtype),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        (x,) = arrays
        assert x is not None
        (out,) = self.infer(TensorType(tuple(x.shape), from_numpy(x.dtype)))
        return (self.compute(_last(x, self.axes)).astype(x.dtype, copy=False).reshape(out.shape),)

    def compute(self, x: Array) -> Array:
        """Reduce the last axis."""
        raise NotImplementedError(self.name)


@dataclass(frozen=True)
class ReduceSum(Reduce):
    def compute(self, x: Array) -> Array:
        return _fold_left(np.add, x, 0)


@dataclass(frozen=True)
class ReduceMean(Reduce):
    """The sum divided by the number of elements (integers: towards zero)."""

    def compute(self, x: Array) -> Array:
        total = _fold_left(np.add, x, 0)
        if x.dtype.kind == "f":
            return np.asarray(total / x.dtype.type(x.shape[-1]))
        return np.asarray(np.trunc(total / x.shape[-1]))


@dataclass(frozen=True)
class AddPixels(Op):
    """A total per channel plus all pixels of an image, added one at a time in row-major order: on rows one after the
    other the same sum as on the whole image. Inputs: total ``[1, 1, 1, C]``, x ``[1, H, W, C]`` of the same type, or
    int32 and codes."""

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        total, x = types
        assert total is not None and x is not None and total.channels == x.channels
        assert total.dtype is (INT32 if x.dtype.is_integer else x.dtype)
        return (total,)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        total, x = arrays
        assert total is not None and x is not None
        terms = np.concatenate([total.reshape(1, -1), x.reshape(-1, x.shape[3]).astype(total.dtype)])
        return (np.add.accumulate(terms, axis=0, dtype=total.dtype)[-1].reshape(total.shape),)


@dataclass(frozen=True)
class MaxPixels(Op):
    """The larger of what was found per channel and all pixels of an image, as `MaxPool` takes it; the smaller one if
    `minimum`. Inputs: found ``[1, 1, 1, C]``, x ``[1, H, W, C]`` of the same type."""

    minimum: bool = False

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        found, x = types
        assert found is not None and x is not None and found.shape == (1, 1, 1, x.channels) and found.dtype is x.dtype
        return (found,)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        found, x = arrays
        assert found is not None and x is not None
        least = self.minimum != (x.dtype.kind == "b")  # the code of the larger bit is 0
        best = found.reshape(-1)
        for pixel in x.reshape(-1, x.shape[3]):
            best = np.where(pixel < best if least else pixel > best, pixel, best)
        return (best.reshape(found.shape),)


@dataclass(frozen=True)
class ReduceProd(Reduce):
    def compute(self, x: Array) -> Array:
        return _fold_left(np.multiply, x, 1)


@dataclass(frozen=True)
class ReduceMax(Reduce):
    """``x > best ? x : best`` from the smallest value of the type: NaN never replaces a number."""

    def compute(self, x: Array) -> Array:
        return np.asarray(np.fmax.reduce(x, axis=-1, initial=x.dtype.type(from_numpy(x.dtype).min)))


@dataclass(frozen=True)
class ReduceMin(Reduce):
    """``x < best ? x : best`` from the largest value of the type: NaN never replaces a number."""

    def compute(self, x: Array) -> Array:
        limits = from_numpy(x.dtype)
        top = limits.max if limits.is_float else np.iinfo(x.dtype).max
        return np.asarray(np.fmin.reduce(x, axis=-1, initial=x.dtype.type(top)))


@dataclass(frozen=True)
class _Arg(Op):
    """Base: the index (int64) of the extreme element along `axis`; of equal ones the first, or the last if `last`."""

    axis: int
    keepdims: bool = True
    last: bool = False

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = types
        assert x is not None and 0 <= self.axis < x.rank and x.shape[self.axis] > 0
        middle = (1,) if self.keepdims else ()
        return (TensorType((*x.shape[: self.axis], *middle, *x.shape[self.axis + 1 :]), INT64),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        (x,) = arrays
        assert x is not None
        seen = np.flip(x, self.axis) if self.last else x
        index = self.compute(seen, self.axis)
        index = x.shape[self.axis] - 1 - index if self.last else index
        return (np.expand_dims(index, self.axis) if self.keepdims else np.asarray(index),)

    def compute(self, x: Array, axis: int) -> Array:
        raise NotImplementedError(self.name)


@dataclass(frozen=True)
class ArgMax(_Arg):
    def compute(self, x: Array, axis: int) -> Array:
        return np.asarray(np.argmax(x, axis), np.int64)


@dataclass(frozen=True)
class ArgMin(_Arg):
    def compute(self, x: Array, axis: int) -> Array:
        return np.asarray(np.argmin(x, axis), np.int64)


@dataclass(frozen=True)
class Softmax(Op):
    """``e / sum(e)`` along `axis` with ``e = exp(x - max(x))``; the sum runs in order from 0."""

    axis: int

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = types
        assert x is not None and 0 <= self.axis < x.rank
        return (TensorType(x.shape, x.dtype),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        (x,) = arrays
        assert x is not None
        _, e, total = self._parts(x)
        return (e / total,)

    def _parts(self, x: Array) -> tuple[Array, Array, Array]:
        (top,) = ReduceMax((self.axis,)).reference(x)
        shifted = x - top
        e = exp(shifted)
        (total,) = ReduceSum((self.axis,)).reference(e)
        return shifted, e, total


@dataclass(frozen=True)
class LogSoftmax(Softmax):
    """``(x - max(x)) - log(sum(exp(x - max(x))))`` along `axis`; the sum runs in order from 0."""

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        (x,) = arrays
        assert x is not None
        shifted, _, total = self._parts(x)
        return (shifted - log(total),)
