"""What a Slice cuts off the output of a convolution is not computed: causal convolutions of temporal networks.

    Slice(Conv2D(pads)(x)) = Conv2D(pads - cut)(x)
    Slice(f(y)) = f(Slice(y))        f pointwise with small constants, or a Reshape that adds or drops axes of length 1

A cut of n outputs at the front takes n times the stride from the padding there; no pad becomes negative.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bitc.ir.graph import Graph, Node, Value
from bitc.ir.rewrite import Rewriter, rewrite
from bitc.ops.base import Pointwise
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Reshape, Slice
from bitc.ops.window import Window
from bitc.passes.context import Context

_Cut = tuple[tuple[int, int], ...]
"""The elements [start, stop) that are left of each axis."""


@dataclass(frozen=True)
class FoldCrops:
    lossless = True

    def run(self, graph: Graph, ctx: Context) -> Graph:
        return rewrite(graph, _rule)


def _rule(rw: Rewriter, node: Node) -> Value | None:
    if not isinstance(node.op, Slice) or set(node.op.steps) != {1}:
        return None
    return _cut(rw, node.input(0), tuple(zip(node.op.starts, node.op.stops, strict=True)))


def _cut(rw: Rewriter, x: Value, cut: _Cut) -> Value | None:
    """`cut` of a value that nothing else reads; None if a convolution can not give just that."""
    node = rw.producer(x)
    if node is None or rw.uses(x) != 1 or rw.is_output(x):
        return None
    inputs: list[Value | None] = list(node.inputs)
    op = node.op
    if isinstance(op, Conv2D):
        window = _window(op, node, cut)
        if window is None:
            return None
        op = replace(op, window=window)
    else:
        if isinstance(op, Reshape):
            inner = _reshaped(cut, x.shape, node.input(0).shape)
            op = Reshape(tuple(b - a for a, b in cut))
        else:
            inner = cut if isinstance(op, Pointwise) and _alone(node, cut) else None
        inputs[0] = _cut(rw, node.input(0), inner) if inner else None
        if inputs[0] is None:
            return None
    return rw.emit(op, *inputs, at=node.origin)


def _window(op: Conv2D, node: Node, cut: _Cut) -> Window | None:
    """The convolution's window for rows and columns of its output."""
    y, x = node.output.shape, op.pixels(node.input(0).type).shape
    w = op.window
    if op.epilogue is not None or any(cut[axis] != (0, y[axis]) for axis in (0, 3)):
        return None
    first = [w.pads[a] - cut[1 + a][0] * w.strides[a] for a in (0, 1)]
    size = [cut[1 + a][1] - cut[1 + a][0] for a in (0, 1)]
    reach = [(size[a] - 1) * w.strides[a] + (w.kernel[a] - 1) * w.dilations[a] + 1 for a in (0, 1)]
    last = [max(reach[a] - first[a] - x[1 + a], 0) for a in (0, 1)]
    found = replace(w, pads=(first[0], first[1], last[0], last[1]))
    return found if min(first) >= 0 and found.out_size((x[1], x[2])) == tuple(size) else None


def _alone(node: Node, cut: _Cut) -> bool:
    """Whether all operands but the first are constants of one element along each axis that is cut."""
    shape = node.output.shape
    if node.input(0).shape != shape or len(node.outputs) != 1:
        return False
    axes = [axis - len(shape) for axis, part in enumerate(cut) if part != (0, shape[axis])]
    others = [v for v in node.inputs[1:] if v is not None]
    return all(v.is_const and all(-a > v.type.rank or v.shape[a] == 1 for a in axes) for v in others)


def _reshaped(cut: _Cut, shape: tuple[int, ...], before: tuple[int, ...]) -> _Cut | None:
    """The same elements of the shape in front of a Reshape."""
    if [n for n in shape if n != 1] != [n for n in before if n != 1]:
        return None
    parts = iter([part for part, n in zip(cut, shape, strict=True) if n != 1])
    return tuple((0, 1) if n == 1 else next(parts) for n in before)
