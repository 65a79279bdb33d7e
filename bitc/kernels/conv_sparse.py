"""Convolution with the zeros of its weights left out.

Pixels are taken a few at a time: what they multiply lies column by column in working memory, K columns of `tile`
pixels, so that each weight is loaded once for all of them, and their sums are vectors or registers (Elsen et al.,
"Fast Sparse ConvNets", 2020, who keep the whole activations in that order). A 1x1 convolution on scalar processors
reads the pixels where they are.

Weights are stored with the distance to the one before, in columns (one byte; a longer way gets a zero in between), so a
weight takes two bytes as int8 and five as float32. Each output's products are added in the order of the reference,
without those that are zero: infinities and NaN do not spread through a weight of zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from bitc.ir.dtypes import FLOAT32, INT8, UINT8
from bitc.ir.graph import Array, Node
from bitc.ir.program import c_type
from bitc.kernels import overlap
from bitc.kernels.depthwise_products import LANE_ISAS, LaneIsa
from bitc.kernels.epilogues import conv_epilogue
from bitc.kernels.geometry import geometry
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, over_x, scratch
from bitc.kernels.work import Work, put
from bitc.ops.linear import Conv2D
from bitc.target import Target

LEAST = 0.4
"""Share of zeros from which the row is offered."""
ROOM = 4096
"""Bytes of working memory that columns may take where RAM is counted, or more: a share of it."""
SHARE = 16
LONGEST = 255
"""Columns that one step can skip."""


@dataclass(frozen=True)
class Stream:
    """The weights of all outputs, one after the other: `values`, `steps` (columns from the one before, the first from
    column 0) and, per output, `counts` of them. Of several outputs at once: the values of a column lie together, and
    there are steps per column and counts per group of outputs."""

    values: Array
    steps: Array
    counts: Array


def stream(w: Array, longest: int = LONGEST, rows: int = 1) -> Stream:
    """The stream of weights ``[O, K]``, with steps of at most `longest` columns, `rows` outputs at once (the last ones
    with outputs of zeros)."""
    columns, steps, counts = list[Array](), list[int](), list[int]()
    zeros = np.zeros(rows, w.dtype)
    for group in np.pad(w, ((0, -len(w) % rows), (0, 0))).reshape(-1, rows, w.shape[1]):
        at, before = 0, len(steps)
        for k in np.flatnonzero(group.any(axis=0)):
            while k - at > longest:
                columns.append(zeros)
                steps.append(longest)
                at += longest
            columns.append(group[:, k])
            steps.append(int(k) - at)
            at = int(k)
        counts.append(len(steps) - before)
    # One element at least: C has no empty arrays.
    values = np.concatenate(columns or [zeros])
    return Stream(values, np.array(steps or [0], np.uint8), np.array(counts, np.uint16))


@lru_cache(maxsize=64)  # every stage of selection asks again
def stream_of(node: Node, rows: int = 1) -> Stream:
    """The stream of a convolution, `rows` outputs at once."""
    w = node.input(1)
    return stream(w.array.reshape(w.shape[0], -1), rows=rows)


def stored(node: Node) -> str:
    """Why the weights of a convolution can not be stored without their zeros, for dense activations; else empty."""
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    kinds = ((FLOAT32, FLOAT32), (INT8, INT8), (UINT8, INT8))
    if not w.is_const or (x.type.dtype, w.type.dtype) not in kinds:
        return f"{x.type.dtype} by {'constant' if w.is_const else 'computed'} {w.type.dtype}"
    zeros = float((w.array == 0).mean())
    return first_reason(
        (zeros >= LEAST, f"{100 * zeros:.0f} % of the weights are zero"),
        (op.group == 1, "groups"),
        (not op.planar, "the image lies in planes"),
        (not node.output.type.layout.word, "the output is packed"),
        (w.type.size // w.shape[0] < 2**16, "rows of 65,536 weights or more"),
        (all(v is None or v.is_const for v in node.inputs[2:]), "parameters are computed"),
    )


def room(target: Target) -> float:
    """Bytes of working memory that columns may take."""
    return float("inf") if target.memory.ram is None else max(ROOM, target.memory.ram // SHARE)


def column(node: Node) -> int:
    """Inputs of an output, which are gathered."""
    w = node.input(1)
    return w.type.size // w.shape[0]


def tiles(node: Node, target: Target, counts: Sequence[int]) -> list[int]:
    """Of some numbers of pixels those that the image fills and whose columns working memory has room for."""
    op, x = node.op, node.input(0).type
    assert isinstance(op, Conv2D)
    pixels, size = geometry(x, op.window).pixels, x.dtype.carrier.itemsize * column(node)
    return [t for t in counts if t <= pixels and t * size <= room(target)]


def lane_isas(target: Target) -> list[LaneIsa]:
    """Vectors of float32 that the target has, the widest first."""
    isas = (i for i in LANE_ISAS if target.isa in i.isas and i.needs <= target.features)
    return [i for i in isas if i.x is FLOAT32 and i.lanes > 1]


def accepts(node: Node, target: Target) -> str:
    if reason := stored(node):
        return reason
    x, w = node.input(0).type, node.input(1)
    assert isinstance(node.op, Conv2D)
    vectors, pixels = lane_isas(target) if x.dtype is FLOAT32 else [], geometry(x, node.op.window).pixels
    return first_reason(
        (not vectors or pixels < vectors[-1].lanes, "conv_sparse_lanes has vectors of pixels"),
        (w.type.size // w.shape[0] * x.dtype.bits // 8 <= room(target), "long columns"),
        (x.dtype is not FLOAT32 or "fpu" in target.features, "no FPU"),
    )


@dataclass(frozen=True)
class _Plan:
    """How pixels are taken: `tile` at a time, `direct` from where they lie or through columns in working memory."""

    tile: int
    direct: bool


def plan(node: Node, target: Target) -> _Plan:
    op, x = node.op, node.input(0).type
    assert isinstance(op, Conv2D)
    geo = geometry(x, op.window)
    vector = target.vector_bytes // 4
    tile = 4 * vector if vector > 1 else 8 if x.dtype is FLOAT32 else 4
    if vector <= 1 and geo.taps == 1 and geo.sy == 1 and not geo.border:
        return _Plan(min(tile, geo.ow), True)
    column = geo.taps * x.channels * x.dtype.carrier.itemsize
    while tile > 1 and tile * column > room(target):
        tile //= 2
    return _Plan(min(tile, geo.pixels), False)


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    best = plan(node, target)
    geo = geometry(x.type, op.window)
    e, params = conv_epilogue(node)
    found = stream_of(node)
    args = [
        out(node),
        Arg("x", x),
        Arg("w", Packed(found.values)),
        Arg("steps", Packed(found.steps, "steps")),
        Arg("counts", Packed(found.counts, "counts")),
        *params,
    ]
    inner = w.type.size // w.shape[0]
    if not best.direct:
        args.append(scratch("columns", inner * best.tile, x.type.dtype.carrier.type))
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "x_t": c_type(x.type),
        "acc_t": op.accumulator(x.type, w.type).dtype.c_type,
        "cast": x.type.dtype is not FLOAT32,
        "x_zero": op.x_zero,
        "zero_of_x": "0.0f" if x.type.dtype is FLOAT32 else op.x_zero,
        "pixels": geo.pixels,
        "tile": best.tile,
        "transposes": False,
        "codes": False,
        "direct": best.direct,
        "channels": w.shape[3],
        "inner": inner,
        "outputs": w.shape[0],
        "weight_t": "float" if w.type.dtype is FLOAT32 else "int8_t",
    }
    rounds = overlap.singly(geo, best.tile)
    if best.direct:  # the last tile once more takes pixels of the one before
        rounds = (*rounds[: geo.pixels // best.tile], (geo.pixels - best.tile, geo.pixels))
    over = over_x(overlap.by_pixels(geo, x.type, node.output.type, rounds, not best.direct))
    return (Step(VARIANT.name, "kernels/conv_sparse.j2", tuple(args), context, ("bitc_defs.h",), over),)


def work(node: Node, target: Target) -> Work:
    """Per tile of pixels: columns filled, weights passed; per weight and pixel a product."""
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    best, geo = plan(node, target), geometry(x.type, op.window)
    tiles = -(-geo.pixels // best.tile)
    passed = stream_of(node).steps.size
    outputs = w.shape[0]
    form = f"{x.type.dtype}{' direct' if best.direct else ''}"
    return {
        "call": 1,
        "columns": 0 if best.direct else tiles * best.tile * w.type.size // outputs,
        "rows": tiles * outputs,
        f"{form} steps": tiles * passed,
        f"{form} products": tiles * passed * best.tile,
        put(node): geo.pixels * outputs,
    }


def cost(node: Node, target: Target) -> float:
    vector = max(target.vector_bytes // 4, 1)
    prices = {"columns": 3.0, "rows": 12.0, "steps": 9.0, "products": 3.0 / vector, "put": 6.0}
    terms = work(node, target).items()
    return sum(prices.get(term.split()[0], prices.get(term.split()[-1], 0.0)) * n for term, n in terms)


VARIANT = Variant("conv_sparse", (Conv2D,), accepts, build, cost, work)
