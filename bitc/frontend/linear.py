"""Importers of convolution, global pooling, matrix products and batch normalization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bitc.frontend.context import Context, Refused, Table
from bitc.frontend.movement import reshaped, sliced
from bitc.ir import Op, Value
from bitc.ops import binary as b
from bitc.ops.linear import Conv2D, MatMul
from bitc.ops.movement import Pad, Reshape, Slice, Transpose
from bitc.ops.reduce import ReduceMax, ReduceMean
from bitc.ops.unary import Reciprocal, Sqrt
from bitc.ops.window import Window

LIMIT_WINDOW = 1 << 16


def to_nhwc(ctx: Context, x: Value) -> Value:
    return ctx.emit(Transpose((0, 2, 3, 1)), x)


def to_nchw(ctx: Context, x: Value) -> Value:
    return ctx.emit(Transpose((0, 3, 1, 2)), x)


def image(ctx: Context, x: Value) -> Value:
    """A batch of images ``[N, C, H, W]``; a 1-D signal gets height 1."""
    if x.type.rank == 3:
        n, c, w = x.shape
        return ctx.emit(Reshape((n, c, 1, w)), x)
    if x.type.rank != 4:
        raise ctx.invalid(f"the input has rank {x.type.rank}")
    return x


def plain(ctx: Context, y: Value, rank: int) -> Value:
    """Undo `image`."""
    return y if rank == 4 else ctx.emit(Reshape((y.shape[0], y.shape[1], y.shape[3])), y)


def _numbers(ctx: Context, name: str, count: int, default: int, least: int) -> list[int]:
    values = list(ctx.attrs.ints(name) or [default] * count)
    if len(values) != count or min(values) < least or max(values) > 1 << 24:
        raise ctx.invalid(f"attribute {name!r} is {values} for {count} spatial axes")
    return values


def window_of(ctx: Context, size: Sequence[int], kernel: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Strides, pads (all begins, then all ends) and dilations over the spatial axes, with `auto_pad` resolved."""
    axes = len(size)
    strides = _numbers(ctx, "strides", axes, 1, 1)
    dilations = _numbers(ctx, "dilations", axes, 1, 1)
    if len(kernel) != axes or min(kernel) < 1 or np.prod(kernel, dtype=float) > LIMIT_WINDOW:
        raise ctx.invalid(f"a kernel of {list(kernel)} over {axes} spatial axes")
    auto = ctx.attrs.str_("auto_pad", "NOTSET")
    pads = _numbers(ctx, "pads", 2 * axes, 0, -(1 << 24))
    if auto in ("NOTSET", ""):
        return strides, pads, dilations
    if auto == "VALID":
        return strides, [0] * 2 * axes, dilations
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise ctx.invalid(f"auto_pad is {auto!r}")
    total = [
        max(0, (-(-d // s) - 1) * s + (k - 1) * dil + 1 - d)
        for d, k, s, dil in zip(size, kernel, strides, dilations, strict=True)
    ]
    begin = [t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in total]
    return strides, begin + [t - x for t, x in zip(total, begin, strict=True)], dilations


@dataclass(frozen=True)
class Slide:
    """How a window moves over the spatial axes; `pads` are all begins, then all ends."""

    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]

    @property
    def without_first(self) -> Slide:
        """The same over all axes but the first."""
        half = len(self.strides)
        return Slide(self.strides[1:], (*self.pads[1:half], *self.pads[half + 1 :]), self.dilations[1:])

    def window(self, kernel: Sequence[int]) -> Window:
        """The IR's window of up to two axes; one spatial axis becomes the width."""
        skip = 2 - len(kernel)
        half = len(self.pads) // 2
        top, left = (*[0] * skip, *self.pads[:half])
        bottom, right = (*[0] * skip, *self.pads[half:])
        (kh, kw), (sy, sx) = (*[1] * skip, *kernel), (*[1] * skip, *self.strides)
        dy, dx = (*[1] * skip, *self.dilations)
        return Window((kh, kw), (sy, sx), (top, left, bottom, right), (dy, dx))


def crop(ctx: Context, x: Value, pads: list[int]) -> tuple[Value, list[int]]:
    """Negative pads as a slice of x ``[N, C, spatial...]``; returns the slice and the pads that are left."""
    if min(pads) >= 0:
        return x, pads
    axes = len(pads) // 2
    starts = [0, 0] + [max(0, -p) for p in pads[:axes]]
    stops = [d - (max(0, -pads[axes + i - 2]) if i >= 2 else 0) for i, d in enumerate(x.shape)]
    if any(a >= z for a, z in zip(starts, stops, strict=True)):
        raise ctx.invalid(f"the pads {pads} leave nothing of the input")
    return ctx.emit(Slice(tuple(starts), tuple(stops), (1,) * x.type.rank), x), [max(0, p) for p in pads]


def check_output(ctx: Context, window: Window, x: Value) -> None:
    if min(window.out_size((x.shape[1], x.shape[2]))) < 1:
        raise ctx.invalid(f"the window {window.kernel} does not fit into an input of {x.shape[1]}x{x.shape[2]}")


def conv(ctx: Context) -> Value:
    x, w = ctx.floats(0), ctx.floats(1)
    ctx.attrs.ignore("kernel_shape")
    group = ctx.attrs.int_("group", 1)
    return convolution(ctx, x, w, ctx.optional(2), group)


def convolution(ctx: Context, x: Value, w: Value, bias: Value | None, group: int) -> Value:
    """A convolution of x ``[N, C, spatial...]`` with w ``[O, C / group, kernel...]``."""
    rank = x.type.rank
    if w.type.rank != rank or rank < 3:
        raise ctx.invalid(f"the input is {x.type}, the weights are {w.type}")
    kernel = ctx.attrs.ints("kernel_shape") or w.shape[2:]
    if tuple(kernel) != w.shape[2:]:
        raise ctx.invalid(f"kernel_shape is {list(kernel)}, the weights are {w.type}")
    if group < 1 or x.shape[1] != w.shape[1] * group or w.shape[0] % group:
        raise ctx.invalid(f"{group} groups of an input {x.type} do not fit weights {w.type}")
    strides, pads, dilations = window_of(ctx, x.shape[2:], kernel)
    if bias is not None and bias.shape != (w.shape[0],):
        raise ctx.invalid(f"the bias is {bias.type} for {w.shape[0]} channels")
    x, pads = crop(ctx, x, pads)
    return convolve(ctx, x, w, bias, Slide(tuple(strides), tuple(pads), tuple(dilations)), group)


def convolve(ctx: Context, x: Value, w: Value, bias: Value | None, slide: Slide, group: int) -> Value:
    """A convolution of x ``[N, C, spatial...]`` with w ``[O, C / group, kernel...]``; no pad is negative."""
    if x.type.rank > 4:
        return _deep(ctx, x, w, bias, slide, group)
    window = slide.window(w.shape[2:])
    nhwc = to_nhwc(ctx, image(ctx, x))
    check_output(ctx, window, nhwc)
    y = ctx.emit(Conv2D(window, group), nhwc, to_nhwc(ctx, image(ctx, w)))
    if bias is not None:
        y = ctx.emit(b.Add(), y, bias)
    return plain(ctx, to_nchw(ctx, y), x.type.rank)


def _deep(ctx: Context, x: Value, w: Value, bias: Value | None, slide: Slide, group: int) -> Value:
    """Three or more spatial axes: a sum over the taps of the first one, each a convolution over the others with the
    positions of the first in the batch."""
    axes = x.type.rank - 2
    before, after = [0] * x.type.rank, [0] * x.type.rank
    before[2], after[2] = slide.pads[0], slide.pads[axes]
    padded = ctx.emit(Pad(tuple(before), tuple(after)), x) if before[2] or after[2] else x
    step, dilation, inner = slide.strides[0], slide.dilations[0], slide.without_first
    count = (padded.shape[2] - (w.shape[2] - 1) * dilation - 1) // step + 1
    if count < 1:
        raise ctx.invalid(f"a window of {w.shape[2]} does not fit into {x.type}")
    swap = (0, 2, 1, *range(3, x.type.rank))
    total: Value | None = None
    for tap in range(w.shape[2]):
        planes = _part(ctx, padded, tap * dilation, (count - 1) * step + 1, step)
        batch = reshaped(ctx, ctx.emit(Transpose(swap), planes), (x.shape[0] * count, x.shape[1], *x.shape[3:]))
        weights = reshaped(ctx, _part(ctx, w, tap, 1, 1), (*w.shape[:2], *w.shape[3:]))
        y = convolve(ctx, batch, weights, bias if tap == 0 else None, inner, group)
        total = y if total is None else ctx.emit(b.Add(), total, y)
    assert total is not None
    return ctx.emit(Transpose(swap), reshaped(ctx, total, (x.shape[0], count, *total.shape[1:])))


def _part(ctx: Context, x: Value, start: int, length: int, step: int) -> Value:
    """Every `step`-th of `length` elements from `start` on along axis 2."""
    ranges = [(0, d, 1) for d in x.shape]
    ranges[2] = (start, start + length, step)
    return sliced(ctx, x, ranges)


def global_pool(ctx: Context, op: Op) -> Value:
    if ctx.input().type.rank < 3:
        raise ctx.invalid(f"the input is {ctx.input().type}")
    return ctx.emit(op, ctx.input())


def global_average_pool(ctx: Context) -> Value:
    return global_pool(ctx, ReduceMean(tuple(range(2, ctx.floats().type.rank))))


def global_max_pool(ctx: Context) -> Value:
    return global_pool(ctx, ReduceMax(tuple(range(2, ctx.floats().type.rank))))


def matmul(ctx: Context) -> Value:
    x, y = ctx.number(0), ctx.number(1)
    if x.type.dtype is not y.type.dtype:
        raise ctx.invalid(f"operands are {x.type} and {y.type}")
    return ctx.emit(MatMul(), x, y)


def gemm(ctx: Context) -> Value:
    """``alpha * A' B' + beta * C``."""
    a, w, c = ctx.number(0), ctx.number(1), ctx.optional(2)
    if a.type.rank != 2 or w.type.rank != 2 or a.type.dtype is not w.type.dtype:
        raise ctx.invalid(f"operands are {a.type} and {w.type}")
    ctx.attrs.ignore("broadcast")  # before opset 7; C may always be smaller
    alpha, beta = ctx.attrs.float_("alpha", 1.0), ctx.attrs.float_("beta", 1.0)
    if ctx.attrs.flag("transA"):
        a = ctx.emit(Transpose((1, 0)), a)
    if ctx.attrs.flag("transB"):
        w = ctx.emit(Transpose((1, 0)), w)
    y = ctx.emit(MatMul(), a, w)
    if alpha != 1:
        y = ctx.emit(b.Mul(), y, ctx.scalar(alpha, y))
    if c is None or beta == 0:
        return y
    if beta != 1:
        c = ctx.emit(b.Mul(), c, ctx.scalar(beta, c))
    out = ctx.emit(b.Add(), y, c)
    if out.shape != y.shape:
        raise ctx.invalid(f"C is {c.type}, the product is {y.type}")
    return out


def batch_normalization(ctx: Context) -> Value:
    """``s = (1 / sqrt(var + eps)) * gamma``, ``x * s + (beta - mean * s)``: bit for bit what onnxruntime computes."""
    x = ctx.floats()
    epsilon = ctx.attrs.float_("epsilon", 1e-5)
    ctx.attrs.ignore("momentum")
    if ctx.opset < 7 and not ctx.attrs.flag("is_test"):
        raise Refused("batch normalization in training mode", "export the model in inference mode")
    if ctx.attrs.flag("training_mode") or any(ctx.wanted(i) for i in range(1, 5)):
        raise Refused("batch normalization in training mode", "export the model in inference mode")
    if not ctx.attrs.flag("spatial", True):
        raise Refused("batch normalization per element (spatial = 0)", "use the per-channel form")
    channels = x.shape[1] if x.type.rank > 1 else 1
    gamma, beta, mean, var = (ctx.floats(i) for i in range(1, 5))
    if any(v.shape != (channels,) for v in (gamma, beta, mean, var)):
        raise ctx.invalid(f"its parameters do not have {channels} elements each")
    deviation = ctx.emit(Sqrt(), ctx.emit(b.Add(), var, ctx.const(epsilon)))
    scale = ctx.emit(b.Mul(), ctx.emit(Reciprocal(), deviation), gamma)
    offset = ctx.emit(b.Sub(), beta, ctx.emit(b.Mul(), mean, scale))
    return ctx.emit(b.Add(), ctx.emit(b.Mul(), x, per_channel(ctx, scale, x)), per_channel(ctx, offset, x))


def per_channel(ctx: Context, v: Value, x: Value, axis: int = 1) -> Value:
    """A vector, one element per channel of x, in a shape that broadcasts over `axis`."""
    after = x.type.rank - axis - 1
    return ctx.emit(Reshape((v.type.size, *(1,) * after)), v) if after > 0 else v


TABLE: Table = {
    ("", "Conv"): conv,
    ("", "GlobalAveragePool"): global_average_pool,
    ("", "GlobalMaxPool"): global_max_pool,
    ("", "MatMul"): matmul,
    ("", "Gemm"): gemm,
    ("", "BatchNormalization"): batch_normalization,
}
