"""Values of one pixel that are made of a whole image, from rows of it as they come.

    mean(x)  = (((0 + x[0]) + x[1]) + ... + x[n - 1]) / n        x[i] the pixels in row-major order
    dense(x) = f(((0 + w[0] x[0]) + w[1] x[1]) + ... + w[m - 1] x[m - 1])        elements in that order, f the epilogue

Within a stage each of these is two nodes: one adds a row of x to the total, which it reads and writes, and one makes
the result of the total at last. The order of the additions is that of the whole, so the bits are the same.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from bitc.ir.graph import Node, Value
from bitc.ops.binary import Div
from bitc.ops.epilogue import bases
from bitc.ops.linear import AddProducts, Conv2D
from bitc.ops.pool import AveragePool
from bitc.ops.quantize import Requantize
from bitc.ops.reduce import AddPixels, ReduceMean
from bitc.ops.window import Window

TOTALS = AddPixels, AddProducts
"""Inputs: the total, and the image."""
IMAGE = 1
"""Which input the image is."""


def is_mean(node: Node) -> bool:
    """Whether the node is the mean of each channel of one float image of several rows, as one pixel."""
    x, op = node.inputs[0] if node.inputs else None, node.op
    if x is None or x.type.rank != 4 or x.shape[0] != 1 or x.shape[1] < 2 or not x.type.size:
        return False
    if isinstance(op, AveragePool):
        everything = op.window.kernel == x.shape[1:3] and op.window.pads == (0, 0, 0, 0)
        return x.type.dtype.is_float and everything and op.window.dilations == (1, 1)
    return isinstance(op, ReduceMean) and x.type.dtype.is_float and op.axes == (1, 2) and op.keepdims


def is_dense(node: Node) -> bool:
    """Whether the node is a convolution whose one window is all of an image of several rows."""
    op = node.op
    if not isinstance(op, Conv2D) or op.group != 1 or op.planar or bases(op.epilogue) > 1 or not node.input(1).is_const:
        return False
    x = node.input(0)
    everything = op.window.kernel == x.shape[1:3] and op.window.pads == (0, 0, 0, 0)
    return everything and x.shape[0] == 1 and x.shape[1] > 1


@lru_cache(maxsize=1024)
def by_rows_of(node: Node) -> tuple[Node, ...]:
    """The node that adds a row of the image to the total, and the one that makes the result of the total; the node
    itself if it is neither a mean nor dense."""
    if is_dense(node):
        return _dense(node)
    return _mean(node) if is_mean(node) else (node,)


def _mean(node: Node) -> tuple[Node, ...]:
    x, y = node.input(0), node.output
    total = Value(f"{y.name}.total", y.type)
    count = np.array([x.shape[1] * x.shape[2]], x.type.dtype.carrier)
    divisor = Value(f"{y.name}.count", replace(y.type, shape=(1,)), count)
    return Node(AddPixels(), (total, x), (total,), node.origin), replace(node, op=Div(), inputs=(total, divisor))


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
