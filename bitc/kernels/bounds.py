"""Bounds of sums of integer products."""

from __future__ import annotations

import numpy as np

from bitc.ir.graph import Array, Node
from bitc.ops.linear import Conv2D


def product_range(node: Node) -> tuple[Array, Array]:
    """The least and the largest sum of a convolution of dense codes with constant weights, over all inputs and all
    subsets of taps, for each output."""
    op, x, w = node.op, node.input(0).type, node.input(1)
    assert isinstance(op, Conv2D)
    flat = w.array.reshape(w.shape[0], -1).astype(np.int64)
    least, most = int(x.dtype.min) - op.x_zero, int(x.dtype.max) - op.x_zero
    a, b = flat * least, flat * most
    return np.minimum(np.minimum(a, b), 0).sum(axis=1), np.maximum(np.maximum(a, b), 0).sum(axis=1)
