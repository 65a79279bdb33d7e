"""Single-node models of onnxruntime's operators of transformers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.frontend.models import floats, ints

B, S, L, N, W = 2, 5, 7, 2, 8
Q, K, V = floats(B, S, W), floats(B, L, W, seed=1), floats(B, L, 6, seed=2)
PAST = floats(B, N, 3, 4, seed=5), floats(B, N, 3, 4, seed=6)
BIAS = floats(W + W + 6, seed=3)
MASK = ints(B, L, low=0, high=2)


def attention_cases(make: Any) -> list[Any]:
    """`make` is `cases.case`."""
    ms = {"domain": "com.microsoft", "tolerance": 1e-5}
    weights = (floats(W, 3 * W, seed=4) / np.float32(3), floats(3 * W, seed=5))
    return [
        make("MultiHeadAttention", Q, K, V, num_heads=N, **ms),
        make("MultiHeadAttention", Q, K, V, BIAS, num_heads=N, scale=0.3, **ms),
        make("MultiHeadAttention", Q, K, V, c=(BIAS, MASK), num_heads=N, **ms),
        make("MultiHeadAttention", Q, K, V, c=(None, None, floats(1, N, S, L)), num_heads=N, **ms),
        make("MultiHeadAttention", Q, Q, Q, c=(None, None, None, *PAST), num_heads=N, outputs=3, **ms),
        make("MultiHeadAttention", Q, Q, Q, num_heads=N, unidirectional=1, **ms),
        make("Attention", Q, c=weights, num_heads=N, **ms),
        make("Attention", Q, c=(*weights, MASK[:, :S].copy()), num_heads=N, unidirectional=1, **ms),
        make("SkipLayerNormalization", Q, Q + 1, c=(floats(W), floats(W, seed=1), floats(W, seed=2)), **ms),
        make("SkipSimplifiedLayerNormalization", Q, Q + 1, c=(floats(W),), epsilon=1e-5, **ms),
        make("BiasGelu", Q, c=(floats(W),), **ms),
        make("QuickGelu", Q, alpha=1.5, **ms),
        make("FusedMatMul", floats(4, 3), c=(floats(5, 4),), transA=1, transB=1, alpha=0.5, **ms),
    ]
