"""Zero padding that stands before a convolution goes into its window, where its taps are skipped.

Conv2D(pads=p)(Pad(before, after, 0)(x)) = Conv2D(pads=p + (before, after))(x)

On codes the value of the padding is the zero point. Padding of planes, in front of the Transpose that makes them
pixels, is found too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bitc.ir.graph import Graph, Node, Value
from bitc.ir.rewrite import Rewriter, rewrite
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Pad, Transpose
from bitc.passes.context import Context


@dataclass(frozen=True)
class FoldPads:
    lossless = True

    def run(self, graph: Graph, ctx: Context) -> Graph:
        return rewrite(graph, _rule)


_PIXELS = Transpose((0, 2, 3, 1))


def _rule(rw: Rewriter, node: Node) -> Value | None:
    if not isinstance(node.op, Conv2D):
        return None
    pad = rw.producer(node.inputs[0])
    planes = pad is not None and pad.op == _PIXELS
    if pad is not None and planes:
        pad = rw.producer(pad.input(0))
    if pad is None or not isinstance(pad.op, Pad):
        return None
    p = pad.op
    if pad.input(0).type.dtype.is_packed or p.value != node.op.x_zero:
        return None
    before, after = ([side[i] for i in _PIXELS.perm] if planes else side for side in (p.before, p.after))
    if p.mode != "constant" or any((before[0], after[0], before[3], after[3])):
        return None
    top, left, bottom, right = node.op.window.pads
    pads = (top + before[1], left + before[2], bottom + after[1], right + after[2])
    op = replace(node.op, window=replace(node.op.window, pads=pads))
    x = rw.emit(_PIXELS, pad.input(0), at=pad.origin) if planes else pad.input(0)
    return rw.emit(op, x, *node.inputs[1:], at=node.origin, name=node.output.name)
