"""Which output pixel each bit of a 32-bit word stands for, when one word holds one channel of up to 32 pixels.

A word covers a few *strips* of `width` lanes, one after the other: parts of rows that lie `strip_rows` rows apart, so
that the next output row is the next word for all strips at once. Input words have the same lanes: lane i of
phase p is input column ``(start + i) * sx + p``. Tap kx of output column ox reads column ``(ox + d) * sx + p`` with
``p = (kx * dx - pl) mod sx`` and ``d = (kx * dx - pl) div sx``: the same word, d lanes away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitc.ir.graph import Array
from bitc.kernels.geometry import Geometry

LANES = 32


@dataclass(frozen=True)
class Column:
    """One horizontal tap: the phase of its input columns, and how many lanes away it reads."""

    kx: int
    phase: int
    shift: int


@dataclass(frozen=True)
class Lanes:
    """Lanes for a window. `segments` words side by side cover a row, each `outputs` columns of it."""

    geometry: Geometry
    columns: tuple[Column, ...]
    """In the order in which they are added: shifts ascending up to 0, then descending to 1."""
    phases: tuple[int, ...]
    segments: int
    outputs: int
    width: int
    strips: int
    strip_rows: int
    before: int
    """Lanes of a strip before its first output."""

    @property
    def used(self) -> float:
        """Share of lanes that hold an output pixel."""
        g = self.geometry
        return g.oh * g.ow / (LANES * self.segments * self.strip_rows)

    def lane(self, strip: int, column: int) -> int:
        """The lane of an output, by its column in the segment."""
        return strip * self.width + self.before + column

    def mask(self, first: int, last: int) -> int:
        """The lanes first ... last - 1 of every strip."""
        strip = sum(1 << lane for lane in range(first, last))
        return sum(strip << (self.width * s) for s in range(self.strips))

    def outside(self) -> Array:
        """Taps that fall into the padding, per word and lane ``[segments, strip_rows, 32]``; 0 in unused lanes."""
        g = self.geometry
        rows = _missing(g.oh, g.sy, g.pt, g.dy, g.kh, g.h)
        cols = _missing(g.ow, g.sx, g.pl, g.dx, g.kw, g.w)
        taps = g.taps - np.outer(g.kh - rows, g.kw - cols)
        result = np.zeros((self.segments, self.strip_rows, LANES), np.int64)
        for s, y, strip, i in np.ndindex(self.segments, self.strip_rows, self.strips, self.outputs):
            row, column = y + strip * self.strip_rows, s * self.outputs + i
            if row < g.oh and column < g.ow:
                result[s, y, self.lane(strip, i)] = taps[row, column]
        return result


def _missing(out: int, stride: int, pad: int, dilation: int, kernel: int, size: int) -> Array:
    """Taps outside the input along one axis, per output position."""
    at = np.arange(out)[:, None] * stride - pad + np.arange(kernel) * dilation
    return np.asarray(((at < 0) | (at >= size)).sum(axis=1))


def plan_lanes(g: Geometry) -> Lanes | None:
    """Lanes for a window, None if its taps reach too far for a word."""
    taps = [Column(kx, (kx * g.dx - g.pl) % g.sx, (kx * g.dx - g.pl) // g.sx) for kx in range(g.kw)]
    shifts = [c.shift for c in taps]
    low, high = min(0, *shifts), max(0, *shifts)
    columns = sorted((c for c in taps if c.shift <= 0), key=lambda c: c.shift)
    columns += sorted((c for c in taps if c.shift > 0), key=lambda c: -c.shift)
    phases = tuple(sorted({c.phase for c in taps}))
    last = max((g.w - 1 - p) // g.sx for p in phases)
    width = max(g.ow, min(last + 1, g.ow + high))
    if width <= LANES:
        strip_rows = -(-g.oh // min(g.oh, LANES // width))
        return Lanes(g, tuple(columns), phases, 1, g.ow, width, -(-g.oh // strip_rows), strip_rows, 0)
    useful = LANES - high + low
    if useful <= 0:
        return None
    segments = -(-g.ow // useful)
    outputs = -(-g.ow // segments)
    return Lanes(g, tuple(columns), phases, segments, outputs, outputs + high - low, 1, g.oh, -low)
