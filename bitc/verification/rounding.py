"""Running error analysis of an imported graph: every value in float64 with a bound on the error of any float32
evaluation of it, in any order of summation.

A forward analysis, node by node, in the manner of Higham's running error bounds (Accuracy and Stability of Numerical
Algorithms, 3.3). It decides whether a bit that differs from the reference's is a tie: both may be right if the value
that was compared with the threshold lies within its bound of it.

It holds for evaluations that sum products (no Winograd or Fourier convolutions, which onnxruntime's CPU provider does
not use), and that fold constant factors into weights at most as often as `bounded.SLACK` allows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bitc.ir.graph import Array, Graph, Node, Value
from bitc.ops.binary import Add, Div, Mul, Sub
from bitc.ops.linear import Conv2D, MatMul
from bitc.ops.movement import Reshape, Transpose
from bitc.ops.pool import AveragePool
from bitc.ops.reduce import ReduceMean, ReduceSum
from bitc.passes.weights import BinaryWeights, two_valued
from bitc.verification.bounded import Bounded, bounded, exact
from bitc.verification.rules import Site, rule_for, straight_through, unknown

Substitute = Callable[[Value, Bounded], Bounded]


class RoundingAnalysis:
    """Bounds for the values of one graph. `tolerance`: that of the pass which snaps weights to ±alpha; how far it moved
    them counts as an error of the sums."""

    def __init__(self, graph: Graph, tolerance: float) -> None:
        self.graph = graph
        self._constants = {
            v: Bounded(exact(v.array).value, np.zeros(v.shape), constant=True) for v in graph.constants()
        }
        self._sites = {n: Site(n.op, _folds(graph, n), _deviation(n, tolerance)) for n in graph.nodes}
        self._straight = {n: pair for n in graph.nodes if (pair := _straight_through(graph, n))}

    def run(self, feeds: Mapping[str, Array], substitute: Substitute | None = None) -> dict[Value, Bounded]:
        """Evaluate. `substitute` sees each result and returns what to go on with: the reference's value, with no
        error, where the compared evaluations go on from it too."""
        env = dict(self._constants)
        for v in self.graph.inputs:
            env[v] = exact(np.asarray(feeds[v.name]).astype(v.type.dtype.carrier, copy=False).reshape(v.shape))
        with np.errstate(all="ignore"):
            for node in self.graph.nodes:
                result = self._apply(node, env)
                env[node.output] = substitute(node.output, result) if substitute else result
                env |= _others(node, env)
        return env

    def _apply(self, node: Node, env: Mapping[Value, Bounded]) -> Bounded:
        if node in self._straight:
            a, t = self._straight[node]
            return straight_through(env[a], env[t])
        args = [None if v is None else env[v] for v in node.inputs]
        rule = rule_for(node.op)
        if rule is None or None in args:
            return unknown(self._sites[node], *args)
        return rule(self._sites[node], *args)


def _others(node: Node, env: Mapping[Value, Bounded]) -> dict[Value, Bounded]:
    """Results after the first: integers are certain where the operands are, of others nothing is known."""
    if len(node.outputs) == 1:
        return {}
    args = [None if v is None else env[v] for v in node.inputs]
    certain = not any(a is not None and a.err.any() for a in args)
    if not certain or any(v.type.dtype.is_float for v in node.outputs[1:]):
        return {v: bounded(np.zeros(v.shape), np.inf) for v in node.outputs[1:]}
    results = node.op.reference(*(None if a is None else a.value for a in args))
    return {v: bounded(r, 0.0) for v, r in zip(node.outputs[1:], results[1:], strict=True)}


def _folds(graph: Graph, node: Node) -> bool:
    """Whether a factor follows that a compiler may fold into this sum's weights: a batch norm, a scale."""
    if not isinstance(node.op, Conv2D | MatMul | AveragePool | ReduceMean | ReduceSum):
        return False
    pending, seen = [node.output], {node.output}
    while pending:
        for reader in graph.consumers.get(pending.pop(), []):
            if isinstance(reader.op, Mul | Div):
                return True
            if isinstance(reader.op, Add | Sub | Transpose | Reshape) and reader.output not in seen:
                pending.append(reader.output)
                seen.add(reader.output)
    return False


def _deviation(node: Node, tolerance: float) -> Array | None:
    """How far each weight is from the ±alpha that it may be snapped to; None for weights that stay as they are."""
    if not isinstance(node.op, Conv2D | MatMul):
        return None
    w = node.input(1)
    if not w.is_const or w.array.dtype.kind != "f" or w.array.ndim not in (2, 4):
        return None
    rows = w.array if isinstance(node.op, Conv2D) else w.array.T
    found = two_valued(rows, tolerance)
    if not isinstance(found, BinaryWeights):
        return None
    alpha = found.alpha.astype(np.float64).reshape(-1, *(1,) * (rows.ndim - 1))
    off = np.abs(rows.astype(np.float64) - np.where(found.bits, -alpha, alpha))
    if not off.any():
        return None
    return off if isinstance(node.op, Conv2D) else np.ascontiguousarray(off.T)


def _straight_through(graph: Graph, node: Node) -> tuple[Value, Value] | None:
    """(a, t) of a node ``(a - t) + t``."""
    if not isinstance(node.op, Add):
        return None
    for difference, t in (node.inputs, node.inputs[::-1]):
        producer = graph.producers.get(difference) if difference is not None else None
        if producer is None or t is None or not isinstance(producer.op, Sub) or producer.input(1) is not t:
            continue
        if producer.input(0).shape == node.output.shape == t.shape:
            return producer.input(0), t
    return None
