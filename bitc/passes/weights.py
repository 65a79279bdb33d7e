"""Which weights are two-valued, and the bits and scales they stand for.

    w[o, ...] = alpha[o] * (1 - 2 * bit[o, ...])        bit 1 means -alpha

Exporters leave ±alpha only to about 1e-5 relative (a straight-through estimator folded in floats), so weights within
`tolerance` of ±alpha are snapped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitc.ir.graph import Array


@dataclass(frozen=True)
class BinaryWeights:
    """`bits` bool like the weights; `alpha` float32 ``[O]``, not negative."""

    bits: Array
    alpha: Array


def two_valued(w: Array, tolerance: float) -> BinaryWeights | str:
    """Weights ``[O, ...]`` as bits and scales, or the reason why they are not two-valued. A kernel of all zeros is
    taken as bits with alpha 0."""
    if not np.isfinite(w).all():
        return "weights contain NaN or infinity"
    rows = w.reshape(len(w), -1)
    low, high = np.abs(rows).min(axis=1).astype(np.float64), np.abs(rows).max(axis=1).astype(np.float64)
    if not high.any():
        return "all weights are zero"
    alpha = high
    if (low != high).any():  # exact weights do not move by the rounding of a mean
        alpha = np.where(low == high, high, np.abs(rows).mean(axis=1, dtype=np.float64))
    bad = np.maximum(high - alpha, alpha - low) > tolerance * alpha
    if bad.any():
        worst = int(np.argmax(bad))
        values = np.unique(rows[worst])
        if (rows[worst] == 0).any() and len(values) <= 3:
            return f"weights are three-valued (output channel {worst}: {_list(values)})"
        return f"weights are not two-valued (output channel {worst} has {len(values)} values)"
    return BinaryWeights(w < 0, alpha.astype(np.float32))


def _list(values: Array) -> str:
    return ", ".join(f"{v:g}" for v in values)
