"""Binary weights:  W = sum_i alpha_i * B_i,  B_i in {-1, +1}, alpha_i per output channel.

One base is XNOR-Net's (Rastegari et al., 2016): alpha = mean |W|. Further bases binarize what the ones before left over
(Lin et al., ABC-Net, 2017), and all alphas are then fitted by least squares. With `salient`, the weights whose loss
costs most stay at 8 bits, as in PB-LLM (Shang et al., 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bitc.compression.calibration import Floats
from bitc.compression.feedback import Doubles, Mask, saliency
from bitc.compression.layerwise import LayerStep, corrected
from bitc.frontend.edit import EditableModel, Layer
from bitc.frontend.forms import summed, terms


@dataclass(frozen=True)
class Binarize(LayerStep):
    """`bases`: number of binary tensors. `salient`: share of weights that stay at int8, the largest `by` ``saliency``
    (what the loss grows by, from the calibration Hessian) or ``magnitude``. `activations`: ``keep``, or
    ``sign`` to make the layer's input two-valued as well, with levels fitted to the calibration data."""

    bases: int = 1
    salient: float = 0.0
    by: str = "saliency"
    activations: str = "keep"

    ends = False

    def __post_init__(self) -> None:
        if not 1 <= self.bases <= 4:
            raise ValueError("bases must be 1 to 4")
        if not 0 <= self.salient <= 0.5:
            raise ValueError("salient must be 0 to 0.5")
        if self.by not in ("saliency", "magnitude"):
            raise ValueError("by must be saliency or magnitude")
        if self.activations not in ("keep", "sign"):
            raise ValueError("activations must be keep or sign")

    def start(self, w: Doubles, h: Doubles) -> _Bases:
        kept = np.zeros(w.shape, np.bool_)
        count = round(self.salient * w.size)
        if count:
            worth = saliency(w, h) if self.by == "saliency" else np.square(w)
            kept.reshape(-1)[np.argsort(-worth, axis=None, kind="stable")[:count]] = True
        return _Bases(w, kept, self.bases)

    def adapt(self, w: Floats, x: Sequence[Floats], target: Doubles) -> tuple[Floats, Floats]:
        w, bias = corrected(w, x, target)
        found = terms(w)  # scales whose sums are exact
        return (summed(found), bias) if len(found) > 1 else (w, bias)

    def inputs(self, trial: EditableModel, layer: Layer, x: list[Floats]) -> list[Floats]:
        if self.activations == "keep":
            return x
        threshold, low, high = two_levels(np.concatenate(x))
        trial.two_levels(layer, threshold, low, high)
        return [np.where(part >= threshold, high, low).astype(np.float32) for part in x]


def two_levels(x: Floats) -> tuple[float, float, float]:
    """Threshold, low and high value of the two-valued tensor nearest to x: Lloyd's algorithm with two centres. Inputs
    that are never negative (they come from a Relu) keep 0 as their low value, so that padding stays a value."""
    v = x.reshape(-1).astype(np.float64)
    relu = bool(v.min() >= 0)
    t = float(v.mean())
    low, high = (0.0 if relu else t - 1), t + 1
    for _ in range(50):
        above = v >= t
        if above.all() or not above.any():
            break
        high = float(v[above].mean())
        low = 0.0 if relu else float(v[~above].mean())
        if t == (t := (low + high) / 2):
            break
    if not relu:  # symmetric levels: a bias takes up the rest
        high = float(np.abs(v).mean())
        low, t = -high, 0.0
    return t, low, high


@dataclass
class _Bases:
    """Signs [bases, O, K] as columns are replaced; `kept` are the weights that stay at int8."""

    w: Doubles
    kept: Mask
    bases: int
    signs: Doubles = field(init=False)
    alphas: Doubles = field(init=False)
    salient: Doubles = field(init=False)
    step: Doubles = field(init=False)

    def __post_init__(self) -> None:
        self.signs = np.zeros((self.bases, *self.w.shape))
        self.salient = np.zeros(self.w.shape)
        self.step = np.abs(np.where(self.kept, self.w, 0)).max(axis=1) / 127
        left, alphas = np.where(self.kept, 0, self.w), []
        counts = np.maximum((~self.kept).sum(axis=1), 1)
        for _ in range(self.bases):
            alphas.append(np.where(self.kept, 0, np.abs(left)).sum(axis=1) / counts)
            left = np.where(self.kept, 0, left - alphas[-1][:, None] * _sign(left))
        self.alphas = np.stack(alphas)

    def column(self, k: int, w: Doubles) -> Doubles:
        kept = self.kept[:, k]
        step = np.where(self.step > 0, self.step, 1)
        self.salient[:, k] = np.where(kept, np.clip(np.rint(w / step), -127, 127) * step, 0)
        left = w
        for signs, alpha in zip(self.signs, self.alphas, strict=True):
            signs[:, k] = np.where(kept, 0, _sign(left))
            left = left - alpha * signs[:, k]
        return np.asarray(np.where(kept, self.salient[:, k], w - left))

    def refit(self, target: Doubles, h: Doubles) -> Doubles:
        """alpha = argmin |(target - salient - sum_i alpha_i B_i) X|, per channel."""
        step = np.abs(self.salient).max(axis=1, keepdims=True) / 127  # all 8 bits, whatever the feedback made of them
        step[step == 0] = 1
        self.salient = np.rint(self.salient / step) * step
        rest = target - self.salient
        spread = self.signs @ h  # [bases, O, K]
        a = np.einsum("iok,jok->oij", spread, self.signs)
        b = np.einsum("iok,ok->oi", spread, rest)
        alphas = (np.linalg.pinv(a) @ b[..., None])[..., 0]
        return np.asarray(np.einsum("oi,iok->ok", alphas, self.signs) + self.salient)


def _sign(x: Doubles) -> Doubles:
    return np.where(x >= 0, 1.0, -1.0)
