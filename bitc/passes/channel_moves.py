"""What operators that only move elements do to something known of every element, and what is left of them when channels
go.

What is known of the elements of a value is an array that broadcasts to its shape: an axis along which it is the same
has length 1 (the labels of channels last are ``[1, 1, 1, C]``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from bitc.ir.graph import Array, Graph, Node, Op, Value
from bitc.ops.movement import Crop, Expand, Gather, Pad, Reshape, Rows, Slice, Tile, Transpose
from bitc.passes.simplify import squeeze_broadcast

MOVES = (Reshape, Transpose, Slice, Gather, Pad, Expand, Tile, Crop, Rows)
"""Operators of one computed input whose elements are those of it, or padding."""
Fill = Callable[[tuple[int, ...]], Array]
"""What is known of elements that padding adds: an array of this shape."""


def moved(node: Node, known: Array, fill: Fill) -> Array | None:
    """What is known of the output, from what is known of the input. None: no such array."""
    op, x, y = node.op, node.input(0), node.output
    match op:
        case Reshape() if known.size == 1:
            return known.reshape((1,) * y.type.rank)
        case Reshape() if known.shape[-1] == known.size and x.type.channels == y.type.channels:
            return known.reshape((1,) * (y.type.rank - 1) + (known.size,))
        case Reshape():
            return squeeze_broadcast(np.broadcast_to(known, x.shape).reshape(y.shape))
        case Transpose():
            return known.transpose(op.perm)
        case Crop():
            return known.transpose(0, 2, 3, 1) if op.planar else known
        case Expand():
            return known.reshape((1,) * (y.type.rank - known.ndim) + known.shape)
        case Tile():
            return np.tile(known, [r if d > 1 else 1 for r, d in zip(op.repeats, known.shape, strict=True)])
        case Slice():
            whole = tuple(d > 1 for d in known.shape)
            starts, steps = (tuple(v if w else s for v, w in zip(part, whole, strict=True))
                             for part, s in ((op.starts, 0), (op.steps, 1)))  # fmt: skip
            stops = tuple(v if w else 1 for v, w in zip(op.stops, whole, strict=True))
            return Slice(starts, stops, steps).reference(known)[0]
        case Gather():
            index = node.input(1).array
            if known.shape[op.axis] > 1:
                return np.take(known, index, op.axis)
            return known.reshape((*known.shape[: op.axis], *(1,) * index.ndim, *known.shape[op.axis + 1 :]))
        case Pad():
            return _padded(op, known, fill)
        case _:
            return known


def _padded(op: Pad, known: Array, fill: Fill) -> Array | None:
    for axis, (before, after) in enumerate(zip(op.before, op.after, strict=True)):
        if known.shape[axis] == 1 or before == after == 0:
            continue
        if op.mode != "constant":
            return None
        parts = [fill((*known.shape[:axis], n, *known.shape[axis + 1 :])) for n in (before, after)]
        known = np.concatenate([parts[0], known, parts[1]], axis)
    return known


def constants_moved(node: Node, known: Array) -> Array | None:
    """`moved` for the numbers that elements always are, NaN where they vary."""
    op = node.op
    if isinstance(op, Pad) and op.mode == "constant":
        new = [a for a in range(known.ndim) if known.shape[a] == 1 and op.before[a] + op.after[a]]
        if new:
            known = np.where(known == op.value, known, np.nan)
    return moved(node, known, lambda shape: np.full(shape, op.value if isinstance(op, Pad) else np.nan))


Step = tuple[Op, Array | None]
"""An operator that moves elements, and the indices that a Gather takes."""


def narrowed(node: Node, y: Value, keep_x: list[Array], keep_y: list[Array]) -> list[Step]:
    """What makes the elements `keep_y` (indices per axis) of the output from the elements `keep_x` of the input. `y` is
    narrowed already."""
    op = node.op
    match op:
        case Reshape():
            return [(Reshape(y.shape), None)]
        case Expand():
            return [(Expand(y.shape), None)]
        case Pad():
            sizes = [(b, b + d) for b, d in zip(op.before, node.input(0).shape, strict=True)]
            before = tuple(int((k < lo).sum()) for k, (lo, _) in zip(keep_y, sizes, strict=True))
            after = tuple(int((k >= hi).sum()) for k, (_, hi) in zip(keep_y, sizes, strict=True))
            return [(replace(op, before=before, after=after), None)]
        case Slice():
            ranges = [range(*r) for r in zip(op.starts, op.stops, op.steps, strict=True)]
            where = [np.searchsorted(kx, np.asarray(r)[ky]) for kx, r, ky in zip(keep_x, ranges, keep_y, strict=True)]
            return picked(where, [len(k) for k in keep_x])
        case Gather():
            axis, index = op.axis, node.input(1).array
            if index.ndim != 1:  # no axis of labels
                return [(op, index)]
            where = [np.arange(len(k)) for k in keep_x]
            where[axis] = np.searchsorted(keep_x[axis], index[keep_y[axis]])
            return picked(where, [len(k) for k in keep_x])
        case _:
            return [(op, None)]


def picked(where: Sequence[Array], shape: Sequence[int]) -> list[Step]:
    """The elements `where` (indices per axis) of a tensor: a Slice where they are at one distance, else Gathers."""
    bounds = [_range(index) for index in where]
    parts = [b or range(n) for b, n in zip(bounds, shape, strict=True)]
    steps: list[Step] = [
        (Gather(axis), index.astype(np.int64))
        for axis, (index, b) in enumerate(zip(where, bounds, strict=True))
        if b is None
    ]
    if not steps or any(len(part) < n for part, n in zip(parts, shape, strict=True)):
        cut = Slice(*(tuple(getattr(p, end) for p in parts) for end in ("start", "stop", "step")))
        steps.insert(0, (cut, None))
    return steps


def _range(index: Array) -> range | None:
    first, step = int(index[0]), int(index[1] - index[0]) if len(index) > 1 else 1
    found = range(first, int(index[-1]) + (1 if step > 0 else -1), step) if step else range(0)
    return found if len(found) == len(index) and (np.asarray(found) == index).all() else None


def is_nothing(step: Step, x: Value, shape: tuple[int, ...]) -> bool:
    """Whether a step to a tensor of this shape leaves all elements where they are."""
    op, index = step
    if index is not None or x.shape != shape:
        return False
    return isinstance(op, Reshape) or (isinstance(op, Slice) and min(op.steps) > 0)


def channel_gather(graph: Graph, node: Node, is_whole: Callable[[Value], bool]) -> tuple[Value, Array] | None:
    """The last value before `node` for which `is_whole` holds and from which moves alone lead to the node's output, and
    the channel of it that each output channel is, pixel by pixel. None if there is no such value, or they do more."""
    chain, x = [node], node.input(0)
    while not is_whole(x):
        before = graph.producers.get(x)
        if before is None or not isinstance(before.op, MOVES):
            return None
        chain.append(before)
        x = before.input(0)
    if any(isinstance(n.op, Pad) for n in chain) or x.type.dtype.is_packed:
        return None
    at = np.arange(x.type.size).reshape(x.shape)
    for n in reversed(chain):
        at = n.op.reference(at, *(v.array for v in n.inputs[1:] if v is not None))[0]
    pixel, channel = np.divmod(at.reshape(-1, node.output.type.channels), x.type.channels)
    rows = np.arange(x.type.rows)[:, None]
    if len(pixel) != x.type.rows or (pixel != rows).any() or (channel != channel[0]).any():
        return None
    return x, channel[0]
