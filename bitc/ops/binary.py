"""Pointwise operators of two or more operands, which broadcast as in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitc.ir.dtypes import BOOL
from bitc.ir.graph import Array
from bitc.ir.types import TensorType
from bitc.ops import math32
from bitc.ops.base import Pointwise, broadcast_type
from bitc.ops.unary import FALLS, RISES


class Binary(Pointwise):
    """Base: `compute` of two arrays of one dtype gives that dtype."""

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        a, b = types
        assert a is not None and b is not None
        assert a.dtype is b.dtype, f"operands are {a} and {b}"
        return (broadcast_type(a, b),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        a, b = arrays
        assert a is not None and b is not None
        return (np.asarray(self.compute(a, b)).reshape(np.broadcast_shapes(a.shape, b.shape)),)

    def compute(self, a: Array, b: Array) -> Array:
        raise NotImplementedError(self.name)


def _sign(array: Array | None) -> Array | None:
    """Signs of a finite constant operand."""
    if array is None or not np.isfinite(array).all():
        return None
    return np.sign(array).astype(np.int8)


@dataclass(frozen=True)
class Add(Binary):
    def compute(self, a: Array, b: Array) -> Array:
        return a + b

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return RISES


@dataclass(frozen=True)
class Sub(Binary):
    def compute(self, a: Array, b: Array) -> Array:
        return a - b

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return FALLS if index else RISES


@dataclass(frozen=True)
class Mul(Binary):
    def compute(self, a: Array, b: Array) -> Array:
        return a * b

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return _sign(inputs[1 - index])


@dataclass(frozen=True)
class Div(Binary):
    """Integers divide towards zero; an integer divided by 0 gives 0."""

    def compute(self, a: Array, b: Array) -> Array:
        if a.dtype.kind == "f":
            return a / b
        divisor = np.where(b == 0, b.dtype.type(1), b)
        quotient = (a - np.fmod(a, divisor)) // divisor
        return np.where(b == 0, a.dtype.type(0), quotient)

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        divisor = inputs[1]
        if index or divisor is None or not divisor.all():
            return None
        return _sign(divisor)


@dataclass(frozen=True)
class Pow(Binary):
    """``a`` to the power ``b``, computed in the dtype of `a`. Integers wrap around; to a negative power they give 0, or
    ±1 if they are ±1."""

    def compute(self, a: Array, b: Array) -> Array:
        if a.dtype.kind == "f":
            return math32.pow(a, b)
        a, b = np.broadcast_arrays(a, b)
        one, factor, rest = a.dtype.type(1), a.copy(), np.maximum(b, b.dtype.type(0))
        result = np.full(a.shape, one)
        while (rest > 0).any():
            result = np.where(rest & one, result * factor, result)
            factor, rest = factor * factor, rest >> one
        if b.dtype.kind == "u":
            return result
        odd = np.where(b & one, a, one)
        return np.where(b >= 0, result, np.where(a == one, one, np.where(a == -one, odd, a.dtype.type(0))))

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        exponent = inputs[1]
        odd = exponent is not None and bool(((exponent > 0) & (np.fmod(exponent, 2) == 1)).all())
        return RISES if index == 0 and odd else None


@dataclass(frozen=True)
class Min(Binary):
    """``b < a ? b : a``."""

    def compute(self, a: Array, b: Array) -> Array:
        return np.where(b < a, b, a)

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return RISES


@dataclass(frozen=True)
class Max(Binary):
    """``b > a ? b : a``."""

    def compute(self, a: Array, b: Array) -> Array:
        return np.where(b > a, b, a)

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return RISES


@dataclass(frozen=True)
class Mod(Binary):
    """Remainder: with the sign of the divisor, or with the sign of the dividend if `fmod` (as C). Modulo the integer 0
    gives 0."""

    fmod: bool = False

    def compute(self, a: Array, b: Array) -> Array:
        function = np.fmod if self.fmod else np.mod
        if a.dtype.kind == "f":
            return np.asarray(function(a, b))
        return np.where(b == 0, a.dtype.type(0), function(a, np.where(b == 0, b.dtype.type(1), b)))


@dataclass(frozen=True)
class PRelu(Binary):
    """``x < 0 ? slope * x : x``. Inputs: x, slope."""

    def compute(self, a: Array, b: Array) -> Array:
        return np.where(a < 0, b * a, a)

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (out,) = super().infer(*types)
        assert types[0] is not None and out.shape == types[0].shape, "the slope must broadcast to the input"
        return (out,)

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        slope = inputs[1]
        return RISES if index == 0 and slope is not None and bool((slope >= 0).all()) else None


class Comparison(Binary):
    """Base of comparisons: the result is bool."""

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (out,) = super().infer(*types)
        return (TensorType(out.shape, BOOL),)


@dataclass(frozen=True)
class Less(Comparison):
    def compute(self, a: Array, b: Array) -> Array:
        return a < b

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return RISES if index else FALLS


@dataclass(frozen=True)
class LessOrEqual(Comparison):
    def compute(self, a: Array, b: Array) -> Array:
        return a <= b

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return RISES if index else FALLS


@dataclass(frozen=True)
class Greater(Comparison):
    def compute(self, a: Array, b: Array) -> Array:
        return a > b

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return FALLS if index else RISES


@dataclass(frozen=True)
class GreaterOrEqual(Comparison):
    def compute(self, a: Array, b: Array) -> Array:
        return a >= b

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return FALLS if index else RISES


@dataclass(frozen=True)
class Equal(Comparison):
    def compute(self, a: Array, b: Array) -> Array:
        return np.asarray(a == b)


@dataclass(frozen=True)
class And(Binary):
    """Of bools."""

    def compute(self, a: Array, b: Array) -> Array:
        return a & b

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return RISES


@dataclass(frozen=True)
class Or(Binary):
    """Of bools."""

    def compute(self, a: Array, b: Array) -> Array:
        return a | b

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return RISES


@dataclass(frozen=True)
class Xor(Binary):
    """Of bools."""

    def compute(self, a: Array, b: Array) -> Array:
        return a ^ b


@dataclass(frozen=True)
class Where(Pointwise):
    """``condition ? x : y``. Inputs: condition (bool), x, y."""

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        c, x, y = types
        assert c is not None and x is not None and y is not None
        assert c.dtype is BOOL and x.dtype is y.dtype, f"operands are {c}, {x} and {y}"
        return (broadcast_type(x, c, y),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        c, x, y = arrays
        assert c is not None and x is not None and y is not None
        return (np.where(c, x, y),)

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        if index:
            return RISES
        x, y = inputs[1], inputs[2]
        return None if x is None or y is None else (x > y).astype(np.int8) - (x < y).astype(np.int8)


@dataclass(frozen=True)
class MultiThreshold(Pointwise):
    """``scale * count + bias``, where count is how many of the channel's thresholds are <= x.

    Inputs: x ``[..., C, ...]`` with channels on `axis`, counted from the end (negative); thresholds ``[C, T]`` or
    ``[1, T]``. FINN's operator of that name. The output is float32; both steps round.
    """

    scale: float = 1.0
    bias: float = 0.0
    axis: int = -1

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        x, t = types
        assert x is not None and t is not None
        assert t.rank == 2 and t.shape[0] in (1, x.shape[self.axis]), f"thresholds are {t}, the input is {x}"
        return (TensorType(x.shape, x.dtype),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, t = arrays
        assert x is not None and t is not None
        shape = [1] * x.ndim
        shape[self.axis] = t.shape[0]
        count = np.zeros(np.broadcast_shapes(x.shape, tuple(shape)), np.float32)
        for step in t.T:
            count += x >= step.reshape(shape)
        return (count * np.float32(self.scale) + np.float32(self.bias),)

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return None if index else np.array(np.sign(self.scale), np.int8)
