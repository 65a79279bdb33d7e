"""Importers of elementwise operators."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bitc.frontend.context import Context, Importer, Refused, Table
from bitc.frontend.tensors import dtype_of, has_nan, is_narrowed, narrow_bits, narrowing, type_name
from bitc.ir import BOOL, FLOAT32, INT32, Op, Value
from bitc.ops import binary as b
from bitc.ops import bits
from bitc.ops import trig as t
from bitc.ops import unary as u
from bitc.ops.movement import Reshape


def simple(op: Op) -> Importer:
    """One operand, no attributes."""
    return lambda ctx: ctx.emit(op, ctx.number())


def float_only(op: Op) -> Importer:
    return lambda ctx: ctx.emit(op, ctx.floats())


def alpha(make: Callable[[float], Op], default: float) -> Importer:
    return lambda ctx: ctx.emit(make(ctx.attrs.float_("alpha", default)), ctx.floats())


def pair(op: Op) -> Importer:
    """Two operands."""
    return lambda ctx: ctx.emit(op, ctx.number(0), second(ctx))


def second(ctx: Context) -> Value:
    """The second operand. Before opset 7 it lies along the first from `axis` on, by default at its end."""
    x, y = ctx.input(0), ctx.input(1)
    if ctx.opset >= 7:
        return y
    if not ctx.attrs.flag("broadcast"):
        if x.shape != y.shape:
            raise ctx.invalid(f"{x.type} and {y.type} differ, and it does not broadcast")
        ctx.attrs.ignore("axis")
        return y
    if "axis" not in ctx.attrs:
        return y
    after = x.type.rank - ctx.axis(ctx.attrs.int_("axis"), x.type.rank) - y.type.rank
    if after < 0:
        raise ctx.invalid(f"{y.type} does not lie along {x.type}")
    return y if after == 0 else ctx.emit(Reshape((*y.shape, *[1] * after)), y)


def prelu(ctx: Context) -> Value:
    """Before opset 7 a slope of several elements is one per channel."""
    x, slope = ctx.number(0), ctx.number(1)
    if ctx.opset < 7 and slope.type.size > 1 and x.type.rank > 2:
        slope = ctx.emit(Reshape((slope.type.size, *[1] * (x.type.rank - 2))), slope)
    return ctx.emit(b.PRelu(), x, slope)


def variadic(op: Op) -> Importer:
    def run(ctx: Context) -> Value:
        total = ctx.number(0)
        for i in range(1, len(ctx.inputs)):
            total = ctx.emit(op, total, ctx.number(i))
        return total

    return run


def mean(ctx: Context) -> Value:
    total = variadic(b.Add())(ctx)
    assert isinstance(total, Value)
    return ctx.emit(b.Div(), total, ctx.const(float(len(ctx.inputs))))


def selu(ctx: Context) -> Value:
    defaults = u.Selu()
    op = u.Selu(ctx.attrs.float_("alpha", defaults.alpha), ctx.attrs.float_("gamma", defaults.gamma))
    return ctx.emit(op, ctx.floats())


def hard_sigmoid(ctx: Context) -> Value:
    return ctx.emit(u.HardSigmoid(ctx.attrs.float_("alpha", 0.2), ctx.attrs.float_("beta", 0.5)), ctx.floats())


def celu(ctx: Context) -> Value:
    """``max(0, x) + min(0, alpha * (exp(x / alpha) - 1))``."""
    x, a = ctx.floats(), ctx.attrs.float_("alpha", 1.0)
    grown = ctx.emit(u.Exp(), ctx.emit(b.Div(), x, ctx.const(a)))
    low = ctx.emit(b.Mul(), ctx.emit(b.Sub(), grown, ctx.const(1.0)), ctx.const(a))
    return ctx.emit(b.Add(), ctx.emit(u.Relu(), x), ctx.emit(u.Clip(hi=0.0), low))


def thresholded_relu(ctx: Context) -> Value:
    x = ctx.floats()
    above = ctx.emit(b.Greater(), x, ctx.const(ctx.attrs.float_("alpha", 1.0)))
    return ctx.emit(b.Where(), above, x, ctx.const(0.0))


def gelu(ctx: Context) -> Value:
    """``0.5 * x * (1 + erf(x / sqrt(2)))``, or its tanh approximation."""
    tanh = ctx.attrs.str_("approximate", "none") == "tanh"
    return gelu_of(ctx, ctx.floats(), tanh)


def fast_gelu(ctx: Context) -> Value:
    x = ctx.floats()
    if ctx.optional(1) is not None:
        x = ctx.emit(b.Add(), x, ctx.input(1))
    return gelu_of(ctx, x, tanh=True)


def gelu_of(ctx: Context, x: Value, tanh: bool) -> Value:
    if tanh:
        cube = ctx.emit(b.Mul(), ctx.emit(b.Mul(), x, x), x)
        inner = ctx.emit(b.Add(), x, ctx.emit(b.Mul(), cube, ctx.const(0.044715)))
        bell = ctx.emit(u.Tanh(), ctx.emit(b.Mul(), inner, ctx.const(math.sqrt(2 / math.pi))))
    else:
        bell = ctx.emit(u.Erf(), ctx.emit(b.Mul(), x, ctx.const(math.sqrt(0.5))))
    half = ctx.emit(b.Mul(), x, ctx.const(0.5))
    return ctx.emit(b.Mul(), half, ctx.emit(b.Add(), bell, ctx.const(1.0)))


def swish(ctx: Context) -> Value:
    """``x * sigmoid(alpha * x)``."""
    x, a = ctx.floats(), ctx.attrs.float_("alpha", 1.0)
    inner = x if a == 1 else ctx.emit(b.Mul(), x, ctx.const(a))
    return ctx.emit(b.Mul(), x, ctx.emit(u.Sigmoid(), inner))


def mish(ctx: Context) -> Value:
    """``x * tanh(softplus(x))``."""
    x = ctx.floats()
    return ctx.emit(b.Mul(), x, ctx.emit(u.Tanh(), ctx.emit(u.Softplus(), x)))


def clip(ctx: Context) -> Value:
    """Bounds are attributes before opset 11, inputs after."""
    x = ctx.number()
    if ctx.opset < 11:
        lo = ctx.attrs.float_("min", -math.inf)
        return bounded(ctx, x, lo, ctx.attrs.float_("max", math.inf))
    low, high = ctx.optional(1), ctx.optional(2)
    if any(v is not None and v.type.dtype is not x.type.dtype for v in (low, high)):
        raise ctx.invalid("the bounds have another type than the input")
    if all(v is None or v.is_const for v in (low, high)):
        lo = -math.inf if low is None else low.array.reshape(-1)[0].item()
        hi = math.inf if high is None else high.array.reshape(-1)[0].item()
        return bounded(ctx, x, lo, hi)
    y = x if low is None else ctx.emit(b.Max(), x, low)
    return y if high is None else ctx.emit(b.Min(), y, high)


def bounded(ctx: Context, x: Value, lo: float, hi: float) -> Value:
    """Clip to constants. As ONNX says, everything becomes `hi` if lo > hi."""
    dtype = x.type.dtype
    if dtype.is_integer:  # bounds at the ends of the type do nothing
        info = np.iinfo(dtype.carrier)
        lo, hi = (-math.inf if lo <= info.min else lo), (math.inf if hi >= info.max else hi)
    return ctx.emit(u.Clip(float(lo), float(hi)), x)


def cast_to(ctx: Context, x: Value, elem_type: int) -> Value:
    """Floats narrower than float32 are rounded to their precision and stay float32; integers narrower than 8 bits wrap
    around and stay in 8."""
    dtype = dtype_of(elem_type)
    ctx.attrs.ignore("round_mode")
    saturate = ctx.attrs.flag("saturate", True)
    if dtype is None:
        raise Refused(f"casts to {type_name(elem_type)}", "cast to float, int8 or int32 instead")
    if is_narrowed(elem_type):
        ctx.session.notice(f"{type_name(elem_type)} is computed in float32")
    narrow, bits = narrowing(elem_type, saturate), narrow_bits(elem_type)
    if ctx.session.elements.get(x) == elem_type or (narrow is None and bits is None):
        return ctx.cast(x, dtype)
    if narrow is not None and not has_nan(elem_type):
        x = ctx.emit(b.Where(), ctx.emit(u.IsNaN(), ctx.to_float(x)), ctx.const(0.0), ctx.to_float(x))
    y = ctx.emit(narrow, ctx.to_float(x)) if narrow else ctx.cast(_wrapped(ctx, x, *(bits or (8, True))), dtype)
    ctx.session.elements[y] = elem_type
    return y


def _wrapped(ctx: Context, x: Value, bits: int, signed: bool) -> Value:
    """The lowest bits of an integer, int32."""
    half = 1 << (bits - 1) if signed else 0
    wide = ctx.cast(x, INT32)
    low = ctx.emit(b.Mod(), ctx.emit(b.Add(), wide, ctx.scalar(half, wide)), ctx.scalar(1 << bits, wide))
    return ctx.emit(b.Sub(), low, ctx.scalar(half, wide))


def cast(ctx: Context) -> Value:
    return cast_to(ctx, ctx.input(), ctx.attrs.int_("to"))


def cast_like(ctx: Context) -> Value:
    """Constants are not rounded: onnx's definitions cast their epsilons and the like to the type of the input."""
    x, like = ctx.input(0), ctx.input(1)
    elem = ctx.session.elements.get(like)
    if elem is not None and not (x.is_const and like.type.dtype.is_float):
        return cast_to(ctx, x, elem)
    ctx.attrs.ignore("saturate", "round_mode")
    return ctx.cast(x, like.type.dtype)


def power(ctx: Context) -> Value:
    """Squares, cubes and square roots become what they are, as onnxruntime computes them."""
    x, y = ctx.number(0), second(ctx)
    exponent = y.array.reshape(-1)[0].item() if y.is_const and y.type.size == 1 and y.type.rank <= x.type.rank else None
    if exponent == 1:
        return x
    if exponent == 2:
        return ctx.emit(b.Mul(), x, x)
    if exponent == 3:
        return ctx.emit(b.Mul(), ctx.emit(b.Mul(), x, x), x)
    if exponent == 0.5 and x.type.dtype.is_float:
        return ctx.emit(u.Sqrt(), x)
    if (
        x.type.dtype.is_integer
        and y.type.dtype.is_float
        and not (y.is_const and np.array_equal(y.array, np.rint(y.array)))
    ):
        return ctx.cast(ctx.emit(b.Pow(), ctx.to_float(x), y), x.type.dtype)
    return ctx.emit(b.Pow(), x, ctx.cast(y, x.type.dtype))


def mod(ctx: Context) -> Value:
    fmod = ctx.attrs.flag("fmod")
    return ctx.emit(b.Mod(fmod), ctx.number(0), ctx.number(1))


def equal(ctx: Context) -> Value:
    return ctx.emit(b.Equal(), ctx.input(0), second(ctx))


def where(ctx: Context) -> Value:
    return ctx.emit(b.Where(), ctx.input(0), ctx.input(1), ctx.input(2))


def logical(op: Op) -> Importer:
    def run(ctx: Context) -> Value:
        if any(v is None or v.type.dtype is not BOOL for v in ctx.inputs):
            raise ctx.invalid("operands must be bool")
        return ctx.emit(op, *ctx.inputs)

    return run


def bitwise(op: Op) -> Importer:
    """Operands are integers."""

    def run(ctx: Context) -> Value:
        for i in range(len(ctx.inputs)):
            _integer(ctx, i)
        return ctx.emit(op, *ctx.inputs)

    return run


def _integer(ctx: Context, index: int) -> Value:
    value = ctx.number(index)
    if value.type.dtype.is_float:
        raise ctx.invalid(f"input {index} is {value.type}, not integers")
    return value


def bit_shift(ctx: Context) -> Value:
    direction = ctx.attrs.str_("direction")
    if direction not in ("LEFT", "RIGHT"):
        raise ctx.invalid(f"direction is {direction!r}")
    return ctx.emit(bits.Shift(direction == "LEFT"), _integer(ctx, 0), _integer(ctx, 1))


def bit_cast(ctx: Context) -> Value:
    x, elem_type = ctx.input(), ctx.attrs.int_("to")
    dtype = dtype_of(elem_type)
    if dtype is None or narrow_bits(elem_type) or is_narrowed(elem_type) or dtype.bits != x.type.dtype.bits:
        raise Refused(f"the bits of {x.type.dtype} as {type_name(elem_type)}", "use types of one width up to 32 bits")
    return ctx.emit(bits.BitCast(dtype), x)


def is_inf(ctx: Context) -> Value:
    x = ctx.floats()
    found = []
    if ctx.attrs.flag("detect_positive", True):
        found.append(ctx.emit(b.Equal(), x, ctx.const(math.inf)))
    if ctx.attrs.flag("detect_negative", True):
        found.append(ctx.emit(b.Equal(), x, ctx.const(-math.inf)))
    if not found:
        return ctx.emit(u.Not(), ctx.emit(b.Equal(), x, x))
    return found[0] if len(found) == 1 else ctx.emit(b.Or(), *found)


def shrink(ctx: Context) -> Value:
    """``x + bias`` below -lambd, ``x - bias`` above lambd, 0 between."""
    x, bias, lambd = ctx.floats(), ctx.attrs.float_("bias", 0.0), ctx.attrs.float_("lambd", 0.5)
    low = ctx.emit(b.Less(), x, ctx.const(-lambd))
    high = ctx.emit(b.Greater(), x, ctx.const(lambd))
    upper = ctx.emit(b.Where(), high, ctx.emit(b.Sub(), x, ctx.const(bias)), ctx.const(0.0))
    return ctx.emit(b.Where(), low, ctx.emit(b.Add(), x, ctx.const(bias)), upper)


def identity(ctx: Context) -> Value:
    return ctx.input()


def dropout(ctx: Context) -> list[Value]:
    """Inference passes its input through; the mask, if read, is all true."""
    ctx.attrs.ignore("ratio", "seed")
    if ctx.opset < 7 and not ctx.attrs.flag("is_test"):
        raise Refused("dropout in training mode", "export the model in inference mode")
    if ctx.opset >= 12 and ctx.optional(2) is not None and bool(ctx.array(2, "training_mode").any()):
        raise Refused("dropout in training mode", "export the model in inference mode")
    x = ctx.input()
    return [x, ctx.const(np.ones(x.shape, np.bool_))] if ctx.wanted(1) else [x]


def relu(ctx: Context) -> Value:
    return ctx.emit(u.Relu(), ctx.number())


def round_like(op: Op) -> Importer:
    """Rounding, which leaves integers as they are."""
    return lambda ctx: ctx.emit(op, ctx.number()) if ctx.number().type.dtype is FLOAT32 else ctx.input()


TABLE: Table = {
    ("", "Neg"): simple(u.Neg()),
    ("", "Abs"): simple(u.Abs()),
    ("", "Sign"): simple(u.Sign()),
    ("", "Relu"): relu,
    ("", "LeakyRelu"): alpha(u.LeakyRelu, 0.01),
    ("", "Elu"): alpha(u.Elu, 1.0),
    ("", "Selu"): selu,
    ("", "Celu"): celu,
    ("", "ThresholdedRelu"): thresholded_relu,
    ("", "HardSigmoid"): hard_sigmoid,
    ("", "HardSwish"): float_only(u.HardSwish()),
    ("", "Gelu"): gelu,
    ("com.microsoft", "Gelu"): gelu,
    ("com.microsoft", "FastGelu"): fast_gelu,
    ("", "Swish"): swish,
    ("", "Mish"): mish,
    ("", "Shrink"): shrink,
    ("", "Sigmoid"): float_only(u.Sigmoid()),
    ("", "Tanh"): float_only(u.Tanh()),
    ("", "Exp"): float_only(u.Exp()),
    ("", "Log"): float_only(u.Log()),
    ("", "Sqrt"): float_only(u.Sqrt()),
    ("", "Reciprocal"): float_only(u.Reciprocal()),
    ("", "Erf"): float_only(u.Erf()),
    ("", "Softplus"): float_only(u.Softplus()),
    ("", "Softsign"): float_only(u.Softsign()),
    ("", "Floor"): round_like(u.Floor()),
    ("", "Ceil"): round_like(u.Ceil()),
    ("", "Round"): round_like(u.Round()),
    ("", "Sin"): float_only(t.Sin()),
    ("", "Cos"): float_only(t.Cos()),
    ("", "Tan"): float_only(t.Tan()),
    ("", "Asin"): float_only(t.Asin()),
    ("", "Acos"): float_only(t.Acos()),
    ("", "Atan"): float_only(t.Atan()),
    ("", "Sinh"): float_only(t.Sinh()),
    ("", "Cosh"): float_only(t.Cosh()),
    ("", "Asinh"): float_only(t.Asinh()),
    ("", "Acosh"): float_only(t.Acosh()),
    ("", "Atanh"): float_only(t.Atanh()),
    ("", "BitwiseAnd"): bitwise(bits.BitAnd()),
    ("", "BitwiseOr"): bitwise(bits.BitOr()),
    ("", "BitwiseXor"): bitwise(bits.BitXor()),
    ("", "BitwiseNot"): bitwise(bits.Invert()),
    ("", "BitShift"): bit_shift,
    ("", "BitCast"): bit_cast,
    ("", "IsNaN"): float_only(u.IsNaN()),
    ("", "IsInf"): is_inf,
    ("", "Not"): logical(u.Not()),
    ("", "Cast"): cast,
    ("", "CastLike"): cast_like,
    ("", "Clip"): clip,
    ("", "Add"): pair(b.Add()),
    ("", "Sub"): pair(b.Sub()),
    ("", "Mul"): pair(b.Mul()),
    ("", "Div"): pair(b.Div()),
    ("", "Pow"): power,
    ("", "Mod"): mod,
    ("", "PRelu"): prelu,
    ("", "Min"): variadic(b.Min()),
    ("", "Max"): variadic(b.Max()),
    ("", "Sum"): variadic(b.Add()),
    ("", "Mean"): mean,
    ("", "Less"): pair(b.Less()),
    ("", "LessOrEqual"): pair(b.LessOrEqual()),
    ("", "Greater"): pair(b.Greater()),
    ("", "GreaterOrEqual"): pair(b.GreaterOrEqual()),
    ("", "Equal"): equal,
    ("", "And"): logical(b.And()),
    ("", "Or"): logical(b.Or()),
    ("", "Xor"): logical(b.Xor()),
    ("", "Where"): where,
    ("", "Identity"): identity,
    ("", "Dropout"): dropout,
}
