"""The model as compressed so far, beside the model before, and the layers that a step is for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from bitc.compression.calibration import Calibration, Floats, Score
from bitc.compression.feedback import Doubles
from bitc.errors import UsageError
from bitc.frontend.edit import EditableModel, Layer


@dataclass(frozen=True)
class Choice:
    """Which layers a step is for: names or patterns with ``*`` and ``?``; no `include` means all."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def layers(self, model: EditableModel, spared: Set[str] = frozenset()) -> list[Layer]:
        """The chosen layers in the model's order; those of `spared` only if they are named. Raises UsageError for a
        pattern that fits none."""
        for pattern in (*self.include, *self.exclude):
            if not any(_fits(layer.name, pattern) for layer in model.layers):
                why = "; ".join(f"{n}: {w}" for n, w in model.skipped.items() if _fits(n, pattern))
                names = ", ".join(layer.name for layer in model.layers) or "none"
                what = f"{pattern!r} can not be compressed: {why}" if why else f"no layer is called {pattern!r}"
                raise UsageError(what, where="--step, --include or --exclude", hint=f"the layers are: {names}")
        return [layer for layer in model.layers if self._takes(layer.name, spared)]

    def _takes(self, name: str, spared: Set[str]) -> bool:
        if any(_fits(name, p) for p in self.exclude):
            return False
        if self.include:
            return any(_fits(name, p) for p in self.include)
        return name not in spared


def _fits(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)  # names may hold [ and ]


@dataclass(frozen=True)
class Outcome:
    """What one step did to one layer. `error` is the relative error of the layer's output on the calibration data,
    `score` what the model is worth after it; `kept` says why the layer stayed as it was, or is empty."""

    step: str
    layer: str
    error: float
    score: Score
    kept: str = ""

    def __str__(self) -> str:
        what = f"stays as it was: {self.kept}" if self.kept else f"{self.score.metric} {self.score.value:.4f}"
        return f"{self.step} {self.layer}: error {self.error:.3f}, {what}"


Adapter = Callable[[Floats, Sequence[Floats], Doubles], tuple[Floats, Floats]]
"""Weights [O, K] and a bias [O] nearer to a target [P, O], from weights and what they are multiplied with."""


class Work:
    """The state of a compression."""

    def __init__(self, source: bytes, calibration: Calibration, max_drop: float, choice: Choice = Choice()) -> None:
        self.calibration = calibration
        self.choice = choice
        self.source = source
        self.original = EditableModel(source)
        self.model = EditableModel(source)
        self.data = self.model.to_bytes()
        self.before = self.score = calibration.score(source)
        self.floor = self.before.value - max_drop
        self.adapters: dict[str, Adapter] = {}
        """How weights that a step has given a form are adapted and keep it, by layer."""
        self._targets: dict[str, Doubles] = {}

    def copy(self) -> Work:
        """A second state that goes on from this one."""
        found = copy.copy(self)
        found.adapters = dict(self.adapters)
        return found

    def inputs(self, name: str) -> list[Floats]:
        """What a layer multiplies with its weights now: per group [P, K]."""
        return self.calibration.patches(self.data, self.model.layer(name))

    def target(self, name: str) -> Doubles:
        """What the layer computed before, [P, O]."""
        if name not in self._targets:
            layer = self.original.layer(name)
            products = outputs(self.calibration.patches(self.source, layer), self.original.weights(layer))
            self._targets[name] = products + self.original.bias(layer)
        return self._targets[name]

    def trial(self) -> EditableModel:
        """A copy of the model, to change and `accept`."""
        return EditableModel(self.data)

    def accept(self, trial: EditableModel) -> str:
        """Go on with the changed model, or say why not."""
        data = trial.to_bytes()
        score = self.calibration.score(data)
        if score.value < self.floor:
            return f"{score.metric} would be {score.value:.4f}, below {self.floor:.4f}"
        self.model, self.data, self.score = trial, data, score
        return ""


def outputs(x: Sequence[Floats], w: Floats) -> Doubles:
    """A layer's products [P, O] of inputs, per group [P, K], and weights [O, K]."""
    per_group = len(w) // len(x)
    parts = [p.astype(np.float64) @ w[g * per_group : (g + 1) * per_group].T for g, p in enumerate(x)]
    return np.asarray(np.concatenate(parts, axis=1))


def relative(y: Doubles, other: Doubles) -> float:
    """Root of the error of `other` [P, O] over the variance of `y`."""
    power = float(np.square(y - y.mean(axis=0)).sum())
    return float(np.sqrt(np.square(y - other).sum() / power)) if power else 0.0
