"""An image in planes, read by rows.

    Conv2D(planar)(f(x)) = Conv2D(f(Crop(planar)(x)))        f elementwise

A convolution that reads planes wants the whole image. Where its rows are to come one by one, each row is brought into
pixels right behind the graph input, and what stood between runs on rows too. A mean that drops its axes becomes one
that keeps them, an image of one pixel, and a reshape.
"""

from __future__ import annotations

from dataclasses import replace

from bitc.ir.box import Box
from bitc.ir.graph import Graph, Node, Value
from bitc.ir.rewrite import Rewriter, rewrite
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Crop, Reshape
from bitc.ops.reduce import ReduceMean

_ANY = Box(3, 4, 5, 7)


def rows_first(graph: Graph) -> Graph:
    """The same graph with convolutions of planes as such of pixels, and means of images as images."""
    return rewrite(graph, _rule)


def _rule(rw: Rewriter, node: Node) -> Value | None:
    op = node.op
    if isinstance(op, ReduceMean) and op.axes == (1, 2) and not op.keepdims and node.input(0).type.rank == 4:
        mean = rw.emit(replace(op, keepdims=True), node.input(0), at=node.origin)
        return rw.emit(Reshape(node.output.shape), mean, at=node.origin, name=node.output.name)
    if not isinstance(op, Conv2D) or not op.planar:
        return None
    x = _pixels(rw, node.input(0))
    return rw.emit(replace(op, planar=False), x, *node.inputs[1:], at=node.origin, name=node.output.name)


def _pixels(rw: Rewriter, x: Value) -> Value:
    producer = rw.producer(x)
    if producer is None or not elementwise(producer):
        size = x.shape[2], x.shape[3]
        known = [n.output for n in rw.nodes if n.op == Crop(size, planar=True) and n.inputs == (x,)]
        if known:
            return known[0]
        return rw.emit(Crop(size, planar=True), x, at=f"pixels of {x.name}", name=f"{x.name}.pixels")
    inner = _pixels(rw, producer.input(0))
    return rw.emit(producer.op, inner, *producer.inputs[1:], at=producer.origin, name=x.name)


def elementwise(node: Node) -> bool:
    """Whether the node computes each element of its first input alone, with constants of one element."""
    alone = len(node.outputs) == 1 and node.input(0).shape == node.output.shape and not node.input(0).is_const
    constants = all(v is None or (v.is_const and v.type.size == 1) for v in node.inputs[1:])
    return alone and constants and node.op.input_window(_ANY, 0) == _ANY and not node.op.strides_over_image
