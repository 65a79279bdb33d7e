"""Pointwise operators on the bits of integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitc.ir.dtypes import INT32, DType
from bitc.ir.graph import Array
from bitc.ir.types import TensorType
from bitc.ops.binary import Binary
from bitc.ops.unary import Unary


@dataclass(frozen=True)
class BitAnd(Binary):
    def compute(self, a: Array, b: Array) -> Array:
        return a & b


@dataclass(frozen=True)
class BitOr(Binary):
    def compute(self, a: Array, b: Array) -> Array:
        return a | b


@dataclass(frozen=True)
class BitXor(Binary):
    def compute(self, a: Array, b: Array) -> Array:
        return a ^ b


@dataclass(frozen=True)
class Invert(Unary):
    """Every bit of an integer inverted."""

    def compute(self, x: Array) -> Array:
        return ~x


@dataclass(frozen=True)
class Shift(Binary):
    """``a << b``, or ``a >> b`` unless `left`; signed integers shift right arithmetically. Where b is negative or not
    below the width of the type, the result is the sign alone: -1 for a negative a shifted right, else 0."""

    left: bool = True

    def compute(self, a: Array, b: Array) -> Array:
        width = a.dtype.itemsize * 8
        inside = (b >= 0) & (b < width)
        by = np.where(inside, b, b.dtype.type(0))
        if self.left:
            return np.where(inside, np.left_shift(a, by), a.dtype.type(0))
        sign = np.where(a < 0, ~a.dtype.type(0), a.dtype.type(0))
        return np.where(inside, np.right_shift(a, by), sign)


@dataclass(frozen=True)
class BitCast(Unary):
    """The same bits as another type of the same width."""

    dtype: DType = INT32

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = types
        assert x is not None and x.dtype.bits == self.dtype.bits, f"{x} as {self.dtype}"
        return (TensorType(x.shape, self.dtype),)

    def compute(self, x: Array) -> Array:
        return np.ascontiguousarray(x).view(self.dtype.carrier)
