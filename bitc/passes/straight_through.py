"""Remove straight-through estimators that training left in the graph.

    (a - b) + b = a        b + (a - b) = a

`a` is the quantized value, `b` the surrogate whose gradient training used (a Clip, a polynomial, or the latent value
itself). The identity is exact for reals; in floats the left side is off by rounding, which is what keeps a ±1 tensor
from looking two-valued.
"""

from __future__ import annotations

from dataclasses import dataclass

from bitc.ir.graph import Graph, Node, Value
from bitc.ir.rewrite import Rewriter, rewrite
from bitc.ops.binary import Add, Sub
from bitc.passes.context import Context


@dataclass(frozen=True)
class StraightThrough:
    lossless = True

    def run(self, graph: Graph, ctx: Context) -> Graph:
        return rewrite(graph, _rule)


def _rule(rw: Rewriter, node: Node) -> Value | None:
    if not isinstance(node.op, Add):
        return None
    for difference, b in (node.inputs, node.inputs[::-1]):
        sub = rw.producer(difference)
        if sub is None or not isinstance(sub.op, Sub) or sub.inputs[1] is not b:
            continue
        a = sub.input(0)
        if a.type == node.output.type:
            return a
    return None
