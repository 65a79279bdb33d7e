"""Signals as images of one column, so that time runs down the rows.

Convolutions over one axis are imported as windows (1, k) over images of one row, which are fast to run whole and have
no rows to run by. Turned, they have as many rows as steps:

    Conv2D((1, k))(x [1, 1, L, C]) = Turn(Conv2D((k, 1))(Turn(x)))        Turn: [1, 1, L, C] as [1, L, 1, C]

The bytes of tensors and weights stay where they are, and so does the order of the products.
"""

from __future__ import annotations

from dataclasses import replace

from bitc.ir.graph import Graph, Node, Op, Value
from bitc.ir.rewrite import Rewriter, rewrite
from bitc.ops.base import Pointwise
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Concat, Crop, Reshape
from bitc.ops.pool import AveragePool, MaxPool
from bitc.ops.quantize import Requantize
from bitc.ops.quantized import Lookup
from bitc.ops.reduce import Reduce
from bitc.ops.window import Window

_WINDOWED = (Conv2D, MaxPool, AveragePool)
_ELEMENTWISE = (Pointwise, Requantize, Lookup, Concat)


def upright(graph: Graph) -> Graph:
    """The same graph with time down the rows, if all its windows slide over one axis; else the graph itself."""
    windows = [n for n in graph.nodes if isinstance(n.op, _WINDOWED)]
    if not all(map(_is_signal, windows)) or not any(_window(n.op).kernel[1] > 1 for n in windows):
        return graph
    return rewrite(graph, _rule)


def _window(op: Op) -> Window:
    assert isinstance(op, Conv2D | MaxPool | AveragePool)
    return op.window


def _is_signal(node: Node) -> bool:
    x, w = node.input(0), _window(node.op)
    weights = len(node.inputs) < 2 or node.inputs[1] is None or node.input(1).is_const
    one_row = x.shape[2 if isinstance(node.op, Conv2D) and node.op.planar else 1] == 1
    return one_row and x.shape[0] == 1 and (w.kernel[0], w.pads[0], w.pads[2]) == (1, 0, 0) and weights


def _rule(rw: Rewriter, node: Node) -> Value | None:
    op, y = node.op, node.output
    if len(node.outputs) != 1 or y.type.rank != 4 or y.shape[:2] != (1, 1):
        return None
    inputs: list[Value | None]
    if isinstance(op, Crop) and op.planar:
        x = node.input(0)
        planes = rw.emit(Reshape((*x.shape[:2], x.shape[3], x.shape[2])), x, at=node.origin)
        op, inputs = replace(op, size=(op.size[1], op.size[0])), [planes]
    elif isinstance(op, Conv2D | MaxPool | AveragePool):
        if isinstance(op, Conv2D) and op.planar:
            return None
        inputs = [_turned(rw, node.input(0)), *node.inputs[1:]]
        if isinstance(op, Conv2D):
            w = node.input(1)
            inputs[1] = rw.const(w.array.swapaxes(1, 2), w.name, w.type.with_shape(_swapped(w.shape)))
        op = replace(op, window=_swapped_window(op.window))
    elif isinstance(op, Reduce) and op.axes == (1, 2):
        inputs = [_turned(rw, node.input(0))]
    elif y.shape[2] > 1 and isinstance(op, _ELEMENTWISE) and not (isinstance(op, Concat) and op.axis != 3):
        inputs = [v if v is None else _turned(rw, v) for v in node.inputs]
        if any(v is not None and v.type.rank in (2, 3) and v.shape[-2] != 1 for v in inputs):
            return None
    else:
        return None
    t = y.type.with_shape(_swapped(y.shape))
    if t.shape == y.shape:
        return rw.emit(op, *inputs, at=node.origin, name=y.name, type=t)
    steps = rw.emit(op, *inputs, at=node.origin, name=f"{y.name}.steps", type=t)
    return rw.emit(Reshape(y.shape), steps, at=node.origin, name=y.name)


def _turned(rw: Rewriter, x: Value) -> Value:
    """[1, 1, L, C] as [1, L, 1, C]; what has no such steps as it is."""
    if x.type.rank != 4 or x.shape[1] != 1 or x.shape[2] == 1:
        return x
    shape = _swapped(x.shape)
    if x.is_const:
        return rw.const(x.array.reshape(shape), x.name, x.type.with_shape(shape))
    producer = rw.producer(x)
    if producer is not None and isinstance(producer.op, Reshape) and producer.input(0).shape == shape:
        return producer.input(0)
    return rw.emit(Reshape(shape), x, at=producer.origin if producer else "")


def _swapped(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[0], shape[2], shape[1], shape[3]


def _swapped_window(w: Window) -> Window:
    top, left, bottom, right = w.pads
    return Window(w.kernel[::-1], w.strides[::-1], (left, top, right, bottom), w.dilations[::-1])
