"""Max pools within a stage: across, then down.

    max over (ky, kx) of x = max over ky of max over kx of x

Where windows are wider than the pool's steps down, rows of x are read again. Of what is pooled across already, they are
shorter. The first of equal values in row-major order stays the first, and what is no number is still passed over, so
the bits are the same.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from bitc.ir.graph import Node, Value
from bitc.ops.pool import MaxPool
from bitc.ops.window import Window


def is_divided(node: Node) -> bool:
    """Whether the node is a max pool of which the line buffers are smaller in two steps: a row of x and some that are
    pooled across, instead of as many of x."""
    if not isinstance(node.op, MaxPool):
        return False
    down, before, after = node.op.window.kernel[0], node.input(0).shape[2], node.output.shape[2]
    return before + down * after < down * before


@lru_cache(maxsize=1024)
def across_and_down(node: Node) -> tuple[Node, ...]:
    """The node as two."""
    x, y, op = node.input(0), node.output, node.op
    assert isinstance(op, MaxPool)
    w = op.window
    (kh, kw), (sy, sx), (dy, dx), (top, left, bottom, right) = w.kernel, w.strides, w.dilations, w.pads
    across = Window((1, kw), (1, sx), (0, left, 0, right), (1, dx))
    down = Window((kh, 1), (sy, 1), (top, 0, bottom, 0), (dy, 1))
    inner = Value(f"{y.name}.across", x.type.with_shape((*x.shape[:2], *y.shape[2:])))
    return (
        replace(node, op=replace(op, window=across), outputs=(inner,)),
        replace(node, op=replace(op, window=down), inputs=(inner, *node.inputs[1:])),
    )
