"""Quantized networks in integers.

    sum (s_x * (x - z)) * (s_w * w) = s_x * s_w * sum (x - z) * w

A convolution of a coded tensor with weights on a grid is one of integers; its real value is a scale times the
accumulator. Every quantizer is then a staircase over integers (`requantize`), of whatever operators it was written:
QuantizeLinear and DequantizeLinear, the operators of QOperator models, QONNX's Quant, or Mul, Round and Clip. What only
moves elements moves codes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bitc.ir.dtypes import FLOAT32, INT32, DType
from bitc.ir.graph import Array, Graph, Node, Value
from bitc.ir.rewrite import Rewriter, rewrite
from bitc.ir.types import Quant, type_of
from bitc.ops.binary import Sub
from bitc.ops.linear import Conv2D, MatMul
from bitc.ops.movement import Gather, Pad
from bitc.ops.quantize import Dequantize
from bitc.ops.unary import Cast
from bitc.passes.coded import Coded, is_codes
from bitc.passes.context import Context, Found
from bitc.passes.requantize import MOVERS, Requantizer
from bitc.passes.stairs import is_line
from bitc.passes.weights import BinaryWeights, integers, on_grid, two_valued


@dataclass(frozen=True)
class Integers:
    """`tolerance`: that of `Binarize`, to which layers of two- and three-valued weights are left, and real tensors of
    up to `few` values."""

    tolerance: float = 1e-4
    few: int = 3
    lossless = False  # the order of roundings differs

    def run(self, graph: Graph, ctx: Context) -> Graph:
        finder: Requantizer | None = None

        def rule(rw: Rewriter, node: Node) -> Value | None:
            nonlocal finder
            finder = finder or Requantizer(rw, self.few, ctx)
            if isinstance(node.op, Conv2D):
                return self._conv(rw, finder, node, ctx)
            if isinstance(node.op, MatMul):
                return _matmul(rw, finder, node)
            if isinstance(node.op, MOVERS):
                return _moved(rw, finder, node)
            return _quantizer(rw, finder, node)

        return rewrite(graph, rule)

    def _conv(self, rw: Rewriter, finder: Requantizer, node: Node, ctx: Context) -> Value | None:
        op, v, w = node.op, node.input(0), node.input(1)
        assert isinstance(op, Conv2D)
        if op.epilogue or op.x_zero or not w.is_const or w.type.dtype.is_packed or v.type.dtype.is_packed:
            return None
        if v.type.dtype.is_integer and v.type.dtype.bits <= 16 and w.type.dtype.bits <= 16:
            return None  # is one of integers already
        x = finder.coded(v)
        if x is None or (v.type.dtype.is_float and self._is_binary(w, x, op)):
            return None
        found = integers(w.array)
        if found is None:
            return None
        product = _product(rw, node, replace(op, x_zero=x.zero), x, found.codes, found.scale)
        if product is not None:
            kind = "per channel" if found.scale.size > 1 else "per tensor"
            ctx.integer.append(Found(node.origin, f"{x.value.type.dtype} x {type_of(found.codes).dtype} {kind}"))
        return product

    def _is_binary(self, w: Value, x: Coded, op: Conv2D) -> bool:
        """Whether `Binarize` takes these weights."""
        if w.type.size // w.shape[0] < 8 or (x.zero and op.window.has_padding) or w.type.dtype is not FLOAT32:
            return False
        return isinstance(two_valued(w.array, self.tolerance), BinaryWeights) or bool(
            np.isfinite(w.array).all() and on_grid(w.array, self.tolerance, 1)
        )


def _product(rw: Rewriter, node: Node, op: Conv2D, x: Coded, codes: Array, scale: Array) -> Value | None:
    if float(op.reach(x.value.type, codes).max()) >= 2**31:
        return None
    weights = rw.const(codes, node.input(1).name)
    integer = node.output.type.dtype.is_integer
    acc = rw.emit(op, x.value, weights, at=node.origin, name=node.output.name if integer else f"{node.output.name}.acc")
    if integer:
        return acc
    real = np.float32(x.scale) * scale
    return rw.emit(Dequantize(Quant(tuple(float(s) for s in real))), acc, at=node.origin, name=node.output.name)


def _matmul(rw: Rewriter, finder: Requantizer, node: Node) -> Value | None:
    """The product of two computed tensors, both coded."""
    a, b = node.inputs
    if a is None or b is None or a.is_const or b.is_const or a.type.dtype is not FLOAT32:
        return None
    left, right = finder.coded(a), finder.coded(b)
    if left is None or right is None or a.shape[-1] * left.reach * right.reach >= 2**31:
        return None
    acc = rw.emit(MatMul(), *(_numbers(rw, c, node.origin) for c in (left, right)), at=node.origin)
    quant = Quant((float(np.float32(left.scale) * np.float32(right.scale)),))
    return rw.emit(Dequantize(quant), acc, at=node.origin, name=node.output.name)


def _numbers(rw: Rewriter, c: Coded, at: str) -> Value:
    wide = rw.emit(Cast(INT32), c.value, at=at)
    return rw.emit(Sub(), wide, rw.const(np.array(c.zero, np.int32), "zero"), at=at) if c.zero else wide


def _moved(rw: Rewriter, finder: Requantizer, node: Node) -> Value | None:
    """Movement of reals that are codes behind a Dequantize."""
    if node.output.type.dtype is not FLOAT32:
        return None
    data = node.inputs[:1] if isinstance(node.op, Gather) else node.inputs
    sources = [rw.producer(v) for v in data]
    first = sources[0] if sources else None
    if first is None or not isinstance(first.op, Dequantize) or not is_codes(first.input(0).type.dtype):
        return None
    if finder.leaves(first.input(0)):
        return None
    quant, dtype = first.op.quant, first.input(0).type.dtype
    if not quant.per_tensor or any(
        s is None or s.op != first.op or s.input(0).type.dtype is not dtype for s in sources
    ):
        return None
    op = node.op
    if isinstance(op, Pad) and op.mode == "constant":
        code = (op.value - quant.offset[0]) / quant.scale[0] + quant.zero
        if abs(code - round(code)) > 1e-4 or not dtype.min <= round(code) <= dtype.max:
            return None
        op = replace(op, value=float(round(code)))
    inner = [s.input(0) for s in sources if s is not None]
    rest = node.inputs[len(inner) :]
    codes = rw.emit(op, *inner, *rest, at=node.origin, name=f"{node.output.name}.codes")
    return rw.emit(first.op, codes, at=node.origin, name=node.output.name)


def _quantizer(rw: Rewriter, finder: Requantizer, node: Node) -> Value | None:
    """The last node of a line that rounds: its codes, and what they mean."""
    if not is_line(node) or not finder.ends(node):
        return None
    into: DType | None = node.output.type.dtype if is_codes(node.output.type.dtype) else None
    if into is None and node.output.type.dtype is not FLOAT32:
        return None
    found = finder.quantized(node, into)
    if found is None:
        return None
    codes, quant = found
    return codes if into else rw.emit(Dequantize(quant), codes, at=node.origin, name=node.output.name)
