"""All importers."""

from __future__ import annotations

from bitc.frontend import (
    algebra,
    attention,
    dynamic,
    elementwise,
    indexing,
    linear,
    movement,
    normalization,
    pooling,
    qonnx,
    quantized,
    recurrent,
    reduce,
    resize,
    sampling,
    transposed,
)
from bitc.frontend.context import Table

TABLE: Table = {
    **elementwise.TABLE,
    **linear.TABLE,
    **algebra.TABLE,
    **pooling.TABLE,
    **transposed.TABLE,
    **movement.TABLE,
    **indexing.TABLE,
    **dynamic.TABLE,
    **reduce.TABLE,
    **normalization.TABLE,
    **resize.TABLE,
    **sampling.TABLE,
    **recurrent.TABLE,
    **attention.TABLE,
    **quantized.TABLE,
    **qonnx.TABLE,
}
