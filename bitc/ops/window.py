"""Sliding windows over two spatial axes of an NHWC tensor: geometry shared by convolution and pooling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bitc.ir.box import Box
from bitc.ir.graph import Array


@dataclass(frozen=True)
class Window:
    """Kernel geometry. `pads` is (top, left, bottom, right) in elements; taps that fall into it are skipped."""

    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)

    def out_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Output height and width for an input of `size`."""
        padded = (size[0] + self.pads[0] + self.pads[2], size[1] + self.pads[1] + self.pads[3])
        out = [
            (p - d * (k - 1) - 1) // s + 1
            for p, k, s, d in zip(padded, self.kernel, self.strides, self.dilations, strict=True)
        ]
        return out[0], out[1]

    def input_box(self, output: Box) -> Box:
        """The input pixels that output pixels read, those in the padding included."""
        top, left = output.top * self.strides[0] - self.pads[0], output.left * self.strides[1] - self.pads[1]
        bottom = (output.bottom - 1) * self.strides[0] - self.pads[0] + (self.kernel[0] - 1) * self.dilations[0] + 1
        right = (output.right - 1) * self.strides[1] - self.pads[1] + (self.kernel[1] - 1) * self.dilations[1] + 1
        return Box(top, bottom, left, right)

    @property
    def has_padding(self) -> bool:
        return any(self.pads)

    def tap_boxes(self, size: tuple[int, int]) -> list[tuple[slice, slice]]:
        """The taps inside the input, as a range of rows and one of columns, that occur over all output positions."""
        down, across = (self._boxes(size[axis], self.out_size(size)[axis], axis) for axis in (0, 1))
        return [(r, c) for r in down for c in across]

    def _boxes(self, size: int, out: int, axis: int) -> list[slice]:
        """Ranges of taps inside the input along one axis, each once."""
        step, kernel = self.dilations[axis], self.kernel[axis]
        ranges = set()
        for i in range(out):
            start = i * self.strides[axis] - self.pads[axis]
            inside = [t for t in range(kernel) if 0 <= start + t * step < size]
            ranges.add((inside[0], inside[-1] + 1) if inside else (0, 0))
        return [slice(*r) for r in sorted(ranges)]

    def taps(self, size: tuple[int, int]) -> Iterator[tuple[int, int, tuple[slice, slice], tuple[slice, slice]]]:
        """Every tap (ky, kx) in row-major order with the output range where it falls inside the input and the input
        range that it reads there: (ky, kx, output slices, input slices). Taps that never fall inside are left out."""
        out = self.out_size(size)
        for ky in range(self.kernel[0]):
            rows = self._range(ky, size[0], out[0], 0)
            for kx in range(self.kernel[1]):
                cols = self._range(kx, size[1], out[1], 1)
                if rows and cols:
                    yield ky, kx, (rows[0], cols[0]), (rows[1], cols[1])

    def _range(self, tap: int, size: int, out: int, axis: int) -> tuple[slice, slice] | None:
        stride, offset = self.strides[axis], tap * self.dilations[axis] - self.pads[axis]
        first = (-offset + stride - 1) // stride if offset < 0 else 0
        last = min(out - 1, (size - 1 - offset) // stride)
        if last < first:
            return None
        start = first * stride + offset
        return slice(first, last + 1), slice(start, start + (last - first) * stride + 1, stride)


def spatial(array: Array) -> tuple[int, int]:
    """Height and width of an NHWC array."""
    return array.shape[1], array.shape[2]


def empty_output(x: Array, window: Window, channels: int, dtype: np.dtype, fill: float = 0) -> Array:
    oh, ow = window.out_size(spatial(x))
    return np.full((x.shape[0], oh, ow, channels), fill, dtype)
