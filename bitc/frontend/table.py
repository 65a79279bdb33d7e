"""All importers."""

from __future__ import annotations

from bitc.frontend import elementwise, linear, movement, qonnx, reduce
from bitc.frontend.context import Table

TABLE: Table = {**elementwise.TABLE, **linear.TABLE, **movement.TABLE, **reduce.TABLE, **qonnx.TABLE}
