"""Importers of QONNX's operators (Brevitas, FINN) as compositions of standard ones."""

from __future__ import annotations

from bitc.frontend.context import Context, Refused, Table
from bitc.ir import Value
from bitc.ops import binary as b
from bitc.ops import unary as u

_HINT = "use rounding mode ROUND, CEIL, FLOOR or ROUND_TO_ZERO"
_ROUNDING: dict[str, u.Unary] = {
    "ROUND": u.Round(),
    "HALF_EVEN": u.Round(),
    "CEIL": u.Ceil(),
    "FLOOR": u.Floor(),
    "ROUND_TO_ZERO": u.Trunc(),
    "DOWN": u.Trunc(),
}
_SYMMETRIC: dict[str, tuple[float, u.Unary]] = {
    "UP": (0.0, u.Ceil()),
    "HALF_UP": (0.5, u.Floor()),
    "HALF_DOWN": (-0.5, u.Ceil()),
}
"""Modes that round the magnitude: what to add to it, then how to round it."""


def bipolar_quant(ctx: Context) -> Value:
    """``x >= 0 ? scale : -scale``."""
    return bipolar(ctx, ctx.floats(0), ctx.floats(1))


def bipolar(ctx: Context, x: Value, scale: Value) -> Value:
    high = ctx.emit(b.GreaterOrEqual(), x, ctx.const(0.0))
    return same_shape(ctx, ctx.emit(b.Where(), high, scale, ctx.emit(u.Neg(), scale)), x)


def same_shape(ctx: Context, y: Value, x: Value) -> Value:
    if y.shape != x.shape:
        raise ctx.invalid(f"its parameters broadcast {x.type} to {y.type}")
    return y


def quant_range(signed: bool, narrow: bool, bits: float) -> tuple[float, float]:
    """Smallest and largest code of `bits` bits, as QONNX defines them."""
    if not signed:
        return 0.0, 2.0**bits - 1 - narrow
    return -(2.0 ** (bits - 1)) + narrow, 2.0 ** (bits - 1) - 1


def quant(ctx: Context) -> Value:
    """``(round(clip(x / scale + zero, min, max)) - zero) * scale``; one signed bit is ``x >= 0 ? scale : -scale``."""
    x, scale, zero = ctx.floats(0), ctx.floats(1), ctx.floats(2)
    bits = ctx.array(3, "the bit width")
    signed, narrow = ctx.attrs.flag("signed", True), ctx.attrs.flag("narrow")
    mode = ctx.attrs.str_("rounding_mode", "ROUND").upper()
    if mode not in _ROUNDING and mode not in _SYMMETRIC:
        raise Refused(f"rounding mode {mode!r}", _HINT)
    if bits.size != 1 or not 1 <= float(bits.reshape(-1)[0]) <= 64:
        raise Refused("a bit width per channel, or outside 1 to 64", "use one bit width per tensor")
    width = float(bits.reshape(-1)[0])
    shifted = not zero.is_const or bool(zero.array.any())
    if width == 1 and signed and not shifted and scale.is_const and bool((scale.array > 0).all()):
        return bipolar(ctx, x, scale)
    y = ctx.emit(b.Div(), x, scale)
    y = ctx.emit(b.Add(), y, zero) if shifted else y
    if width == 1 and signed:
        y = bipolar(ctx, y, ctx.const(1.0))
    else:
        y = rounded(ctx, ctx.emit(u.Clip(*quant_range(signed, narrow, width)), y), mode)
    y = ctx.emit(b.Sub(), y, zero) if shifted else y
    return same_shape(ctx, ctx.emit(b.Mul(), y, scale), x)


def rounded(ctx: Context, y: Value, mode: str) -> Value:
    """Round as QONNX's rounding mode says."""
    if mode in _ROUNDING:
        return ctx.emit(_ROUNDING[mode], y)
    nudge, rounding = _SYMMETRIC[mode]
    magnitude = ctx.emit(rounding, ctx.emit(b.Add(), ctx.emit(u.Abs(), y), ctx.const(nudge)))
    return ctx.emit(b.Mul(), ctx.emit(u.Sign(), y), magnitude)


def multi_threshold(ctx: Context) -> Value:
    """``out_bias + out_scale * (number of thresholds <= x)``, thresholds per channel."""
    x, thresholds = ctx.floats(0), ctx.floats(1)
    ctx.attrs.ignore("out_dtype")
    axis = -1 if ctx.attrs.str_("data_layout", "NCHW").endswith("C") else 1 - x.type.rank
    op = b.MultiThreshold(ctx.attrs.float_("out_scale", 1.0), ctx.attrs.float_("out_bias", 0.0), axis)
    return ctx.emit(op, x, thresholds)


TABLE: Table = {
    ("qonnx", "BipolarQuant"): bipolar_quant,
    ("qonnx", "Quant"): quant,
    ("qonnx", "IntQuant"): quant,
    ("qonnx", "MultiThreshold"): multi_threshold,
}
