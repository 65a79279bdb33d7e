"""Scales that are known only at run time move behind the product.

    sum_k (s * x[k]) * w[k]  =  s * sum_k x[k] * w[k]        s one number per image

XNOR-Net multiplies signs by mean|x| before the convolution; behind it, the convolution sees plain signs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from bitc.ir.graph import Graph, Node, Value
from bitc.ir.rewrite import Rewriter, rewrite
from bitc.ops.binary import Mul
from bitc.ops.linear import Conv2D
from bitc.passes.context import Context
from bitc.passes.value_sets import ValueSets


@dataclass(frozen=True)
class LiftScales:
    lossless = True

    def run(self, graph: Graph, ctx: Context) -> Graph:
        sets: ValueSets | None = None

        def rule(rw: Rewriter, node: Node) -> Value | None:
            nonlocal sets
            sets = sets or ValueSets(rw)
            product = rw.producer(node.inputs[0]) if node.inputs else None
            if not isinstance(node.op, Conv2D) or product is None or not isinstance(product.op, Mul):
                return None
            for x, s in (product.inputs, product.inputs[::-1]):
                if x is None or s is None or s.is_const or sets[x].points is None:
                    continue
                if x.shape == product.output.shape and prod(s.shape[-3:]) == 1:
                    y = rw.emit(node.op, x, *node.inputs[1:], at=node.origin, name=node.output.name)
                    return rw.emit(Mul(), y, s, at=product.origin, name=node.output.name)
            return None

        return rewrite(graph, rule)
