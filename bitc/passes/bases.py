"""Sums of binary convolutions of one input as one convolution, which reads the input once and keeps no float tensors.

    sum_i (a_i * conv(x, B_i) + b_i)  =  sum_i a_i * acc_i + b,    b = sum_i b_i

where every a_i and b_i is per channel. They come from residual binary weights ``W = sum_i a_i * B_i`` (see `binarize`)
or stand in the model as such. A threshold on the sum is decided in exact integers:

    sum_i a_i * acc_i + b >= t   iff   sum_i m_i * acc_i >= T,    m_i = a_i * 2**e,    T = ceil((t - b) * 2**e)

with m_i of 31 bits, more than a_i has, for the largest a_i; smaller ones are rounded by 2**-31 of that one at most, far
less than a float32 sum is. Where a_i < 0 the bits of B_i are inverted, and where the threshold is flipped those of all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bitc.ir.dtypes import BIT1
from bitc.ir.graph import Array, Graph, Node, Value
from bitc.ir.rewrite import Rewriter, rewrite_all
from bitc.ops.binary import Add, Sub
from bitc.ops.epilogue import Affine, Bases, TernThreshold, Threshold, bases
from bitc.ops.linear import Conv2D
from bitc.ops.quantize import Requantize
from bitc.passes.context import Context
from bitc.passes.fuse import affine_step, is_last_axis, sole_producer

BITS = 31
"""Bits of the largest factor of a channel."""
MOST = 4
"""Bases of one convolution."""
DIGITS = 2
"""Bits of activations up to which sums are of planes; with more, bytes may cost less."""


@dataclass(frozen=True)
class SumBases:
    lossless = True

    def run(self, graph: Graph, ctx: Context) -> Graph:
        return rewrite_all(graph, _rule)


@dataclass(frozen=True)
class _Parts:
    """``factor[i] * acc_i`` summed, plus bias, clipped."""

    node: Node
    signs: Array
    """bool ``[O, bases, kh, kw, C]``."""
    factor: Array
    """float64 ``[bases, O]``."""
    bias: Array
    """float64 ``[O]``."""
    clip: Affine


def _rule(rw: Rewriter, node: Node) -> Value | None:
    if isinstance(node.op, Add | Sub):
        return _sum(rw, node) or _step(rw, node)
    return _threshold(rw, node) if isinstance(node.op, Requantize) else _step(rw, node)


def _parts(rw: Rewriter, x: Value) -> _Parts | None:
    """x as a sum of bases that nothing else reads; one base is one, too."""
    conv = sole_producer(rw, x)
    if conv is None or not isinstance(conv.op, Conv2D):
        return None
    op, data, w = conv.op, conv.input(0), conv.input(1)
    if (
        not data.type.dtype.is_packed
        or data.type.dtype.digits > DIGITS
        or w.type.dtype is not BIT1
        or not w.is_const
        or op.x_zero
    ):
        return None
    if op.group > 1 and w.shape[3] % 8:
        return None  # kernels of their own are better, above all channel by channel
    count = bases(op.epilogue)
    then = op.epilogue.then if isinstance(op.epilogue, Bases) else op.epilogue
    if not isinstance(then, Affine) or any(v is not None and not v.is_const for v in conv.inputs[2:]):
        return None
    outputs = w.shape[0] // count
    *factors, bias = (v.array.astype(np.float64) for v in conv.inputs[2:] if v is not None)
    factor = np.broadcast_to(np.prod(np.broadcast_arrays(*factors), axis=0), (count, outputs))
    return _Parts(
        conv, w.array.reshape(outputs, count, *w.shape[1:]), factor, np.broadcast_to(bias.reshape(-1), outputs), then
    )


def _sum(rw: Rewriter, node: Node) -> Value | None:
    sides = [_parts(rw, v) for v in node.inputs if v is not None]
    if len(sides) != 2 or node.inputs[0] is node.inputs[1]:
        return None
    a, b = sides
    if a is None or b is None or a.clip != Affine() or b.clip != Affine() or a.factor.shape[1] != b.factor.shape[1]:
        return None
    if a.node.input(0) is not b.node.input(0) or replace(_op(a), epilogue=None) != replace(_op(b), epilogue=None):
        return None
    if len(a.factor) + len(b.factor) > MOST:
        return None
    sign = -1 if isinstance(node.op, Sub) else 1
    signs = np.concatenate([a.signs, b.signs], axis=1)
    factor, bias = np.concatenate([a.factor, sign * b.factor]), a.bias + sign * b.bias
    return _emit(rw, node, replace(a, signs=signs, factor=factor, bias=bias))


def _step(rw: Rewriter, node: Node) -> Value | None:
    """An affine step, or a limit, of the sum."""
    step = affine_step(node) if node.inputs else None
    parts = _parts(rw, step[0]) if step else None
    if step is None or parts is None or len(parts.factor) == 1:
        return None
    x, scale, bias, lo, hi = step
    outputs = parts.factor.shape[1]
    if any(p.size not in (1, outputs) or not is_last_axis(p) for p in (scale, bias)) or x.shape != node.output.shape:
        return None
    scale, bias = scale.reshape(-1), bias.reshape(-1)
    if parts.clip != Affine() and ((scale != 1).any() or bias.any()):
        return None
    clip = Affine(max(parts.clip.lo, lo), min(parts.clip.hi, hi))
    if clip.lo > clip.hi:
        return None
    return _emit(rw, node, replace(parts, factor=parts.factor * scale, bias=parts.bias * scale + bias, clip=clip))


def _emit(rw: Rewriter, node: Node, parts: _Parts) -> Value | None:
    """The sum as float32."""
    with np.errstate(over="ignore"):
        factor, bias = parts.factor.astype(np.float32), parts.bias.astype(np.float32)
    if not np.isfinite(factor).all() or not np.isfinite(bias).all():
        return None
    return _conv(rw, node, parts, parts.clip, factor, {"scale": np.ones(1, np.float32), "bias": bias})


def _conv(
    rw: Rewriter, node: Node, parts: _Parts, then: Affine | Threshold | TernThreshold, factor: Array,
    params: dict[str, Array],
) -> Value:  # fmt: skip
    conv, w = parts.node, parts.node.input(1)
    down = (factor < 0).T.reshape(*parts.signs.shape[:2], *(1,) * (parts.signs.ndim - 2))
    signs = (parts.signs ^ down).reshape(-1, *parts.signs.shape[2:])
    weights = rw.const(signs, w.name, replace(w.type, shape=signs.shape))
    operands = {"factor": abs(factor)} | params
    consts = [rw.const(p, f"{node.output.name}.{name}") for name, p in operands.items()]
    op = replace(_op(parts), epilogue=Bases(len(factor), then))
    return rw.emit(op, conv.input(0), weights, *consts, at=conv.origin, name=node.output.name)


def _threshold(rw: Rewriter, node: Node) -> Value | None:
    """The bits or trits of the sum, in integers."""
    assert isinstance(node.op, Requantize)
    then, parts = node.op.epilogue, _parts(rw, node.input(0))
    if parts is None or len(parts.factor) == 1 or parts.clip != Affine():
        return None
    if not isinstance(then, Threshold | TernThreshold):
        return None
    outputs = parts.factor.shape[1]
    given = dict(zip(then.param_names, (v.array for v in node.inputs[1:] if v is not None), strict=False))
    if any(p.size not in (1, outputs) or not is_last_axis(p) or np.isnan(p).any() for p in given.values()):
        return None
    flip = given.pop("flip", np.zeros(1, np.bool_)).reshape(-1)
    exponent = BITS - np.frexp(abs(parts.factor).max(axis=0))[1]
    sign = np.where(flip, -1, 1)
    factor = np.rint(np.ldexp(parts.factor * sign, exponent)).astype(np.int32)
    reach = abs(factor.astype(np.int64)).sum(axis=0) * parts.signs[0, 0].size + 1
    limits = {}
    for name, t in given.items():
        least = np.ceil(np.ldexp((t.reshape(-1).astype(np.float64) - parts.bias) * sign, exponent))
        limits[name] = np.clip(least, -reach, reach).astype(np.int64)
    return _conv(rw, node, parts, then, factor, limits)


def _op(parts: _Parts) -> Conv2D:
    assert isinstance(parts.node.op, Conv2D)
    return parts.node.op
