"""Find binary layers and put them on bits.

A convolution (dense layers are convolutions by now) with weights ``±alpha[o]`` whose input takes two values ``±a``:

    sum a*s[k] * alpha[o]*b[o,k]  =  a * alpha[o] * acc,      acc = sum s[k] * b[o,k],  s, b in {-1, +1}

becomes an integer convolution of codes and one scale. The input's codes are asked for at its source: through movement
and pools up to the quantizer, which becomes a threshold on its root (see `thresholds`). Three-valued inputs and {0, a}
become two bit planes; integer inputs (an 8-bit image) are taken as integers; real inputs stay real against weight bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bitc.ir.dtypes import BIT1, FLOAT32
from bitc.ir.graph import Array, Graph, Node, Value
from bitc.ir.rewrite import Builder, Rewriter, dead_code, in_order, rewrite
from bitc.ir.types import DENSE, Quant, TensorType
from bitc.ops.binary import Mul
from bitc.ops.linear import Conv2D
from bitc.ops.quantize import Dequantize
from bitc.passes.codes import CodeFinder, Declined
from bitc.passes.context import Context, Found
from bitc.passes.context import Declined as DeclinedLayer
from bitc.passes.weights import BinaryWeights, two_valued

_MIN_PRODUCTS = 8
"""Products per output from which bits pay. A kernel of one weight is always two-valued."""


@dataclass(frozen=True)
class Binarize:
    """`tolerance`: how far, relative to its scale, a weight may be from ±alpha and still count as two-valued."""

    tolerance: float = 1e-4
    lossless = True

    def run(self, graph: Graph, ctx: Context) -> Graph:
        finder: CodeFinder | None = None

        def rule(rw: Rewriter, node: Node) -> Value | None:
            nonlocal finder
            if finder is None:
                finder = CodeFinder(rw, ctx)
            if not isinstance(node.op, Conv2D) or node.op.epilogue is not None:
                return None
            if node.input(0).type.dtype is not FLOAT32 or not node.input(1).is_const:
                return None
            return self._convert(rw, node, finder, ctx)

        graph = rewrite(graph, rule)
        return graph if finder is None else _read_codes(graph, finder.found)

    def _convert(self, rw: Rewriter, node: Node, finder: CodeFinder, ctx: Context) -> Value | None:
        assert isinstance(node.op, Conv2D)
        x, w = node.input(0), node.input(1)

        def declined(why: str) -> None:
            ctx.not_binary.append(DeclinedLayer(node.origin, why))

        products = w.type.size // w.shape[0]
        if products < _MIN_PRODUCTS:
            declined(f"{products} product{'s' if products > 1 else ''} per output: too few to gain from bits")
            return None
        found = two_valued(w.array, self.tolerance)
        if isinstance(found, str):
            declined(found)
            return None
        codes = finder.codes(x, node.op.window.has_padding)
        if isinstance(codes, Declined):
            return self._real_input(rw, node, found, codes, declined)
        ctx.binary.append(Found(node.origin, f"{codes.form} x weights {_weights_form(found)}"))
        weights = rw.const(found.bits, w.name, TensorType(w.shape, BIT1, DENSE, Quant.two_valued(-1, 1)))
        acc = rw.emit(node.op, codes.value, weights, at=node.origin, name=f"{node.output.name}.acc")
        # x = step * unit + middle with unit what enters the product, so
        # sum x*w = alpha * (step * acc + middle * sum of signs)
        scale = found.alpha.astype(np.float64) * codes.step
        signs = products - 2 * np.count_nonzero(found.bits.reshape(len(found.bits), -1), axis=1)
        offset = found.alpha.astype(np.float64) * codes.middle * signs
        quant = Quant(_compact(scale), _compact(offset))
        return rw.emit(Dequantize(quant), acc, at=node.origin, name=node.output.name)

    def _real_input(
        self, rw: Rewriter, node: Node, found: BinaryWeights, codes: Declined, declined: object
    ) -> Value | None:
        """Real input against weight bits: a product is an addition or a subtraction, and weights take 1/32."""
        assert callable(declined)
        if found.bits.all() or not found.bits.any():
            declined(f"weights are all equal (a filter, not a binary layer), and {codes.why}")
            return None
        declined(f"weights are two-valued and stored as bits, but {codes.why}")
        w = node.input(1)
        weights = rw.const(found.bits, w.name, TensorType(w.shape, BIT1, DENSE, Quant.two_valued(-1, 1)))
        acc = rw.emit(node.op, node.input(0), weights, at=node.origin, name=f"{node.output.name}.acc")
        if (found.alpha == 1).all():
            return acc
        alpha = rw.const(found.alpha, f"{w.name}.alpha")
        return rw.emit(Mul(), acc, alpha, at=node.origin, name=node.output.name)


def _read_codes(graph: Graph, found: dict[Value, Value]) -> Graph:
    """Let real readers of a tensor whose codes are computed read those, so that it is computed once."""
    live = {v for n in graph.nodes for v in n.inputs if v is not None}
    builder = Builder()
    for v in (v for n in graph.nodes for v in n.outputs):
        builder.unique(v.name)
    decoded: dict[Value, Value] = {}
    for x, codes in found.items():
        quant = codes.type.quant
        if x in live | set(graph.outputs) and codes in live and quant is not None:
            at = next(n.origin for n in graph.nodes if x in n.outputs)
            decoded[x] = builder.emit(Dequantize(quant), codes, at=at, name=x.name, origin=x.origin)
    if not decoded:
        return graph
    readers = [replace(n, inputs=tuple(v if v is None else decoded.get(v, v) for v in n.inputs)) for n in graph.nodes]
    outputs = tuple(decoded.get(v, v) for v in graph.outputs)
    return dead_code(Graph(graph.name, graph.inputs, outputs, in_order([*readers, *builder.nodes])))


def _weights_form(found: BinaryWeights) -> str:
    alphas = np.unique(found.alpha)
    return f"±{alphas[0]:g}" if len(alphas) == 1 else "±alpha per channel"


def _compact(values: Array) -> tuple[float, ...]:
    """One entry if all are equal."""
    unique = np.unique(values)
    return (float(unique[0]),) if len(unique) == 1 else tuple(float(v) for v in values)
