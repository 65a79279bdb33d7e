"""Operators that move elements without computing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from bitc.ir.box import Box
from bitc.ir.graph import Array, Channels, Op
from bitc.ir.types import DENSE, TensorType


@dataclass(frozen=True)
class Reshape(Op):
    """The same elements in row-major order."""

    shape: tuple[int, ...]

    def on_channels(self, start: int, stop: int, of: int, constants: Sequence[Array | None]) -> Channels | None:
        return Channels(Reshape((*self.shape[:-1], stop - start)), tuple(constants))

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = types
        assert x is not None
        assert prod(self.shape) == x.size and min(self.shape, default=1) >= 0, f"{x} does not reshape to {self.shape}"
        return (x.with_shape(self.shape),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        (x,) = arrays
        assert x is not None
        return (x.reshape(self.shape),)


@dataclass(frozen=True)
class Transpose(Op):
    """Output axis i is input axis ``perm[i]``."""

    perm: tuple[int, ...]

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = types
        assert x is not None
        assert sorted(self.perm) == list(range(x.rank)), f"permutation {self.perm} of {x}"
        return (replace(x, shape=tuple(x.shape[p] for p in self.perm), layout=DENSE),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        (x,) = arrays
        assert x is not None
        return (np.ascontiguousarray(x.transpose(self.perm)),)


@dataclass(frozen=True)
class Crop(Op):
    """The first `size` rows and columns of an image: x is ``[N, H, W, C]``, or ``[N, C, H, W]`` if `planar`; the result
    is ``[N, rows, columns, C]``."""

    size: tuple[int, int]
    planar: bool = False

    def input_window(self, output: Box, index: int) -> Box | None:
        return output

    def on_window(self, pads: tuple[int, int, int, int], size: tuple[int, int]) -> Op:
        return replace(self, size=size)

    @property
    def strides_over_image(self) -> bool:
        return True

    def pixels(self, x: TensorType) -> TensorType:
        """Type of x as ``[N, H, W, C]``."""
        return replace(x, shape=tuple(x.shape[i] for i in (0, 2, 3, 1)), layout=DENSE) if self.planar else x

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        assert types[0] is not None
        x = self.pixels(types[0])
        assert self.size[0] <= x.shape[1] and self.size[1] <= x.shape[2], f"{x} is smaller than {self.size}"
        return (x.with_shape((x.shape[0], *self.size, x.shape[3])),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        (x,) = arrays
        assert x is not None
        image = x.transpose(0, 2, 3, 1) if self.planar else x
        return (np.ascontiguousarray(image[:, : self.size[0], : self.size[1]]),)


@dataclass(frozen=True)
class Rows(Op):
    """An image ``[1, H, W, C]`` that comes row by row from outside, each row once, from the top: the same image."""

    def input_window(self, output: Box, index: int) -> Box | None:
        return output

    def on_window(self, pads: tuple[int, int, int, int], size: tuple[int, int]) -> Op:
        return self

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = types
        assert x is not None and x.rank == 4 and x.shape[0] == 1 and not x.layout.word, f"{x} has no rows"
        return (x,)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        (x,) = arrays
        assert x is not None
        return (x,)


@dataclass(frozen=True)
class Concat(Op):
    """Operands one after the other along `axis` (not negative)."""

    axis: int

    def input_window(self, output: Box, index: int) -> Box | None:
        return output if self.axis == 3 else None

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        present = [t for t in types if t is not None]
        first, total = present[0], sum(t.shape[self.axis] for t in present)
        shape = (*first.shape[: self.axis], total, *first.shape[self.axis + 1 :])
        for t in present:
            same = (*t.shape[: self.axis], total, *t.shape[self.axis + 1 :]) == shape and t.dtype is first.dtype
            assert same, f"{t} does not join {first} on axis {self.axis}"
        return (TensorType(shape, first.dtype, DENSE, first.quant),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (np.concatenate([a for a in arrays if a is not None], self.axis),)


@dataclass(frozen=True)
class Slice(Op):
    """Along each axis the elements of ``range(start, stop, step)``; all axes are listed.

    0 <= start < size; steps may be negative, then stop may be -1 (before element 0).
    """

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    steps: tuple[int, ...]

    def _ranges(self) -> list[range]:
        return [range(*r) for r in zip(self.starts, self.stops, self.steps, strict=True)]

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = types
        assert x is not None
        ranges = self._ranges()
        inside = all(
            not r or (min(r[0], r[-1]) >= 0 and max(r[0], r[-1]) < d) for r, d in zip(ranges, x.shape, strict=True)
        )
        assert len(ranges) == x.rank and inside, f"slice {self} of {x}"
        return (replace(x, shape=tuple(len(r) for r in ranges), layout=DENSE),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        (x,) = arrays
        assert x is not None
        index = tuple(slice(r.start, None if r.stop < 0 else r.stop, r.step) if r else slice(0) for r in self._ranges())
        return (np.ascontiguousarray(x[index]),)


@dataclass(frozen=True)
class Pad(Op):
    """Add `before` and `after` elements per axis. `mode` says what they are: "constant" (`value`), "edge" (the
    nearest element), "reflect" (mirrored without repeating the border) or "wrap"."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    value: float = 0.0
    mode: str = "constant"

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = types
        assert x is not None
        assert len(self.before) == len(self.after) == x.rank and min((*self.before, *self.after), default=0) >= 0
        shape = tuple(b + d + a for b, d, a in zip(self.before, x.shape, self.after, strict=True))
        return (replace(x, shape=shape, layout=DENSE),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        (x,) = arrays
        assert x is not None
        widths = list(zip(self.before, self.after, strict=True))
        if self.mode == "constant":
            return (np.pad(x, widths, constant_values=x.dtype.type(self.value)),)
        return (np.pad(x, widths, mode=self.mode),)  # type: ignore[call-overload]  # numpy lists the modes as literals


@dataclass(frozen=True)
class Expand(Op):
    """Repeat axes of length 1, as numpy broadcasting does, to `shape`."""

    shape: tuple[int, ...]

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = types
        assert x is not None
        assert np.broadcast_shapes(x.shape, self.shape) == self.shape, f"{x} does not expand to {self.shape}"
        return (replace(x, shape=self.shape, layout=DENSE),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        (x,) = arrays
        assert x is not None
        return (np.broadcast_to(x, self.shape).copy(),)


@dataclass(frozen=True)
class Tile(Op):
    """Repeat the whole tensor `repeats` times along each axis."""

    repeats: tuple[int, ...]

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        (x,) = types
        assert x is not None
        assert len(self.repeats) == x.rank and min(self.repeats, default=0) >= 0, f"{self.repeats} repeats of {x}"
        return (replace(x, shape=tuple(d * r for d, r in zip(x.shape, self.repeats, strict=True)), layout=DENSE),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        (x,) = arrays
        assert x is not None
        return (np.tile(x, self.repeats),)


@dataclass(frozen=True)
class Gather(Op):
    """Elements ``indices`` along `axis`. Inputs: x, indices (constant integers in 0 <= i < size).

    The output's shape is x's with `axis` replaced by the shape of the indices.
    """

    axis: int

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        x, indices = types
        assert x is not None and indices is not None and indices.dtype.is_integer
        shape = (*x.shape[: self.axis], *indices.shape, *x.shape[self.axis + 1 :])
        return (replace(x, shape=shape, layout=DENSE),)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, indices = arrays
        assert x is not None and indices is not None
        return (np.take(x, indices, axis=self.axis),)
