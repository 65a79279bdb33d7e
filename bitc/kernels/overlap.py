"""How far the output of a kernel may lie over an input that it is the last to read.

A kernel that reads and writes pixels in order leaves memory behind: what it writes may lie where nothing is read any
more. With r(t) the first byte of x that is read in round t or later and e(t) the end of what is written up to round t,
y may start at most ``min over t of r(t + 1) - e(t)`` bytes after x, where a round reads all before it writes; else
``min over t of r(t) - e(t)``. Nothing here is guessed: each kernel says in which rounds it works. (Overlapping by
segments: Zheng et al., vMCU, MLSys 2024.)
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bitc.ir.program import Overlap
from bitc.ir.types import TensorType
from bitc.kernels.geometry import Geometry

Rounds = tuple[tuple[int, int], ...]
"""Per round the pixels [first, last) of the output that it writes."""


def in_place(x: TensorType, y: TensorType) -> tuple[Overlap, ...]:
    """Each element depends on those of x in its place alone, or is written after all of a row is read: y may be x."""
    return (Overlap(0, x.nbytes),) if 0 < y.nbytes <= x.nbytes else ()


def in_order(x: TensorType, y: TensorType) -> tuple[Overlap, ...]:
    """Element by element in the order of memory; x and y have the same shape. Where elements grow, y starts before x
    and the last elements meet."""
    if y.nbytes <= x.nbytes:
        return (Overlap(0),)
    word = x.layout.word or y.layout.word
    return (Overlap(x.nbytes - y.nbytes - (x.nbytes // x.rows if word else 0)),)


def consumed(x: TensorType) -> tuple[Overlap, ...]:
    """All of x is read before anything is written."""
    return (Overlap(x.nbytes),)


def by_pixels(
    geo: Geometry, x: TensorType, y: TensorType, rounds: Rounds, reads_first: bool = True, planar: bool = False
) -> tuple[Overlap, ...]:
    """Windows over x, given as it lies in memory, in rounds. `reads_first`: whether a round has read all its windows
    when it writes its first output."""
    if not x.nbytes or not y.nbytes:
        return ()
    pixel = x.dtype.carrier.itemsize if planar else x.nbytes // (geo.n * geo.h * geo.w)
    image = x.nbytes // geo.n
    lead = _lead(geo, pixel, image, y.nbytes // geo.pixels, rounds, reads_first)
    return (Overlap(x.nbytes if lead is None else min(lead, x.nbytes)),)


def by_channels(
    geo: Geometry, x: TensorType, y: TensorType, rounds: Rounds, reads_first: bool = True
) -> tuple[Overlap, ...]:
    """Depthwise, one channel after the other, each as in `by_pixels`: no channel may lie over another one."""
    if x.channels != y.channels or x.dtype.carrier.itemsize != y.dtype.carrier.itemsize or x.layout.word:
        return ()
    pixel = x.channels * x.dtype.carrier.itemsize
    return tuple(Overlap(o.lead // pixel * pixel, pixel) for o in by_pixels(geo, x, y, rounds, reads_first))


def singly(geo: Geometry, pixels: int = 1) -> Rounds:
    """So many pixels at a time, across the ends of rows."""
    return tuple((i, min(i + pixels, geo.pixels)) for i in range(0, geo.pixels, pixels))


def within_rows(geo: Geometry, pixels: int) -> Rounds:
    """So many pixels of a row at a time; the last ones together with some of those before, once more."""

    def row(start: int) -> Iterator[tuple[int, int]]:
        for at in range(0, geo.ow, pixels):
            first = max(min(at, geo.ow - pixels), 0)
            yield start + first, start + min(first + pixels, geo.ow)

    return tuple(r for start in range(0, geo.pixels, geo.ow) for r in row(start))


def rows(geo: Geometry) -> Rounds:
    """A row at a time."""
    return tuple((i, i + geo.ow) for i in range(0, geo.pixels, geo.ow))


@lru_cache(maxsize=1024)
def _lead(geo: Geometry, pixel: int, image: int, y_pixel: int, rounds: Rounds, reads_first: bool) -> int | None:
    """Bytes; None if nothing is read after a write."""
    first = _first_read(geo, pixel, image)
    later = np.minimum.accumulate(first[::-1])[::-1]  # of this pixel or a later one
    starts = np.array([a for a, _ in rounds])
    read = np.minimum.accumulate(later[starts][::-1])[::-1]
    ends = np.maximum.accumulate(np.array([b for _, b in rounds])) * y_pixel
    gaps = read[1:] - ends[:-1] if reads_first else read - ends
    return int(gaps.min()) if gaps.size and gaps.min() < _NEVER // 2 else None


_NEVER = 1 << 60
Places = NDArray[np.int64]


def _first_read(geo: Geometry, pixel: int, image: int) -> Places:
    """Per pixel of the output the first byte of its window; `_NEVER` if it lies in the padding."""

    def axis(count: int, stride: int, pad: int, taps: int, step: int, size: int) -> Places:
        start = np.arange(count, dtype=np.int64) * stride - pad
        tap = np.maximum(0, -(start // step))  # the first inside
        at = start + tap * step
        return np.where((tap < taps) & (at < size), at, _NEVER)

    top = axis(geo.oh, geo.sy, geo.pt, geo.kh, geo.dy, geo.h)[None, :, None]
    left = axis(geo.ow, geo.sx, geo.pl, geo.kw, geo.dx, geo.w)[None, None, :]
    base = np.arange(geo.n, dtype=np.int64)[:, None, None] * image
    inside = (top < _NEVER) & (left < _NEVER)
    at = base + np.where(inside, (np.where(inside, top, 0) * geo.w + np.where(inside, left, 0)) * pixel, 0)
    return np.where(inside, at, _NEVER).reshape(-1)
