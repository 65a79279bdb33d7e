"""Register tiles of products: instruction sets that multiply numbers, and the order in which they take weights.

A vector lane belongs to one output channel; a step multiplies `depth` channels of an activation, which all lanes share,
by as many weights of each output. Sums over float32 are made one product at a time (`depth` is 1), so every output is
the same chain of roundings on every target. Those over int8 are exact in any order, modulo 2**32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product

import numpy as np

from bitc.ir.dtypes import FLOAT32, INT8, INT16, UINT8, DType
from bitc.ir.graph import Array
from bitc.kernels.geometry import Geometry
from bitc.kernels.work import Work, taps_inside
from bitc.ops.linear import units
from bitc.target import Target


@dataclass(frozen=True)
class ProductIsa:
    """Primitives ``<prefix>_…`` of one instruction set on vectors of `lanes` outputs."""

    template: str
    prefix: str
    isas: frozenset[str]
    needs: frozenset[str]
    """Instruction sets and features of the target."""
    x: DType
    """What activations are multiplied as; others of the same kind are converted into working memory."""
    lanes: int
    depth: int
    """Channels per step."""
    span: int
    """Steps whose activations one load brings."""
    room: int
    """Vector registers for sums, weights and what is multiplied."""
    product: float
    load_w: float
    load_x: float
    """Instructions per vector of products, per vector of weights, and per load of activations."""
    folds: bool = False
    """Whether activations that one vector of weights uses are operands in memory, with no load of their own."""
    side_by_side: int = 0
    """Channels of a step that lie side by side for each lane, if not all."""
    least: int = -128
    """The least weight for which narrow sums do not overflow."""
    stream: float = 0.0
    """Price of 64 bytes of activations that a tile of outputs reads again from a farther cache."""
    codes: str = ""
    """Primitives that make four sums to codes, where compilers do not."""

    def takes(self, x: DType, w: Array) -> bool:
        """Whether it multiplies such operands."""
        if self.x.is_float:
            return x is FLOAT32 and w.dtype == np.float32
        return x in (INT8, UINT8) and w.dtype == np.int8 and int(w.min()) >= self.least

    @property
    def weight(self) -> DType:
        """Of what type weights are."""
        return FLOAT32 if self.x.is_float else INT8


PRICES: Work = {
    "tiles": 15.0,
    "runs": 5.0,  # such a loop aside from its steps
    "steps": 3.0,  # one round of a loop over adjacent channels
    "sums": 3.0,  # from a vector of sums to stored outputs, at least
    "weights": 0.0,  # these depend on the instruction set
    "products": 0.0,
    "inputs": 0.0,
}
"""Instructions for each term of the work of a tiling, roughly."""
COPY = 0.5
"""Likewise, for an element that is copied."""

# The first that a target has, for the operands, is taken. On x86, where instructions do not tell the time, the prices
# rank tiles as measured.
PRODUCT_ISAS = (
    ProductIsa("isa/f32x16.j2", "bitc_f32x16", frozenset({"x86"}), frozenset({"avx512f"}), FLOAT32,
               16, 1, 1, 24, product=2.0, load_w=1.0, load_x=1.0, folds=True, stream=24.0),
    ProductIsa("isa/f32x8.j2", "bitc_f32x8", frozenset({"x86"}), frozenset({"avx2"}), FLOAT32,
               8, 1, 1, 16, product=2.0, load_w=1.0, load_x=1.0, folds=True, stream=24.0),
    ProductIsa("isa/f32x4.j2", "bitc_f32x4", frozenset({"x86"}), frozenset({"fpu"}), FLOAT32,
               4, 1, 1, 16, product=2.5, load_w=1.0, load_x=2.0),
    ProductIsa("isa/f32x4_neon.j2", "bitc_f32x4", frozenset({"aarch64"}), frozenset({"neon"}), FLOAT32,
               4, 1, 4, 27, product=2.0, load_w=0.5, load_x=1.0),
    ProductIsa("isa/f32x4.j2", "bitc_f32x4", frozenset({"wasm"}), frozenset({"simd128"}), FLOAT32,
               4, 1, 1, 16, product=2.0, load_w=1.0, load_x=1.0),
    ProductIsa("isa/f32x4.j2", "bitc_f32x4", frozenset({"arm-m"}), frozenset({"mvefp"}), FLOAT32,
               4, 1, 1, 8, product=2.0, load_w=1.0, load_x=1.0),
    ProductIsa("isa/f32x1.j2", "bitc_f32x1", frozenset({"arm-m", "arm-a", "riscv", "wasm"}), frozenset({"fpu"}),
               FLOAT32, 1, 1, 1, 32, product=2.0, load_w=1.0, load_x=1.0),
    ProductIsa("isa/i8x16_vnni.j2", "bitc_i8x16", frozenset({"x86"}), frozenset({"avx512f", "avx512vnni"}), UINT8,
               16, 4, 1, 31, product=1.0, load_w=1.0, load_x=1.0),
    ProductIsa("isa/i8x8_avx2.j2", "bitc_i8x8", frozenset({"x86"}), frozenset({"avx2"}), INT16,
               8, 2, 1, 15, product=2.0, load_w=1.0, load_x=1.0),
    ProductIsa("isa/i8x4_dotprod.j2", "bitc_i8x4", frozenset({"aarch64"}), frozenset({"neon", "dotprod"}), INT8,
               4, 4, 4, 30, product=1.0, load_w=0.5, load_x=1.0),
    ProductIsa("isa/i8x4_neon.j2", "bitc_i8x4", frozenset({"aarch64"}), frozenset({"neon"}), INT8,
               4, 4, 4, 22, product=3.0, load_w=0.5, load_x=9.0, side_by_side=2, least=-127),
    ProductIsa("isa/i8x4_neon.j2", "bitc_i8x4", frozenset({"arm-a"}), frozenset({"neon"}), INT8,
               4, 4, 4, 14, product=3.0, load_w=1.0, load_x=9.0, side_by_side=2, least=-127),
    ProductIsa("isa/i8x4_wide.j2", "bitc_i8x4w", frozenset({"aarch64", "arm-a"}), frozenset({"neon"}), INT8,
               4, 4, 4, 14, product=4.0, load_w=1.0, load_x=9.0, side_by_side=2),
    ProductIsa("isa/i8x4_simd128.j2", "bitc_i8x4", frozenset({"wasm"}), frozenset({"simd128"}), INT16,
               4, 2, 1, 16, product=2.0, load_w=1.0, load_x=1.0, codes="isa/codes_simd128.j2"),
)  # fmt: skip


def numbers(x: DType, w: Array) -> Array:
    """Weights as activations of a type are multiplied with them. Against reals, bits and trits become reals too: these
    are multiplied faster than bits are unpacked."""
    return units(w).astype(np.float32) if x.is_float else w


def product_isa(target: Target, x: DType, w: Array) -> ProductIsa | None:
    """What the target multiplies activations of a type and weights with."""
    able = (i for i in PRODUCT_ISAS if target.isa in i.isas and i.needs <= target.features)
    return next((i for i in able if i.takes(x, w)), None)


@dataclass(frozen=True)
class Products:
    """How one convolution (or one group of it) is cut into tiles of `blocks` vectors of outputs by `pixels` of a row.

    `geo` is that of the activations as they are multiplied: if they are `copied`, with their padding around them.
    """

    isa: ProductIsa
    geo: Geometry
    copied: bool
    channels: int
    """Of a group."""
    whole_rows: bool
    """Whether the channels of neighbouring taps lie side by side in memory."""
    outputs: int
    blocks: int
    pixels: int

    @staticmethod
    def offers(
        isa: ProductIsa, geo: Geometry, copied: bool, channels: int, whole_rows: bool, outputs: int
    ) -> Iterator[Products]:
        """All tiles that fit in the registers."""
        vectors, (first, last) = -(-outputs // isa.lanes), inside(geo)
        for blocks in range(1, min(isa.room, vectors) + 1):
            for pixels in range(1, isa.room + 1):
                held = pixels if isa.span > 1 else 1  # activations in registers
                if pixels > max(1, last - first):
                    break
                if blocks * (pixels + 1) + held + 1 <= isa.room:
                    yield Products(isa, geo, copied, channels, whole_rows, outputs, blocks, pixels)

    @property
    def inside(self) -> tuple[int, int]:
        """Columns whose windows lie between the left and the right edge."""
        return inside(self.geo)

    @property
    def border(self) -> int:
        """Columns of outputs whose windows do not."""
        return self.geo.ow - (self.inside[1] - self.inside[0])

    @property
    def runs(self) -> int:
        """Runs of channels side by side, per window."""
        return self.geo.kh if self.whole_rows else self.geo.taps

    @property
    def run(self) -> int:
        """Steps of a run."""
        return -(-self.channels * (self.geo.kw if self.whole_rows else 1) // self.isa.depth)

    @property
    def tap(self) -> int:
        """Steps of a tap; runs of several taps are cut only where taps are whole steps."""
        return -(-self.channels // self.isa.depth)

    @property
    def kernel_row(self) -> int:
        """Steps of a row of taps."""
        return self.run if self.whole_rows else self.geo.kw * self.tap

    @property
    def block_outputs(self) -> int:
        """Outputs of a tile."""
        return self.blocks * self.isa.lanes

    @property
    def tiles(self) -> int:
        """Full tiles of outputs."""
        return self.outputs // self.block_outputs

    @property
    def rest(self) -> int:
        """Outputs after the last full tile."""
        return self.outputs % self.block_outputs

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """(vectors, outputs, number) of the forms of tiles that occur."""
        full = (self.blocks, self.block_outputs, self.tiles)
        last = (-(-self.rest // self.isa.lanes), self.rest, 1)
        return [shape for shape in (full, last) if shape[1] and shape[2]]

    @property
    def padded(self) -> int:
        """Outputs with those that fill the last vector."""
        return -(-self.outputs // self.isa.lanes) * self.isa.lanes

    def pack(self, w: Array) -> Array:
        """Weights ``[outputs, kh, kw, channels]`` of a group in the order of use: tile, run, step, vector of the tile,
        lane, channel of the step; zeros where there is no output or channel. Flat."""
        rows = w.reshape(self.outputs, self.runs, -1)
        full = np.zeros((self.padded, self.runs, self.run * self.isa.depth), w.dtype)
        full[: self.outputs, :, : rows.shape[2]] = rows
        near = self.isa.side_by_side or self.isa.depth
        steps = full.reshape(-1, self.isa.lanes, self.runs, self.run, self.isa.depth // near, near)
        cut = self.tiles * self.blocks
        tiles = [steps[i : i + self.blocks] for i in range(0, cut, self.blocks)] + ([steps[cut:]] if self.rest else [])
        return np.concatenate([t.transpose(2, 3, 0, 4, 1, 5).reshape(-1) for t in tiles])

    @cached_property
    def work(self) -> Work:
        """Terms for all pixels, and for the outputs of one group."""
        geo = self.geo
        rows = geo.n * sum(taps_inside(geo.oh, geo.sy, geo.pt, geo.kh, geo.dy, geo.h))
        columns = taps_inside(geo.ow, geo.sx, geo.pl, geo.kw, geo.dx, geo.w)
        first, last = self.inside
        across = -(-(last - first) // self.pixels)
        # tiles of a row of outputs, pixels of a tile, taps of all those tiles per kernel row
        walks = (across, self.pixels, across * geo.kw), (self.border, 1, sum(columns) - (last - first) * geo.kw)
        terms: Work = dict.fromkeys(PRICES, 0.0)
        for (tiles, pixels, taps), (blocks, _, times) in product(walks, self.shapes):
            steps = times * rows * taps * (self.run / geo.kw if self.whole_rows else self.tap)
            terms["tiles"] += times * geo.n * geo.oh * tiles
            terms["runs"] += times * rows * (tiles if self.whole_rows else taps)
            terms["steps"] += steps / self.isa.span
            terms["weights"] += steps * blocks
            terms["products"] += steps * blocks * pixels
            terms["inputs"] += steps / self.isa.span * pixels
            terms["sums"] += times * geo.n * geo.oh * tiles * blocks * pixels
        return terms

    @property
    def instructions(self) -> float:
        """Estimate for `work`, by which tiles are compared."""
        isa = self.isa
        load_x = 0.0 if isa.folds and self.blocks == 1 else isa.load_x
        prices = PRICES | {"weights": isa.load_w, "products": isa.product, "inputs": load_x}
        copied = COPY * self.copied * self.geo.n * self.geo.h * self.geo.w * self.channels
        lines = self.geo.n * self.geo.h * self.geo.w * self.channels * isa.x.bits / 512
        streams = isa.stream * lines * sum(times for _, _, times in self.shapes)
        return copied + streams + sum(prices[term] * n for term, n in self.work.items())


@lru_cache(maxsize=4096)
def inside(geo: Geometry) -> tuple[int, int]:
    """First column, and the one after the last, of the outputs whose windows lie between the left and right edge."""
    columns = taps_inside(geo.ow, geo.sx, geo.pl, geo.kw, geo.dx, geo.w)
    found = [i for i, taps in enumerate(columns) if taps == geo.kw]
    return (found[0], found[-1] + 1) if found else (0, 0)
