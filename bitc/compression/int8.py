"""Weights and activations at int8, as the last step: layers that earlier steps have made binary or ternary keep their
levels, since a quantizer per channel maps -a, 0 and a to codes of their own.

Layers on two-valued inputs stay as they are: they run on bits. So do the most sensitive ones, as many as it takes to
stay within `--max-drop`, found by bisection.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from bitc.compression.work import Outcome, Work, outputs, relative
from bitc.errors import UsageError
from bitc.frontend.edit import EditableModel
from bitc.quantization import METHODS, Settings, to_int8


@dataclass(frozen=True)
class Quantize:
    """`method`: how the range of activations is found: ``minmax``, ``entropy`` or ``percentile``. `zero`: ``any`` zero
    point for activations, or ``symmetric``."""

    method: str = "minmax"
    zero: str = "any"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}")
        if self.zero not in ("any", "symmetric"):
            raise ValueError("zero must be any or symmetric")

    def run(self, work: Work) -> Iterator[Outcome]:
        """Quantize all chosen layers but the fewest that must stay. Raises ModelError, UsageError."""
        errors = {layer.name: self._error(work, layer.name) for layer in work.choice.layers(work.model)}
        bits = {name for name in errors if work.model.level_nodes(work.model.layer(name))}
        order = sorted((n for n in errors if n not in bits), key=lambda n: -errors[n])
        if not errors:
            hint = "quantize a float model, once, and as the last step"
            raise UsageError("no layer is left to quantize", where="--step quantize", hint=hint)
        data, failed, done, why, at = work.data, -1, len(order) or 1, "", 0
        while failed < at < done:  # every success leaves fewer layers as they were than the one before
            trial = EditableModel(self.quantized(work, data, order[at:]))
            said = work.accept(trial)
            failed, done, why = (at, done, said) if said else (failed, at, why)
            at = (failed + done) // 2
        for name in errors:
            kept = "its input is two-valued" if name in bits else why if name in order[:done] else ""
            yield Outcome("quantize", name, errors[name], work.score, kept)

    def quantized(self, work: Work, data: bytes, names: Collection[str]) -> bytes:
        """The model `data` with the layers of these names quantized. Raises ModelError."""
        model = EditableModel(data)
        keep = [node for layer in model.layers for node in (layer.name, *model.level_nodes(layer))]
        settings = Settings(self.method, self.zero == "symmetric")
        return to_int8(data, work.calibration.samples, settings, [n for n in keep if n not in names])

    @staticmethod
    def _error(work: Work, name: str) -> float:
        """The relative error of a layer whose inputs are rounded to 8 bits, and whose weights are, per channel."""
        x, w = work.inputs(name), work.model.weights(work.model.layer(name))
        step = float(max(p.max() for p in x) - min(p.min() for p in x)) / 255 or 1.0
        codes = [np.rint(part / step) * step for part in x]
        steps = np.abs(w).max(axis=1, keepdims=True) / 127
        steps[steps == 0] = 1
        return relative(outputs(x, w), outputs(codes, np.rint(w / steps) * steps))
