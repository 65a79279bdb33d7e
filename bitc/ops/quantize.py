"""Between reals and codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bitc.ir.box import Box
from bitc.ir.dtypes import FLOAT32, DType
from bitc.ir.graph import Array, Channels, Op, last_axis
from bitc.ir.types import DENSE, Layout, Quant, TensorType
from bitc.ops.base import Pointwise, broadcast_type
from bitc.ops.epilogue import Epilogue


@dataclass(frozen=True)
class Dequantize(Pointwise):
    """Codes to float32 reals: ``scale * (code - zero) + offset`` (products and sums round); channels are the last
    axis."""

    quant: Quant

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = types
        assert x is not None
        return (TensorType(x.shape, FLOAT32),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        (x,) = arrays
        assert x is not None
        return (self.quant.decode(x),)

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        return np.asarray(np.sign(self.quant.scale))


@dataclass(frozen=True)
class Quantize(Pointwise):
    """Float32 reals to codes: ``clip(round_half_even(x / scale) + zero, lo, hi)``, each step in float32; NaN gives 0.

    Inputs: x, scale, zero (floats of integer value); they broadcast.
    """

    dtype: DType
    lo: int
    hi: int

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        x, scale, zero = types
        assert x is not None and scale is not None and zero is not None
        return (TensorType(broadcast_type(x, scale, zero).shape, self.dtype),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, scale, zero = arrays
        assert x is not None and scale is not None and zero is not None
        y = np.clip(np.round(x / scale) + zero, np.float32(self.lo), np.float32(self.hi))
        return (np.where(np.isnan(y), np.float32(0), y).astype(self.dtype.carrier),)

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        scale = inputs[1]
        return None if index or scale is None else np.sign(scale)


@dataclass(frozen=True)
class Requantize(Op):
    """An epilogue as a node of its own. Inputs: x (accumulators or reals), then the epilogue's parameters."""

    epilogue: Epilogue

    def input_window(self, output: Box, index: int) -> Box | None:
        return output

    def on_channels(self, start: int, stop: int, of: int, constants: Sequence[Array | None]) -> Channels | None:
        return Channels(self, last_axis(constants, start, stop, of))

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        assert types[0] is not None
        return (self.epilogue.infer(types[0]),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        assert arrays[0] is not None
        return (self.epilogue.apply(arrays[0], *arrays[1:]),)


@dataclass(frozen=True)
class Repack(Op):
    """The same codes in another packed layout. Inserted where the layouts of producer and consumer differ."""

    layout: Layout = DENSE

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = types
        assert x is not None
        return (TensorType(x.shape, x.dtype, self.layout, x.quant),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        assert arrays[0] is not None
        return (arrays[0],)
