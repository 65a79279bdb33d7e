"""The C of each pointwise operator. A row maps (operator, operand dtype, result dtype) to statements that compute `r`
from the operands `a`, `b`, `c`, or to None where there is no C for these types. Each float operation is a statement of
its own, so that no compiler fuses two."""

from __future__ import annotations

from collections.abc import Callable

from bitc.ir.dtypes import DType
from bitc.ir.graph import Op
from bitc.kernels.literals import c_float, c_int, c_number
from bitc.ops import binary as b2
from bitc.ops import bits, trig
from bitc.ops import unary as u1
from bitc.ops.quantize import Quantize

Row = Callable[[Op, DType, DType], str | None]


def _unsigned(t: DType) -> str:
    """The type in which integers of type t are added and multiplied: it wraps around, and is not promoted."""
    return "uint64_t" if t.bits == 64 else "uint32_t"


def arithmetic(op: str) -> Row:
    """``a op b``; integers wrap around."""

    def row(_: Op, t: DType, y: DType) -> str | None:
        if t.is_float:
            return f"r = a {op} b;"
        u = _unsigned(t)
        return f"r = ({t.c_type})(({u})a {op} ({u})b);"

    return row


def floats(body: str) -> Row:
    """The same statements for every operator of the class; floats only."""
    return lambda op, t, y: body if t.is_float else None


def same(body: str) -> Row:
    """The same statements for floats and integers."""
    return lambda op, t, y: body.replace("TYPE", t.c_type)


def signed(body: str, unsigned: str) -> Row:
    """Statements for signed types, and for unsigned ones."""
    return lambda op, t, y: (body if t.is_signed else unsigned).replace("TYPE", t.c_type)


def _call(name: str) -> Row:
    return lambda op, t, y: f"r = bitc_{name}f(a);" if t.is_float and t.bits == 32 else None


def _integers_unchanged(row: Row) -> Row:
    return lambda op, t, y: row(op, t, y) if t.is_float else "r = a;"


def _div(op: Op, t: DType, y: DType) -> str:
    if t.is_float:
        return "r = a / b;"
    if not t.is_signed:
        return f"r = ({t.c_type})(b == 0 ? 0 : a / b);"
    u = _unsigned(t)
    return f"r = b == 0 ? 0 : b == -1 ? ({t.c_type})(0 - ({u})a) : ({t.c_type})(a / b);"


def _mod(op: Op, t: DType, y: DType) -> str | None:
    assert isinstance(op, b2.Mod)
    if t.is_float:
        return "r = bitc_fmodf(a, b);" if op.fmod else "r = bitc_modf(a, b);"
    if not t.is_signed:
        return f"r = ({t.c_type})(b == 0 ? 0 : a % b);"
    body = f"r = ({t.c_type})(b == 0 || b == -1 ? 0 : a % b);"
    return body if op.fmod else f"{body}\nr = ({t.c_type})(r != 0 && (r < 0) != (b < 0) ? r + b : r);"


def _leaky(op: Op, t: DType, y: DType) -> str | None:
    assert isinstance(op, u1.LeakyRelu)
    return f"r = a < 0.0f ? {c_float(op.alpha)} * a : a;" if t.is_float else None


def _line(op: Op, t: DType, y: DType) -> str | None:
    assert isinstance(op, u1.Line)
    lines = [f"r = {c_float(op.slope)} * a;"] + ([f"r = r + {c_float(op.offset)};"] if op.offset else [])
    return "\n".join(lines) if t.is_float else None


def _thresholded(op: Op, t: DType, y: DType) -> str | None:
    assert isinstance(op, u1.ThresholdedRelu)
    return f"r = a > {c_float(op.alpha)} ? a : 0.0f;" if t.is_float else None


def _narrow(op: Op, t: DType, y: DType) -> str | None:
    assert isinstance(op, u1.Narrow)
    top = c_float(op.top)
    beyond = {"inf": "BITC_INF", "top": top, "nan": "BITC_NAN"}[op.overflow]
    lines = (
        f"r = bitc_narrowf(a, {op.mantissa}, {op.least});",
        f"r = r > {top} ? {beyond} : r < -{top} ? -{beyond} : r;",
    )
    return "\n".join(lines) if t.is_float else None


def _elu(op: Op, t: DType, y: DType) -> str | None:
    assert isinstance(op, u1.Elu)
    return f"r = bitc_expf(a) - 1.0f;\nr = a < 0.0f ? {c_float(op.alpha)} * r : a;" if t.is_float else None


def _selu(op: Op, t: DType, y: DType) -> str | None:
    assert isinstance(op, u1.Selu)
    alpha = c_float(op.alpha)
    lines = (f"r = {alpha} * bitc_expf(a);", f"r = r - {alpha};", f"r = {c_float(op.gamma)} * (a <= 0.0f ? r : a);")
    return "\n".join(lines) if t.is_float else None


def _hard_sigmoid(alpha: float, beta: float) -> str:
    lines = (f"r = {c_float(alpha)} * a;", f"r = r + {c_float(beta)};", "r = r < 0.0f ? 0.0f : r;")
    return "\n".join((*lines, "r = r > 1.0f ? 1.0f : r;"))


def _hard_sigmoid_row(op: Op, t: DType, y: DType) -> str | None:
    assert isinstance(op, u1.HardSigmoid)
    return _hard_sigmoid(op.alpha, op.beta) if t.is_float else None


def _clip(op: Op, t: DType, y: DType) -> str:
    assert isinstance(op, u1.Clip)
    lines = ["r = a;"]
    if op.lo > t.min:
        lo = c_number(op.lo, t)
        lines.append(f"r = r < {lo} ? {lo} : r;")
    if op.hi < t.max:
        hi = c_number(op.hi, t)
        lines.append(f"r = r > {hi} ? {hi} : r;")
    return "\n".join(lines)


def _cast(op: Op, t: DType, y: DType) -> str | None:
    if y.carrier.kind == "b":
        return "r = a != 0;"
    if not t.is_float or y.is_float:
        return f"r = ({y.c_type})a;"
    one = "f" if t.bits == 32 else ""
    top, bottom = f"{float(2 ** (y.bits - y.is_signed))}{one}", f"{float(y.min)}{one}"
    low, high = c_int(y.min, y.c_type), c_int(2 ** (y.bits - y.is_signed) - 1, y.c_type)
    return f"r = a != a ? 0 : a < {bottom} ? {low} : a >= {top} ? {high} : ({y.c_type})a;"


def _quantize(op: Op, t: DType, y: DType) -> str:
    assert isinstance(op, Quantize)
    lo, hi = c_float(op.lo), c_float(op.hi)
    steps = ("float v = a / b;", "v = bitc_roundf(v);", "v = v + c;")
    return "\n".join(
        (*steps, f"v = v < {lo} ? {lo} : v;", f"v = v > {hi} ? {hi} : v;", f"r = v != v ? 0 : ({y.c_type})v;")
    )


def _power(op: Op, t: DType, y: DType) -> str | None:
    if t.is_float:
        return "r = bitc_powf(a, b);" if t.bits == 32 else None
    u, c = _unsigned(t), t.c_type
    lines = [
        f"{u} power = 1;",
        f"{u} factor = ({u})a;",
        f"for ({u} n = {f'b < 0 ? 0 : ({u})b' if t.is_signed else 'b'}; n != 0; n >>= 1) {{",
        "power = (n & 1) ? power * factor : power;",
        "factor = factor * factor;",
        "}",
        f"r = ({c})power;",
    ]
    if t.is_signed:
        lines.append(f"r = ({c})(b >= 0 ? r : a == 1 ? 1 : a == -1 ? ((b & 1) ? -1 : 1) : 0);")
    return "\n".join(lines)


def _shift(op: Op, t: DType, y: DType) -> str:
    assert isinstance(op, bits.Shift)
    inside = f"(b >= 0 && b < {t.bits})" if t.is_signed else f"(b < {t.bits})"
    if op.left:
        return f"r = ({t.c_type})({inside} ? ({_unsigned(t)})a << b : 0);"
    sign = "(a < 0 ? -1 : 0)" if t.is_signed else "0"
    return f"r = ({t.c_type})({inside} ? a >> b : {sign});"


def _bit_cast(op: Op, t: DType, y: DType) -> str | None:
    if t.is_float == y.is_float:
        return f"r = ({y.c_type})a;"
    if t.bits != 32:
        return None
    return f"r = ({y.c_type})bitc_bits(a);" if t.is_float else "r = bitc_float((uint32_t)a);"


def _negate(op: Op, t: DType, y: DType) -> str:
    return "r = -a;" if t.is_float else f"r = ({t.c_type})(0 - ({_unsigned(t)})a);"


def _absolute(op: Op, t: DType, y: DType) -> str:
    if t.is_float:
        return "r = bitc_absf(a);"
    return f"r = a < 0 ? ({t.c_type})(0 - ({_unsigned(t)})a) : a;" if t.is_signed else "r = a;"


ROWS: dict[type[Op], Row] = {
    b2.Add: arithmetic("+"),
    b2.Sub: arithmetic("-"),
    b2.Mul: arithmetic("*"),
    b2.Div: _div,
    b2.Pow: _power,
    b2.Mod: _mod,
    b2.Min: same("r = b < a ? b : a;"),
    b2.Max: same("r = b > a ? b : a;"),
    b2.PRelu: same("r = (TYPE)(a < 0 ? b * a : a);"),
    b2.Less: same("r = a < b;"),
    b2.LessOrEqual: same("r = a <= b;"),
    b2.Greater: same("r = a > b;"),
    b2.GreaterOrEqual: same("r = a >= b;"),
    b2.Equal: same("r = a == b;"),
    b2.And: same("r = a & b;"),
    b2.Or: same("r = a | b;"),
    b2.Xor: same("r = a ^ b;"),
    b2.Where: same("r = a ? b : c;"),
    bits.BitAnd: same("r = (TYPE)(a & b);"),
    bits.BitOr: same("r = (TYPE)(a | b);"),
    bits.BitXor: same("r = (TYPE)(a ^ b);"),
    bits.Invert: same("r = (TYPE)~a;"),
    bits.Shift: _shift,
    bits.BitCast: _bit_cast,
    trig.Sin: _call("sin"),
    trig.Cos: _call("cos"),
    trig.Tan: _call("tan"),
    trig.Asin: _call("asin"),
    trig.Acos: _call("acos"),
    trig.Atan: _call("atan"),
    trig.Sinh: _call("sinh"),
    trig.Cosh: _call("cosh"),
    trig.Asinh: _call("asinh"),
    trig.Acosh: _call("acosh"),
    trig.Atanh: _call("atanh"),
    u1.Neg: _negate,
    u1.Abs: _absolute,
    u1.Sign: signed("r = (TYPE)((a > 0) - (a < 0));", "r = a > 0;"),
    u1.Relu: signed("r = a < 0 ? 0 : a;", "r = a;"),
    u1.LeakyRelu: _leaky,
    u1.ThresholdedRelu: _thresholded,
    u1.Line: _line,
    u1.Narrow: _narrow,
    u1.Elu: _elu,
    u1.Selu: _selu,
    u1.HardSigmoid: _hard_sigmoid_row,
    u1.HardSwish: floats(f"{_hard_sigmoid(1 / 6, 0.5)}\nr = a * r;"),
    u1.Exp: _call("exp"),
    u1.Log: _call("log"),
    u1.Tanh: _call("tanh"),
    u1.Sigmoid: _call("sigmoid"),
    u1.Erf: _call("erf"),
    u1.Softplus: floats(
        "r = bitc_expf(-bitc_absf(a));\nr = 1.0f + r;\nr = bitc_logf(r);\nr = (a > 0.0f ? a : 0.0f) + r;"
    ),
    u1.Softsign: floats("r = 1.0f + bitc_absf(a);\nr = a / r;"),
    u1.Sqrt: _call("sqrt"),
    u1.Reciprocal: floats("r = 1.0f / a;"),
    u1.Floor: _integers_unchanged(_call("floor")),
    u1.Ceil: _integers_unchanged(_call("ceil")),
    u1.Trunc: _integers_unchanged(_call("trunc")),
    u1.Round: _integers_unchanged(_call("round")),
    u1.Not: same("r = !a;"),
    u1.IsNaN: same("r = a != a;"),
    u1.Cast: _cast,
    u1.Clip: _clip,
    Quantize: _quantize,
}
