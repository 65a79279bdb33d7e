"""Convolution of codes with the zeros of its weights left out, on vectors of eight neighbouring pixels of 16 bits.

As `conv_sparse_lanes`, but two weights are taken at once, since instruction sets have products of 16 bits that add in
pairs. The zero point is taken from the activations on their way into the columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bitc.ir.dtypes import INT8, UINT8
from bitc.ir.graph import Array, Node
from bitc.kernels import conv_sparse
from bitc.kernels.bounds import product_range
from bitc.kernels.conv_sparse_dsp import wrapped
from bitc.kernels.epilogues import summed_epilogue
from bitc.kernels.geometry import geometry
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, scratch
from bitc.kernels.work import Work, put
from bitc.ops.linear import Conv2D
from bitc.target import Target

LANES, MOST = 8, 4
"""Pixels of a vector, and vectors of a tile at most."""
NEAR = 1 << 15
"""Bytes of columns that a first-level cache holds."""
PRICES = {"columns": 0.8, "rows": 14.0, "pairs": 8.0, "products": 7.0, "put": 5.0}
"""Instructions for each term of the work, roughly; products are vectors of both weights."""


@dataclass(frozen=True)
class PixelIsa:
    """Primitives ``bitc_pixels_…`` of one instruction set."""

    part: str
    isa: str
    feature: str
    weights_t: str
    """C type of the weights of one output, for two columns."""
    fours_t: str
    """The same of four outputs."""
    codes: str = ""
    """Primitives that make four sums to codes, where compilers do not."""


PIXEL_ISAS = (
    PixelIsa("neon", "aarch64", "neon", "int16x4_t", "int16x8_t"),
    PixelIsa("simd128", "wasm", "simd128", "v128_t", "v128_t", "isa/codes_simd128.j2"),
)


def pixel_isa(target: Target) -> PixelIsa | None:
    """The primitives that the target has."""
    return next((i for i in PIXEL_ISAS if i.isa == target.isa and i.feature in target.features), None)


def pairs(node: Node, rows: int = 1) -> tuple[Array, Array, Array]:
    """The stream of a convolution, `rows` outputs at once, with an even number of columns per group of outputs: values
    (both of an output lie together), steps, and numbers of pairs."""
    found = conv_sparse.stream_of(node, rows)
    counts = -(-found.counts.astype(np.int64) // 2)
    ends = np.cumsum(found.counts, dtype=np.int64)
    at = np.arange(ends[-1]) + np.repeat(2 * (np.cumsum(counts) - counts) - (ends - found.counts), found.counts)
    size = max(2 * int(counts.sum()), 2)  # C has no empty arrays
    values, steps = np.zeros((size, rows), np.int8), np.zeros(size, np.uint8)
    values[at], steps[at] = found.values.reshape(-1, rows)[: ends[-1]], found.steps[: ends[-1]]
    return values.reshape(-1, 2, rows).swapaxes(1, 2).reshape(-1), steps, counts.astype(np.uint16)


def accepts(node: Node, target: Target) -> str:
    op, x = node.op, node.input(0).type
    assert isinstance(op, Conv2D)
    if pixel_isa(target) is None:
        return "no vectors of pixels"
    if reason := conv_sparse.stored(node):
        return reason
    pixels = geometry(x, op.window).pixels
    return first_reason(
        (x.dtype in (INT8, UINT8), f"activations are {x.dtype}"),
        (pixels >= LANES, f"{pixels} pixels fill no vector"),
    )


def vectors(node: Node) -> int:
    """Vectors of a tile: those that need the fewest instructions, of those whose columns a cache holds."""
    op, x, w = node.op, node.input(0).type, node.input(1)
    assert isinstance(op, Conv2D)
    pixels, column = geometry(x, op.window).pixels, 2 * LANES * w.type.size // w.shape[0]
    passed = len(conv_sparse.stream_of(node).steps) / 2
    able = [v for v in range(1, MOST + 1) if v * LANES <= pixels and (v == 1 or v * column <= NEAR)]
    return min(able, key=lambda v: -(-pixels // (v * LANES)) * (
        passed * (PRICES["pairs"] + v * PRICES["products"]) + w.shape[0] * (PRICES["rows"] + v * LANES * PRICES["put"])
    ))  # fmt: skip


def build(node: Node, target: Target) -> tuple[Step, ...]:
    return step(VARIANT.name, node, target, vectors(node))


def step(name: str, node: Node, target: Target, count: int, rows: int = 1) -> tuple[Step, ...]:
    """The call of templates/kernels/conv_sparse_codes.j2, for tiles of `count` vectors of pixels and `rows` outputs."""
    op, x, w = node.op, node.input(0), node.input(1)
    isa = pixel_isa(target)
    assert isinstance(op, Conv2D) and isa is not None
    geo, tile = geometry(x.type, op.window), LANES * count
    e, params, bias = summed_epilogue(node, *product_range(node), target)
    values, steps, counts = pairs(node, rows)
    args = (
        out(node),
        Arg("x", x),
        Arg("w", Packed(values)),
        Arg("steps", Packed(steps, "steps")),
        Arg("counts", Packed(counts, "counts")),
        *params,
    )
    if bias.any():
        starts = wrapped(np.pad(np.broadcast_to(bias, w.shape[0]), (0, -w.shape[0] % rows)))
        args += (Arg("start", Packed(starts, "start", is_weight=False)),)
    args += (scratch("columns", tile * w.type.size // w.shape[0], np.int16),)
    bytes_ = e["kind"] == "requant" and e["out_t"] in ("int8_t", "uint8_t")
    fours = bytes_ and bool(isa.codes) and e["upper"] is not None
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "tile": tile,
        "vectors": count,
        "rows": rows,
        "weights_t": isa.weights_t,
        "fours_t": isa.fours_t,
        "starts": bool(bias.any()),
        "bytes": bytes_,
        "fours": fours,
        "transposes": True,
        "codes": True,
        "x_t": x.type.dtype.c_type,
        "column_t": "int16_t",
        "x_zero": op.x_zero,
        "zero_of_x": 0,
        "pixels": geo.pixels,
        "channels": w.shape[3],
        "outputs": w.shape[0],
    }
    uses = ("bitc_defs.h", f"isa/sparse_codes.j2#{isa.part}", isa.codes if fours else "")
    return (Step(name, "kernels/conv_sparse_codes.j2", args, context, uses),)


def work(node: Node, target: Target) -> Work:
    """Per tile columns filled and pairs of weights passed; per pair and vector a product; outputs put."""
    op, w = node.op, node.input(1)
    assert isinstance(op, Conv2D)
    geo, count = geometry(node.input(0).type, op.window), vectors(node)
    tiles = -(-geo.pixels // (count * LANES))
    passed = tiles * float(pairs(node)[2].sum())
    return {
        "call": 1,
        f"{'columns' if geo.taps == geo.sy == geo.sx == 1 else 'windows'}": tiles
        * count
        * LANES
        * w.type.size
        / w.shape[0],
        "rows": tiles * w.shape[0],
        "pairs": passed,
        "products": passed * count,
        put(node): tiles * count * LANES * w.shape[0],
    }


def cost(node: Node, target: Target) -> float:
    return sum(n * PRICES.get(term, 4.0) for term, n in work(node, target).items())


VARIANT = Variant("conv_sparse_codes", (Conv2D,), accepts, build, cost, work)
