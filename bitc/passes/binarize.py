"""Find binary and ternary layers and put them on bits.

A convolution (dense layers are convolutions by now) with weights ``±alpha[o]`` whose input takes two values ``±a``:

    sum a*s[k] * alpha[o]*b[o,k]  =  a * alpha[o] * acc,      acc = sum s[k] * b[o,k],  s, b in {-1, +1}

becomes an integer convolution of codes and one scale. The input's codes are asked for at its source: through movement
and pools up to the quantizer, which becomes a threshold on its root (see `thresholds`). Three-valued inputs and {0, a}
become two bit planes; integer inputs (an 8-bit image) are taken as integers; real inputs stay real against weight bits.

Weights ``{-s, 0, s}`` are trits, in all of these; up to 15 evenly spaced ones are small integers where the input is
codes. Weights ``±a ± b`` (a residual binary kernel) are two binary convolutions, ``±a ± b ± c`` three:

    sum x[k] * (a[o]*b1[o,k] + b[o]*b2[o,k])  =  a[o] * acc1 + b[o] * acc2

A partially binary layer, of which few weights have eight bits, is a ternary one (0 in their places) and a sparse one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bitc.ir.dtypes import BIT1, FLOAT32, INT8, TERN
from bitc.ir.graph import Array, Graph, Node, Value
from bitc.ir.rewrite import Builder, Rewriter, dead_code, in_order, rewrite
from bitc.ir.types import DENSE, Quant, TensorType
from bitc.ops.binary import Add, Mul
from bitc.ops.linear import Conv2D, units
from bitc.ops.quantize import Dequantize
from bitc.passes.codes import CodeFinder, Codes, Declined
from bitc.passes.context import Context, Found
from bitc.passes.context import Declined as DeclinedLayer
from bitc.passes.weights import (
    BinaryWeights,
    GridWeights,
    PartialWeights,
    ResidualWeights,
    on_grid,
    partial,
    residual,
    two_valued,
)

_MIN_PRODUCTS = 8
"""Products per output from which bits pay. A kernel of one weight is always two-valued."""
_MIN_PRODUCTS_PER_PLANE = 32
"""Products per output from which several planes of weights pay."""
_MAX_LEVELS = 8
"""Largest small integer that a weight may be against bits: three planes of trits, or four for -8."""
_MOST_LEVELS = 127
"""Largest integer that a weight may be against small integers."""

_MOST_SALIENT = 0.25
"""Share of weights of eight bits up to which a layer is partially binary."""

Weights = BinaryWeights | GridWeights | ResidualWeights | PartialWeights


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
        found = self._weights(w.array, products)
        wide = on_grid(w.array, self.tolerance, _MOST_LEVELS) if isinstance(found, str) else None
        if isinstance(found, str) and wide is None:
            declined(found)
            return None
        codes = finder.codes(x, node.op.window.has_padding)
        if isinstance(found, str):
            if wide is None or isinstance(codes, Declined) or not codes.value.type.dtype.digits:
                declined(found)
                return None
            found = wide
        if isinstance(codes, Declined):
            return self._real_input(rw, node, found, codes, declined)
        if isinstance(found, PartialWeights) and node.op.group > 1:
            declined(f"weights are {_weights_form(found)}, which pays without groups")
            return None
        if isinstance(found, ResidualWeights) and not codes.value.type.dtype.is_packed:
            declined(f"weights are {_weights_form(found)}, which pays against bits, but its input is integers")
            return None
        ctx.binary.append(Found(node.origin, f"{codes.form} x weights {_weights_form(found)}"))
        if isinstance(found, ResidualWeights | PartialWeights):
            sides = found.bases if isinstance(found, ResidualWeights) else (found.bits, found.rest)
            total, *parts = (_product(rw, node, side, codes) for side in sides)
            for part in parts:
                total = rw.emit(Add(), total, part, at=node.origin, name=node.output.name)
            return total
        return _product(rw, node, found, codes)

    def _weights(self, w: Array, products: int) -> Weights | str:
        """Weights in the cheapest form that they have, or the reason why they have none."""
        found = two_valued(w, self.tolerance)
        if isinstance(found, BinaryWeights) or not np.isfinite(w).all() or not w.any():
            return found
        few = on_grid(w, self.tolerance, _MAX_LEVELS if products >= _MIN_PRODUCTS_PER_PLANE else 1)
        if few is not None:
            return few
        if products < _MIN_PRODUCTS_PER_PLANE:
            return found
        return residual(w, self.tolerance) or partial(w, self.tolerance, _MOST_SALIENT) or found

    def _real_input(self, rw: Rewriter, node: Node, found: Weights, codes: Declined, declined: object) -> Value | None:
        """Real input against weight bits or trits: a product is an addition or a subtraction, and weights take 1/32 or
        1/16."""
        assert callable(declined)
        if isinstance(found, ResidualWeights | PartialWeights) or (isinstance(found, GridWeights) and found.levels > 1):
            declined(f"weights are {_weights_form(found)}, which pays against codes, but {codes.why}")
            return None
        units = _units(found)
        if (units == units.flat[0]).all():
            declined(f"weights are all equal (a filter, not a binary layer), and {codes.why}")
            return None
        kind = "two-valued and stored as bits" if isinstance(found, BinaryWeights) else "three-valued, stored as trits"
        declined(f"weights are {kind}, but {codes.why}")
        acc = rw.emit(
            node.op, node.input(0), _constant(rw, node, found), at=node.origin, name=f"{node.output.name}.acc"
        )
        if (found.alpha == 1).all():
            return acc
        alpha = rw.const(found.alpha, f"{node.input(1).name}.alpha")
        return rw.emit(Mul(), acc, alpha, at=node.origin, name=node.output.name)


def _constant(rw: Rewriter, node: Node, found: BinaryWeights | GridWeights) -> Value:
    """Weights as a constant of bits, trits or small integers."""
    w = node.input(1)
    if isinstance(found, BinaryWeights):
        return rw.const(found.bits, w.name, TensorType(w.shape, BIT1, DENSE, Quant.two_valued(-1, 1)))
    dtype = TERN if found.levels <= 1 else INT8
    return rw.const(found.codes, w.name, TensorType(w.shape, dtype, DENSE, Quant()))


def _units(found: BinaryWeights | GridWeights) -> Array:
    """Weights in units of alpha."""
    return units(found.bits if isinstance(found, BinaryWeights) else found.codes)


def _product(rw: Rewriter, node: Node, found: BinaryWeights | GridWeights, codes: Codes) -> Value:
    """The convolution of codes, and its real value:

    x = step * (unit - zero) + middle with unit - zero what enters the product, so
    sum x*w = alpha * (step * acc + middle * sum of w)
    """
    assert isinstance(node.op, Conv2D)
    op = replace(node.op, x_zero=codes.zero)
    acc = rw.emit(op, codes.value, _constant(rw, node, found), at=node.origin, name=f"{node.output.name}.acc")
    alpha = found.alpha.astype(np.float64)
    total = _units(found).reshape(len(alpha), -1).sum(axis=1, dtype=np.int64)
    quant = Quant(_compact(alpha * codes.step), _compact(alpha * codes.middle * total))
    return rw.emit(Dequantize(quant), acc, at=node.origin, name=node.output.name)


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


def _weights_form(found: Weights) -> str:
    if isinstance(found, ResidualWeights):
        return " ".join(f"±{a}" if a == "a" else f"± {a}" for a in "abcd"[: len(found.bases)]) + " per channel"
    if isinstance(found, PartialWeights):
        share = np.count_nonzero(found.rest.codes) / found.rest.codes.size
        return f"±alpha per channel, {share:.1%} of them int8"
    alphas = np.unique(found.alpha)
    if isinstance(found, BinaryWeights):
        return f"±{alphas[0]:g}" if len(alphas) == 1 else "±alpha per channel"
    if found.levels > 1:
        n, levels = found.levels, np.unique(found.codes)
        codes = f"{{{', '.join(map(str, levels))}}}" if len(levels) <= 5 else f"-{n} ... {n}"
        return f"{codes} * {alphas[0]:g}" if len(alphas) == 1 else f"{codes} * s per channel"
    return f"{{-{alphas[0]:g}, 0, {alphas[0]:g}}}" if len(alphas) == 1 else "{-s, 0, s} per channel"


def _compact(values: Array) -> tuple[float, ...]:
    """One entry if all are equal."""
    unique = np.unique(values)
    return (float(unique[0]),) if len(unique) == 1 else tuple(float(v) for v in values)
