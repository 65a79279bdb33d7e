"""Whole channels removed: the weakest ones, with all that is tied to them through residuals, concatenations and
depthwise layers.

Channels that must go together are one group (`bitc.passes.channel_ties`); a group is worth the mean of its producers'
``|w_o|^2``, each relative to its layer's mean (Li et al., "Pruning Filters for Efficient ConvNets", 2017; Fang et al.,
DepGraph, 2023). Its weights and biases become zero and the layers that read it are fitted anew to what they computed
before. The tensors keep their shapes in the ONNX file; the compiler then drops the dead channels without loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bitc.compression.layerwise import adapted
from bitc.compression.work import Outcome, Work, outputs, relative
from bitc.frontend.edit import EditableModel
from bitc.passes.channel_ties import ChannelGroup, ChannelTies
from bitc.pipeline import optimize


@dataclass(frozen=True)
class Channels:
    """`share`: part of the channel groups of each set of tied layers that goes."""

    share: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError("share must be from 0 to below 1")

    def run(self, work: Work) -> Iterator[Outcome]:
        """Weaken one set of tied layers after the other, the least sensitive first."""
        names = {layer.name for layer in work.choice.layers(work.model)}
        sets = {makers: groups for makers, groups in tied(work.data).items() if set(makers) <= names}
        chosen = {makers: self._weakest(work.model, groups) for makers, groups in sets.items()}
        for makers in sorted(chosen, key=lambda m: sum(_worth(work.model, g) for g in chosen[m])):
            if chosen[makers]:
                yield self._remove(work, makers, chosen[makers])

    def _weakest(self, model: EditableModel, groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
        count = min(int(self.share * len(groups)), len(groups) - 1)
        return sorted(groups, key=lambda g: _worth(model, g))[:count]

    def _remove(self, work: Work, makers: Sequence[str], groups: Sequence[ChannelGroup]) -> Outcome:
        trial = work.trial()
        rows = {name: [c for g in groups for maker, c in g.made_by if maker == name] for name in makers}
        for name, gone in rows.items():
            trial.silence(trial.layer(name), gone)
        errors = [0.0]
        readers = [layer.name for layer in trial.layers if any(layer.name in g.read_by for g in groups)]
        for name in readers:
            layer, target = trial.layer(name), work.target(name)
            x = work.calibration.patches(trial.to_bytes(), layer)
            w, bias = adapted(work, name, trial.weights(layer), x)
            if name in rows:
                w[rows[name]], bias[rows[name]] = 0, 0
            trial.set_weights(layer, w)
            trial.set_bias(layer, bias)
            errors.append(relative(target, outputs(x, w) + bias))
        kept = work.accept(trial)
        return Outcome(f"channels -{len(groups)}", ", ".join(makers), max(errors), work.score, kept)


def tied(model: bytes) -> dict[tuple[str, ...], list[ChannelGroup]]:
    """The groups of channels that can go, by the layers that make them. Raises ModelError."""
    sets: dict[tuple[str, ...], list[ChannelGroup]] = {}
    for group in ChannelTies(optimize(model).graph).groups():
        makers = tuple(sorted({name for name, _ in group.made_by}))
        if makers:
            sets.setdefault(makers, []).append(group)
    return sets


def _worth(model: EditableModel, group: ChannelGroup) -> float:
    parts = []
    for name, channel in group.made_by:
        power = np.square(model.weights(model.layer(name))).sum(axis=1)
        parts.append(power[channel] / max(float(power.mean()), 1e-30))
    return float(np.mean(parts))
