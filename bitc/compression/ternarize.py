"""Ternary weights:  W = alpha * T,  T = clip(round(W / alpha), -1, 1).

alpha is the mean of |W| in BitNet b1.58 (Ma et al., 2024) and its median in "BitNet b1.58 Reloaded" (Nielsen and
Schneider-Kamp, 2024), of the whole tensor or of each output channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bitc.compression.calibration import Floats
from bitc.compression.feedback import Doubles
from bitc.compression.layerwise import LayerStep, corrected, shifted


@dataclass(frozen=True)
class Ternarize(LayerStep):
    """`scale`: ``absmean`` or ``absmedian``. `per`: ``channel`` or ``tensor``."""

    scale: str = "absmean"
    per: str = "channel"

    ends = False

    def __post_init__(self) -> None:
        if self.scale not in ("absmean", "absmedian"):
            raise ValueError("scale must be absmean or absmedian")
        if self.per not in ("channel", "tensor"):
            raise ValueError("per must be channel or tensor")

    def adapt(self, w: Floats, x: Sequence[Floats], target: Doubles) -> tuple[Floats, Floats]:
        return (shifted if self.per == "tensor" else corrected)(w, x, target)

    def start(self, w: Doubles, h: Doubles) -> _Trits:
        rows = np.abs(w if self.per == "channel" else w.reshape(1, -1))
        alpha = rows.mean(axis=1) if self.scale == "absmean" else np.median(rows, axis=1)
        return _Trits(np.broadcast_to(np.where(alpha > 0, alpha, 1), len(w)), np.zeros(w.shape), self.per == "tensor")


@dataclass
class _Trits:
    alpha: Doubles
    trits: Doubles
    shared: bool = field(default=False)

    def column(self, k: int, w: Doubles) -> Doubles:
        self.trits[:, k] = np.clip(np.rint(w / self.alpha), -1, 1)
        return np.asarray(self.alpha * self.trits[:, k])

    def refit(self, target: Doubles, h: Doubles) -> Doubles:
        """alpha = (T H w') / (T H T'), per channel or over all of them."""
        spread = self.trits @ h
        above, below = (spread * target).sum(axis=1), (spread * self.trits).sum(axis=1)
        if self.shared:
            above, below = above.sum(keepdims=True), below.sum(keepdims=True)
        alpha = np.where(below > 0, above / np.where(below > 0, below, 1), 0)
        return np.asarray(alpha[:, None] * self.trits)
