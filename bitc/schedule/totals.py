"""Values of one pixel that are made of a whole image, from rows of it as they come.

    mean(x)  = (((0 + x[0]) + x[1]) + ... + x[n - 1]) / n        x[i] the pixels in row-major order
    max(x)   = the larger of -inf, x[0], x[1], ..., x[n - 1]
    dense(x) = f(((0 + w[0] x[0]) + w[1] x[1]) + ... + w[m - 1] x[m - 1])        elements in that order, f the epilogue

Within a stage each of these is one node that adds a row of x to the total, which it reads and writes, and mostly a
second one that makes the result of the total at last. The order is that of the whole, so the bits are the same.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from bitc.ir.dtypes import BIT1, BOOL, INT32
from bitc.ir.graph import Node, Value
from bitc.ops.binary import Div
from bitc.ops.epilogue import bases
from bitc.ops.linear import AddProducts, Conv2D
from bitc.ops.pool import AveragePool, MaxPool
from bitc.ops.quantize import Requantize
from bitc.ops.reduce import AddPixels, MaxPixels, Reduce, ReduceMax, ReduceMean, ReduceMin, ReduceSum
from bitc.ops.window import Window

TOTALS = AddPixels, AddProducts, MaxPixels
"""Inputs: the total, and the image."""
IMAGE = 1
"""Which input the image is."""


def is_pool(node: Node) -> bool:
    """Whether the node makes one pixel of one image of several rows, channel by channel: a mean, sum or maximum that
    can be made of its rows."""
    return not is_dense(node) and by_rows_of(node) != (node,)


def is_dense(node: Node) -> bool:
    """Whether the node is a convolution whose one window is all of an image of several rows."""
    op = node.op
    if not isinstance(op, Conv2D) or op.group != 1 or op.planar or bases(op.epilogue) > 1:
        return False
    return _takes_all(op.window, node.input(0)) and all(v is None or v.is_const for v in node.inputs[1:])


def _takes_all(window: Window, x: Value) -> bool:
    """Whether the only window is all of one image of several rows."""
    whole = window.kernel == x.shape[1:3] and window.pads == (0, 0, 0, 0) and window.dilations == (1, 1)
    return whole and x.shape[0] == 1 and x.shape[1] > 1


@lru_cache(maxsize=4096)
def by_rows_of(node: Node) -> tuple[Node, ...]:
    """The node that adds a row of the image to the total, and the one that makes the result of the total, if it is
    another; the node itself if it does not go by rows."""
    if is_dense(node):
        return _dense(node)
    op, x = node.op, node.inputs[0] if node.inputs else None
    if x is None or x.type.rank != 4 or not x.type.size:
        return (node,)
    found: tuple[Node, ...] | None = None
    if isinstance(op, AveragePool) and _takes_all(op.window, x):
        found = _mean(node) if x.type.dtype.is_float else _mean_of_codes(node, op)
    elif isinstance(op, MaxPool) and _takes_all(op.window, x):
        found = _extreme_of_windows(node)
    elif isinstance(op, Reduce) and (op.axes, op.keepdims) == ((1, 2), True) and x.shape[0] == 1 and x.shape[1] > 1:
        found = _reduction(node)
    return found or (node,)


def _mean(node: Node) -> tuple[Node, ...]:
    x, y = node.input(0), node.output
    total = Value(f"{y.name}.total", y.type)
    count = np.array([x.shape[1] * x.shape[2]], x.type.dtype.carrier)
    divisor = Value(f"{y.name}.count", replace(y.type, shape=(1,)), count)
    return _adding(node, total), replace(node, op=Div(), inputs=(total, divisor))


def _mean_of_codes(node: Node, op: AveragePool) -> tuple[Node, ...] | None:
    """sum (x - zero) + bias = sum x + (bias - n zero), n the number of pixels."""
    x, y, params = node.input(0), node.output, [v for v in node.inputs[1:] if v is not None]
    if op.requant is None or not all(v.is_const for v in params) or not x.type.dtype.c_type:
        return None
    bias, multiplier, shift = (v.array.reshape(-1)[-1:] for v in params)  # the last: that of whole windows
    bias = bias - bias.dtype.type(x.shape[1] * x.shape[2] * op.x_zero)
    total = Value(f"{y.name}.total", replace(x.type, shape=y.shape, dtype=INT32, quant=None))
    numbers = zip(params, (bias, multiplier, shift), strict=True)
    consts = (Value(v.name, v.type.with_shape((1,)), array) for v, array in numbers)
    return _adding(node, total), replace(node, op=Requantize(op.requant), inputs=(total, *consts))


def _adding(node: Node, total: Value) -> Node:
    return replace(node, op=AddPixels(), inputs=(total, node.input(0)), outputs=(total,))


def _extreme_of_windows(node: Node) -> tuple[Node, ...] | None:
    flags = node.inputs[1] if len(node.inputs) > 1 else None
    if flags is None:
        return _extreme(node, False)
    same = flags.is_const and (flags.array == flags.array.reshape(-1)[0]).all()
    return _extreme(node, bool(flags.array.reshape(-1)[0])) if same else None


def _extreme(node: Node, minimum: bool) -> tuple[Node, ...] | None:
    x, y = node.input(0), node.output
    if not (x.type.dtype is BIT1 or x.type.dtype.c_type) or x.type.dtype is BOOL:
        return None
    return (replace(node, op=MaxPixels(minimum), inputs=(y, x)),)


def _reduction(node: Node) -> tuple[Node, ...] | None:
    op = node.op
    if isinstance(op, ReduceMax | ReduceMin):
        return _extreme(node, isinstance(op, ReduceMin))
    if not node.input(0).type.dtype.is_float:
        return None
    if isinstance(op, ReduceSum):
        return (_adding(node, node.output),)
    return _mean(node) if isinstance(op, ReduceMean) else None


def _dense(node: Node) -> tuple[Node, ...]:
    """Where there is no epilogue, the result is the total."""
    op, x, w, y = node.op, node.input(0), node.input(1), node.output
    assert isinstance(op, Conv2D)
    total = Value(f"{y.name}.total", op.accumulator(x.type, w.type)) if op.epilogue else y
    adds = Node(AddProducts(op.window, op.x_zero), (total, x, w), (total,), node.origin)
    if op.epilogue is None:
        return (adds,)
    return adds, replace(node, op=Requantize(op.epilogue), inputs=(total, *node.inputs[2:]))


def rows_of(node: Node) -> list[Node]:
    """The node for each row of its image if its constants differ by row, else itself."""
    if not isinstance(node.op, AddProducts):
        return [node]
    (total, x), w = node.inputs[:2], node.input(2)
    op = replace(node.op, window=Window((1, w.shape[2])))
    parts = np.split(w.array, w.shape[1], axis=1)
    weights = [Value(w.name, w.type.with_shape(p.shape), np.ascontiguousarray(p)) for p in parts]
    return [replace(node, op=op, inputs=(total, x, own)) for own in weights]


def adds_up(node: Node) -> bool:
    """Whether the node runs once for each row of its image, and writes the total that it reads."""
    return isinstance(node.op, TOTALS) and node.output is node.inputs[0]
