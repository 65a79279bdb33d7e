"""A first layer reads the image as it comes, channel planes one after the other.

    Conv2D(Transpose(0, 2, 3, 1)(x)) = Conv2D(planar)(x)

What is left of a Transpose here stands behind a graph input in ONNX's order ``[N, C, H, W]``. The convolution's
products are the same, in the same order; the copy of the image, often the largest tensor in RAM, is not made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bitc.ir.graph import Graph, Node, Value
from bitc.ir.rewrite import Rewriter, rewrite
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Transpose
from bitc.passes.context import Context


@dataclass(frozen=True)
class PlanarImages:
    lossless = True

    def run(self, graph: Graph, ctx: Context) -> Graph:
        return rewrite(graph, _rule)


def _rule(rw: Rewriter, node: Node) -> Value | None:
    op = node.op
    transpose = rw.producer(node.inputs[0]) if node.inputs else None
    if not isinstance(op, Conv2D) or op.planar or transpose is None or transpose.op != Transpose((0, 2, 3, 1)):
        return None
    x = transpose.input(0)
    if x.type.dtype.is_packed:
        return None
    return rw.emit(replace(op, planar=True), x, *node.inputs[1:], at=node.origin, name=node.output.name)
