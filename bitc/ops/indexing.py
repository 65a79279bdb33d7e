"""Operators whose indices may be computed, and those that order or accumulate along an axis.

An index counts from the end where it is negative. One that lies outside is moved to the nearest element: code on a
device must not read or write elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from bitc.ir.dtypes import INT64
from bitc.ir.graph import Array, Op
from bitc.ir.types import DENSE, TensorType


def inside(indices: Array, size: int) -> Array:
    """Indices of an axis of `size` elements, counted from the front and moved inside."""
    wide = indices.astype(np.int64)
    return np.clip(np.where(wide < 0, wide + size, wide), 0, size - 1)


def _dense(shape: tuple[int, ...], like: TensorType) -> TensorType:
    return TensorType(tuple(int(d) for d in shape), like.dtype, DENSE, like.quant)


@dataclass(frozen=True)
class Take(Op):
    """Elements along `axis` by computed indices. Inputs: x, indices (integers). The output's shape is x's with `axis`
    replaced by the shape of the indices."""

    axis: int

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        x, indices = types
        assert x is not None and indices is not None and indices.dtype.is_integer
        assert 0 <= self.axis < x.rank and x.shape[self.axis] > 0, f"axis {self.axis} of {x}"
        return (_dense((*x.shape[: self.axis], *indices.shape, *x.shape[self.axis + 1 :]), x),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, indices = arrays
        assert x is not None and indices is not None
        return (np.take(x, inside(indices, x.shape[self.axis]), axis=self.axis),)


@dataclass(frozen=True)
class GatherElements(Op):
    """``y[i, j, k] = x[i, indices[i, j, k], k]`` for axis 1, and so on. Inputs: x, indices of the same rank, no longer
    than x on the other axes. The output has the shape of the indices."""

    axis: int

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        x, indices = types
        assert x is not None and indices is not None and indices.dtype.is_integer
        _check_elements(x, indices, self.axis)
        return (_dense(indices.shape, x),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, indices = arrays
        assert x is not None and indices is not None
        return (x[_element_index(x.shape, indices, self.axis)],)


def _check_elements(x: TensorType, indices: TensorType, axis: int) -> None:
    assert x.rank == indices.rank and 0 <= axis < x.rank, f"indices {indices} on axis {axis} of {x}"
    fits = all(a == axis or i <= d for a, (i, d) in enumerate(zip(indices.shape, x.shape, strict=True)))
    assert fits and x.shape[axis] > 0, f"indices {indices} on axis {axis} of {x}"


def _element_index(shape: tuple[int, ...], indices: Array, axis: int) -> tuple[Array, ...]:
    """An index into an array of `shape` for each entry of `indices`."""
    places: list[Array] = list(np.indices(indices.shape, sparse=True))
    places[axis] = inside(indices, shape[axis])
    return tuple(places)


@dataclass(frozen=True)
class GatherND(Op):
    """Slices of x by index tuples. Inputs: x, indices ``[..., K]``; the first `batch` axes of both go together.
    The output is ``[batch..., indices' others..., x's axes after batch + K]``."""

    batch: int = 0

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        x, indices = types
        assert x is not None and indices is not None and indices.dtype.is_integer
        _check_tuples(x, indices, self.batch)
        return (_dense((*indices.shape[:-1], *x.shape[self.batch + indices.shape[-1] :]), x),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, indices = arrays
        assert x is not None and indices is not None
        return (x[_tuple_index(x.shape, indices, self.batch)],)


def _check_tuples(x: TensorType, indices: TensorType, batch: int) -> None:
    assert indices.rank > batch and x.rank >= batch + indices.shape[-1], f"indices {indices} of {x}"
    assert x.shape[:batch] == indices.shape[:batch] and prod(x.shape) > 0, f"indices {indices} of {x}"


def _tuple_index(shape: tuple[int, ...], indices: Array, batch: int) -> tuple[Array, ...]:
    places: list[Array] = list(np.indices(indices.shape[:-1], sparse=True)[:batch])
    places += [inside(indices[..., k], shape[batch + k]) for k in range(indices.shape[-1])]
    return tuple(places)


REDUCTIONS = ("none", "add", "mul", "max", "min")


def _scatter(y: Array, at: tuple[Array, ...], updates: Array, reduction: str) -> Array:
    """Write updates in row-major order; of several to the same place the last counts, or all are reduced in order."""
    if reduction == "none":
        y[at] = updates
        return y
    function = {"add": np.add, "mul": np.multiply, "max": np.fmax, "min": np.fmin}[reduction]
    function.at(y, at, updates)
    return y


@dataclass(frozen=True)
class ScatterElements(Op):
    """x with ``y[i, indices[i, j, k], k] = updates[i, j, k]`` for axis 1, and so on; with a `reduction` the update is
    added, multiplied, … to what is there. Inputs: x, indices, updates (of the indices' shape)."""

    axis: int
    reduction: str = "none"

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        x, indices, updates = types
        assert x is not None and indices is not None and updates is not None and indices.dtype.is_integer
        _check_elements(x, indices, self.axis)
        assert updates.shape == indices.shape and updates.dtype is x.dtype, f"updates {updates} of {x} at {indices}"
        return (_dense(x.shape, x),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, indices, updates = arrays
        assert x is not None and indices is not None and updates is not None
        return (_scatter(x.copy(), _element_index(x.shape, indices, self.axis), updates, self.reduction),)


@dataclass(frozen=True)
class ScatterND(Op):
    """x with the slices at index tuples replaced, or reduced with updates. Inputs: x, indices ``[..., K]``, updates
    ``[indices' others..., x's axes after K]``."""

    reduction: str = "none"

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        x, indices, updates = types
        assert x is not None and indices is not None and updates is not None and indices.dtype.is_integer
        _check_tuples(x, indices, 0)
        shape = (*indices.shape[:-1], *x.shape[indices.shape[-1] :])
        assert updates.shape == shape and updates.dtype is x.dtype, f"updates {updates} of {x} at {indices}"
        return (_dense(x.shape, x),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, indices, updates = arrays
        assert x is not None and indices is not None and updates is not None
        return (_scatter(x.copy(), _tuple_index(x.shape, indices, 0), updates, self.reduction),)


@dataclass(frozen=True)
class ArgTop(Op):
    """Indices (int64) of the `k` largest, or smallest, elements along `axis`, best first; of equal ones the first
    comes first, NaN after all numbers."""

    axis: int
    k: int
    largest: bool = True

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = types
        assert x is not None and 0 <= self.axis < x.rank and 0 <= self.k <= x.shape[self.axis], f"{self} of {x}"
        return (TensorType((*x.shape[: self.axis], self.k, *x.shape[self.axis + 1 :]), INT64),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        (x,) = arrays
        assert x is not None
        key = x if not self.largest else -x if x.dtype.kind == "f" else ~x
        order = np.argsort(key, axis=self.axis, kind="stable")
        return (np.ascontiguousarray(np.take(order, np.arange(self.k), axis=self.axis)).astype(np.int64),)


@dataclass(frozen=True)
class Cumulate(Op):
    """Running sum, or product, along `axis` from 0 (or 1) in order; from the last element if `reverse`. An `exclusive`
    one leaves out the element itself."""

    axis: int
    product: bool = False
    exclusive: bool = False
    reverse: bool = False

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = types
        assert x is not None and 0 <= self.axis < x.rank
        return (_dense(x.shape, x),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        (x,) = arrays
        assert x is not None
        line = np.moveaxis(np.flip(x, self.axis) if self.reverse else x, self.axis, -1)
        start = np.full((*line.shape[:-1], 1), int(self.product), x.dtype)
        function = np.multiply if self.product else np.add
        run = function.accumulate(np.concatenate([start, line], -1), axis=-1, dtype=x.dtype)
        found = np.moveaxis(run[..., :-1] if self.exclusive else run[..., 1:], -1, self.axis)
        return (np.ascontiguousarray(np.flip(found, self.axis) if self.reverse else found),)
