"""Depthwise convolution of float32 on an FPU without vectors: one channel after the other, its weights in registers.

Along a row of outputs the columns of the window stay in registers too, so that an output loads but those that are new.
Products are added row by row of the window, as in the reference. Taps outside are left out: there is a loop for each
number of rows inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from bitc.ir.dtypes import FLOAT32
from bitc.ir.graph import Node
from bitc.kernels import conv_sparse, overlap
from bitc.kernels.epilogues import conv_epilogue
from bitc.kernels.geometry import Geometry, geometry
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, over_x
from bitc.kernels.work import Work, put
from bitc.ops.epilogue import Affine
from bitc.ops.linear import Conv2D
from bitc.target import Target

LARGEST = 3
"""Rows and columns of a window at most: what 32 registers hold."""
CLASSES, EDGES = 5, 4
"""Loops over rows of outputs, and outputs that reach over the left and right edge, all written out."""
PRICES = {"call": 30.0, "channels": 40.0, "rows": 25.0, "loads": 1.5, "products": 2.0, "put": 8.0}
"""Instructions for each term of the work, roughly."""


@dataclass(frozen=True)
class Plan:
    """Loops over rows of outputs ``(first, end, ky0, ky1)``, of which kernel rows from ky0 to ky1 are inside; a row is
    `before` outputs, `rounds` of as many as the window has columns, and the rest."""

    classes: tuple[tuple[int, int, int, int], ...]
    before: int
    rounds: int


def plan(g: Geometry) -> Plan:
    """The loops for a window."""

    def inside(oy: int) -> tuple[int, int]:
        rows = [ky for ky in range(g.kh) if 0 <= oy * g.sy - g.pt + ky * g.dy < g.h]
        return (rows[0], rows[-1] + 1) if rows else (0, 0)

    classes, at = [], 0
    for (ky0, ky1), rows in groupby(map(inside, range(g.oh))):
        first, at = at, at + len(list(rows))
        classes.append((first, at, ky0, ky1))
    whole = [0 <= ox * g.sx - g.pl <= g.w - g.kw for ox in range(g.ow)]
    before = whole.index(True) if True in whole else g.ow
    return Plan(tuple(classes), before, sum(whole) // g.kw)


def accepts(node: Node, target: Target) -> str:
    op, x, w = node.op, node.input(0).type, node.input(1)
    assert isinstance(op, Conv2D)
    if reason := first_reason(
        ("fpu" in target.features and not conv_sparse.lane_isas(target), "no FPU, or wider vectors"),
        (x.dtype is FLOAT32 is w.type.dtype, f"{x.dtype} by {w.type.dtype}"),
        (op.group == op.pixels(x).channels and not op.planar, "not depthwise over the last axis"),
        (w.is_const and all(v is None or v.is_const for v in node.inputs[2:]), "parameters are computed"),
        (op.epilogue is None or isinstance(op.epilogue, Affine), "outputs are packed"),
        (node.output.type.size > 0, "no outputs"),
    ):
        return reason
    g = geometry(x, op.window)
    best = plan(g)
    return first_reason(
        (max(g.kh, g.kw) <= LARGEST and g.dx == 1, f"more than {LARGEST} rows or columns, or columns apart"),
        (any(c[2:] == (0, g.kh) for c in best.classes) and best.rounds > 0, "small images"),
        (all(ky0 < ky1 for *_, ky0, ky1 in best.classes), "windows in the padding"),
        (len(best.classes) <= CLASSES and g.ow - best.rounds * g.kw <= EDGES + g.kw, "wide padding"),
    )


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    geo, outputs = geometry(x.type, op.window), w.shape[0]
    best, (e, params) = plan(geo), conv_epilogue(node)
    args = (out(node), Arg("x", x), Arg("w", Packed(w.array.reshape(-1))), *params)
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "classes": best.classes,
        "before": best.before,
        "rounds": best.rounds,
        "outputs": outputs,
        "per_channel": outputs // x.type.channels,
        "x_row": x.type.row_step,
        "y_row": node.output.type.row_step,
    }
    over = over_x(overlap.by_channels(geo, x.type, node.output.type, overlap.singly(geo)))
    return (Step(VARIANT.name, "kernels/depthwise_floats.j2", args, context, ("bitc_defs.h",), over),)


def work(node: Node, target: Target) -> Work:
    """Channels, rows of outputs, inputs loaded, products, and outputs put."""
    op, outputs = node.op, node.input(1).shape[0]
    assert isinstance(op, Conv2D)
    g = geometry(node.input(0).type, op.window)
    heights = [(end - first) * (ky1 - ky0) for first, end, ky0, ky1 in plan(g).classes]
    across = sum(0 <= ox * g.sx - g.pl + kx < g.w for ox in range(g.ow) for kx in range(g.kw))
    return {
        "call": 1,
        "channels": outputs,
        "rows": g.n * g.oh * outputs,
        "loads": g.n * outputs * sum(heights) * g.ow * min(g.sx, g.kw),
        "products": g.n * outputs * sum(heights) * across,
        put(node): g.n * g.oh * g.ow * outputs,
    }


def cost(node: Node, target: Target) -> float:
    return sum(n * PRICES.get(term, PRICES["put"]) for term, n in work(node, target).items())


VARIANT = Variant("depthwise_floats", (Conv2D,), accepts, build, cost, work, apart="xy")
