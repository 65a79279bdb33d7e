"""Products with a constant matrix become convolutions, and the flattening before them goes into their weights.

    x[..., M, K] @ W[K, N]  =  Conv2D of x as 1 x M pixels of K channels with N kernels of 1 x 1
    flatten(x[1, H, W, C]) @ W  =  Conv2D of x with N kernels of H x W: the whole input is one window

The second form holds for any Transpose before the flattening: the columns of W are permuted instead of the data, so a
packed feature map is consumed as it lies in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from bitc.ir.graph import Graph, Node, Value
from bitc.ir.rewrite import Rewriter, rewrite
from bitc.ops.linear import Conv2D, MatMul
from bitc.ops.movement import Reshape, Transpose
from bitc.ops.window import Window
from bitc.passes.context import Context


@dataclass(frozen=True)
class DenseAsConv:
    lossless = True

    def run(self, graph: Graph, ctx: Context) -> Graph:
        return rewrite(graph, _rule)


def _rule(rw: Rewriter, node: Node) -> Value | None:
    if not isinstance(node.op, MatMul):
        return None
    x, w = node.inputs
    assert x is not None and w is not None
    if x.is_const or not w.is_const or len(w.shape) != 2 or w.type.dtype.is_integer:
        return None
    k, n = w.shape
    columns = w.array.T  # [N, K]
    source, shape, columns = _through_flatten(rw, x, columns)
    if shape is None:
        pixels = x.type.size // k
        source = rw.emit(Reshape((1, 1, pixels, k)), source, at=node.origin)
        shape = (1, 1, k)
    weights = rw.const(columns.reshape(n, *shape), f"{w.name}.kernel")
    window = Window(kernel=(shape[0], shape[1]))
    y = rw.emit(Conv2D(window), source, weights, at=node.origin, name=node.output.name)
    return rw.emit(Reshape(node.output.shape), y, at=node.origin, name=node.output.name)


def _through_flatten(
    rw: Rewriter, x: Value, columns: np.ndarray
) -> tuple[Value, tuple[int, int, int] | None, np.ndarray]:
    """If x is one row that is the flattening of an image ``[1, H, W, C]``, perhaps transposed: the image, (H, W, C) and
    the weight columns permuted to its order. Else x itself, None and the columns as they are."""
    k = columns.shape[1]
    reshape = rw.producer(x)
    if x.type.size != k or reshape is None or not isinstance(reshape.op, Reshape):
        return x, None, columns
    source = reshape.input(0)
    transpose = rw.producer(source)
    if transpose is not None and isinstance(transpose.op, Transpose):
        inverse = np.argsort(transpose.op.perm)
        per_row = columns.reshape(len(columns), *source.shape)
        columns = per_row.transpose(0, *(1 + inverse)).reshape(len(columns), k)
        source = transpose.input(0)
    if len(source.shape) == 4 and source.shape[0] == 1:
        return source, (source.shape[1], source.shape[2], source.shape[3]), columns
    if transpose is not None and isinstance(transpose.op, Transpose):
        return rw.emit(Reshape((1, 1, 1, prod(source.shape))), source, at=reshape.origin), (1, 1, k), columns
    return x, None, columns
