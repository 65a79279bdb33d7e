"""Means of whole images, made from rows as they come.

    mean(x) = (((0 + x[0]) + x[1]) + ... + x[n - 1]) / n        x[i] the pixels in row-major order

Within a stage the mean is two nodes: one adds a row of x to the total, which it reads and writes, and one divides the
total at last. The order of the additions is that of the mean, so the bits are the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitc.ir.graph import Node, Value
from bitc.ops.binary import Div
from bitc.ops.pool import AveragePool
from bitc.ops.reduce import AddPixels, ReduceMean


def is_mean(node: Node) -> bool:
    """Whether the node is the mean of each channel of one float image of several rows, as one pixel."""
    x, op = node.inputs[0] if node.inputs else None, node.op
    if x is None or x.type.rank != 4 or x.shape[0] != 1 or x.shape[1] < 2 or not x.type.size:
        return False
    if isinstance(op, AveragePool):
        everything = op.window.kernel == x.shape[1:3] and op.window.pads == (0, 0, 0, 0)
        return x.type.dtype.is_float and everything and op.window.dilations == (1, 1)
    return isinstance(op, ReduceMean) and x.type.dtype.is_float and op.axes == (1, 2) and op.keepdims


def by_rows_of(node: Node) -> tuple[Node, Node]:
    """The node that adds a row of the image to the total, and the one that makes the mean of the total."""
    x, y = node.input(0), node.output
    total = Value(f"{y.name}.total", y.type)
    count = np.array([x.shape[1] * x.shape[2]], x.type.dtype.carrier)
    divisor = Value(f"{y.name}.count", replace(y.type, shape=(1,)), count)
    return Node(AddPixels(), (total, x), (total,), node.origin), replace(node, op=Div(), inputs=(total, divisor))


def adds_up(node: Node) -> bool:
    """Whether the node runs once for each row of its image, and writes the total that it reads."""
    return isinstance(node.op, AddPixels) and node.output is node.inputs[0]
