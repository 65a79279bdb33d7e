"""Which channels of bit slices are looked up together, and how the patterns of their weights lie in memory.

A pattern is the three weight bits of a look-up. The patterns of one output and horizontal tap follow each other without
gaps; bits that fill no word are in a stream with those of the others. So weights take one bit each, and where the
channels of all rows are a multiple of three, none is wasted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bitc.ir.graph import Array
from bitc.kernels.lanes import LANES, Column
from bitc.kernels.pack import pack_bits

TRIPLE = 3
"""Channels per look-up: their counts 0 ... 3 fill two planes. Seven would fill three, in tables 14 times as large."""
PATTERNS = 1 << TRIPLE


@dataclass(frozen=True)
class Triples:
    """The look-ups of one output and horizontal tap. Those of each row's channels come first, three channels each; then
    those of the `left` channels that remain in each row, three of any row each."""

    rows: int
    channels: int

    @property
    def triples(self) -> int:
        """Look-ups in one row."""
        return self.channels // TRIPLE

    @property
    def left(self) -> int:
        """Channels of a row that are in none of these."""
        return self.channels % TRIPLE

    @property
    def rests(self) -> int:
        """Look-ups of the channels that are left in all rows."""
        return -(-self.rows * self.left // TRIPLE)

    @property
    def lookups(self) -> int:
        return self.rows * self.triples + self.rests

    @property
    def table_words(self) -> int:
        """Words of the tables, for one phase of the input's columns."""
        return self.lookups * PATTERNS * 2

    @property
    def left_words(self) -> int:
        """Words that keep the channels that are left: both what a weight of 0 and what one of 1 makes of them."""
        return self.rests * TRIPLE * 2

    @property
    def words(self) -> int:
        """Whole words of patterns."""
        return self.lookups * TRIPLE // LANES

    @property
    def bits(self) -> int:
        """Bits of patterns after these."""
        return self.lookups * TRIPLE % LANES


@dataclass(frozen=True)
class Fetch:
    """How a look-up of a step gets its pattern."""

    load: str
    """`word` or `bits` if the next word of patterns is needed, the last one of a column being bits of a stream."""
    bit: int
    """Where the pattern begins in its word."""
    table: int
    """Its tables, counted from the pointer to them."""
    move: int
    """Tables by which that moves first."""

    @property
    def have(self) -> int:
        """Bits of the pattern in the word before."""
        return LANES - self.bit if self.load and self.bit else 0


def fetches(count: int, words: int) -> list[Fetch]:
    """A step of `count` look-ups, whose patterns fill `words` words and some bits."""
    found: list[Fetch] = []
    table = 0
    for i in range(count):
        word, bit = divmod(TRIPLE * i, LANES)
        crosses = bit + TRIPLE > LANES
        load = "" if bit and not crosses else "bits" if word + crosses == words else "word"
        move = table if found and bit < TRIPLE else 0
        table = 1 if move else table + 1
        found.append(Fetch(load, bit, table - 1, move))
    return found


def pack_patterns(parts: Sequence[Array], columns: tuple[Column, ...]) -> tuple[Array, Array]:
    """Bit weights ``[O, kh, kw, C]``, of one or more parts, in the order of use: whole words of patterns ``[O, column,
    part, words]``, and the bits after them of all outputs, columns and parts in one stream, which ends with a word
    that is only read."""
    outputs, kh, _, channels = parts[0].shape
    run, runs = Triples(kh, channels), len(columns) * len(parts)
    whole = run.triples * TRIPLE
    ordered = np.stack([w[:, :, [c.kx for c in columns]].transpose(0, 2, 1, 3) for w in parts], axis=2)
    ordered = ordered.reshape(outputs, runs, kh, channels)
    flat = np.zeros((outputs, runs, run.lookups * TRIPLE), np.bool_)
    flat[..., : kh * whole] = ordered[..., :whole].reshape(outputs, runs, -1)
    flat[..., kh * whole : kh * channels] = ordered[..., whole:].reshape(outputs, runs, -1)
    words, stream = np.split(flat, [run.words * LANES], axis=2)
    bits = np.append(pack_bits(stream.reshape(-1), LANES), np.uint32(0)) if run.bits else np.zeros(0, np.uint32)
    return pack_bits(words, LANES), bits
