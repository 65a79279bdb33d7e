"""Tensor types: shape, dtype, physical layout and the affine map from codes to reals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from bitc.ir.dtypes import DType


@dataclass(frozen=True)
class Layout:
    """How a tensor lies in memory. Tensors are row-major in their logical axis order, always; what varies is whether
    the last axis is packed into words, and how wide a word is.

    `word` is 0 for one C object per element. Otherwise the last axis is bit-packed: element `i` of a row is bit
    `i % word` (least significant first) of word `i // word`, and a row is padded with zero bits to whole words.
    A type with several planes stores, per row, all words of plane 0 (the sign of trits), then those of plane 1 (their
    nonzero), and so on.

    `pitch` is 0 where each row follows the one before. Otherwise the tensor is a part of a wider one, side by side with
    other parts: a row starts so many C objects (elements, or words) after the one before.
    """

    word: int = 0
    pitch: int = 0

    def __str__(self) -> str:
        return f"packed{self.word}" if self.word else "dense"


DENSE = Layout()


@dataclass(frozen=True)
class Quant:
    """Affine map of codes to reals: ``real = scale * (code - zero) + offset``. `zero` is the code that means 0 in
    quantizers with a zero point.

    `scale` and `offset` are scalars, or one entry per element of the last axis. For BIT1 with values {lo, hi}:
    ``scale = lo - hi``, ``offset = hi``, since code 1 means the lower value.
    """

    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    zero: int = 0

    @staticmethod
    def two_valued(lo: float, hi: float) -> Quant:
        """The map of a BIT1 tensor whose elements are `lo` (code 1) or `hi` (code 0)."""
        return Quant((lo - hi,), (hi,))

    @property
    def per_tensor(self) -> bool:
        return len(self.scale) == 1 and len(self.offset) == 1

    @property
    def high(self) -> float:
        """The real value of code 0 (per-tensor maps)."""
        return self.offset[0]

    @property
    def low(self) -> float:
        """The real value of code 1 (per-tensor maps)."""
        return self.offset[0] + self.scale[0]

    def decode(self, codes: NDArray[np.generic]) -> NDArray[np.float32]:
        """Codes, channels last, to float32 reals; both steps round in float32, as the generated C does."""
        scale = np.asarray(self.scale, np.float32)
        offset = np.asarray(self.offset, np.float32)
        numbers = codes.astype(np.int64) - self.zero if self.zero else codes
        product = numbers.astype(np.float32) * scale
        return product + offset if offset.any() else product

    def __str__(self) -> str:
        def show(v: tuple[float, ...]) -> str:
            return f"{v[0]:g}" if len(v) == 1 else f"[{len(v)}]"

        if self.zero and not any(self.offset):
            return f"{show(self.scale)}*(q{-self.zero:+d})"
        return f"{show(self.scale)}*q+{show(self.offset)}"


@dataclass(frozen=True)
class TensorType:
    """Shape, dtype, layout and quantization of a value. `nbytes` is the only place that computes sizes."""

    shape: tuple[int, ...]
    dtype: DType
    layout: Layout = DENSE
    quant: Quant | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def channels(self) -> int:
        """Length of the last axis; 1 for scalars."""
        return self.shape[-1] if self.shape else 1

    @property
    def words_per_plane(self) -> int:
        """Words of one plane of one row of a packed tensor."""
        return -(-self.channels // self.layout.word)

    @property
    def row_words(self) -> int:
        """Words of one row (last axis, all planes) of a packed tensor."""
        return self.words_per_plane * self.dtype.planes

    @property
    def row_step(self) -> int:
        """C objects (elements, or words) from the start of a row to that of the next."""
        return self.layout.pitch or (self.row_words if self.layout.word else self.channels)

    @property
    def rows(self) -> int:
        """Number of rows: the product of all axes but the last."""
        return prod(self.shape[:-1]) if self.shape else 1

    @property
    def nbytes(self) -> int:
        """Bytes in memory, without what lies between rows. A packed type without a layout yet counts one byte per
        element, as the oracle holds it."""
        if self.layout.word:
            return self.rows * self.row_words * self.layout.word // 8
        return self.size * self.dtype.carrier.itemsize

    @property
    def alignment(self) -> int:
        """Bytes to which the first element is aligned."""
        return (self.layout.word // 8) if self.layout.word else self.dtype.carrier.itemsize

    def with_shape(self, shape: tuple[int, ...]) -> TensorType:
        return replace(self, shape=tuple(int(d) for d in shape))

    def __str__(self) -> str:
        dims = "x".join(map(str, self.shape)) or "scalar"
        layout = f" {self.layout}" if self.layout.word else ""
        quant = f" {self.quant}" if self.quant else ""
        return f"{self.dtype}[{dims}]{layout}{quant}"


def type_of(array: NDArray[np.generic]) -> TensorType:
    """The dense type of a numpy array."""
    from bitc.ir.dtypes import from_numpy

    return TensorType(tuple(array.shape), from_numpy(array.dtype))
