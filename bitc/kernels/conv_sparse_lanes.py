"""Convolution of float32 with the zeros of its weights left out, on vectors of neighbouring pixels (Elsen et al., "Fast
Sparse ConvNets", 2020).

A tile of pixels lies column by column in working memory; each weight, repeated in all lanes, multiplies the vectors of
its column, whose sums stay in registers. Blocks of 4 x 4 numbers are transposed on the way in and out. Weights are
stored, and products added, as in `conv_sparse`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bitc.ir.dtypes import FLOAT32
from bitc.ir.graph import Node
from bitc.kernels import conv_sparse
from bitc.kernels.depthwise_products import LaneIsa
from bitc.kernels.epilogues import conv_epilogue
from bitc.kernels.geometry import geometry
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, scratch
from bitc.kernels.work import Work, put
from bitc.ops.linear import Conv2D
from bitc.target import Target

MOST = 8
"""Vectors of a tile at most, where there are 32 registers; half of it where there are 16."""
NEAR = 1 << 15
"""Bytes of columns that a first-level cache holds."""
PRICES = {"columns": 1.2, "rows": 8.0, "weights": 5.0, "products": 2.8, "sums": 2.0, "put": 1.5}
"""Instructions for each term of the work, roughly; products and sums are vectors."""


def accepts(node: Node, target: Target) -> str:
    op, x = node.op, node.input(0).type
    assert isinstance(op, Conv2D)
    if reason := conv_sparse.stored(node):
        return reason
    isas = conv_sparse.lane_isas(target)
    pixels = geometry(x, op.window).pixels
    return first_reason(
        (x.dtype is FLOAT32, f"activations are {x.dtype}, not float32"),
        (bool(isas), "no vectors of float32"),
        (bool(isas) and pixels >= isas[-1].lanes, f"{pixels} pixels fill no vector"),
    )


@dataclass(frozen=True)
class Plan:
    """Tiles of so many vectors of pixels, the last of which overlaps the one before, and of `rows` outputs. `direct`:
    pixels are read where they are."""

    isa: LaneIsa
    vectors: int
    pixels: int
    rows: int = 1
    direct: bool = False

    @property
    def tile(self) -> int:
        """Pixels of a tile."""
        return self.vectors * self.isa.lanes

    @property
    def tiles(self) -> int:
        return -(-self.pixels // self.tile)


def plan(node: Node, target: Target) -> Plan:
    """The tiles that need the fewest instructions, of those whose columns a cache holds."""
    op, x, w = node.op, node.input(0).type, node.input(1)
    assert isinstance(op, Conv2D)
    geo = geometry(x, op.window)
    column = 4 * w.type.size // w.shape[0]
    passed = len(conv_sparse.stream_of(node).steps)
    offers = [
        Plan(isa, vectors, geo.pixels)
        for isa in conv_sparse.lane_isas(target)
        for vectors in range(1, (MOST if isa.room >= 32 else MOST // 2) + 1)
        if vectors * isa.lanes <= geo.pixels and (vectors == 1 or vectors * isa.lanes * column <= NEAR)
    ]
    return min(offers, key=lambda p: p.tiles * (PRICES["weights"] + PRICES["products"] * p.vectors) * passed
               + p.tiles * p.tile * PRICES["columns"] * column)  # fmt: skip


def build(node: Node, target: Target) -> tuple[Step, ...]:
    return step(VARIANT.name, node, plan(node, target))


def step(name: str, node: Node, best: Plan) -> tuple[Step, ...]:
    """The call of templates/kernels/conv_sparse_lanes.j2."""
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    geo = geometry(x.type, op.window)
    e, params = conv_epilogue(node)
    found = conv_sparse.stream_of(node, best.rows)
    args: tuple[Arg, ...] = (
        out(node),
        Arg("x", x),
        Arg("w", Packed(found.values)),
        Arg("steps", Packed(found.steps, "steps")),
        Arg("counts", Packed(found.counts, "counts")),
        *params,
    )
    if not best.direct:
        args += (scratch("columns", best.tile * w.type.size // w.shape[0], x.type.dtype.carrier.type),)
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "f": best.isa.prefix,
        "lanes": best.isa.lanes,
        "vectors": best.vectors,
        "tile": best.tile,
        "rows": best.rows,
        "direct": best.direct,
        "transposes": best.isa.lanes > 1,
        "codes": False,
        "whole": best.isa.lanes > 1 and e["kind"] in ("raw", "affine"),
        "x_t": "float",
        "zero_of_x": "0.0f",
        "pixels": geo.pixels,
        "channels": w.shape[3],
        "outputs": w.shape[0],
    }
    uses = ("bitc_defs.h", best.isa.template, "isa/transpose.j2" if best.isa.lanes > 1 else "")
    return (Step(name, "kernels/conv_sparse_lanes.j2", args, context, uses),)


def work(node: Node, target: Target) -> Work:
    """Per tile columns filled and weights passed; per weight and vector a product; per output and vector a sum."""
    best, w = plan(node, target), node.input(1)
    kind = best.isa.prefix.removeprefix("bitc_")
    weights = best.tiles * len(conv_sparse.stream_of(node).steps)
    rows = best.tiles * w.shape[0]
    terms: Work = {
        "columns": best.tiles * best.tile * w.type.size // w.shape[0],
        "rows": rows,
        "weights": weights,
        "products": weights * best.vectors,
        "sums": rows * best.vectors,
        put(node): rows * best.tile,
    }
    return {"call": 1} | {f"{kind} {term}": n for term, n in terms.items()}


def cost(node: Node, target: Target) -> float:
    return sum(n * PRICES.get(term.split()[-1], PRICES["put"]) for term, n in work(node, target).items())


VARIANT = Variant("conv_sparse_lanes", (Conv2D,), accepts, build, cost, work)
