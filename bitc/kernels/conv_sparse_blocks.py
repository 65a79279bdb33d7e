"""Convolution with the zeros of its weights left out, several outputs at once, where zeros lie in blocks.

If 2, 4 or 8 neighbouring outputs have their weights in the same columns, a column is found and loaded once for all of
them, and one step is stored for their weights. Otherwise as `conv_sparse_lanes` (also on scalar processors, whose
vectors are one pixel) and `conv_sparse_codes`. A zero inside of a block that is not all zeros is multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bitc.ir.dtypes import FLOAT32, INT8, UINT8
from bitc.ir.graph import Node
from bitc.kernels import conv_sparse, conv_sparse_codes, conv_sparse_lanes
from bitc.kernels.conv_sparse_codes import LANES
from bitc.kernels.conv_sparse_lanes import NEAR, Plan
from bitc.kernels.depthwise_products import LANE_ISAS
from bitc.kernels.geometry import geometry
from bitc.kernels.step import Step, Variant, first_reason
from bitc.kernels.work import Work, put
from bitc.ops.linear import Conv2D
from bitc.target import Target

ROWS = (2, 4, 8)
"""Outputs at once."""
FULL = 0.75
"""Share of the weights inside of blocks that are not zero, at least."""
CODE_SUMS = 16
"""Vectors of four sums of codes at most."""
FLOAT_PRICES = {"call": 100.0, "columns": 1.5, "rows": 20.0, "blocks": 5.0, "loads": 1.0, "weights": 1.2,
                "products": 2.0, "sums": 3.0, "put": 1.5}  # fmt: skip
CODE_PRICES = {"call": 400.0, "columns": 1.0, "windows": 3.0, "rows": 30.0, "pairs": 8.0, "loads": 4.0,
               "weights": 2.5, "products": 4.0, "put": 4.0}  # fmt: skip
"""Instructions for each term of the work, roughly; loads, products and sums are vectors."""


def _rows(node: Node) -> list[int]:
    """Numbers of outputs whose weights lie in the same columns, at least nearly."""
    w = node.input(1)
    wanted = np.count_nonzero(w.array)
    return [r for r in ROWS if r <= w.shape[0] and wanted >= FULL * r * conv_sparse.stream_of(node, r).steps.size]


def _inner(node: Node) -> int:
    """Weights of an output."""
    w = node.input(1)
    return w.type.size // w.shape[0]


def _accepts(node: Node) -> str:
    """What both rows ask for."""
    return conv_sparse.stored(node) or first_reason((bool(_rows(node)), "zeros do not lie in blocks of outputs"))


def _plans(node: Node, target: Target) -> Iterator[Plan]:
    """Every tile that sums of float32 have registers, and columns memory, for."""
    op, x = node.op, node.input(0).type
    assert isinstance(op, Conv2D)
    geo, column = geometry(x, op.window), x.dtype.carrier.itemsize * _inner(node)
    for isa in LANE_ISAS:
        if isa.x is not FLOAT32 or target.isa not in isa.isas or not isa.needs <= target.features:
            continue
        direct = isa.lanes == 1 and geo.taps == geo.sy == geo.sx == 1 and not geo.border
        for rows in _rows(node):
            for vectors in range(1, max(isa.room // 2 // rows, 1) + 1):
                taken = vectors * isa.lanes * column
                fits = direct or ((vectors == 1 or taken <= NEAR) and taken <= conv_sparse.room(target))
                if vectors * isa.lanes <= geo.pixels and fits:
                    yield Plan(isa, vectors, geo.pixels, rows, direct)


def float_plan(node: Node, target: Target) -> Plan:
    """The tiles that need the fewest instructions."""
    return min(_plans(node, target), key=lambda best: _priced(_float_work(node, best), FLOAT_PRICES))


def _accepts_floats(node: Node, target: Target) -> str:
    x = node.input(0).type.dtype
    return first_reason((x is FLOAT32, f"activations are {x}, not float32")) or _accepts(node) or first_reason(
        (next(_plans(node, target), None) is not None, "no FPU, or long columns")
    )  # fmt: skip


def _build_floats(node: Node, target: Target) -> tuple[Step, ...]:
    return conv_sparse_lanes.step(FLOATS.name, node, float_plan(node, target))


def _float_work(node: Node, best: Plan) -> Work:
    outputs = node.input(1).shape[0]
    blocks = best.tiles * conv_sparse.stream_of(node, best.rows).steps.size
    terms: Work = {
        "columns": 0 if best.direct else best.tiles * best.tile * _inner(node),
        "rows": best.tiles * -(-outputs // best.rows),
        "blocks": blocks,
        "loads": blocks * best.vectors,
        "weights": blocks * best.rows,
        "products": blocks * best.rows * best.vectors,
        "sums": best.tiles * outputs * best.vectors,
        put(node): best.tiles * best.tile * outputs,
    }
    kind = best.isa.prefix.removeprefix("bitc_")
    return {"call": 1} | {f"{kind} {term}": n for term, n in terms.items()}


def _work_floats(node: Node, target: Target) -> Work:
    """Per tile columns filled and blocks passed; per block a load of each vector, weights, and their products."""
    return _float_work(node, float_plan(node, target))


def code_plan(node: Node) -> tuple[int, int]:
    """Vectors of a tile, and outputs at once, that need the fewest instructions."""
    op, x = node.op, node.input(0).type
    assert isinstance(op, Conv2D)
    pixels, column = geometry(x, op.window).pixels, 2 * LANES * _inner(node)
    able = [
        (vectors, rows)
        for rows in _rows(node)
        for vectors in range(1, CODE_SUMS // (2 * rows) + 1)
        if vectors * LANES <= pixels and (vectors == 1 or vectors * column <= NEAR)
    ]
    return min(able, key=lambda found: _priced(_code_work(node, *found), CODE_PRICES))


def _accepts_codes(node: Node, target: Target) -> str:
    op, x = node.op, node.input(0).type
    assert isinstance(op, Conv2D)
    if conv_sparse_codes.pixel_isa(target) is None:
        return "no vectors of pixels"
    pixels = geometry(x, op.window).pixels
    return first_reason(
        (x.dtype in (INT8, UINT8), f"activations are {x.dtype}"),
        (pixels >= LANES, f"{pixels} pixels fill no vector"),
    ) or _accepts(node)


def _build_codes(node: Node, target: Target) -> tuple[Step, ...]:
    return conv_sparse_codes.step(CODES.name, node, target, *code_plan(node))


def _code_work(node: Node, vectors: int, rows: int) -> Work:
    op, outputs = node.op, node.input(1).shape[0]
    assert isinstance(op, Conv2D)
    geo = geometry(node.input(0).type, op.window)
    tiles = -(-geo.pixels // (vectors * LANES))
    passed = tiles * float((-(-conv_sparse.stream_of(node, rows).counts.astype(np.int64) // 2)).sum())
    filled = "columns" if geo.taps == geo.sy == geo.sx == 1 else "windows"
    return {
        "call": 1,
        filled: tiles * vectors * LANES * _inner(node),
        "rows": tiles * -(-outputs // rows),
        "pairs": passed,
        "loads": passed * vectors,
        "weights": passed * rows,
        "products": passed * rows * vectors,
        put(node): tiles * vectors * LANES * outputs,
    }


def _work_codes(node: Node, target: Target) -> Work:
    """Per tile columns filled and pairs of blocks passed; per pair loads of each vector, weights, and products."""
    return _code_work(node, *code_plan(node))


def _priced(work: Work, prices: dict[str, float]) -> float:
    """Instructions of the work, roughly."""
    return sum(n * prices.get(term.split()[-1], prices["put"]) for term, n in work.items())


def _cost_floats(node: Node, target: Target) -> float:
    return _priced(_work_floats(node, target), FLOAT_PRICES)


def _cost_codes(node: Node, target: Target) -> float:
    return _priced(_work_codes(node, target), CODE_PRICES)


FLOATS = Variant("conv_sparse_blocks", (Conv2D,), _accepts_floats, _build_floats, _cost_floats, _work_floats)
CODES = Variant("conv_sparse_code_blocks", (Conv2D,), _accepts_codes, _build_codes, _cost_codes, _work_codes)
