"""What happens between an accumulator and a layer's output.

An epilogue is used in two ways: fused into a kernel (`Conv2D.epilogue`), or as a node of its own (`Requantize`). Its
parameters are inputs of that node, after the operator's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitc.ir.dtypes import BIT1, FLOAT32, TERN, DType
from bitc.ir.graph import Array
from bitc.ir.types import DENSE, Quant, TensorType


class Epilogue:
    """Base. `param_names` names the parameter inputs, each broadcastable to the accumulator on the right."""

    param_names: tuple[str, ...] = ()

    def infer(self, acc: TensorType) -> TensorType:
        raise NotImplementedError

    def apply(self, acc: Array, *params: Array | None) -> Array:
        raise NotImplementedError


@dataclass(frozen=True)
class Affine(Epilogue):
    """``y = min(max(float(acc) * scale + bias, lo), hi)`` in float32, rounding after each step."""

    lo: float = float("-inf")
    hi: float = float("inf")

    param_names = ("scale", "bias")

    def infer(self, acc: TensorType) -> TensorType:
        return TensorType(acc.shape, FLOAT32)

    def apply(self, acc: Array, *params: Array | None) -> Array:
        scale, bias = params
        y = acc.astype(np.float32) * np.asarray(scale, np.float32) + np.asarray(bias, np.float32)
        # Comparisons as in C, so that NaN passes through.
        y = np.where(y < np.float32(self.lo), np.float32(self.lo), y)
        return np.where(y > np.float32(self.hi), np.float32(self.hi), y).astype(np.float32)


@dataclass(frozen=True)
class Threshold(Epilogue):
    """Two-valued output: the high value (code 0) where ``acc >= t``, the low one (code 1) elsewhere.

    `quant` maps the code to reals. Where the optional parameter `flip` is true the channel is high where ``acc <= t``.
    A NaN accumulator gives the high value, or the low one if `nan_low`. Sign of a batch norm becomes this: for
    gamma > 0, ``gamma * (x - mu) / s + beta >= 0`` is ``x >= mu - beta * s / gamma``; the passes find t by search.
    """

    quant: Quant
    nan_low: bool = False

    param_names = ("t", "flip")

    def infer(self, acc: TensorType) -> TensorType:
        return TensorType(acc.shape, BIT1, DENSE, self.quant)

    def apply(self, acc: Array, *params: Array | None) -> Array:
        t = params[0]
        flip = params[1] if len(params) > 1 else None
        low = acc < t if flip is None else np.where(flip, acc > t, acc < t)
        if self.nan_low:
            low = low | np.isnan(acc)
        return np.broadcast_to(low, acc.shape).astype(np.bool_)


@dataclass(frozen=True)
class Levels(Epilogue):
    """Few-valued output: how many of the parameters t1, t2, ... (ascending) are ``<= acc``; the code is a number from 0
    to `largest`, of type `dtype`.

    `quant` maps the code to reals. Where the optional `flip` is true the code is how many of the parameters (descending
    there) are ``>= acc``. NaN gives 0. Any quantizer of few evenly spaced values becomes this: its thresholds are where
    its output steps up.
    """

    quant: Quant
    dtype: DType
    largest: int

    @property
    def param_names(self) -> tuple[str, ...]:  # type: ignore[override]  # here they depend on a field
        return (*(f"t{i + 1}" for i in range(self.largest)), "flip")

    def infer(self, acc: TensorType) -> TensorType:
        return TensorType(acc.shape, self.dtype, DENSE, self.quant)

    def apply(self, acc: Array, *params: Array | None) -> Array:
        flip = params[self.largest] if len(params) > self.largest else None
        code = np.zeros(acc.shape, self.dtype.carrier)
        for t in params[: self.largest]:
            code += acc >= t if flip is None else np.where(flip, acc <= t, acc >= t)
        return code


@dataclass(frozen=True)
class TernThreshold(Epilogue):
    """Three-valued output: +1 where ``acc >= t_high``, -1 where ``acc < t_low``, 0 between (t_low <= t_high).

    Where the optional `flip` is true the channel is negated with mirrored comparisons: +1 where ``acc <= t_high``,
    -1 where ``acc > t_low`` (t_low >= t_high). NaN gives 0.
    """

    quant: Quant

    param_names = ("t_low", "t_high", "flip")

    def infer(self, acc: TensorType) -> TensorType:
        return TensorType(acc.shape, TERN, DENSE, self.quant)

    def apply(self, acc: Array, *params: Array | None) -> Array:
        t_low, t_high = params[0], params[1]
        flip = params[2] if len(params) > 2 else None
        plus, minus = acc >= t_high, acc < t_low
        if flip is not None:
            plus, minus = np.where(flip, acc <= t_high, plus), np.where(flip, acc > t_low, minus)
        code = plus.astype(np.int8) - minus.astype(np.int8)
        return np.broadcast_to(code, acc.shape).astype(np.int8)


@dataclass(frozen=True)
class Bases(Epilogue):
    """Sums of several accumulators for each output, as of weights ``W = sum_i alpha_i * B_i`` with B_i in {-1, +1}:

        total[o] = sum_i factor[i, o] * acc[bases * o + i]

    and then what `then` makes of the totals. Factors are float32, and the sum is rounded after each step, in the order
    of i; or they are int32 below 2**31 and the sum is exact in int64, as are then the thresholds it is compared with.
    Accumulators, ``[..., bases * O]``, lie side by side for each output.
    """

    bases: int
    then: Affine | Threshold | TernThreshold

    @property
    def param_names(self) -> tuple[str, ...]:  # type: ignore[override]  # here they depend on a field
        return ("factor", *self.then.param_names)

    def infer(self, acc: TensorType) -> TensorType:
        return self.then.infer(acc.with_shape((*acc.shape[:-1], acc.channels // self.bases)))

    def apply(self, acc: Array, *params: Array | None) -> Array:
        factor = params[0]
        assert factor is not None
        parts = np.moveaxis(acc.reshape(*acc.shape[:-1], -1, self.bases), -1, 0)
        kind = np.float32 if factor.dtype.kind == "f" else np.int64
        total = parts[0].astype(kind) * factor[0].astype(kind)
        for part, own in zip(parts[1:], factor[1:], strict=True):
            total = total + part.astype(kind) * own.astype(kind)
        return self.then.apply(total, *params[1:])


def bases(epilogue: Epilogue | None) -> int:
    """Accumulators per output."""
    return epilogue.bases if isinstance(epilogue, Bases) else 1


def round_half_even(product: Array, shift: Array | int) -> Array:
    """``product / 2**shift`` rounded to the nearest integer, halves to even: exact int64 for ``0 <= shift <= 62``."""
    half = np.where(np.asarray(shift) > 0, np.int64(1) << np.maximum(np.asarray(shift, np.int64) - 1, 0), 0)
    odd = np.where(np.asarray(shift) > 0, (product >> shift) & 1, 1)
    rounded: Array = (product + half - 1 + odd) >> shift
    return rounded


@dataclass(frozen=True)
class Requant(Epilogue):
    """``y = clip(round_half_even((acc + bias) * multiplier / 2**shift) + zero, lo, hi)``, in exact integers.

    `dtype` and `zero` are y's type and zero point, `lo` and `hi` codes: a Relu or Clip in front of a quantizer is
    folded there. `quant` is the real meaning of y's codes. The parameters are int32; ``0 <= multiplier < 2**31``,
    ``0 <= shift <= 62`` and ``|acc + bias| < 2**31`` hold for every reachable accumulator.

    ``multiplier / 2**shift`` is onnxruntime's float32 factor ``x_scale * w_scale / y_scale`` taken exactly, so results
    differ from onnxruntime's only where its float product ``acc * factor`` rounds across a half.
    """

    dtype: DType
    zero: int
    lo: int
    hi: int
    quant: Quant | None = None

    param_names = ("bias", "multiplier", "shift")

    def infer(self, acc: TensorType) -> TensorType:
        return TensorType(acc.shape, self.dtype, DENSE, self.quant)

    def apply(self, acc: Array, *params: Array | None) -> Array:
        bias, multiplier, shift = (np.asarray(p, np.int64) for p in params)
        return self.finish(round_half_even((acc.astype(np.int64) + bias) * multiplier, shift))

    def finish(self, rounded: Array) -> Array:
        """Codes of int64 numbers in steps of y."""
        codes: Array = np.clip(rounded + self.zero, self.lo, self.hi).astype(self.dtype.carrier)
        return codes


@dataclass(frozen=True)
class FixedPoint(Epilogue):
    """``y = clip(floor((acc * multiplier + addend) / 2**shift) + zero, lo, hi)``, in exact integers, for what `Requant`
    can not express: integer divisions (of networks in fixed point), and biases between two integers of the accumulator.

    `out` holds type, zero point and limits. ``0 <= multiplier < 2**31`` and ``0 <= shift <= 62`` are int32, addend is
    int64; ``|acc * multiplier + addend| < 2**62``.
    """

    out: Requant

    param_names = ("multiplier", "addend", "shift")

    def infer(self, acc: TensorType) -> TensorType:
        return self.out.infer(acc)

    def apply(self, acc: Array, *params: Array | None) -> Array:
        multiplier, addend, shift = (np.asarray(p, np.int64) for p in params)
        return self.out.finish((acc.astype(np.int64) * multiplier + addend) >> shift)
