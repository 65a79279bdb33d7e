"""Zero padding that stands before a convolution goes into its window, where its taps are skipped.

Conv2D(pads=p)(Pad(before, after, 0)(x)) = Conv2D(pads=p + (before, after))(x)

On codes the value of the padding is the zero point.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bitc.ir.graph import Graph, Node, Value
from bitc.ir.rewrite import Rewriter, rewrite
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Pad
from bitc.passes.context import Context


@dataclass(frozen=True)
class FoldPads:
    lossless = True

    def run(self, graph: Graph, ctx: Context) -> Graph:
        return rewrite(graph, _rule)


def _rule(rw: Rewriter, node: Node) -> Value | None:
    pad = rw.producer(node.inputs[0])
    if not isinstance(node.op, Conv2D) or pad is None or not isinstance(pad.op, Pad):
        return None
    p = pad.op
    if pad.input(0).type.dtype.is_packed or p.value != node.op.x_zero:
        return None
    if p.mode != "constant" or any((p.before[0], p.after[0], p.before[3], p.after[3])):
        return None
    top, left, bottom, right = node.op.window.pads
    pads = (top + p.before[1], left + p.before[2], bottom + p.after[1], right + p.after[2])
    op = replace(node.op, window=replace(node.op.window, pads=pads))
    return rw.emit(op, pad.input(0), *node.inputs[1:], at=node.origin, name=node.output.name)
