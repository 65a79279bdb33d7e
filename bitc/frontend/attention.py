"""Importers of onnxruntime's fused operators of transformers, as compositions. ONNX's own Attention and the like are
imported by the standard's definitions of them."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from bitc.frontend.context import Context, Refused, Table
from bitc.frontend.elementwise import gelu_of
from bitc.frontend.movement import reshaped, sliced
from bitc.frontend.normalization import affine, scaled, standardized
from bitc.ir import Value
from bitc.ops import binary as b
from bitc.ops import unary as u
from bitc.ops.linear import MatMul
from bitc.ops.movement import Concat, Transpose
from bitc.ops.reduce import Softmax


def _sum(ctx: Context, x: Value, y: Value | None) -> Value:
    return x if y is None else ctx.emit(b.Add(), x, y)


def _heads(ctx: Context, x: Value, heads: int) -> Value:
    """``[B, S, N h]`` as ``[B, N, S, h]``; a tensor of rank 4 is that already."""
    if x.type.rank == 4:
        return x
    if x.type.rank != 3 or x.shape[2] % heads:
        raise Refused(f"{x.type} for {heads} heads", "give queries, keys and values of rank 3")
    batch, steps, width = x.shape
    return ctx.emit(Transpose((0, 2, 1, 3)), reshaped(ctx, x, (batch, steps, heads, width // heads)))


def _attended(ctx: Context, q: Value, k: Value, v: Value, mask: Value | None) -> Value:
    """``softmax(q k^T scale + mask) v`` of ``[B, N, S, h]``, as ``[B, S, N h]``."""
    scale = ctx.attrs.float_("scale", 0.0) or 1 / math.sqrt(q.shape[3])
    scores = ctx.emit(MatMul(), q, ctx.emit(Transpose((0, 1, 3, 2)), k))
    scores = _sum(ctx, ctx.emit(b.Mul(), scores, ctx.const(scale)), mask)
    if ctx.attrs.flag("unidirectional"):
        steps, keys = scores.shape[2:]
        later = np.triu(np.full((steps, keys), np.finfo(np.float32).min), keys - steps + 1)
        scores = ctx.emit(b.Add(), scores, ctx.const(later))
    y = ctx.emit(Transpose((0, 2, 1, 3)), ctx.emit(MatMul(), ctx.emit(Softmax(3), scores), v))
    return reshaped(ctx, y, (*y.shape[:2], y.shape[2] * y.shape[3]))


def _padding(ctx: Context, mask: Value, keys: int) -> Value:
    """What a mask ``[B, keys]`` of ones and zeros adds to the scores."""
    if mask.type.rank != 2 or mask.shape[1] != keys:
        raise Refused(f"a mask of {mask.type}", "use a mask of one number per key")
    kept = reshaped(ctx, ctx.to_float(mask), (mask.shape[0], 1, 1, keys))
    filler = ctx.attrs.float_("mask_filter_value", -10000.0)
    return ctx.emit(b.Mul(), ctx.emit(b.Sub(), ctx.const(1.0), kept), ctx.const(filler))


def _grown(ctx: Context, past: Value | None, x: Value) -> Value:
    return x if past is None else ctx.emit(Concat(2), past, x)


def multi_head_attention(ctx: Context) -> list[Value]:
    """Inputs: query, key, value, bias of all three, key padding mask, what is added to the scores, past key and value.
    Outputs: y, present key and value."""
    query, key, value = ctx.floats(0), ctx.optional(1), ctx.optional(2)
    if key is None or value is None or query.type.rank != 3:
        raise Refused("queries, keys and values in one tensor", "give three tensors")
    if any(ctx.optional(i) is not None for i in (8, 9)):
        raise Refused("a buffer of past keys with a length of its own", "give past keys and values of their length")
    heads = ctx.attrs.int_("num_heads")
    bias = ctx.optional(3)
    if bias is not None:
        width = query.shape[2]
        ends = [0, width, 2 * width, bias.type.size]
        parts = [sliced(ctx, bias, [(i, j, 1)]) for i, j in pairwise(ends)]
        query, key, value = (ctx.emit(b.Add(), x, p) for x, p in zip((query, key, value), parts, strict=True))
    k, v = (_grown(ctx, ctx.optional(i), _heads(ctx, x, heads)) for i, x in ((6, key), (7, value)))
    mask = ctx.optional(5)
    if (padding := ctx.optional(4)) is not None:
        mask = _sum(ctx, _padding(ctx, padding, k.shape[2]), mask)
    return [_attended(ctx, _heads(ctx, query, heads), k, v, mask), k, v]


def attention(ctx: Context) -> Value:
    """onnxruntime's Attention: x, weights and bias of query, key and value, mask."""
    if any(ctx.optional(i) is not None for i in (4, 5, 6)) or ctx.wanted(1):
        raise Refused("past keys and values", "export without a cache")
    if ctx.attrs.flag("do_rotary"):
        raise Refused("rotary embedding inside", "export it as an operator of its own")
    x, w, heads = ctx.floats(0), ctx.floats(1), ctx.attrs.int_("num_heads")
    sizes = ctx.attrs.ints("qkv_hidden_sizes") or (w.shape[1] // 3,) * 3
    y = _sum(ctx, ctx.emit(MatMul(), x, w), ctx.optional(2))
    ends = [0, sizes[0], sizes[0] + sizes[1], sum(sizes)]
    whole = [(0, d, 1) for d in y.shape[:2]]
    q, k, v = (_heads(ctx, sliced(ctx, y, [*whole, (i, j, 1)]), heads) for i, j in pairwise(ends))
    mask = ctx.optional(3)
    return _attended(ctx, q, k, v, None if mask is None else _padding(ctx, mask, k.shape[2]))


def skip_layer_normalization(ctx: Context) -> list[Value]:
    """Inputs: x, skip, gamma, beta, bias. Outputs: y, two that are not used, the sum."""
    if ctx.wanted(1) or ctx.wanted(2):
        raise Refused("its mean or deviation is used", "only the normalized output and the sum are supported")
    x = _sum(ctx, ctx.emit(b.Add(), ctx.floats(0), ctx.floats(1)), ctx.optional(4))
    y = standardized(ctx, x, (x.type.rank - 1,), ctx.attrs.float_("epsilon", 1e-12))
    return [affine(ctx, y, ctx.floats(2), ctx.optional(3)), x, x, x]


def skip_rms_normalization(ctx: Context) -> list[Value]:
    """Inputs: x, skip, gamma, bias. Outputs: y, two that are not used, the sum."""
    if ctx.wanted(1) or ctx.wanted(2):
        raise Refused("its mean or deviation is used", "only the normalized output and the sum are supported")
    x = _sum(ctx, ctx.emit(b.Add(), ctx.floats(0), ctx.floats(1)), ctx.optional(3))
    y = scaled(ctx, x, (x.type.rank - 1,), ctx.attrs.float_("epsilon", 1e-12))
    return [ctx.emit(b.Mul(), y, ctx.floats(2)), x, x, x]


def bias_gelu(ctx: Context) -> Value:
    return gelu_of(ctx, ctx.emit(b.Add(), ctx.floats(0), ctx.floats(1)), tanh=False)


def quick_gelu(ctx: Context) -> Value:
    """``x * sigmoid(alpha * x)``."""
    x = ctx.floats()
    inner = ctx.emit(b.Mul(), x, ctx.const(ctx.attrs.float_("alpha", 1.702)))
    return ctx.emit(b.Mul(), x, ctx.emit(u.Sigmoid(), inner))


def fused_matmul(ctx: Context) -> Value:
    """``alpha * A' B'``."""
    if ctx.attrs.flag("transBatchA") or ctx.attrs.flag("transBatchB"):
        raise Refused("it transposes batches", "export without onnxruntime's fusions")
    x, y = ctx.floats(0), ctx.floats(1)
    if ctx.attrs.flag("transA"):
        x = _last_swapped(ctx, x)
    if ctx.attrs.flag("transB"):
        y = _last_swapped(ctx, y)
    product, alpha = ctx.emit(MatMul(), x, y), ctx.attrs.float_("alpha", 1.0)
    return product if alpha == 1 else ctx.emit(b.Mul(), product, ctx.const(alpha))


def _last_swapped(ctx: Context, x: Value) -> Value:
    rank = x.type.rank
    return x if rank < 2 else ctx.emit(Transpose((*range(rank - 2), rank - 1, rank - 2)), x)


TABLE: Table = {
    ("com.microsoft", "MultiHeadAttention"): multi_head_attention,
    ("com.microsoft", "Attention"): attention,
    ("com.microsoft", "SkipLayerNormalization"): skip_layer_normalization,
    ("com.microsoft", "SkipSimplifiedLayerNormalization"): skip_rms_normalization,
    ("com.microsoft", "BiasGelu"): bias_gelu,
    ("com.microsoft", "QuickGelu"): quick_gelu,
    ("com.microsoft", "FusedMatMul"): fused_matmul,
}
