"""Convolution and matrix multiplication."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bitc.ir.box import Box
from bitc.ir.dtypes import FLOAT32, INT32
from bitc.ir.graph import Array, Channels, Op, last_axis
from bitc.ir.types import TensorType
from bitc.ops.epilogue import Epilogue, bases
from bitc.ops.window import Window, empty_output, spatial


def units(codes: Array) -> Array:
    """Codes as the numbers that enter a product: bits (held as bool) become +1 (code 0) and -1 (code 1)."""
    return 1 - 2 * codes.astype(np.int32) if codes.dtype.kind == "b" else codes


@dataclass(frozen=True)
class Conv2D(Op):
    """Convolution over NHWC, on codes. Dense layers are the case of a 1x1 kernel on 1x1 pixels.

    Inputs: x ``[N, H, W, C]``, w ``[O, kh, kw, C / group]``, then the parameters of `epilogue`. The operand dtypes
    say what is multiplied: bit1 counts as +1/-1, tern as -1/0/1, integers and float32 as themselves; scales are not
    applied. Accumulators are int32 if both operands are integer codes, else float32 summed one product at a time in
    the order ky, kx, channel, from 0. Taps in the padding are skipped. Without an epilogue the output is the
    accumulator, ``[N, OH, OW, O]``; with `Bases`, w has several kernels for each output. With `planar`, x is
    ``[N, C, H, W]`` instead: an image as cameras and ONNX give it.

    `x_zero` is the code of x that means 0: products are ``(x - x_zero) * w``, of integers only.
    """

    window: Window
    group: int = 1
    epilogue: Epilogue | None = None
    planar: bool = False
    x_zero: int = 0

    def input_window(self, output: Box, index: int) -> Box | None:
        return self.window.input_box(output) if index == 0 and not self.planar else None

    def on_window(self, pads: tuple[int, int, int, int], size: tuple[int, int]) -> Op:
        return replace(self, window=replace(self.window, pads=pads))

    def on_channels(self, start: int, stop: int, of: int, constants: Sequence[Array | None]) -> Channels | None:
        if len(constants) < 2 or constants[1] is None:
            return None
        rest, per = last_axis(constants[2:], start, stop, of), bases(self.epilogue)
        weights = constants[1][start * per : stop * per]
        if self.group == of and weights.shape[3] == 1 and of > 1:  # channel by channel
            return Channels(replace(self, group=stop - start), (constants[0], weights, *rest))
        if self.group != 1:
            return None
        return Channels(self, (constants[0], weights, *rest), all_inputs=True)

    def pixels(self, x: TensorType) -> TensorType:
        """Type of x as ``[N, H, W, C]``."""
        return x.with_shape(tuple(x.shape[i] for i in (0, 2, 3, 1))) if self.planar else x

    def accumulator(self, x: TensorType, w: TensorType) -> TensorType:
        """Type of the accumulator."""
        x = self.pixels(x)
        oh, ow = self.window.out_size((x.shape[1], x.shape[2]))
        dtype = INT32 if x.dtype.is_integer and w.dtype.is_integer else FLOAT32
        return TensorType((x.shape[0], oh, ow, w.shape[0]), dtype)

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        x, w = types[0], types[1]
        assert x is not None and w is not None
        channels = self.pixels(x).shape[3]
        assert channels == w.shape[3] * self.group and w.shape[0] % self.group == 0, (x.shape, w.shape, self.group)
        acc = self.accumulator(x, w)
        return (self.epilogue.infer(acc) if self.epilogue else acc,)

    def reach(self, x: TensorType, w: Array) -> Array:
        """The largest magnitude that an accumulator of integer codes can have, for each output."""
        low, high = self.span(x, w)
        return np.maximum(-low, high)

    def span(self, x: TensorType, w: Array) -> tuple[Array, Array]:
        """Lowest and highest accumulator of integer codes, for each output; 0 lies between."""
        bits = x.dtype.carrier.kind == "b"
        least, most = (-1, 1) if bits else (int(x.dtype.min) - self.x_zero, int(x.dtype.max) - self.x_zero)
        rows = units(w).reshape(len(w), -1).astype(np.int64)
        plus, minus = np.maximum(rows, 0).sum(axis=1), np.minimum(rows, 0).sum(axis=1)
        least, most = min(least, 0), max(most, 0)
        return least * plus + most * minus, most * plus + least * minus

    def macs(self, x: TensorType, w: TensorType) -> int:
        """Multiply-accumulates, padding taps included (the field's convention)."""
        acc = self.accumulator(x, w)
        return acc.size * w.size // w.shape[0]

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, w = arrays[0], arrays[1]
        assert x is not None and w is not None
        image = x.transpose(0, 2, 3, 1) if self.planar else x
        image = units(image)
        acc = self._accumulate(image.astype(np.int32) - self.x_zero if self.x_zero else image, units(w))
        return (self.epilogue.apply(acc, *arrays[2:]) if self.epilogue else acc,)

    def _accumulate(self, x: Array, w: Array, start: Array | float = 0) -> Array:
        integer = x.dtype.kind in "iu" and w.dtype.kind in "iu"
        outputs, per_group = w.shape[0], w.shape[0] // self.group
        channels = x.shape[3] // self.group
        acc = empty_output(x, self.window, outputs, np.dtype(np.int32 if integer else np.float32))
        acc[:] = start
        for g in range(self.group):
            xs = x[..., g * channels : (g + 1) * channels]
            ws = w[g * per_group : (g + 1) * per_group]
            out = acc[..., g * per_group : (g + 1) * per_group]
            for ky, kx, (oy, ox), (iy, ix) in self.window.taps(spatial(x)):
                patch, taps = xs[:, iy, ix], ws[:, ky, kx]
                if integer:  # exact in float64 below 2**53, and much faster than integer matmul
                    out[:, oy, ox] += (patch.astype(np.float64) @ taps.T.astype(np.float64)).astype(np.int32)
                    continue
                for c in range(channels):
                    product = patch[..., c : c + 1].astype(np.float32) * taps[:, c].astype(np.float32)
                    out[:, oy, ox] += product
        return acc


@dataclass(frozen=True)
class AddProducts(Op):
    """A total per output plus the products of a whole image, as `Conv2D` with one window sums them, but starting from
    the total: on the rows of an image one after the other the same sum as on all of it.

    Inputs: total ``[1, 1, 1, O]``, int32 or float32 as the accumulators of `conv`; x ``[1, H, W, C]``, w
    ``[O, H, W, C]``.
    """

    window: Window
    x_zero: int = 0

    @property
    def conv(self) -> Conv2D:
        """The same products on their own."""
        return Conv2D(self.window, x_zero=self.x_zero)

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        total, x, w = types
        assert total is not None and x is not None and w is not None and self.conv.infer(x, w) == (total,)
        return (total,)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        total, x, w = arrays
        assert total is not None and x is not None and w is not None
        image = units(x)
        image = image.astype(np.int32) - self.x_zero if self.x_zero else image
        return (self.conv._accumulate(image, units(w), total),)

    def macs(self, x: TensorType, w: TensorType) -> int:
        """Multiply-accumulates."""
        return self.conv.macs(x, w)


@dataclass(frozen=True)
class MatMul(Op):
    """Numpy matmul of float32 operands; sums run over the inner axis in order, one product at a time, from 0.

    Products with a constant matrix become `Conv2D`; this is for two computed operands.
    """

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        a, b = types
        assert a is not None and b is not None
        left = a.shape if a.rank > 1 else (1, *a.shape)
        right = b.shape if b.rank > 1 else (*b.shape, 1)
        assert min(a.rank, b.rank) > 0 and left[-1] == right[-2], f"operands are {a} and {b}"
        rows = left[-2:-1] if a.rank > 1 else ()
        columns = right[-1:] if b.rank > 1 else ()
        return (TensorType((*np.broadcast_shapes(left[:-2], right[:-2]), *rows, *columns), a.dtype),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        a, b = arrays
        assert a is not None and b is not None
        if a.dtype.kind in "iu":
            return (np.matmul(a, b),)
        left = a[None, :] if a.ndim == 1 else a
        right = b[:, None] if b.ndim == 1 else b
        shape = (*np.broadcast_shapes(left.shape[:-2], right.shape[:-2]), left.shape[-2], right.shape[-1])
        acc = np.zeros(shape, a.dtype)
        for k in range(left.shape[-1]):
            acc += left[..., :, k : k + 1] * right[..., k : k + 1, :]
        if a.ndim == 1:
            acc = acc[..., 0, :]
        if b.ndim == 1:
            acc = acc[..., 0]
        return (acc,)
