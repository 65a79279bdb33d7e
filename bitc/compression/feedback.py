"""Error feedback: weights are replaced column by column, and what each replacement gets wrong on the calibration data
is made up for by the columns that are still free.

For a row w of weights and H = X'X of the layer's inputs, the change of the free weights that best cancels the error e_k
of column k is  -e_k / [Hinv]_kk * [Hinv]_k,free  (Optimal Brain Surgeon; Frantar and Alistarh, "Optimal Brain
Compression" and GPTQ, 2022; with the Cholesky factor of the inverse as GPTQ computes it).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]
DAMPING = 0.01
"""Share of the mean of H's diagonal that is added to it: inputs that hardly vary must not take the whole error."""


class Replacement(Protocol):
    """How one layer's weights are replaced. Decided from the weights before, then applied to corrected columns."""

    def column(self, k: int, w: Doubles) -> Doubles:
        """What takes the place of column k, whose corrected weights are `w` [O]."""
        ...

    def refit(self, target: Doubles, h: Doubles) -> Doubles:
        """The weights [O, K] after all columns, with scales fitted anew to `target` [O, K] in the metric `h`."""
        ...


def hessian(x: NDArray[np.float32]) -> Doubles:
    """``X'X / P`` of inputs [P, K], damped."""
    wide = x.astype(np.float64)
    h = wide.T @ wide / max(len(x), 1)
    mean = float(np.diag(h).mean())
    return np.asarray(h + np.eye(len(h)) * (DAMPING * mean if mean > 0 else 1.0))


def compensated(w: Doubles, h: Doubles, replacement: Replacement) -> Doubles:
    """Replace all columns of `w` [O, K] in order, each error spread over the columns after it, then refit."""
    factor = np.linalg.cholesky(np.linalg.inv(h)).T  # upper: Hinv = U'U, row k serves columns k and later
    free = w.copy()
    for k in range(w.shape[1]):
        new = replacement.column(k, free[:, k])
        error = (free[:, k] - new) / factor[k, k]
        free[:, k + 1 :] -= np.outer(error, factor[k, k + 1 :])
    return replacement.refit(w, h)


def saliency(w: Doubles, h: Doubles) -> Doubles:
    """What the error grows by if a weight becomes zero and all others follow: ``w_k**2 / [Hinv]_kk``, [O, K]."""
    return np.asarray(np.square(w) / np.diag(np.linalg.inv(h)))
