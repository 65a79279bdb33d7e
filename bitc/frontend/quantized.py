"""Importers of ONNX's quantization operators, as exact compositions: integers where onnxruntime computes with integers.

QuantizeLinear is ``clip(round(x / scale) + zero)``, DequantizeLinear ``(x - zero) * scale``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bitc.frontend.context import Context, Importer, Refused, Table
from bitc.frontend.linear import convolution, per_channel
from bitc.frontend.pooling import averaged
from bitc.frontend.tensors import dtype_of, narrowing, type_name
from bitc.ir import INT32, UINT8, DType, Value
from bitc.ir.types import Quant
from bitc.ops import binary as b
from bitc.ops import unary as u
from bitc.ops.linear import MatMul
from bitc.ops.movement import Concat, Gather, Reshape, Transpose
from bitc.ops.quantize import Dequantize, Quantize
from bitc.ops.reduce import ReduceMax, ReduceMean, ReduceMin, ReduceSum, Softmax


def quantized(ctx: Context, x: Value, scale: Value, zero: Value | None, dtype: DType, lo: float, hi: float) -> Value:
    """Reals to codes; `scale` and `zero` broadcast to x."""
    if scale.is_const and (zero is None or zero.is_const):
        zeros = ctx.const(0.0) if zero is None else ctx.to_float(zero)
        return ctx.emit(Quantize(dtype, int(lo), int(hi)), x, scale, zeros)
    y = ctx.emit(u.Round(), ctx.emit(b.Div(), x, scale))
    if zero is not None and not (zero.is_const and not zero.array.any()):
        y = ctx.emit(b.Add(), y, ctx.to_float(zero))
    return ctx.cast(ctx.emit(u.Clip(lo, hi), y), dtype)


def dequantized(ctx: Context, x: Value, scale: Value, zero: Value | None) -> Value:
    """Codes to reals; `scale` and `zero` broadcast to x."""
    known = scale.is_const and scale.type.size == 1 and (zero is None or (zero.is_const and zero.type.size == 1))
    if known and not x.is_const and x.type.dtype.is_code and x.type.dtype.bits <= 32:
        quant = Quant((float(scale.array.reshape(-1)[0]),), zero=0 if zero is None else int(zero.array.reshape(-1)[0]))
        return ctx.emit(Dequantize(quant), x)
    y = ctx.to_float(x)
    if zero is not None and not (zero.is_const and not zero.array.any()):
        y = ctx.emit(b.Sub(), y, ctx.to_float(zero))
    return ctx.emit(b.Mul(), y, scale)


def _spread(ctx: Context, v: Value | None, x: Value) -> Value | None:
    """A parameter per tensor, axis or block in a shape that broadcasts to x."""
    if v is None or (v.type.size == 1 and v.type.rank <= 1):
        return v
    axis, block = ctx.axis(ctx.attrs.int_("axis", 1), x.type.rank), ctx.attrs.int_("block_size", 0)
    if block:
        blocks = tuple(-(-d // block) if a == axis else d for a, d in enumerate(x.shape))
        if block < 0 or v.shape != blocks:
            raise ctx.invalid(f"its parameters are {v.type} for blocks of {block} on axis {axis} of {x.type}")
        return ctx.emit(Gather(axis), v, ctx.const(np.arange(x.shape[axis], dtype=np.int64) // block))
    if v.shape != (x.shape[axis],):
        raise ctx.invalid(f"its parameters are {v.type} on axis {axis} of {x.type}")
    return per_channel(ctx, v, x, axis)


def _range(dtype: DType, elem_type: int) -> tuple[float, float]:
    narrow = {"int4": (-8.0, 7.0), "uint4": (0.0, 15.0), "int2": (-2.0, 1.0), "uint2": (0.0, 3.0)}
    return narrow.get(type_name(elem_type), (dtype.min, dtype.max))


def quantize_linear(ctx: Context) -> Value:
    x, scale, zero = ctx.to_float(ctx.input(0)), ctx.floats(1), ctx.optional(2)
    ctx.attrs.ignore("axis", "block_size", "precision")
    saturate = ctx.attrs.flag("saturate", True)
    elem = ctx.attrs.int_("output_dtype", 0) or (ctx.session.elements.get(zero, 0) if zero is not None else 0)
    dtype = dtype_of(elem) if elem else (UINT8 if zero is None else zero.type.dtype)
    spread = _spread(ctx, scale, x)
    assert spread is not None
    narrow = narrowing(elem, saturate)
    if narrow is not None:  # a zero point gives the type alone: the standard wants it to be 0
        return ctx.emit(narrow, ctx.emit(b.Div(), x, spread))
    if dtype is None or dtype.is_float:
        raise Refused("quantizes to a type that is not an integer", "use int8 or uint8")
    lo, hi = _range(dtype, elem)
    return quantized(ctx, x, spread, _spread(ctx, zero, x), dtype, lo, hi)


def dequantize_linear(ctx: Context) -> Value:
    x, scale, zero = ctx.input(0), ctx.floats(1), ctx.optional(2)
    ctx.attrs.ignore("axis", "block_size", "output_dtype")
    if zero is not None and zero.type.dtype is not x.type.dtype:
        raise ctx.invalid(f"the zero point is {zero.type}, the input {x.type}")
    spread = _spread(ctx, scale, x)
    assert spread is not None
    return dequantized(ctx, x, spread, _spread(ctx, zero, x))


def centred(ctx: Context, x: Value, zero: Value | None, axis: int | None = None) -> Value:
    """Codes minus their zero point: the codes themselves where that is 0, else int32."""
    if zero is None or (zero.is_const and not zero.array.any()):
        return x
    wide = ctx.cast(zero, INT32)
    if zero.type.size > 1 and axis is not None:
        wide = per_channel(ctx, wide, x, axis)
    return ctx.emit(b.Sub(), ctx.cast(x, INT32), wide)


def conv_integer(ctx: Context) -> Value:
    ctx.attrs.ignore("kernel_shape")
    x, zero, w = ctx.input(0), ctx.optional(2), centred(ctx, ctx.input(1), ctx.optional(3), 0)
    group = ctx.attrs.int_("group", 1)
    if zero is None or zero.is_const or not w.is_const:
        return convolution(ctx, centred(ctx, x, zero), w, None, group)
    # The zero point is computed: sum (x - z) * w = sum x * w - z * sum w, over the taps inside the input.
    acc = convolution(ctx, ctx.cast(x, INT32), w, None, group)
    inside = convolution(ctx, ctx.const(np.ones(x.shape, np.int32)), w, None, group)
    return ctx.emit(b.Sub(), acc, ctx.emit(b.Mul(), ctx.cast(zero, INT32), inside))


def matmul_integer(ctx: Context) -> Value:
    x, zero = ctx.input(0), ctx.optional(2)
    w = ctx.cast(centred(ctx, ctx.input(1), ctx.optional(3)), INT32)
    if zero is None or zero.is_const or zero.type.size > 1 or not w.is_const or w.type.rank < 2:
        return ctx.emit(MatMul(), ctx.cast(centred(ctx, x, zero), INT32), w)
    acc = ctx.emit(MatMul(), ctx.cast(x, INT32), w)
    total = ctx.emit(ReduceSum((w.type.rank - 2,), True), w)
    total = ctx.emit(Reshape((*total.shape[:-2], *(1,) * (x.type.rank > 1), total.shape[-1])), total)
    return ctx.emit(b.Sub(), acc, ctx.emit(b.Mul(), ctx.cast(zero, INT32), total))


def _requantized(ctx: Context, acc: Value, scales: tuple[Value, Value, Value], zero: Value, axis: int) -> Value:
    """``clip(round(acc * (x_scale * w_scale / y_scale)) + zero)``, per channel on `axis` if the weights' scale is."""
    x_scale, w_scale, y_scale = scales
    factor = ctx.emit(b.Div(), ctx.emit(b.Mul(), x_scale, w_scale), y_scale)
    if factor.type.size > 1:
        factor = per_channel(ctx, factor, acc, axis)
    y = ctx.emit(u.Round(), ctx.emit(b.Mul(), ctx.to_float(acc), factor))
    dtype = zero.type.dtype
    if not (zero.is_const and not zero.array.any()):
        y = ctx.emit(b.Add(), y, ctx.to_float(zero))
    return ctx.cast(ctx.emit(u.Clip(dtype.min, dtype.max), y), dtype)


def qlinear_conv(ctx: Context) -> Value:
    """Inputs: x, its scale and zero point, w, its scale and zero point, y's scale and zero point, bias (int32)."""
    ctx.attrs.ignore("kernel_shape")
    x, w = centred(ctx, ctx.input(0), ctx.input(2)), centred(ctx, ctx.input(3), ctx.input(5), 0)
    acc = convolution(ctx, x, w, ctx.optional(8), ctx.attrs.int_("group", 1))
    return _requantized(ctx, acc, (ctx.floats(1), ctx.floats(4), ctx.floats(6)), ctx.input(7), 1)


def qlinear_matmul(ctx: Context) -> Value:
    """Inputs: a, its scale and zero point, b, its scale and zero point, y's scale and zero point."""
    a = ctx.cast(centred(ctx, ctx.input(0), ctx.input(2)), INT32)
    w = ctx.cast(centred(ctx, ctx.input(3), ctx.input(5)), INT32)
    acc = ctx.emit(MatMul(), a, w)
    return _requantized(ctx, acc, (ctx.floats(1), ctx.floats(4), ctx.floats(6)), ctx.input(7), acc.type.rank - 1)


def qlinear_binary(op: b.Binary) -> Importer:
    """onnxruntime's QLinearAdd and QLinearMul: a, b, y with scale and zero point each."""

    def run(ctx: Context) -> Value:
        left = dequantized(ctx, ctx.input(0), ctx.floats(1), ctx.optional(2))
        right = dequantized(ctx, ctx.input(3), ctx.floats(4), ctx.optional(5))
        return _as_input(ctx, ctx.emit(op, left, right), 6)

    return run


def _as_input(ctx: Context, y: Value, index: int) -> Value:
    """Quantize to the type of input 0 with the scale and zero point at `index`."""
    dtype = ctx.input(0).type.dtype
    return quantized(ctx, y, ctx.floats(index), ctx.optional(index + 1), dtype, dtype.min, dtype.max)


def qlinear_unary(importer: Callable[[Context, Value], Value]) -> Importer:
    """x, scale, zero point, y's scale and zero point."""

    def run(ctx: Context) -> Value:
        x = dequantized(ctx, ctx.input(0), ctx.floats(1), ctx.optional(2))
        return _as_input(ctx, importer(ctx, x), 3)

    return run


def _softmax(ctx: Context, x: Value) -> Value:
    if ctx.attrs.int_("opset", 13) < 13 and ctx.attrs.int_("axis", -1) not in (-1, x.type.rank - 1):
        raise Refused("an old softmax over several axes", "export with opset 13 or newer")
    return ctx.emit(Softmax(ctx.axis(ctx.attrs.int_("axis", -1), x.type.rank)), x)


def _channels_first(ctx: Context) -> None:
    if ctx.attrs.flag("channels_last"):
        raise Refused("channels last", "export with channels first")


def _average_pool(ctx: Context, x: Value) -> Value:
    _channels_first(ctx)
    return averaged(ctx, x)


def _global_average_pool(ctx: Context, x: Value) -> Value:
    _channels_first(ctx)
    return ctx.emit(ReduceMean(tuple(range(2, x.type.rank))), x)


def _leaky_relu(ctx: Context, x: Value) -> Value:
    return ctx.emit(u.LeakyRelu(ctx.attrs.float_("alpha", 0.01)), x)


def qlinear_concat(ctx: Context) -> Value:
    """Inputs: y's scale and zero point, then each operand with its scale and zero point."""
    dtype = ctx.input(1).type.dtype
    parts = [
        dequantized(ctx, ctx.input(i), ctx.floats(i + 1), ctx.optional(i + 2)) for i in range(2, len(ctx.inputs), 3)
    ]
    if not parts:
        raise ctx.invalid("it has no operands")
    y = ctx.emit(Concat(ctx.axis(ctx.attrs.int_("axis"), parts[0].type.rank)), *parts)
    return quantized(ctx, y, ctx.floats(0), ctx.optional(1), dtype, dtype.min, dtype.max)


def qgemm(ctx: Context) -> Value:
    """Inputs: A, its scale and zero point, B, its scale and zero point, C (int32 or absent), y's scale and zero point
    (absent: y is float)."""
    a = ctx.cast(centred(ctx, ctx.input(0), ctx.optional(2)), INT32)
    w = ctx.input(3)
    transposed = ctx.attrs.flag("transB")
    w = ctx.cast(centred(ctx, w, ctx.optional(5), 0 if transposed else None), INT32)
    if ctx.attrs.flag("transA"):
        a = ctx.emit(Transpose((1, 0)), a)
    acc = ctx.emit(MatMul(), a, ctx.emit(Transpose((1, 0)), w) if transposed else w)
    bias, alpha = ctx.optional(6), ctx.attrs.float_("alpha", 1.0)
    if bias is not None:
        acc = ctx.emit(b.Add(), acc, ctx.cast(bias, INT32))
    w_scale = ctx.floats(4)
    if alpha != 1:
        w_scale = ctx.emit(b.Mul(), w_scale, ctx.const(alpha))
    if ctx.optional(7) is None:
        return ctx.emit(b.Mul(), ctx.to_float(acc), ctx.emit(b.Mul(), ctx.floats(1), w_scale))
    return _requantized(ctx, acc, (ctx.floats(1), w_scale, ctx.floats(7)), ctx.input(8), acc.type.rank - 1)


def dynamic_quantize_linear(ctx: Context) -> list[Value]:
    """uint8 codes over the range of x at run time; outputs codes, scale, zero point."""
    x = ctx.floats()
    axes = tuple(range(x.type.rank))
    top = ctx.emit(u.Clip(lo=0.0), ctx.emit(ReduceMax(axes, False), x))
    low = ctx.emit(u.Clip(hi=0.0), ctx.emit(ReduceMin(axes, False), x))
    scale = ctx.emit(b.Div(), ctx.emit(b.Sub(), top, low), ctx.const(255.0))
    zero = ctx.emit(u.Round(), ctx.emit(u.Clip(0.0, 255.0), ctx.emit(b.Div(), ctx.emit(u.Neg(), low), scale)))
    code = quantized(ctx, x, scale, zero, UINT8, 0.0, 255.0)
    return [code, scale, ctx.cast(zero, UINT8)]


TABLE: Table = {
    ("", "QuantizeLinear"): quantize_linear,
    ("", "DequantizeLinear"): dequantize_linear,
    ("com.microsoft", "QuantizeLinear"): quantize_linear,
    ("com.microsoft", "DequantizeLinear"): dequantize_linear,
    ("", "DynamicQuantizeLinear"): dynamic_quantize_linear,
    ("", "ConvInteger"): conv_integer,
    ("", "MatMulInteger"): matmul_integer,
    ("", "QLinearConv"): qlinear_conv,
    ("", "QLinearMatMul"): qlinear_matmul,
    ("com.microsoft", "QLinearAdd"): qlinear_binary(b.Add()),
    ("com.microsoft", "QLinearMul"): qlinear_binary(b.Mul()),
    ("com.microsoft", "QLinearSigmoid"): qlinear_unary(lambda ctx, x: ctx.emit(u.Sigmoid(), x)),
    ("com.microsoft", "QLinearLeakyRelu"): qlinear_unary(_leaky_relu),
    ("com.microsoft", "QLinearConcat"): qlinear_concat,
    ("com.microsoft", "QGemm"): qgemm,
    ("com.microsoft", "QLinearSoftmax"): qlinear_unary(_softmax),
    ("com.microsoft", "QLinearAveragePool"): qlinear_unary(_average_pool),
    ("com.microsoft", "QLinearGlobalAveragePool"): qlinear_unary(_global_average_pool),
}
