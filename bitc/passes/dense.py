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

from bitc.ir.dtypes import FLOAT32, INT32
from bitc.ir.graph import Array, Graph, Node, Value
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
    a, b = node.input(0), node.input(1)
    if min(a.type.rank, b.type.rank) < 1 or a.type.dtype not in (FLOAT32, INT32) or a.is_const == b.is_const:
        return None
    name, at = node.output.name, node.origin
    if b.is_const:
        return _dense(rw, a, b.array, at, name) if b.type.rank == 2 else None
    if a.type.rank != 2 or b.type.rank < 2:
        return None
    # A constant matrix on the left: W x = (x^T W^T)^T
    swap = Transpose((*range(b.type.rank - 2), b.type.rank - 1, b.type.rank - 2))
    return rw.emit(swap, _dense(rw, rw.emit(swap, b, at=at), a.array.T, at, name), at=at, name=name)


def _dense(rw: Rewriter, x: Value, w: Array, at: str, name: str) -> Value:
    """``x @ w`` as a convolution."""
    k, n = w.shape
    source, shape, columns = _through_flatten(rw, x, w.T)
    if shape is None:
        source = rw.emit(Reshape((1, 1, x.type.size // k, k)), source, at=at)
        shape = (1, 1, k)
    weights = rw.const(columns.reshape(n, *shape), f"{name}.kernel")
    y = rw.emit(Conv2D(Window(kernel=(shape[0], shape[1]))), source, weights, at=at, name=name)
    return rw.emit(Reshape((*x.shape[:-1], n)), y, at=at, name=name)


def _through_flatten(rw: Rewriter, x: Value, columns: Array) -> tuple[Value, tuple[int, int, int] | None, Array]:
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
