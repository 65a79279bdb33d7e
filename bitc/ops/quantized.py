"""Elementwise operators on integer codes, in exact integer arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitc.ir.box import Box
from bitc.ir.dtypes import DType
from bitc.ir.graph import Array, Op
from bitc.ir.types import DENSE, Quant, TensorType
from bitc.ops.base import Pointwise, broadcast_type
from bitc.ops.epilogue import Requant, round_half_even


class _TwoCodes(Pointwise):
    """Base: two tensors of codes, which broadcast, and the codes `out` of the result."""

    out: Requant

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        a, b = types
        assert a is not None and b is not None
        return (self.out.infer(broadcast_type(a, b)),)


@dataclass(frozen=True)
class AddRequant(_TwoCodes):
    """Sum of two tensors of codes (they broadcast), in the codes of a third:

        ``y = round_half_even(((a - a_zero) * a_multiplier + (b - b_zero) * b_multiplier) / 2**shift)``

    then the zero point and limits of `out`. A multiplier may be negative, for a difference. The sum of products is
    below 2**62 in magnitude.
    """

    a_zero: int
    a_multiplier: int
    b_zero: int
    b_multiplier: int
    shift: int
    out: Requant

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        a, b = arrays
        assert a is not None and b is not None
        left = (a.astype(np.int64) - self.a_zero) * self.a_multiplier
        right = (b.astype(np.int64) - self.b_zero) * self.b_multiplier
        return (self.out.finish(round_half_even(left + right, self.shift)),)

    def reach(self, a: DType, b: DType) -> int:
        """The largest magnitude of the sum of products, which `factor` applies to."""
        return _reach(a, self.a_zero) * abs(self.a_multiplier) + _reach(b, self.b_zero) * abs(self.b_multiplier)

    @property
    def factor(self) -> tuple[int, int, int]:
        """Bias, multiplier and shift of the epilogue."""
        return 0, 1, self.shift


@dataclass(frozen=True)
class MulRequant(_TwoCodes):
    """Product of two tensors of codes (they broadcast), in the codes of a third:

        ``y = round_half_even((a - a_zero) * (b - b_zero) * multiplier / 2**shift)``

    then the zero point and limits of `out`; ``0 <= multiplier < 2**31``. The product is below 2**62 in magnitude.
    """

    a_zero: int
    b_zero: int
    multiplier: int
    shift: int
    out: Requant

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        a, b = arrays
        assert a is not None and b is not None
        product = (a.astype(np.int64) - self.a_zero) * (b.astype(np.int64) - self.b_zero)
        return (self.out.finish(round_half_even(product * self.multiplier, self.shift)),)

    def reach(self, a: DType, b: DType) -> int:
        """The largest magnitude of the product of two codes, which `factor` applies to."""
        return _reach(a, self.a_zero) * _reach(b, self.b_zero)

    @property
    def factor(self) -> tuple[int, int, int]:
        """Bias, multiplier and shift of the epilogue."""
        return 0, self.multiplier, self.shift


@dataclass(frozen=True)
class Lookup(Op):
    """Any function of one int8 or uint8 code: ``y = table[x - min]``, with min the least code of x's type.

    Inputs: x, table ``[256]`` of the output's dtype. `quant` is the real meaning of y, if it is codes.
    """

    quant: Quant | None = None

    def input_window(self, output: Box, index: int) -> Box | None:
        return output if index == 0 else None

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        x, table = types
        assert x is not None and table is not None and x.dtype.bits == 8 and table.shape == (256,), (x, table)
        return (TensorType(x.shape, table.dtype, DENSE, self.quant),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, table = arrays
        assert x is not None and table is not None
        return (table[x.astype(np.int64) - np.iinfo(x.dtype).min],)


def _reach(dtype: DType, zero: int) -> int:
    return max(abs(int(dtype.min) - zero), abs(int(dtype.max) - zero))
