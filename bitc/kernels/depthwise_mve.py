"""Depthwise convolution of int8 codes with Helium: one channel after the other, four outputs at a time.

The outputs of a row (or of a column, whichever fills vectors better) are cut into four runs, one for each lane. Along
the runs every column of inputs is gathered once and multiplied with one weight after the other, by VMLA of a vector and
a register, for all the sums that it belongs to (see `depthwise_int8.sweep`). Runs may overlap: what they share is
computed twice. The zero point is taken from where sums start, and stands for padding; windows that touch padding at the
other two edges are copied first (`line`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bitc.ir.dtypes import INT8, UINT8
from bitc.ir.graph import Node
from bitc.kernels import overlap
from bitc.kernels.bounds import product_range
from bitc.kernels.depthwise_int8 import MAX_COLUMNS, MAX_TAPS, Column, Sweep, sweep
from bitc.kernels.epilogues import summed_epilogue
from bitc.kernels.geometry import Geometry, geometry
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, over_x, scratch
from bitc.kernels.work import Work, put
from bitc.ops.epilogue import Affine, Requant
from bitc.ops.linear import Conv2D
from bitc.target import Target

LANES = 4


@dataclass(frozen=True)
class Runs:
    """How a channel is cut into runs. `geo` has its axes exchanged if they go `down` columns of the image."""

    geo: Geometry
    down: bool
    length: int
    """Outputs of a run."""
    starts: tuple[int, ...]
    """First output of each."""
    sweep: Sweep

    @staticmethod
    def along(geo: Geometry, down: bool) -> Runs:
        """The runs along rows, or down columns."""
        g = geo
        if down:
            g = Geometry(g.n, g.w, g.h, g.ow, g.oh, g.kw, g.kh, g.sx, g.sy, g.pl, g.pt, g.dx, g.dy, g.border)
        length = -(-g.ow // LANES)
        starts = tuple(min(i * length, g.ow - length) for i in range(LANES))
        # A column is inside for all lanes if it is for the first and the last.
        return Runs(g, down, length, starts, sweep(replace(g, ow=length, w=g.w - starts[-1] * g.sx)))

    @property
    def columns(self) -> tuple[Column, ...]:
        """All of a run, those of the loop once."""
        return (*self.sweep.before, *self.sweep.loop, *self.sweep.after)

    @property
    def steps(self) -> int:
        """Columns of inputs of one channel."""
        return self.geo.oh * (len(self.columns) + (self.sweep.rounds - 1) * len(self.sweep.loop))

    def inside(self, column: int) -> int:
        """The lanes for which a column of the run is inside, as a predicate of four bits per lane."""
        at = (start * self.geo.sx - self.geo.pl + column for start in self.starts)
        return sum(15 << 4 * i for i, x in enumerate(at) if 0 <= x < self.geo.w)

    @property
    def predicates(self) -> dict[str, list[int]]:
        """`inside` of the columns before and after the loop."""
        s = self.sweep
        end = len(s.before) + s.rounds * len(s.loop)
        return {
            "before": [self.inside(t) for t in range(len(s.before))],
            "after": [self.inside(end + t) for t in range(len(s.after))],
        }

    @property
    def used(self) -> set[int]:
        """Kernel columns that meet inputs."""
        s, lanes = self.sweep, self.predicates
        parts = zip((*s.before, *s.after), lanes["before"] + lanes["after"], strict=True)
        met = [c for c, inside in parts if inside] + list(s.loop)
        return {kx for c in met for kx, *_ in c.adds}


def runs(geo: Geometry) -> Runs:
    """The runs with fewer steps."""
    return min((Runs.along(geo, down) for down in (False, True)), key=lambda r: r.steps)


def accepts(node: Node, target: Target) -> str:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    if reason := first_reason(
        ("mve" in target.features, "no Helium"),
        (op.group == op.pixels(x.type).channels and not op.planar, "not depthwise over the last axis"),
        (x.type.dtype in (INT8, UINT8), f"activations are {x.type.dtype}, not of 8 bits"),
        (w.type.dtype is INT8, f"weights are {w.type.dtype}, not int8"),
        (w.is_const, "weights are computed"),
        (node.output.type.size > 0, "no outputs"),
        (op.epilogue is None or isinstance(op.epilogue, Affine | Requant), "outputs are packed"),
    ):
        return reason
    geo = geometry(x.type, op.window)
    return first_reason(
        (geo.taps <= MAX_TAPS, f"more than {MAX_TAPS} taps"),
        (len(runs(geo).columns) <= MAX_COLUMNS, f"more than {MAX_COLUMNS} columns to write out"),
    )


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    image, outputs, channels = geometry(x.type, op.window), w.shape[0], x.type.channels
    best = runs(image)
    geo = best.geo
    e, params, bias = summed_epilogue(node, *product_range(node), target)
    taps = w.array.reshape(outputs, image.kh, image.kw)
    taps = taps.swapaxes(1, 2) if best.down else taps
    start = np.broadcast_to(bias, outputs) - op.x_zero * taps.astype(np.int64).sum(axis=(1, 2))
    args = [out(node), Arg("x", x), Arg("w", Packed(taps.reshape(-1))), *params]
    if start.any():
        args.append(Arg("start", Packed(start.astype(np.int32), "bias")))
    above = geo.pt > 0 or (geo.oh - 1) * geo.sy - geo.pt + (geo.kh - 1) * geo.dy >= geo.h
    if above:
        args.append(scratch("line", geo.kh * geo.w, x.type.dtype.carrier.type))
    steps = (image.w * channels, channels), (image.ow * outputs, outputs)
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "x_t": x.type.dtype.c_type,
        "unsigned": x.type.dtype is UINT8,
        "x_zero": op.x_zero,
        "above": above,
        "has_start": bool(start.any()),
        "outputs": outputs,
        "channels": channels,
        "per_channel": outputs // channels,
        "sweep": best.sweep,
        "inside": best.predicates,
        "used": best.used,
        "starts": best.starts,
        # from an element to the next one across and along runs, of x and of y
        "x_across": steps[0][best.down],
        "x_along": steps[0][not best.down],
        "y_across": steps[1][best.down],
        "y_along": steps[1][not best.down],
    }
    # Four places of a run at once; runs down the image leave no memory behind.
    over = () if best.down else overlap.by_channels(geo, x.type, node.output.type, overlap.rows(geo), False)
    uses = ("bitc_defs.h", "isa/mve.j2")
    return (Step(VARIANT.name, "kernels/depthwise_mve.j2", tuple(args), context, uses, over_x(over)),)


def work(node: Node, target: Target) -> Work:
    """Vectors of inputs, products, outputs put, rows of outputs, and vectors copied where windows touch padding."""
    assert isinstance(node.op, Conv2D)
    best, outputs = runs(geometry(node.input(0).type, node.op.window)), node.input(1).shape[0]
    geo, plan = best.geo, best.sweep
    columns = (*plan.before, *plan.loop * plan.rounds, *plan.after)
    rows = geo.n * geo.oh * outputs
    inside = sum(0 <= y * geo.sy - geo.pt <= geo.h - (geo.kh - 1) * geo.dy - 1 for y in range(geo.oh))
    return {
        "call": 1,
        "channels": outputs,
        "weights": outputs * geo.taps,
        "rows": rows,
        "loads": rows * geo.kh * sum(bool(c.adds) for c in columns),
        "products": rows * geo.kh * sum(len(c.adds) for c in columns),
        "rounds": rows * plan.rounds,
        "copies": geo.n * outputs * (geo.oh - inside) * geo.kh * -(-geo.w // LANES),
        put(node): rows * best.length,
    }


def cost(node: Node, target: Target) -> float:
    prices = {"rows": 25.0, "copies": 6.0, "loads": 2.0, "channels": 30.0, "weights": 2.0, "products": 1.0}
    return sum(n * prices.get(term, 8.0 if term.startswith("put") else 1.0) for term, n in work(node, target).items())


VARIANT = Variant("depthwise_mve", (Conv2D,), accepts, build, cost, work)
