"""Shared weights: every weight is an entry of a small codebook, found by k-means (Han et al., "Deep Compression",
2016), each weight counting as much as the calibration data says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bitc.compression.calibration import Floats
from bitc.compression.feedback import Doubles
from bitc.compression.layerwise import LayerStep, shifted

ROUNDS = 50


@dataclass(frozen=True)
class Share(LayerStep):
    """`entries`: size of a codebook: 4, 16 or 256. `channels`: output channels that share one; 0: all of a tensor."""

    entries: int = 16
    channels: int = 0

    def __post_init__(self) -> None:
        if self.entries not in (4, 16, 256):
            raise ValueError("entries must be 4, 16 or 256")
        if self.channels < 0:
            raise ValueError("channels must not be negative")

    def adapt(self, w: Floats, x: Sequence[Floats], target: Doubles) -> tuple[Floats, Floats]:
        return shifted(w, x, target)  # a scale per channel would leave the codebook

    def start(self, w: Doubles, h: Doubles) -> _Books:
        size = self.channels or len(w)
        weight = np.broadcast_to(np.diag(h), w.shape)
        starts = range(0, len(w), size)
        books = [codebook(w[i : i + size], weight[i : i + size], self.entries) for i in starts]
        return _Books(books, size, np.zeros(w.shape))


def codebook(values: Doubles, weight: Doubles, entries: int) -> Doubles:
    """Weighted 1-D k-means: sorted entries, at most `entries` of them. A zero stays exact if there are
    many: pruned weights stay pruned."""
    order = np.argsort(values, axis=None)
    v, c = values.reshape(-1)[order], weight.reshape(-1)[order]
    book = np.unique(v)
    if len(book) <= entries:
        return book
    book = np.linspace(v[0], v[-1], entries)  # finds the rare large weights, as the paper says
    zeros = (v == 0).mean() > 1 / entries
    total, moment = np.concatenate([[0], np.cumsum(c)]), np.concatenate([[0], np.cumsum(c * v)])
    for _ in range(ROUNDS):
        edges = np.searchsorted(v, (book[1:] + book[:-1]) / 2)
        start, stop = np.concatenate([[0], edges]), np.concatenate([edges, [len(v)]])
        mass = total[stop] - total[start]
        mean = (moment[stop] - moment[start]) / np.where(mass > 0, mass, 1)
        new = np.where(mass > 0, mean, book)
        if zeros:
            new[np.abs(new).argmin()] = 0.0
        new = np.sort(new)
        if np.array_equal(new, book):
            break
        book = new
    return np.asarray(book)


@dataclass
class _Books:
    books: list[Doubles]
    size: int
    result: Doubles

    def column(self, k: int, w: Doubles) -> Doubles:
        for i, book in enumerate(self.books):
            rows = slice(i * self.size, (i + 1) * self.size)
            self.result[rows, k] = book[np.searchsorted((book[1:] + book[:-1]) / 2, w[rows])]
        return np.asarray(self.result[:, k])

    def refit(self, target: Doubles, h: Doubles) -> Doubles:
        return self.result
