"""A convolution whose window is its whole input reads the input as one row.

    Conv2D(H x W window)(Requantize(x)) = Conv2D(1 x 1 window)(Requantize(flatten(x)))

Bits are packed along the last axis, each row padded to whole words. A quantized image of 28 x 28 pixels of one channel
would be 28 padded rows; as one row of 784 bits it is dense, and so are the weights. Only where the tensor comes from a
quantizer of its own: what a convolution has packed by channels stays as it lies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bitc.ir.graph import Graph, Node, Value
from bitc.ir.rewrite import Rewriter, rewrite
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Reshape
from bitc.ops.quantize import Requantize
from bitc.ops.window import Window
from bitc.passes.context import Context


@dataclass(frozen=True)
class FlattenWindows:
    lossless = True

    def run(self, graph: Graph, ctx: Context) -> Graph:
        return rewrite(graph, _rule)


def _rule(rw: Rewriter, node: Node) -> Value | None:
    op = node.op
    if not isinstance(op, Conv2D) or op.group != 1:
        return None
    x, w = node.input(0), node.input(1)
    quantizer = rw.producer(x)
    whole = op.window == Window(kernel=(x.shape[1], x.shape[2])) and x.shape[:3] != (1, 1, 1)
    if not whole or x.shape[0] != 1 or not w.is_const:
        return None
    if quantizer is None or not isinstance(quantizer.op, Requantize):
        return None
    params = [_scalar(rw, p) for p in quantizer.inputs[1:]]
    if None in params:
        return None
    row = (1, 1, 1, x.type.size)
    source = rw.emit(Reshape(row), quantizer.input(0), at=quantizer.origin)
    codes = rw.emit(quantizer.op, source, *params, at=quantizer.origin, name=x.name)
    codes.origin = x.origin.then("reshape", row) if x.origin else None
    weights = rw.const(w.array.reshape(w.shape[0], *row[1:]), w.name, w.type.with_shape((w.shape[0], *row[1:])))
    op = replace(op, window=Window())
    return rw.emit(op, codes, weights, *node.inputs[2:], at=node.origin, name=node.output.name)


def _scalar(rw: Rewriter, p: Value | None) -> Value | None:
    """A parameter that is the same for every element, as one element; None if it is not."""
    if p is None or not p.is_const or not (p.array == p.array.reshape(-1)[0]).all():
        return None
    return rw.const(p.array.reshape(-1)[:1], p.name)
