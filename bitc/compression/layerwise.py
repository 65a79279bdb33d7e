"""Steps that replace the weights of one layer after the other.

Every layer is replaced on the inputs that the model *as compressed so far* gives it, and then corrected against what
the model before computed there: per output channel ``y ~ a * y' + b``, least squares, with a folded into the weights
and b into the bias. That is the re-estimation of batch norm, and the error correction between layers, in one. Layers
come in the order of their own relative error, most sensitive last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np

from bitc.compression.calibration import Floats
from bitc.compression.feedback import Doubles, Mask, Replacement, compensated, hessian
from bitc.compression.work import Outcome, Work, outputs, relative
from bitc.frontend.edit import EditableModel, Layer
from bitc.frontend.forms import terms

FEW = 16
"""Layers with fewer weights per output (depthwise ones) have little to give: they stay unless they are named."""


FEW_VALUES = 256
"""A tensor of so few values, and many more weights, is taken for a codebook."""


class LayerStep:
    """Base: a frozen dataclass whose fields are its options."""

    ends = True
    """Whether the first and the last layer are changed without being named: few bits cost most there."""

    @property
    def by_tap(self) -> bool:
        """Whether the channels of a tap are neighbours, as kernels take them, rather than the taps of a channel."""
        return False

    def start(self, w: Doubles, h: Doubles) -> Replacement:
        """Decide for weights [O, K] of a layer whose inputs have the Hessian [K, K]. Every step has its own."""
        raise NotImplementedError(type(self).__name__)

    def stages(self) -> tuple[Self, ...]:
        """What is done one after the other, with adaptation of what is left in between."""
        return (self,)

    def inputs(self, trial: EditableModel, layer: Layer, x: list[Floats]) -> list[Floats]:
        """Change what the layer reads; returns it, per group [P, K]."""
        return x

    def adapt(self, w: Floats, x: Sequence[Floats], target: Doubles) -> tuple[Floats, Floats]:
        """Weights [O, K] of the step's form and a bias [O] that bring a layer's output nearer to `target` [P, O]."""
        return corrected(w, x, target)

    def run(self, work: Work) -> Iterator[Outcome]:
        """Apply the step to the layers that `work` chooses, then adapt all layers in the order of the network."""
        for stage in self.stages():
            for name in stage._by_sensitivity(work):
                yield stage.apply(work, name)
        for layer in work.model.layers:
            yield self._adapt(work, layer.name)

    def _by_sensitivity(self, work: Work) -> list[str]:
        """The layers' names by the relative error that the step alone causes at their outputs, least first."""
        errors = {}
        layers = work.model.layers
        spared = {layer.name for layer in layers if layer.inner < FEW}
        spared |= set() if self.ends else {layer.name for layer in (*layers[:1], *layers[-1:])}
        for layer in work.choice.layers(work.model, spared):
            x, w = work.inputs(layer.name), work.model.weights(layer)
            errors[layer.name] = relative(outputs(x, w), outputs(x, replaced(self, w, x, layer.taps)))
        return sorted(errors, key=lambda name: errors[name])

    def apply(self, work: Work, name: str) -> Outcome:
        """Replace the weights of one layer."""
        layer, target, trial = work.model.layer(name), work.target(name), work.trial()
        x = self.inputs(trial, layer, work.inputs(name))
        wanted, _ = refitted(work.model.weights(layer), x, target)
        w, bias = self.adapt(replaced(self, wanted, x, layer.taps), x, target)
        outcome = self._accept(work, trial, name, w, bias, x)
        if not outcome.kept:
            work.adapters[name] = self.adapt
        return outcome

    def _adapt(self, work: Work, name: str) -> Outcome:
        x, w = work.inputs(name), work.model.weights(work.model.layer(name))
        return self._accept(work, work.trial(), name, *adapted(work, name, w, x), x, "adapt")

    def _accept(
        self, work: Work, trial: EditableModel, name: str, w: Floats, bias: Floats, x: list[Floats], what: str = ""
    ) -> Outcome:
        trial.set_weights(trial.layer(name), w)
        trial.set_bias(trial.layer(name), bias)
        error, kept = relative(work.target(name), outputs(x, w) + bias), work.accept(trial)
        return Outcome(what or type(self).__name__.lower(), name, error, work.score, kept)


def adapted(work: Work, name: str, w: Floats, x: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Weights and bias of a layer, nearer to what it computed before. Weights of a form, be it that of a step or one
    that the model came with, stay of that form; others are free to change."""
    adapt = work.adapters.get(name)
    if adapt is None:
        before = work.original.weights(work.original.layer(name))
        few = len(np.unique(before)) <= FEW_VALUES < before.size / 4
        adapt = corrected if terms(before) else shifted if few else refitted
    return adapt(w, x, work.target(name))


def replaced(step: LayerStep, w: Floats, x: Sequence[Floats], taps: int = 1) -> Floats:
    """Weights [O, K] after a step; `x` is what they are multiplied with, per group [P, K]; K runs over channels and the
    taps of each."""
    per_group = len(w) // len(x)
    order = np.arange(w.shape[1])
    if step.by_tap:
        order = order.reshape(-1, taps).T.reshape(-1)
    result = np.empty(w.shape, np.float32)
    for g, patches in enumerate(x):
        outputs_of = slice(g * per_group, (g + 1) * per_group)
        rows = w[outputs_of, order].astype(np.float64)
        h = hessian(patches[:, order])
        result[outputs_of, order] = compensated(rows, h, step.start(rows, h))
    return result


def corrected(w: Floats, x: Sequence[Floats], target: Doubles) -> tuple[Floats, Floats]:
    """Weights scaled per channel and a bias [O], so that the layer's output fits `target` [P, O] in least squares."""
    y = outputs(x, w)
    mean, wanted = y.mean(axis=0), target.mean(axis=0)
    variance = np.square(y - mean).mean(axis=0)
    covariance = ((y - mean) * (target - wanted)).mean(axis=0)
    a = np.where((variance > 0) & (covariance > 0), covariance / np.where(variance > 0, variance, 1), 1.0)
    return (w * a[:, None]).astype(np.float32), (wanted - a * mean).astype(np.float32)


def shifted(w: Floats, x: Sequence[Floats], target: Doubles) -> tuple[Floats, Floats]:
    """The weights as they are, and the bias [O] that gives the layer's output the mean of `target` [P, O]."""
    return w, (target - outputs(x, w)).mean(axis=0).astype(np.float32)


ROUNDS = 32
"""Steps of conjugate gradients in a fit."""


def refitted(w: Floats, x: Sequence[Floats], target: Doubles) -> tuple[Floats, Floats]:
    """Weights [O, K] and bias [O] whose outputs fit `target` [P, O], from the weights given on: least squares by
    conjugate gradients, all rows at once. Zeros stay zeros."""
    per_group, parts = len(w) // len(x), []
    for g, patches in enumerate(x):
        rows = slice(g * per_group, (g + 1) * per_group)
        centred = patches.astype(np.float64) - patches.mean(axis=0, dtype=np.float64)
        rest = target[:, rows] - target[:, rows].mean(axis=0) - centred @ w[rows].T
        step = _solved(hessian(centred.astype(np.float32)), rest.T @ centred / len(centred), w[rows] != 0)
        parts.append(w[rows] + step)
    return shifted(np.concatenate(parts).astype(np.float32), x, target)


def _solved(h: Doubles, b: Doubles, free: Mask) -> Doubles:
    """Rows d with ``d h ~ b`` in the elements that are `free`, zero in the others."""
    d = np.zeros(b.shape)
    r = np.where(free, b, 0)
    p, power = r, np.square(r).sum(axis=1)
    for _ in range(ROUNDS):
        q = np.where(free, p @ h, 0)
        curve = (p * q).sum(axis=1)
        alpha = np.where(curve > 0, power / np.where(curve > 0, curve, 1), 0)[:, None]
        d, r = d + alpha * p, r - alpha * q
        new = np.square(r).sum(axis=1)
        p = r + np.where(power > 0, new / np.where(power > 0, power, 1), 0)[:, None] * p
        power = new
    return d
