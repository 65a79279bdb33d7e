"""Fold what follows an accumulator into the kernel's epilogue.

    min(max(a * acc + b, lo), hi)    Affine: a chain of Mul, Div, Add, Sub by constants per channel, then Relu or Clip
    acc >= t                         Threshold: found before, becomes part of the convolution
    int32(float(acc))                acc: a cast of what is an integer anyway
    round((acc + b) * m / 2**s)      Requant: found before, too
    min(max(code, lo), hi)           the limits of a Requant: a Relu between two quantizers of one scale
    round(clip(x / s, lo, hi))       a quantizer, which divides and clips itself

With one division less per element and without an intermediate tensor. A threshold with `flip` (gamma < 0 in the batch
norm it came from) negates the kernel's weights instead:  acc <= t  iff  -acc >= -t.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bitc.ir.dtypes import FLOAT32, INT32
from bitc.ir.graph import Array, Graph, Node, Op, Value
from bitc.ir.rewrite import Rewriter, rewrite_all
from bitc.ops.binary import Add, Div, Mul, Sub
from bitc.ops.epilogue import Affine, FixedPoint, Levels, Requant, TernThreshold, Threshold
from bitc.ops.linear import Conv2D
from bitc.ops.quantize import Dequantize, Quantize, Requantize
from bitc.ops.quantized import AddRequant, Lookup, MulRequant
from bitc.ops.unary import Cast, Clip, Relu
from bitc.passes.context import Context


@dataclass(frozen=True)
class FuseEpilogues:
    lossless = True

    def run(self, graph: Graph, ctx: Context) -> Graph:
        return rewrite_all(graph, _rule)


def _rule(rw: Rewriter, node: Node) -> Value | None:
    if not node.inputs:
        return None
    if isinstance(node.op, Requantize):
        return _threshold(rw, node)
    if isinstance(node.op, Cast):
        return _whole(rw, node)
    if isinstance(node.op, Lookup):
        return _limits(rw, node)
    if isinstance(node.op, Quantize):
        return _quantized(rw, node, node.op)
    step = affine_step(node)
    if step is None:
        return None
    x, scale, bias, lo, hi = step
    conv = sole_producer(rw, x)
    if conv is None or scale.size not in (1, conv.input(1).shape[0]) or bias.size not in (1, conv.input(1).shape[0]):
        return None
    if x.shape != node.output.shape or not is_last_axis(scale) or not is_last_axis(bias):
        return None
    return _affine(rw, node, conv, (scale.reshape(-1), bias.reshape(-1), lo, hi))


def sole_producer(rw: Rewriter, x: Value) -> Node | None:
    """The convolution that computes x, if nothing else reads x."""
    conv = rw.producer(x)
    if conv is None or not isinstance(conv.op, Conv2D) or rw.uses(x) != 1:
        return None
    return conv


def _limits(rw: Rewriter, node: Node) -> Value | None:
    """A table of codes that only clips what a convolution, or a sum or product of codes, has requantized."""
    before, table = rw.producer(node.input(0)), node.input(1)
    if before is None or rw.uses(node.input(0)) != 1 or not table.is_const:
        return None
    op = before.op
    if isinstance(op, Conv2D):
        epilogue = op.epilogue
        codes = epilogue.out if isinstance(epilogue, FixedPoint) else epilogue
    elif isinstance(op, AddRequant | MulRequant):
        codes = op.out
    else:
        return None
    if not isinstance(codes, Requant) or table.type.dtype is not codes.dtype:
        return None
    reached = np.arange(codes.lo, codes.hi + 1)
    made = table.array[reached - int(codes.dtype.min)].astype(np.int64)
    lo, hi = int(made[0]), int(made[-1])
    if lo > hi or (made != np.clip(reached, lo, hi)).any():
        return None
    clipped = replace(codes, lo=lo, hi=hi, quant=node.output.type.quant)
    if isinstance(op, Conv2D):
        new: Op = replace(op, epilogue=replace(epilogue, out=clipped) if isinstance(epilogue, FixedPoint) else clipped)
    else:
        new = replace(op, out=clipped)
    return rw.emit(new, *before.inputs, at=before.origin, name=node.output.name)


def _quantized(rw: Rewriter, node: Node, op: Quantize) -> Value | None:
    """A quantizer of what is clipped no further than it clips itself, or of what is divided."""
    before, scale, zero = rw.producer(node.input(0)), node.input(1), node.input(2)
    if before is None or not scale.is_const or not zero.is_const or node.input(0).shape != node.output.shape:
        return None
    if isinstance(before.op, Clip):
        ends = np.array([before.op.lo, before.op.hi], np.float32)
        low, high = (op.reference(end.reshape(1), scale.array, zero.array)[0] for end in ends)
        if (low <= op.lo).all() and (high >= op.hi).all() and (scale.array > 0).all():
            x = before.input(0)
            return rw.emit(op, x, scale, zero, at=node.origin, name=node.output.name, type=node.output.type)
    if isinstance(before.op, Div) and (scale.array == 1).all() and before.input(1).is_const:
        x, by = before.input(0), before.input(1)
        if x.shape == node.output.shape:
            return rw.emit(op, x, by, zero, at=node.origin, name=node.output.name, type=node.output.type)
    return None


def is_last_axis(c: Array) -> bool:
    return c.size == 1 or (c.ndim > 0 and c.shape[-1] == c.size)


_Step = tuple[Value, Array, Array, float, float]


def affine_step(node: Node) -> _Step | None:
    """A node as ``clip(scale * x + bias, lo, hi)`` of its one computed input x."""
    inf = float("inf")
    one, zero = np.ones(1), np.zeros(1)
    op = node.op
    if node.output.type.dtype is not FLOAT32:
        return None
    if isinstance(op, Dequantize):
        scale = np.array(op.quant.scale)
        return node.input(0), scale, np.array(op.quant.offset) - scale * op.quant.zero, -inf, inf
    if isinstance(op, Relu):
        return node.input(0), one, zero, 0.0, inf
    if isinstance(op, Clip):
        return node.input(0), one, zero, op.lo, op.hi
    if not isinstance(op, Add | Sub | Mul | Div):
        return None
    a, b = node.input(0), node.input(1)
    if a.is_const == b.is_const or (a.is_const and isinstance(op, Div)):
        return None
    x, c = (b, a) if a.is_const else (a, b)
    k = c.array.astype(np.float64)
    if not np.isfinite(k).all() or (isinstance(op, Div) and not k.all()):
        return None
    if isinstance(op, Mul):
        return x, k, zero, -inf, inf
    if isinstance(op, Div):
        return x, 1 / k, zero, -inf, inf
    if isinstance(op, Add):
        return x, one, k, -inf, inf
    return (x, -one, k, -inf, inf) if a.is_const else (x, one, -k, -inf, inf)


def _affine(rw: Rewriter, node: Node, conv: Node, step: tuple[Array, Array, float, float]) -> Value | None:
    """Compose a step with the affine epilogue that the convolution has, or give it one."""
    assert isinstance(conv.op, Conv2D)
    scale, bias, lo, hi = step
    old = conv.op.epilogue
    if old is None:
        s, b, old = np.ones(1), np.zeros(1), Affine()
    elif isinstance(old, Affine):
        s, b = conv.input(2).array.astype(np.float64), conv.input(3).array.astype(np.float64)
        clipped = old.lo > -np.inf or old.hi < np.inf
        if clipped and ((scale != 1).any() or bias.any()):
            return None
    else:
        return None
    new = Affine(max(old.lo, lo), min(old.hi, hi))
    if new.lo > new.hi:
        return None
    outputs = conv.input(1).shape[0]
    with np.errstate(over="ignore"):
        params = [np.broadcast_to(p, outputs).astype(np.float32) for p in (s * scale, b * scale + bias)]
    if not np.isfinite(params).all():
        return None
    consts = [rw.const(p, f"{node.output.name}.{n}") for p, n in zip(params, new.param_names, strict=True)]
    op = replace(conv.op, epilogue=new)
    return rw.emit(op, conv.input(0), conv.input(1), *consts, at=conv.origin, name=node.output.name)


def _whole(rw: Rewriter, node: Node) -> Value | None:
    """The accumulators themselves, where they are cast from reals of the same value: with codes of at most one in
    magnitude all of them are exact in float32."""
    conv = sole_producer(rw, node.input(0))
    if conv is None or not isinstance(conv.op, Conv2D) or conv.op.epilogue != Affine():
        return None
    x, w, scale, bias = conv.input(0), conv.input(1), conv.input(2), conv.input(3)
    small = x.type.dtype.is_packed and w.type.dtype.is_packed and w.type.size // w.shape[0] <= 2**24
    if not small or node.output.type.dtype is not INT32 or (scale.array != 1).any() or bias.array.any():
        return None
    return rw.emit(replace(conv.op, epilogue=None), x, w, at=conv.origin, name=node.output.name)


def _threshold(rw: Rewriter, node: Node) -> Value | None:
    assert isinstance(node.op, Requantize)
    epilogue = node.op.epilogue
    conv = sole_producer(rw, node.input(0))
    if conv is None or not isinstance(conv.op, Conv2D) or conv.op.epilogue is not None:
        return None
    if isinstance(epilogue, Requant | FixedPoint):
        return _requant(rw, node, conv)
    if not isinstance(epilogue, Threshold | TernThreshold | Levels):
        return None
    names = epilogue.param_names
    params = dict(zip(names, (v.array for v in node.inputs[1:] if v is not None), strict=False))
    weights = conv.input(1)
    outputs = weights.shape[0]
    if any(p.size not in (1, outputs) or not is_last_axis(p) for p in params.values()):
        return None
    flip = np.broadcast_to(params.pop("flip", np.zeros(1, np.bool_)).reshape(-1), outputs)
    if flip.any():
        negated = _negate(weights.array, flip)
        if negated is None:
            return None
        weights = rw.const(negated, weights.name, weights.type)
    consts = []
    for name, p in params.items():
        values = np.broadcast_to(p.reshape(-1), outputs)
        consts.append(rw.const(np.where(flip, -values, values).astype(p.dtype), f"{node.output.name}.{name}"))
    op = replace(conv.op, epilogue=epilogue)
    return rw.emit(op, conv.input(0), weights, *consts, at=conv.origin, name=node.output.name)


def _requant(rw: Rewriter, node: Node, conv: Node) -> Value | None:
    assert isinstance(node.op, Requantize) and isinstance(conv.op, Conv2D)
    params = [v for v in node.inputs[1:] if v is not None]
    if any(p.type.size not in (1, conv.input(1).shape[0]) or not is_last_axis(p.array) for p in params):
        return None
    consts = [rw.const(p.array.reshape(-1), p.name) for p in params]
    op = replace(conv.op, epilogue=node.op.epilogue)
    return rw.emit(op, conv.input(0), conv.input(1), *consts, at=conv.origin, name=node.output.name)


def _negate(weights: Array, flip: Array) -> Array | None:
    """Weights with the kernels of flipped channels negated; None if the type can not hold them."""
    mask = flip.reshape(-1, *(1,) * (weights.ndim - 1))
    if weights.dtype.kind == "b":
        return weights ^ mask
    if weights.dtype.kind == "i" and (weights == np.iinfo(weights.dtype).min).any():
        return None
    return np.where(mask, -weights, weights)
