"""``--sign0=+1|-1``: the user decides what the sign of zero is.

    Sign(x) = where(x >= 0, 1, -1)   for +1          Sign(x) = where(x > 0, 1, -1)   for -1

ONNX says 0, and without this choice bitc keeps that. A Sign whose input is a small set of values (a ternary
quantizer ``Sign(Sign(x + t) + Sign(x - t))``) or never negative (a step ``Sign(Relu(x))``) means its zero and is left
alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitc.ir.dtypes import FLOAT32
from bitc.ir.graph import Graph, Node, Value
from bitc.ir.rewrite import Rewriter, rewrite
from bitc.ops.binary import Greater, GreaterOrEqual, Where
from bitc.ops.unary import Sign
from bitc.passes.context import Context
from bitc.passes.value_sets import ValueSets


@dataclass(frozen=True)
class SignOfZero:
    """`value`: +1 or -1; 0 keeps ONNX's meaning."""

    value: int = 0
    lossless = False

    def run(self, graph: Graph, ctx: Context) -> Graph:
        if not self.value:
            return graph
        sets: ValueSets | None = None
        changed: list[str] = []

        def rule(rw: Rewriter, node: Node) -> Value | None:
            nonlocal sets
            sets = sets or ValueSets(rw)
            x = node.inputs[0] if isinstance(node.op, Sign) else None
            if x is None or x.type.dtype is not FLOAT32:
                return None
            if not sets[x].is_interval_around_zero:
                return None
            changed.append(node.origin)
            compare = GreaterOrEqual() if self.value > 0 else Greater()
            high = rw.emit(compare, x, rw.const(np.array(0, np.float32)), at=node.origin)
            one, minus = rw.const(np.array(1, np.float32)), rw.const(np.array(-1, np.float32))
            return rw.emit(Where(), high, one, minus, at=node.origin, name=node.output.name)

        graph = rewrite(graph, rule)
        if changed:
            ctx.notice(f"--sign0: Sign(0) is {self.value:+d} at {', '.join(changed)}")
        return graph
