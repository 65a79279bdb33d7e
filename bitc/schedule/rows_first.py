"""An image in planes, read by rows.

    Conv2D(planar)(f(x)) = Conv2D(f(Crop(planar)(x)))        f elementwise

A convolution that reads planes wants the whole image. Where its rows are to come one by one, each row is brought into
pixels right behind the graph input, and what stood between runs on rows too. A reduction that drops its axes becomes
one that keeps them, an image of one pixel, and a reshape; a mean of an image that was laid out in one line reads the
image.
"""

from __future__ import annotations

from dataclasses import replace

from bitc.ir.box import Box
from bitc.ir.graph import Graph, Node, Value
from bitc.ir.rewrite import Rewriter, rewrite
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Crop, Reshape
from bitc.ops.pool import AveragePool
from bitc.ops.reduce import Reduce
from bitc.ops.window import Window
from bitc.schedule.upright import upright

_ANY = Box(3, 4, 5, 7)


def rows_first(graph: Graph) -> Graph:
    """The same graph with convolutions of planes as such of pixels, means of images as images, and signals upright."""
    return upright(rewrite(graph, _rule))


def _rule(rw: Rewriter, node: Node) -> Value | None:
    op = node.op
    if isinstance(op, Reduce) and op.axes == (1, 2) and not op.keepdims and node.input(0).type.rank == 4:
        reduced = rw.emit(replace(op, keepdims=True), node.input(0), at=node.origin, name=f"{node.output.name}.image")
        return rw.emit(Reshape(node.output.shape), reduced, at=node.origin, name=node.output.name)
    if isinstance(op, Reduce) and op.axes == (1,) and (signal := _signal(rw, node.input(0))) is not None:
        whole = replace(op, axes=(1, 2), keepdims=True)
        reduced = rw.emit(whole, signal, at=node.origin, name=f"{node.output.name}.image")
        return rw.emit(Reshape(node.output.shape), reduced, at=node.origin, name=node.output.name)
    if isinstance(op, AveragePool):
        return _mean(rw, node, op)
    if not isinstance(op, Conv2D) or not op.planar:
        return None
    x = _pixels(rw, node.input(0))
    return rw.emit(replace(op, planar=False), x, *node.inputs[1:], at=node.origin, name=node.output.name)


def _signal(rw: Rewriter, x: Value) -> Value | None:
    """The image [1, 1, L, C] of which x is the same steps and channels."""
    reshape = rw.producer(x)
    if reshape is None or not isinstance(reshape.op, Reshape) or x.type.rank != 3:
        return None
    image = reshape.input(0)
    return image if image.shape == (1, *x.shape) else None


def _mean(rw: Rewriter, node: Node, op: AveragePool) -> Value | None:
    """The mean of an image in one line, as that of the image."""
    x, reshape = node.input(0), rw.producer(node.input(0))
    if reshape is None or not isinstance(reshape.op, Reshape) or op.window != Window((x.shape[1], x.shape[2])):
        return None
    image = reshape.input(0)
    if image.type.rank != 4 or image.shape[0] != 1 or image.type.channels != x.type.channels:
        return None
    pool = replace(op, window=Window((image.shape[1], image.shape[2])))
    return rw.emit(pool, image, *node.inputs[1:], at=node.origin, name=node.output.name)


def _pixels(rw: Rewriter, x: Value) -> Value:
    """x in planes as pixels: those of what x is computed from element by element, reshaped on the way or not."""
    shaped = rw.producer(x)
    reshape = shaped if shaped is not None and isinstance(shaped.op, Reshape) else None
    producer = rw.producer(reshape.input(0)) if reshape is not None else shaped
    if producer is None or not elementwise(producer):
        return _once(rw, Node(Crop((x.shape[2], x.shape[3]), planar=True), (x,), (), f"pixels of {x.name}"), x.name)
    before = producer.input(0)
    if reshape is not None:
        before = _once(rw, replace(reshape, inputs=(before,)), before.name)
    inputs = (_pixels(rw, before), *producer.inputs[1:])
    return _once(rw, replace(producer, inputs=inputs), x.name)


def _once(rw: Rewriter, node: Node, of: str) -> Value:
    """The output of a node, which is emitted if it is not there yet; named after the value that it gives as pixels."""
    known = [n.output for n in rw.nodes if n.op == node.op and n.inputs == node.inputs]
    return known[0] if known else rw.emit(node.op, *node.inputs, at=node.origin, name=f"{of}.pixels")


def elementwise(node: Node) -> bool:
    """Whether the node computes each element of its first input alone, with constants of one element."""
    alone = len(node.outputs) == 1 and node.input(0).shape == node.output.shape and not node.input(0).is_const
    constants = all(v is None or (v.is_const and v.type.size == 1) for v in node.inputs[1:])
    return alone and constants and node.op.input_window(_ANY, 0) == _ANY and not node.op.strides_over_image
