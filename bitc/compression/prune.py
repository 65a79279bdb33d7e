"""Zeros where they cost least: by magnitude, or by what the calibration data says a weight is worth.

The saliency ``w_k**2 / [Hinv]_kk`` is Optimal Brain Surgeon's (Hassibi and Stork, 1993); the weights that stay make up
for the ones that go, as in SparseGPT (Frantar and Alistarh, 2023).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bitc.compression.calibration import Floats
from bitc.compression.feedback import Doubles, Mask, saliency
from bitc.compression.layerwise import LayerStep, refitted


@dataclass(frozen=True)
class Prune(LayerStep):
    """`sparsity`: share of zeros to reach; ignored for N:M. `pattern`: ``any``, ``N:M`` (N of every M weights of a row
    stay), ``N:MxR`` (the same ones in R outputs, whose kernels on vectors then share loads and indices), or ``RxC``
    (blocks of R outputs by C weights of a row go together); neighbours are channels of one tap. `by`:
    ``saliency`` or ``magnitude``. `levels`: in how many steps the sparsity is reached; between steps the remaining
    weights adapt."""

    sparsity: float = 0.5
    pattern: str = "any"
    by: str = "saliency"
    levels: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise ValueError("sparsity must be from 0 to below 1")
        if self.pattern != "any" and not re.fullmatch(r"[1-9]\d?(:[1-9]\d?(x[1-9]\d?)?|x[1-9]\d?)", self.pattern):
            raise ValueError("pattern must be any, N:M such as 2:4, N:MxR such as 2:4x4, or RxC such as 4x1")
        if ":" in self.pattern and not self.pair[0] < self.pair[1]:
            raise ValueError("pattern N:M keeps N of M weights, N below M")
        if self.by not in ("saliency", "magnitude"):
            raise ValueError("by must be saliency or magnitude")
        if not 1 <= self.levels <= 16:
            raise ValueError("levels must be 1 to 16")

    @property
    def by_tap(self) -> bool:
        return self.pattern != "any"

    @property
    def pair(self) -> tuple[int, int]:
        """The first two numbers of the pattern."""
        first, second = re.split("[:x]", self.pattern)[:2]
        return int(first), int(second)

    def stages(self) -> tuple[Prune, ...]:
        """Rising sparsities on Zhu and Gupta's cubic curve, the last one as asked."""
        shares = [1 - (1 - i / self.levels) ** 3 for i in range(1, self.levels + 1)]
        return tuple(replace(self, sparsity=self.sparsity * share, levels=1) for share in shares)

    def adapt(self, w: Floats, x: Sequence[Floats], target: Doubles) -> tuple[Floats, Floats]:
        return refitted(w, x, target)  # zeros stay zeros

    def start(self, w: Doubles, h: Doubles) -> _Masked:
        worth = saliency(w, h) if self.by == "saliency" else np.square(w)
        return _Masked(self.mask(worth), np.zeros(w.shape))

    def mask(self, worth: Doubles) -> Mask:
        """Which weights stay."""
        if self.pattern == "any":
            return _largest(worth, self.sparsity)
        a, b = self.pair
        if ":" in self.pattern:
            rows = int(self.pattern.partition("x")[2] or 1)
            shared = np.add.reduceat(worth, np.arange(0, len(worth), rows), axis=0)
            return np.repeat(_n_of_m(shared, a, b), rows, axis=0)[: len(worth)]
        rows, columns = -(-worth.shape[0] // a), -(-worth.shape[1] // b)
        padded = np.zeros((rows * a, columns * b))
        padded[: worth.shape[0], : worth.shape[1]] = worth
        blocks = padded.reshape(rows, a, columns, b).sum(axis=(1, 3))
        spread = np.repeat(np.repeat(_largest(blocks, self.sparsity), a, axis=0), b, axis=1)
        return spread[: worth.shape[0], : worth.shape[1]]


def _largest(worth: Doubles, sparsity: float) -> Mask:
    keep = np.ones(worth.size, np.bool_)
    keep[np.argsort(worth, axis=None, kind="stable")[: round(sparsity * worth.size)]] = False
    return keep.reshape(worth.shape)


def _n_of_m(worth: Doubles, n: int, m: int) -> Mask:
    """Of every m weights of a row the n best stay; a rest shorter than m keeps its n best too."""
    keep = np.zeros(worth.shape, np.bool_)
    for start in range(0, worth.shape[1], m):
        part = worth[:, start : start + m]
        best = np.argsort(-part, axis=1, kind="stable")[:, :n]
        np.put_along_axis(keep[:, start : start + m], best, True, axis=1)
    return keep


@dataclass
class _Masked:
    keep: Mask
    result: Doubles

    def column(self, k: int, w: Doubles) -> Doubles:
        self.result[:, k] = np.where(self.keep[:, k], w, 0)
        return np.asarray(self.result[:, k])

    def refit(self, target: Doubles, h: Doubles) -> Doubles:
        return self.result
