"""Depthwise convolution of int8 codes on microcontrollers: one channel after the other, its weights in registers.

Along a row of outputs every column of inputs is loaded once, and added to all the sums that it belongs to; a sum is
done after its last column. With DSP instructions two rows of a column are multiplied at once. The zero point is taken
from where sums start, so padding is the zero point's code: columns outside are constants, and windows that touch
padding above or below are copied first (`line`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bitc.ir.dtypes import INT8, INT16, UINT8
from bitc.ir.graph import Node
from bitc.kernels import overlap
from bitc.kernels.bounds import product_range
from bitc.kernels.epilogues import summed_epilogue
from bitc.kernels.geometry import Geometry, geometry
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, over_x, scratch
from bitc.kernels.work import Work, put
from bitc.ops.epilogue import Affine, Requant
from bitc.ops.linear import Conv2D
from bitc.target import Target

MAX_TAPS = 64
"""Taps of a window, which are all written out in the code."""
MAX_COLUMNS = 24
"""Columns of a round of the loop, likewise."""
SHORT = 64
"""Elements up to which the rows of one channel lie on the stack."""


@dataclass(frozen=True)
class Column:
    """One column of inputs: is it inside, and what it adds to: (kernel column, sum, whether it is the first, the last
    column of that sum)."""

    inside: bool
    adds: tuple[tuple[int, int, bool, bool], ...]


@dataclass(frozen=True)
class Sweep:
    """A row of outputs as columns: some, a loop of `rounds` over `loop`, and the rest."""

    sums: int
    before: tuple[Column, ...]
    loop: tuple[Column, ...]
    rounds: int
    after: tuple[Column, ...]

    @property
    def used(self) -> set[int]:
        """Kernel columns that meet inputs."""
        columns = (*self.before, *self.loop, *self.after)
        return {kx for c in columns if c.inside for kx, *_ in c.adds}


def sweep(g: Geometry) -> Sweep:
    """The columns of a row of outputs. Sums take turns: output ox is sum ``ox mod sums``."""
    reach = (g.kw - 1) * g.dx + 1
    sums = min(-(-reach // g.sx), g.ow)
    period = sums * g.sx
    columns = [_column(g, t, sums) for t in range((g.ow - 1) * g.sx + reach)]
    whole = [
        all(len(c.adds) == len(_column(g, t, sums, endless=True).adds) and (c.inside or not c.adds) for t, c in block)
        for start in range(0, len(columns) - period + 1, period)
        if (block := list(enumerate(columns))[start : start + period])
    ]
    if sum(whole) < 2:
        return Sweep(sums, tuple(columns), (), 0, ())
    first = whole.index(True)
    rounds = whole[first:].index(False) if False in whole[first:] else len(whole) - first
    start, stop = first * period, (first + rounds) * period
    return Sweep(sums, tuple(columns[:start]), tuple(columns[start : start + period]), rounds, tuple(columns[stop:]))


def _column(g: Geometry, t: int, sums: int, endless: bool = False) -> Column:
    adds = []
    for kx in reversed(range(g.kw)):  # sums that end come first: their turn is taken over
        ox, apart = divmod(t - kx * g.dx, g.sx)
        if not apart and (endless or 0 <= ox < g.ow):
            adds.append((kx, ox % sums, kx == 0, kx == g.kw - 1))
    return Column(0 <= t - g.pl < g.w, tuple(adds))


def accepts(node: Node, target: Target) -> str:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    dtype = x.type.dtype
    if reason := first_reason(
        (target.vector_bytes < 8 or "mve" in target.features, "vectors are wider"),
        (op.group == op.pixels(x.type).channels and not op.planar, "not depthwise over the last axis"),
        (dtype in (INT8, UINT8, INT16), f"activations are {dtype}, neither int8 nor int16"),
        (w.type.dtype is INT8, f"weights are {w.type.dtype}, not int8"),
        (w.is_const, "weights are computed"),
        (op.epilogue is None or isinstance(op.epilogue, Affine | Requant), "outputs are packed"),
    ):
        return reason
    geo = geometry(x.type, op.window)
    plan = sweep(geo)
    columns = len(plan.before) + len(plan.loop) + len(plan.after)
    return first_reason(
        (geo.taps <= MAX_TAPS, f"more than {MAX_TAPS} taps"),
        (columns <= MAX_COLUMNS, f"more than {MAX_COLUMNS} columns to write out"),
    )


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    geo, outputs, dtype = geometry(x.type, op.window), w.shape[0], x.type.dtype
    e, params, bias = summed_epilogue(node, *product_range(node), target)
    flat = w.array.reshape(outputs, geo.taps)
    start = np.broadcast_to(bias, outputs) - op.x_zero * flat.astype(np.int64).sum(axis=1)
    args = [out(node), Arg("x", x), Arg("w", Packed(flat.reshape(-1))), *params]
    if start.any():
        args.append(Arg("start", Packed(start.astype(np.int32), "bias")))
    above = geo.pt > 0 or (geo.oh - 1) * geo.sy - geo.pt + (geo.kh - 1) * geo.dy >= geo.h
    line = geo.kh * geo.w * above
    if line > SHORT:
        args.append(scratch("line", line, dtype.carrier.type))
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "x_t": dtype.c_type,
        "x_zero": op.x_zero,
        "above": above,
        "short_line": line if line <= SHORT else 0,
        "has_start": bool(start.any()),
        "outputs": outputs,
        "x_row": x.type.row_step,
        "y_row": node.output.type.row_step,
        "per_channel": outputs // x.type.channels,
        "sweep": sweep(geo),
        "pairs": geo.kh // 2 if "dsp" in target.features and -(2**15) <= op.x_zero < 2**15 else 0,
    }
    uses, over = (
        ("bitc_defs.h", "isa/smlad.j2"),
        over_x(overlap.by_channels(geo, x.type, node.output.type, overlap.singly(geo))),
    )
    return (Step(VARIANT.name, "kernels/depthwise_int8.j2", tuple(args), context, uses, over),)


def work(node: Node, target: Target) -> Work:
    """Columns of inputs, products, outputs put, rows of outputs, and elements copied where windows touch padding."""
    assert isinstance(node.op, Conv2D)
    geo, outputs = geometry(node.input(0).type, node.op.window), node.input(1).shape[0]
    plan = sweep(geo)
    columns = (*plan.before, *plan.loop * plan.rounds, *plan.after)
    rows = geo.n * geo.oh * outputs
    adds = rows * sum(len(c.adds) for c in columns if c.inside)
    pairs, last = (geo.kh // 2, geo.kh % 2) if "dsp" in target.features else (0, geo.kh)
    inside = sum(0 <= y * geo.sy - geo.pt <= geo.h - (geo.kh - 1) * geo.dy - 1 for y in range(geo.oh))
    return {
        "call": 1,
        "channels": outputs,
        "weights": outputs * geo.taps,
        "rows": rows,
        "loads": rows * geo.kh * sum(c.inside and bool(c.adds) for c in columns),
        "pairs": adds * pairs,
        "singles": adds * last,
        "rounds": rows * plan.rounds,
        "copies": geo.n * outputs * (geo.oh - inside) * geo.kh * geo.w,
        put(node): rows * geo.ow,
    }


def cost(node: Node, target: Target) -> float:
    prices = {"rows": 20.0, "copies": 6.0, "loads": 1.3, "channels": 20.0, "weights": 2.0, "singles": 1.5}
    return sum(n * prices.get(term, 6.0 if term.startswith("put") else 1.0) for term, n in work(node, target).items())


VARIANT = Variant("depthwise_int8", (Conv2D,), accepts, build, cost, work, apart="xy")
