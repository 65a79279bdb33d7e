"""Pooling over NHWC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bitc.ir.box import Box
from bitc.ir.dtypes import INT64, from_numpy
from bitc.ir.graph import Array, Channels, Op
from bitc.ir.types import TensorType
from bitc.ops.epilogue import Requant
from bitc.ops.window import Window, empty_output, spatial


def _limits(dtype: np.dtype) -> tuple[Array, Array]:
    """Smallest and largest value of a type; infinities for floats."""
    if dtype.kind in "iu":
        return np.array(np.iinfo(dtype).min, dtype), np.array(np.iinfo(dtype).max, dtype)
    limits = from_numpy(dtype)
    return np.array(limits.min, dtype), np.array(limits.max, dtype)


@dataclass(frozen=True)
class MaxPool(Op):
    """Maximum of the real values in each window; taps in the padding are skipped.

    Inputs: x ``[N, H, W, C]``, optionally `minimum` bool ``[C]``: channels in which the minimum is taken instead (a
    max pool that stood before a decreasing function). On bit1 the code of the larger value is 0, so the maximum is
    the AND of codes and the minimum their OR.
    """

    window: Window

    def input_window(self, output: Box, index: int) -> Box | None:
        return self.window.input_box(output)

    def on_window(self, pads: tuple[int, int, int, int], size: tuple[int, int]) -> Op:
        return replace(self, window=replace(self.window, pads=pads))

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        x = types[0]
        assert x is not None
        oh, ow = self.window.out_size((x.shape[1], x.shape[2]))
        return (x.with_shape((x.shape[0], oh, ow, x.shape[3])),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        x = arrays[0]
        assert x is not None
        minimum = arrays[1] if len(arrays) > 1 and arrays[1] is not None else np.zeros(x.shape[3], np.bool_)
        as_min = ~minimum if x.dtype.kind == "b" else minimum
        low, high = _limits(x.dtype)
        out = empty_output(x, self.window, x.shape[3], x.dtype)
        out[:] = np.where(as_min, high, low)
        for _, _, (oy, ox), (iy, ix) in self.window.taps(spatial(x)):
            # `x > best` as in C: a NaN never replaces a number.
            best, new = out[:, oy, ox], x[:, iy, ix]
            out[:, oy, ox] = np.where(np.where(as_min, new < best, new > best), new, best)
        return (out,)


@dataclass(frozen=True)
class ArgMaxPool(Op):
    """Where the maximum of each window stands in its channel: ``row * width + column`` (int64); of equal ones the
    first. Inputs: x ``[N, H, W, C]``."""

    window: Window

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = types
        assert x is not None
        oh, ow = self.window.out_size((x.shape[1], x.shape[2]))
        return (TensorType((x.shape[0], oh, ow, x.shape[3]), INT64),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        (x,) = arrays
        assert x is not None
        best = empty_output(x, self.window, x.shape[3], x.dtype)
        at = np.full(best.shape, -1, np.int64)
        places = np.arange(x.shape[1] * x.shape[2]).reshape(1, x.shape[1], x.shape[2], 1)
        for _, _, (oy, ox), (iy, ix) in self.window.taps(spatial(x)):
            new, old = x[:, iy, ix], best[:, oy, ox]
            better = (at[:, oy, ox] < 0) | (new > old)
            best[:, oy, ox] = np.where(better, new, old)
            at[:, oy, ox] = np.where(better, places[:, iy, ix], at[:, oy, ox])
        return (at,)


@dataclass(frozen=True)
class AveragePool(Op):
    """Mean of each window over the taps inside the input, or over the whole window if `count_include_pad`.

    Floats are summed in the order ky, kx and divided by the number of taps. On integer codes the sum of
    ``x - x_zero`` is an accumulator for `requant`, whose parameters (inputs after x) have one element, or one for each
    number of taps from 0 to that of the whole window: the division is part of their factor.
    """

    window: Window
    count_include_pad: bool = False
    x_zero: int = 0
    requant: Requant | None = None

    def on_channels(self, start: int, stop: int, of: int, constants: Sequence[Array | None]) -> Channels | None:
        return Channels(self, tuple(constants))  # parameters differ by the number of taps

    def input_window(self, output: Box, index: int) -> Box | None:
        return self.window.input_box(output)

    def on_window(self, pads: tuple[int, int, int, int], size: tuple[int, int]) -> Op:
        return replace(self, window=replace(self.window, pads=pads))

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        x = types[0]
        assert x is not None
        oh, ow = self.window.out_size((x.shape[1], x.shape[2]))
        pooled = x.with_shape((x.shape[0], oh, ow, x.shape[3]))
        return (self.requant.infer(pooled) if self.requant else pooled,)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        x = arrays[0]
        assert x is not None
        numbers = x.astype(np.int32) - self.x_zero if self.requant else x
        total = empty_output(x, self.window, x.shape[3], numbers.dtype)
        count = np.zeros(total.shape[1:3], np.int64)
        for _, _, (oy, ox), (iy, ix) in self.window.taps(spatial(x)):
            total[:, oy, ox] += numbers[:, iy, ix]
            count[oy, ox] += 1
        if self.count_include_pad:
            count[:] = self.window.kernel[0] * self.window.kernel[1]
        if self.requant is None:
            return ((total / count[None, :, :, None]).astype(x.dtype),)
        by_count = (p if p is None or p.size == 1 else p[count][None, :, :, None] for p in arrays[1:])
        return (self.requant.apply(total, *by_count),)
