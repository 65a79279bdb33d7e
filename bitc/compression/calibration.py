"""Calibration data: what a model computes on it, and how much of that a changed model keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitc.errors import UsageError
from bitc.frontend.edit import Layer
from bitc.ir.graph import Array
from bitc.verification.inputs import Sample
from bitc.verification.reference import OnnxRuntime

Floats = NDArray[np.float32]
POSITIONS = 4096
"""Output positions of a layer that are looked at, over all samples."""
ENOUGH = 64
"""Samples from which on half of them are held out."""


@dataclass(frozen=True)
class Score:
    """What a model is worth on the data, 1 at best. `metric` is ``accuracy`` (labels given), ``agreement`` (the same
    class as the model before) or ``fidelity`` (1 - relative error of the outputs, for models that give no classes).
    `noise` is the power of the outputs' error, relative to that of the outputs: of independent changes it adds up."""

    metric: str
    value: float
    noise: float = 0.0


class Calibration:
    """Samples, and the outputs of the model before any change. `labels` [N] are true classes, if known; raises
    UsageError if the model has no such classes.

    With `hold_out`, and samples enough, weights are fitted to one half of them (`samples`) and scores come from the
    other: what a model was fitted to flatters it. The halves are drawn by `seed`.
    """

    def __init__(
        self, model: bytes, samples: Sequence[Sample], labels: Array | None, seed: int, hold_out: bool = True
    ) -> None:
        order = np.random.default_rng(seed).permutation(len(samples))
        half = len(samples) // 2 if hold_out and len(samples) >= ENOUGH else 0
        fitted, judged = (np.sort(part) for part in (order[half:], order[:half] if half else order))
        self.samples = [samples[i] for i in fitted]
        self._judges = [samples[i] for i in judged]
        self._labels = None if labels is None else labels[judged]
        self._seed = seed
        self._before = self._outputs(model)
        self._check_labels()

    def _check_labels(self) -> None:
        count = self._before[0].size
        if self._labels is None or count < 2:
            return
        low, high = int(self._labels.min()), int(self._labels.max())
        if low < 0 or high >= count:
            raise UsageError(
                f"labels are {low} to {high}, the model tells {count} classes apart",
                where="--calibration",
                hint="count classes from 0, in the order of the model's outputs, or leave `labels` out",
            )

    def score(self, model: bytes) -> Score:
        """What `model` is worth, relative to the model before."""
        after = self._outputs(model)
        noise = self._noise(after)
        if after[0].size < 2 or (self._labels is None and not _gives_classes(after[0])):
            return Score("fidelity", 1.0 - float(np.sqrt(noise)), noise)
        classes = np.array([int(a.argmax()) for a in after])
        if self._labels is not None:
            return Score("accuracy", float((classes == self._labels).mean()), noise)
        return Score("agreement", float((classes == [int(b.argmax()) for b in self._before]).mean()), noise)

    def _noise(self, after: Sequence[Array]) -> float:
        error = sum(float(np.square(a - b).sum()) for a, b in zip(after, self._before, strict=True))
        power = sum(float(np.square(b - np.mean(b)).sum()) for b in self._before)
        return error / power if power else float(error > 0)

    def patches(self, model: bytes, layer: Layer) -> list[Floats]:
        """What the layer multiplies with its weights in `model`: per group ``[P, K]``, P output positions drawn from
        all samples, the same ones on every call."""
        session = OnnxRuntime(model, [layer.x])
        per_sample = max(POSITIONS // len(self.samples), 1)
        rng = np.random.default_rng(self._seed)
        parts: list[list[Floats]] = [[] for _ in range(layer.group)]
        for sample in self.samples:
            x = sample[layer.x] if layer.x in sample else session.run(sample)[layer.x]
            rows = windows(np.asarray(x, np.float32), layer)
            chosen = np.sort(rng.permutation(rows.shape[1])[:per_sample])
            for g, part in enumerate(parts):
                part.append(rows[g, chosen])
        return [np.concatenate(p) for p in parts]

    def _outputs(self, model: bytes) -> list[Array]:
        session = OnnxRuntime(model)
        results = (session.run(s) for s in self._judges)
        return [np.concatenate([np.asarray(v, np.float64).reshape(-1) for v in r.values()]) for r in results]


def _gives_classes(y: Array) -> bool:
    """Up to a thousand or so numbers are class scores; more are an image or a signal."""
    return bool(y.size <= 1024)


def windows(x: Floats, layer: Layer) -> Floats:
    """im2col: ``[G, P, K]`` of an input ``[N, C, ...]`` of a convolution, ``[1, P, K]`` of a matrix product."""
    s = layer.spatial
    if s is None:
        return x.reshape(1, -1, layer.inner)
    extents = [(k - 1) * d + 1 for k, d in zip(s.kernel, s.dilations, strict=True)]
    rank = len(s.kernel)
    pads = list(zip(s.pads[:rank], s.pads[rank:], strict=True))
    if s.auto_pad.startswith("SAME"):
        totals = [max((-(-n // t) - 1) * t + e - n, 0) for n, t, e in zip(x.shape[2:], s.strides, extents, strict=True)]
        pads = [(t // 2, t - t // 2) if s.auto_pad == "SAME_UPPER" else (t - t // 2, t // 2) for t in totals]
    padded = np.pad(x, [(0, 0), (0, 0), *pads])
    axes = tuple(range(2, 2 + rank))
    views = np.lib.stride_tricks.sliding_window_view(padded, extents, axis=axes)  # [N, C, *out, *extents]
    step = (slice(None), slice(None), *(slice(None, None, t) for t in s.strides))
    step += tuple(slice(None, None, d) for d in s.dilations)
    taken = views[step]
    n, c, out = taken.shape[0], taken.shape[1], taken.shape[2 : 2 + rank]
    grouped = taken.reshape(n, layer.group, c // layer.group, *out, *s.kernel)
    moved = np.moveaxis(grouped, (1, 2), (0, 2 + rank))  # [G, N, *out, C/G, *kernel]
    return np.ascontiguousarray(moved).reshape(layer.group, -1, layer.inner)
