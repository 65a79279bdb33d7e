"""Depthwise convolution of int8 codes on microcontrollers: one channel after the other, its weights in registers.

Along a row of outputs every column of inputs is loaded once, and added to all the sums that it belongs to; a sum is
done after its last column. With DSP instructions two rows of a column are multiplied at once. The zero point is taken
from where sums start, so padding is the zero point's code: rows and columns outside are constants. A window that
reaches over the upper or lower edge is moved into the image, and its weights in the other direction, zeros behind them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from bitc.ir.dtypes import INT8, INT16, UINT8
from bitc.ir.graph import Node
from bitc.kernels import overlap
from bitc.kernels.bounds import product_range
from bitc.kernels.epilogues import summed_epilogue
from bitc.kernels.geometry import Geometry, geometry
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, over_x
from bitc.kernels.work import Work, put
from bitc.ops.epilogue import Affine, Requant
from bitc.ops.linear import Conv2D
from bitc.target import Target

MAX_TAPS = 64
"""Taps of a window, which are all written out in the code."""
MAX_COLUMNS = 24
"""Columns of a round of the loop, likewise."""
FAR = 4095
"""Bytes that offsets of loads and stores reach."""
LINES = 140
"""Of assembly in one string, which C99 limits to 4,095 characters."""


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

    @property
    def outside(self) -> set[int]:
        """Kernel columns that meet padding."""
        return {kx for c in (*self.before, *self.after) if not c.inside for kx, *_ in c.adds}


def rows(g: Geometry) -> int:
    """Rows of the image that a window meets at most."""
    return min(g.kh, g.h) if g.dy == 1 else g.kh


def shifts(g: Geometry) -> list[int]:
    """By how many kernel rows the window of each row of outputs is moved, to lie in the image."""
    last = g.h - 1 - (rows(g) - 1) * g.dy
    starts = (oy * g.sy - g.pt for oy in range(g.oh))
    return [-(iy // g.dy) if iy < 0 else min(last - iy, 0) // g.dy for iy in starts]


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
        (geo.dy == 1 or geo.h >= geo.kh * geo.dy, "dilated beyond the image"),
    )


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    geo, outputs, dtype = geometry(x.type, op.window), w.shape[0], x.type.dtype
    e, params, bias = summed_epilogue(node, *product_range(node), target)
    flat = w.array.reshape(outputs, geo.taps)
    taken, moved = rows(geo), shifts(geo)
    met = flat if any(moved) else flat[:, : taken * geo.kw]  # rows that meet padding alone add what is taken off here
    start = np.broadcast_to(bias, outputs) - op.x_zero * met.astype(np.int64).sum(axis=1)
    args = [out(node), Arg("x", x), Arg("w", Packed(flat.reshape(-1))), *params]
    if start.any():
        args.append(Arg("start", Packed(start.astype(np.int32), "bias")))
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "x_t": dtype.c_type,
        "x_zero": op.x_zero,
        "rows": taken,
        "shifts": any(moved),
        "above": max(0, -min(moved)),
        "below": max(0, taken + max(moved) - geo.kh),
        "has_start": bool(start.any()),
        "outputs": outputs,
        "x_row": x.type.row_step,
        "y_row": node.output.type.row_step,
        "x_bytes": dtype.carrier.itemsize,
        "in_registers": in_registers(node, e, target),
        "far": 2 * geo.dy * geo.w * x.type.row_step * dtype.carrier.itemsize > FAR,
        "per_channel": outputs // x.type.channels,
        "sweep": sweep(geo),
        "pairs": taken // 2 if "dsp" in target.features and -(2**15) <= op.x_zero < 2**15 else 0,
    }
    uses, over = (
        ("bitc_defs.h", "isa/smlad.j2"),
        over_x(overlap.by_channels(geo, x.type, node.output.type, overlap.singly(geo))),
    )
    return (Step(VARIANT.name, "kernels/depthwise_int8.j2", tuple(args), context, uses, over),)


def in_registers(node: Node, e: dict[str, Any], target: Target) -> bool:
    """Whether a row of outputs is one piece of assembly: of 3x3 windows, with an epilogue of three instructions."""
    op, x = node.op, node.input(0).type
    assert isinstance(op, Conv2D)
    geo, plan = geometry(x, op.window), sweep(geometry(x, op.window))
    columns = [c for c in (*plan.before, *plan.loop, *plan.after) if c.adds]
    adds = [last for c in columns for *_, last in c.adds]
    limits = {"int8_t": (-128, 127), "uint8_t": (0, 255)}
    return (
        "dsp" in target.features
        and (rows(geo), geo.kh, geo.kw, geo.dx) == (3, 3, 3, 1)
        and plan.used == {0, 1, 2}
        and 5 * len(columns) + 2 * len(adds) + 5 * sum(adds) <= LINES
        and e.get("upper") is not None
        and not e["upper"].before
        and (e["lo"], e["hi"]) == limits.get(e["out_t"])
        and 6 * max(x.row_step * x.dtype.carrier.itemsize, node.output.type.row_step) <= FAR
    )


def work(node: Node, target: Target) -> Work:
    """Columns of inputs, products, outputs put, rows of outputs, and how often weights are moved."""
    assert isinstance(node.op, Conv2D)
    geo, outputs = geometry(node.input(0).type, node.op.window), node.input(1).shape[0]
    plan, taken, moved = sweep(geo), rows(geo), shifts(geo)
    columns = (*plan.before, *plan.loop * plan.rounds, *plan.after)
    lines = geo.n * geo.oh * outputs
    adds = lines * sum(len(c.adds) for c in columns if c.inside)
    pairs, last = divmod(taken, 2) if "dsp" in target.features else (0, taken)
    terms: Work = {
        "call": 1,
        "channels": outputs,
        "weights": outputs * geo.taps,
        "moves": geo.n * outputs * (1 + sum(a != b for a, b in pairwise(moved))) if any(moved) else 0,
    }
    loads = lines * taken * sum(c.inside and bool(c.adds) for c in columns)
    if in_registers(node, summed_epilogue(node, *product_range(node), target)[0], target):
        return terms | {
            "rows in registers": lines,
            "loads in registers": loads,
            "pairs in registers": 2 * adds,
            "rounds in registers": lines * plan.rounds,
            f"{put(node)} in registers": lines * geo.ow,
        }
    return terms | {
        "rows": lines,
        "loads": loads,
        "pairs": adds * pairs,
        "singles": adds * last,
        "rounds": lines * plan.rounds,
        put(node): lines * geo.ow,
    }


def cost(node: Node, target: Target) -> float:
    prices = {"rows": 20.0, "rows in registers": 15.0, "moves": 40.0, "loads": 1.3, "channels": 20.0, "weights": 2.0,
              "singles": 1.5}  # fmt: skip
    return sum(n * prices.get(term, 6.0 if term.startswith("put") else 1.0) for term, n in work(node, target).items())


VARIANT = Variant("depthwise_int8", (Conv2D,), accepts, build, cost, work, apart="xy")
