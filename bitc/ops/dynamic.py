"""Operators whose results are as long as the data says.

Each result is stored at the greatest length it can have. `count`, an int32 scalar beside it, says how many entries
there are; those after them are zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from bitc.ir.dtypes import INT32, INT64
from bitc.ir.graph import Array, Op
from bitc.ir.types import DENSE, TensorType

COUNT = TensorType((), INT32)


def _count(n: int) -> Array:
    return np.array(n, np.int32)


def _filled(found: list[Array], shape: tuple[int, ...]) -> Array:
    """Rows of int64, followed by zeros."""
    out = np.zeros(shape, np.int64)
    if found:
        out[: len(found)] = found
    return out


@dataclass(frozen=True)
class NonZero(Op):
    """Indices of the elements that are not zero, in row-major order: ``[rank, size]`` in int64, and their count."""

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = types
        assert x is not None and x.rank > 0
        return TensorType((x.rank, x.size), INT64), COUNT

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        (x,) = arrays
        assert x is not None
        found = np.argwhere(x)
        return np.ascontiguousarray(_filled(list(found), (x.size, x.ndim)).T), _count(len(found))


@dataclass(frozen=True)
class Unique(Op):
    """The different slices along `axis`: where each stands first, its number for every slice (all ``[n]``, in int64),
    how often it occurs, and how many there are. They are in the order of their first elements, or `ordered`: ascending,
    compared element by element, NaN after all numbers and equal to NaN."""

    axis: int
    ordered: bool = True

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = types
        assert x is not None and 0 <= self.axis < x.rank
        each = TensorType((x.shape[self.axis],), INT64)
        return each, each, each, COUNT

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        (x,) = arrays
        assert x is not None
        n = x.shape[self.axis]
        lines = np.moveaxis(x, self.axis, 0).reshape(n, -1)
        keys = [tuple((bool(e != e), 0 if e != e else e) for e in line.tolist()) for line in lines]
        first: dict[object, int] = {}
        for i, key in enumerate(keys):
            first.setdefault(key, i)
        order = sorted(first) if self.ordered else list(first)  # type: ignore[type-var]  # all keys are alike
        number = {key: i for i, key in enumerate(order)}
        inverse = np.array([number[key] for key in keys], np.int64)
        times = np.zeros(n, np.int64)
        np.add.at(times, inverse, 1)
        starts = np.zeros(n, np.int64)
        starts[: len(order)] = [first[key] for key in order]
        return starts, inverse, times, _count(len(order))


@dataclass(frozen=True)
class NonMaxSuppression(Op):
    """Boxes with a high score that overlap no box with a higher one by more than a threshold, per batch element and
    class.

    Inputs: boxes ``[N, B, 4]`` (two opposite corners, y before x, or with `center` x, y, width and height), scores
    ``[N, C, B]``, and scalars that may be absent: the most boxes per class (integer), the threshold of the
    intersection over the union, and the score that a box must exceed. Of equal scores the first box counts as the
    higher one; a score that is NaN is never taken. Outputs: ``[N * C * limit, 3]`` in int64, rows of batch element,
    class and box; and their count. `limit` is the most boxes per class in any case.
    """

    limit: int
    center: bool = False

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        boxes, scores, *rest = types
        assert boxes is not None and scores is not None
        n, b, four = boxes.shape
        assert four == 4 and scores.rank == 3 and scores.shape[::2] == (n, b) and 0 < self.limit <= b, f"{scores}"
        assert len(rest) == 3 and all(t is None or t.size == 1 for t in rest)
        return TensorType((n * scores.shape[1] * self.limit, 3), INT64), COUNT

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        boxes, scores, most, overlap, least = arrays
        assert boxes is not None and scores is not None
        f32 = np.float32
        limit = self.limit if most is None else min(int(most.reshape(-1)[0]), self.limit)
        iou = f32(0 if overlap is None else overlap.reshape(-1)[0])
        found: list[Array] = []
        for batch, one in enumerate(scores.astype(f32)):
            corners = _corners(boxes[batch].astype(f32), self.center)
            for label, score in enumerate(one):
                open_ = ~np.isnan(score) if least is None else score > f32(least.reshape(-1)[0])
                for _ in range(limit):
                    if not open_.any():
                        break
                    best = int(np.argmax(np.where(open_, score, -np.inf))) if (score[open_] > -np.inf).any() else -1
                    best = int(np.flatnonzero(open_)[0]) if best < 0 else best
                    found.append(np.array([batch, label, best]))
                    open_ = open_ & ~_overlaps(corners, best, iou)
                    open_[best] = False
        shape = (boxes.shape[0] * scores.shape[1] * self.limit, 3)
        return _filled(found, shape), _count(len(found))


def _corners(boxes: Array, center: bool) -> Array:
    """Rows of y and x of the corner near the origin, then of the other one, in float32."""
    if center:
        x, y, w, h = boxes.T
        half = np.float32(2)
        return np.stack([y - h / half, x - w / half, y + h / half, x + w / half], -1)
    a, b = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([np.where(a < b, a, b), np.where(a < b, b, a)], -1)


def _overlaps(corners: Array, best: int, threshold: np.float32) -> Array:
    """Which boxes have more than `threshold` of the union in common with one of them; each step rounds in float32.
    Boxes without an area have nothing in common with any."""
    y0, x0, y1, x1 = corners.T
    a = corners[best]
    height = np.where(y1 < a[2], y1, a[2]) - np.where(y0 > a[0], y0, a[0])
    width = np.where(x1 < a[3], x1, a[3]) - np.where(x0 > a[1], x0, a[1])
    common = width * height
    ours, theirs = (a[3] - a[1]) * (a[2] - a[0]), (x1 - x0) * (y1 - y0)
    union = ours + theirs - common
    real = (height > 0) & (width > 0) & (common > 0) & (ours > 0) & (theirs > 0) & (union > 0)
    with np.errstate(all="ignore"):
        return np.asarray(real & (common / union > threshold))


@dataclass(frozen=True)
class FillTail(Op):
    """x with `fill` in place of what lies at `axis` after the first `count` entries. Inputs: x, count (an integer
    scalar)."""

    axis: int
    fill: float | int = 0

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        x, count = types
        assert x is not None and count is not None and 0 <= self.axis < x.rank and prod(count.shape) == 1
        return (TensorType(x.shape, x.dtype, DENSE, x.quant),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, count = arrays
        assert x is not None and count is not None
        at = np.arange(x.shape[self.axis]).reshape(-1, *[1] * (x.ndim - self.axis - 1))
        return (np.where(at < int(count.reshape(-1)[0]), x, np.array(self.fill).astype(x.dtype)),)
