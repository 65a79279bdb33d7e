"""Pointwise operators of one operand.

Floats are float32 and every arithmetic step rounds to float32, as in the generated C.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitc.ir.dtypes import BOOL, FLOAT32, DType
from bitc.ir.graph import Array
from bitc.ir.types import TensorType
from bitc.ops import math32
from bitc.ops.base import Pointwise

RISES = np.array(1, np.int8)
FALLS = np.array(-1, np.int8)


def f32(value: float) -> np.float32:
    return np.float32(value)


class Unary(Pointwise):
    """Base: `compute` maps an array to one of the same shape and dtype."""

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = types
        assert x is not None
        return (TensorType(x.shape, x.dtype),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        (x,) = arrays
        assert x is not None
        return (np.asarray(self.compute(x)).reshape(x.shape),)

    def compute(self, x: Array) -> Array:
        raise NotImplementedError(self.name)


class Rising(Unary):
    """A unary operator that never falls."""

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return RISES


@dataclass(frozen=True)
class Neg(Unary):
    def compute(self, x: Array) -> Array:
        return -x

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return FALLS


@dataclass(frozen=True)
class Abs(Unary):
    def compute(self, x: Array) -> Array:
        return np.abs(x)


@dataclass(frozen=True)
class Sign(Rising):
    """``(x > 0) - (x < 0)``: 0 for 0 and for NaN."""

    def compute(self, x: Array) -> Array:
        return ((x > 0).astype(np.int8) - (x < 0)).astype(x.dtype)


@dataclass(frozen=True)
class Relu(Rising):
    """``x < 0 ? 0 : x``, so that NaN passes through."""

    def compute(self, x: Array) -> Array:
        return np.where(x < 0, x.dtype.type(0), x)


@dataclass(frozen=True)
class LeakyRelu(Unary):
    """``x < 0 ? alpha * x : x``."""

    alpha: float = 0.01

    def compute(self, x: Array) -> Array:
        return np.where(x < 0, f32(self.alpha) * x, x)

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return RISES if self.alpha >= 0 else None


@dataclass(frozen=True)
class ThresholdedRelu(Unary):
    """``x > alpha ? x : 0``."""

    alpha: float = 1.0

    def compute(self, x: Array) -> Array:
        return np.where(x > f32(self.alpha), x, f32(0))

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return RISES if self.alpha >= 0 else None


@dataclass(frozen=True)
class Line(Unary):
    """``slope * x + offset``, both steps rounded."""

    slope: float = 1.0
    offset: float = 0.0

    def compute(self, x: Array) -> Array:
        y = f32(self.slope) * x
        return y + f32(self.offset) if self.offset else y

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return RISES if self.slope >= 0 else FALLS


@dataclass(frozen=True)
class Elu(Unary):
    """``x < 0 ? alpha * (math32.exp(x) - 1) : x``."""

    alpha: float = 1.0

    def compute(self, x: Array) -> Array:
        return np.where(x < 0, f32(self.alpha) * (math32.exp(x) - f32(1)), x)

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return RISES if self.alpha >= 0 else None


@dataclass(frozen=True)
class Selu(Unary):
    """``gamma * (x <= 0 ? alpha * math32.exp(x) - alpha : x)``."""

    alpha: float = 1.67326319217681884765625
    gamma: float = 1.05070102214813232421875

    def compute(self, x: Array) -> Array:
        alpha = f32(self.alpha)
        return f32(self.gamma) * np.where(x <= 0, alpha * math32.exp(x) - alpha, x)

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return RISES if self.alpha >= 0 and self.gamma >= 0 else None


@dataclass(frozen=True)
class HardSigmoid(Unary):
    """``min(max(alpha * x + beta, 0), 1)``, by comparisons that let NaN pass."""

    alpha: float = 0.2
    beta: float = 0.5

    def compute(self, x: Array) -> Array:
        y = f32(self.alpha) * x + f32(self.beta)
        y = np.where(y < 0, f32(0), y)
        return np.where(y > 1, f32(1), y)

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return RISES if self.alpha >= 0 else FALLS


@dataclass(frozen=True)
class HardSwish(Unary):
    """``x * HardSigmoid(1/6, 0.5)(x)``."""

    def compute(self, x: Array) -> Array:
        return x * HardSigmoid(1 / 6, 0.5).compute(x)


@dataclass(frozen=True)
class Exp(Rising):
    def compute(self, x: Array) -> Array:
        return math32.exp(x)


@dataclass(frozen=True)
class Log(Unary):
    """Natural logarithm; NaN below 0, hence no direction."""

    def compute(self, x: Array) -> Array:
        return math32.log(x)


@dataclass(frozen=True)
class Tanh(Rising):
    def compute(self, x: Array) -> Array:
        return math32.tanh(x)


@dataclass(frozen=True)
class Sigmoid(Rising):
    def compute(self, x: Array) -> Array:
        return math32.sigmoid(x)


@dataclass(frozen=True)
class Erf(Rising):
    def compute(self, x: Array) -> Array:
        return math32.erf(x)


@dataclass(frozen=True)
class Softplus(Rising):
    """``log(1 + exp(x))`` as ``max(x, 0) + log(1 + exp(-|x|))``."""

    def compute(self, x: Array) -> Array:
        return np.where(x > 0, x, f32(0)) + math32.log(f32(1) + math32.exp(-np.abs(x)))


@dataclass(frozen=True)
class Softsign(Rising):
    """``x / (1 + |x|)``."""

    def compute(self, x: Array) -> Array:
        return x / (f32(1) + np.abs(x))


@dataclass(frozen=True)
class Sqrt(Unary):
    """Square root; NaN below 0, hence no direction."""

    def compute(self, x: Array) -> Array:
        return np.sqrt(x)


@dataclass(frozen=True)
class Reciprocal(Unary):
    def compute(self, x: Array) -> Array:
        return f32(1) / x


@dataclass(frozen=True)
class Floor(Rising):
    def compute(self, x: Array) -> Array:
        return np.floor(x)


@dataclass(frozen=True)
class Ceil(Rising):
    def compute(self, x: Array) -> Array:
        return np.ceil(x)


@dataclass(frozen=True)
class Trunc(Rising):
    """Towards zero."""

    def compute(self, x: Array) -> Array:
        return np.trunc(x)


@dataclass(frozen=True)
class Round(Rising):
    """To the nearest integer, halves to even."""

    def compute(self, x: Array) -> Array:
        return np.rint(x)


@dataclass(frozen=True)
class Narrow(Unary):
    """Round float32 to a narrower float format, halves to even; the result stays float32.

    `mantissa` bits behind the point, `least` the exponent of the smallest normal number, `top` the largest finite one.
    `overflow`: what numbers beyond it become: "inf", "top" (saturation) or "nan".
    """

    mantissa: int
    least: int
    top: float
    overflow: str

    def compute(self, x: Array) -> Array:
        _, exponent = np.frexp(x)
        quantum = np.ldexp(f32(1), np.maximum(exponent - 1, self.least) - self.mantissa).astype(np.float32)
        y = np.where(np.isfinite(x), np.rint(x / quantum) * quantum, x)
        beyond = f32({"inf": np.inf, "top": self.top, "nan": np.nan}[self.overflow])
        return np.where(y > f32(self.top), beyond, np.where(y < -f32(self.top), -beyond, y))

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return None if self.overflow == "nan" else RISES


@dataclass(frozen=True)
class Not(Unary):
    def compute(self, x: Array) -> Array:
        return ~x

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return FALLS


@dataclass(frozen=True)
class IsNaN(Unary):
    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        assert types[0] is not None
        return (TensorType(types[0].shape, BOOL),)

    def compute(self, x: Array) -> Array:
        return np.isnan(x)


@dataclass(frozen=True)
class Cast(Unary):
    """Convert to `dtype`.

    Floats go to integers towards zero, out of range to the nearest end of the range, NaN to 0; integers wrap around;
    everything but 0 is true.
    """

    dtype: DType = FLOAT32

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        assert types[0] is not None
        return (TensorType(types[0].shape, self.dtype),)

    def compute(self, x: Array) -> Array:
        carrier = self.dtype.carrier
        if carrier.kind == "b":
            return np.asarray(x != 0)
        if x.dtype.kind != "f" or carrier.kind == "f":
            return x.astype(carrier)
        info = np.iinfo(carrier)
        inside = (x >= float(info.min)) & (x < float(info.max) + 1)
        whole = np.where(inside, x, x.dtype.type(0)).astype(carrier)
        whole = np.where(x < float(info.min), carrier.type(info.min), whole)
        return np.where(x >= float(info.max) + 1, carrier.type(info.max), whole)

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return RISES if self.dtype.is_float else None


def _bound(value: float, dtype: np.dtype) -> Array:
    """A bound in the type of what it bounds."""
    if dtype.kind not in "iu":
        return np.array(value, dtype)
    info = np.iinfo(dtype)
    return np.array(min(max(int(value), info.min), info.max), dtype)


@dataclass(frozen=True)
class Clip(Unary):
    """``x < lo ? lo : x``, then ``x > hi ? hi : x``, so that NaN passes through. Infinite bounds do nothing."""

    lo: float = float("-inf")
    hi: float = float("inf")

    def compute(self, x: Array) -> Array:
        y = x
        if self.lo > float("-inf"):
            lo = _bound(self.lo, x.dtype)
            y = np.where(y < lo, lo, y)
        if self.hi < float("inf"):
            hi = _bound(self.hi, x.dtype)
            y = np.where(y > hi, hi, y)
        return y

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return RISES
