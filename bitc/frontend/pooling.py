"""Importers of pooling. Over three and more axes a pool is separable: the last two axes, then one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np

from bitc.frontend.context import Context, Refused, Table
from bitc.frontend.indexing import integers
from bitc.frontend.linear import Slide, check_output, image, plain, to_nchw, to_nhwc, window_of
from bitc.frontend.movement import reshaped
from bitc.ir import INT64, Op, Value
from bitc.ops import binary as b
from bitc.ops import unary as u
from bitc.ops.indexing import ScatterElements
from bitc.ops.movement import Pad
from bitc.ops.pool import ArgMaxPool, AveragePool, MaxPool
from bitc.ops.reduce import ReduceSum
from bitc.ops.window import Window


def _slide(ctx: Context, x: Value) -> tuple[tuple[int, ...], Slide]:
    """Kernel and movement of the window; `ceil_mode` becomes end padding such that the floor formula gives ONNX's size
    (the last window must start inside the input or its leading padding)."""
    axes = x.type.rank - 2
    if axes < 1:
        raise ctx.invalid(f"the input is {x.type}")
    kernel = ctx.attrs.ints("kernel_shape") or ()
    strides, pads, dilations = window_of(ctx, x.shape[2:], kernel)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if min(pads) < 0 or any(p >= r for p, r in zip(pads, [*reach, *reach], strict=True)):
        raise ctx.invalid(f"pads {pads} of a pooling window {list(kernel)}")
    if ctx.attrs.flag("ceil_mode"):
        for a, d in enumerate(x.shape[2:]):
            span = d + pads[a] + pads[axes + a] - reach[a]
            out = -(-span // strides[a]) + 1
            if (out - 1) * strides[a] >= d + pads[a]:
                out -= 1
            pads[axes + a] += max(0, (out - 1) * strides[a] - span)
    return tuple(kernel), Slide(tuple(strides), tuple(pads), tuple(dilations))


def pooled(ctx: Context, x: Value, kernel: tuple[int, ...], slide: Slide, make: Callable[[Window], Op]) -> Value:
    """The pool that `make` gives for a window, over x ``[N, C, spatial...]``."""
    axes = len(kernel)
    if axes <= 2:
        window = slide.window(kernel)
        nhwc = to_nhwc(ctx, image(ctx, x))
        check_output(ctx, window, nhwc)
        return plain(ctx, to_nchw(ctx, ctx.emit(make(window), nhwc)), x.type.rank)
    shape = list(x.shape)
    for first in (axes - 2, *reversed(range(axes - 2))):
        last = axes if first == axes - 2 else first + 1
        own = Slide(
            slide.strides[first:last],
            (*slide.pads[first:last], *slide.pads[axes + first : axes + last]),
            slide.dilations[first:last],
        )
        window, rest = own.window(kernel[first:last]), prod(shape[2 + last :])
        if last - first == 1:  # along the height of an image as wide as the axes behind
            window = _upright(window)
        height, width = (shape[2 + first], rest) if last - first == 1 else (shape[-2], shape[-1])
        flat = reshaped(ctx, x, (shape[0], prod(shape[1 : 2 + first]), height, width))
        nhwc = to_nhwc(ctx, flat)
        check_output(ctx, window, nhwc)
        y = to_nchw(ctx, ctx.emit(make(window), nhwc))
        shape[2 + first : 2 + last] = y.shape[2 : 2 + last - first]
        x = reshaped(ctx, y, shape)
    return x


def _upright(window: Window) -> Window:
    """A window along the width, along the height."""
    (_, k), (_, s), (_, d) = window.kernel, window.strides, window.dilations
    return Window((k, 1), (s, 1), (window.pads[1], 0, window.pads[3], 0), (d, 1))


def max_pool(ctx: Context) -> list[Value]:
    """Values, and where they stood as indices into the whole tensor."""
    column_major = ctx.attrs.flag("storage_order")
    x = ctx.number()
    kernel, slide = _slide(ctx, x)
    values = pooled(ctx, x, kernel, slide, MaxPool)
    if not ctx.wanted(1):
        return [values]
    if x.type.rank > 4:
        raise Refused("the indices of a max pool over three axes are used", "only its values are supported")
    at = pooled(ctx, x, kernel, slide, ArgMaxPool)
    size = prod(x.shape[2:])
    if column_major:
        width = ctx.const(np.array(x.shape[-1], np.int64))
        height = ctx.const(np.array(size // x.shape[-1], np.int64))
        column = ctx.emit(b.Mul(), ctx.emit(b.Mod(), at, width), height)
        at = ctx.emit(b.Add(), column, ctx.emit(b.Div(), at, width))
    images = np.arange(x.shape[0] * x.shape[1], dtype=np.int64) * size
    shape = (*x.shape[:2], *[1] * (x.type.rank - 2))
    return [values, ctx.emit(b.Add(), at, ctx.const(images.reshape(shape)))]


def max_unpool(ctx: Context) -> Value:
    """Zeros, but the values at their indices; in the corner of a larger tensor if `output_shape` asks for it."""
    x, at = ctx.floats(0), ctx.cast(integers(ctx, 1), INT64)
    kernel = ctx.attrs.ints("kernel_shape") or ()
    strides, pads, _ = window_of(ctx, x.shape[2:], kernel)
    axes = len(kernel)
    if at.shape != x.shape:
        raise ctx.invalid(f"the indices are {at.type}, the values {x.type}")
    sizes = [
        (d - 1) * s + k - pads[a] - pads[axes + a]
        for a, (d, s, k) in enumerate(zip(x.shape[2:], strides, kernel, strict=True))
    ]
    shape = (*x.shape[:2], *sizes)
    ctx.check_elements(shape)
    wanted = tuple(ctx.ints(2, "the output shape")) if ctx.optional(2) is not None else shape
    if len(wanted) != len(shape) or any(w < s for w, s in zip(wanted, shape, strict=True)):
        raise ctx.invalid(f"output_shape is {list(wanted)}, the values need {list(shape)}")
    empty = ctx.const(np.zeros(prod(shape), np.float32))
    flat = (x.type.size,)
    y = reshaped(ctx, ctx.emit(ScatterElements(0), empty, reshaped(ctx, at, flat), reshaped(ctx, x, flat)), shape)
    if wanted == shape:
        return y
    return ctx.emit(Pad((0,) * len(shape), tuple(w - s for w, s in zip(wanted, shape, strict=True))), y)


def average_pool(ctx: Context) -> Value:
    return averaged(ctx, ctx.floats())


def averaged(ctx: Context, x: Value) -> Value:
    """The node's average pool over x ``[N, C, spatial...]``."""
    include = ctx.attrs.flag("count_include_pad")
    kernel, slide = _slide(ctx, x)
    if include and ctx.attrs.flag("ceil_mode"):  # what ceil_mode adds at the end counts neither as input nor as padding
        declared = window_of(ctx, x.shape[2:], kernel)[1]
        half = len(kernel)
        x = ctx.emit(Pad((0, 0, *declared[:half]), (0, 0, *declared[half:])), x)
        left = tuple(p - d for p, d in zip(slide.pads, declared, strict=True))
        slide, include = replace(slide, pads=left), False
    return pooled(ctx, x, kernel, slide, lambda window: AveragePool(window, include))


def lp_pool(ctx: Context) -> Value:
    """``sum(|x|^p)^(1/p)`` of each window: its average times its size."""
    x, p = ctx.floats(), ctx.attrs.int_("p", 2)
    kernel, slide = _slide(ctx, x)
    mean = pooled(ctx, _power(ctx, x, p), kernel, slide, lambda window: AveragePool(window, True))
    return _root(ctx, ctx.emit(b.Mul(), mean, ctx.const(float(prod(kernel)))), p)


def global_lp_pool(ctx: Context) -> Value:
    x, p = ctx.floats(), ctx.attrs.int_("p", 2)
    return _root(ctx, ctx.emit(ReduceSum(tuple(range(2, x.type.rank))), _power(ctx, x, p)), p)


def _power(ctx: Context, x: Value, p: int) -> Value:
    """``|x|^p``."""
    if p < 1:
        raise ctx.invalid(f"p is {p}")
    if p == 2:
        return ctx.emit(b.Mul(), x, x)
    size = ctx.emit(u.Abs(), x)
    return size if p == 1 else ctx.emit(b.Pow(), size, ctx.const(float(p)))


def _root(ctx: Context, x: Value, p: int) -> Value:
    if p == 1:
        return x
    return ctx.emit(u.Sqrt(), x) if p == 2 else ctx.emit(b.Pow(), x, ctx.const(1 / p))


TABLE: Table = {
    ("", "MaxPool"): max_pool,
    ("", "MaxUnpool"): max_unpool,
    ("", "AveragePool"): average_pool,
    ("", "LpPool"): lp_pool,
    ("", "GlobalLpPool"): global_lp_pool,
}
