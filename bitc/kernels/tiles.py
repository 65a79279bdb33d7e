"""Register tiles on vector units: instruction sets, regions of pixels with the same taps, and the order of weights.

A vector lane belongs to one output channel: an activation word is broadcast, the weight words of several outputs lie
side by side. So no sum over lanes is needed, and comparing with thresholds gives the output bits as they are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np

from bitc.ir.graph import Array
from bitc.kernels.geometry import Geometry
from bitc.kernels.pack import WORDS, pack_bits, unpack_bits
from bitc.kernels.work import Work
from bitc.target import Target


@dataclass(frozen=True)
class TileIsa:
    """Primitives of one instruction set, named ``bitc_tile<word>_…``, on blocks of `lanes` outputs."""

    template: str
    isa: str
    needs: frozenset[str]
    """Instruction set and features of the target."""
    lanes: dict[int, int]
    """Outputs of a block, for each word (channels per step) that there are primitives for; widest words first."""
    register: int
    """Bits of a vector register."""
    room: int
    per_sum: int
    per_weight: int
    """Registers for sums and weights, and how many a vector of sums or of weights takes."""
    step: float
    """Instructions per vector of sums and step."""
    load_w: float
    load_x: float
    """Instructions that bring a vector of weights, and the activations of a pixel, per step."""
    finish: float
    """Instructions from an accumulator to stored bits."""
    trits: float = 0.0
    """As `step`, for weights that are trits; 0: there is no primitive for them."""
    pairs: bool = False
    """Whether two steps at once are cheaper."""
    expanded: bool = False
    """Whether activations are first spread to bytes, two per byte: 16 times the upper and the lower four bits."""
    flush: int = 0
    """Steps after which narrow accumulators must be added to wide ones; 0: never."""
    even_odd: bool = False
    """Whether thresholds of a block lie as those of its even outputs, then those of its odd ones."""
    shared: tuple[str, ...] = ()
    """Templates with primitives that it shares with others."""


PRICES: Work = {
    "steps": 2.0,  # one round of a loop over adjacent words
    "fixed steps": 2.0,
    "runs": 10.0,  # such a loop aside from that
    "fixed runs": 10.0,
    "run pixels": 1.0,
    "tile pixels": 8.0,  # finding a pixel
    "counts": 0.0,  # this and the others depend on the instruction set
    "trit counts": 0.0,
    "weights": 0.0,
    "inputs": 0.0,
    "blocks": 0.0,
}
"""Instructions for each term of the work of a tiling, roughly."""
UNROLL = 12
"""Most steps of a window for which constant bounds pay: 3x3 over 32 or 64 channels gains up to a third on x86."""
NEVER, ALWAYS = 2**15 - 1, -1
"""Limits that no count, and every count, is above."""

X86 = ("isa/tile_x86.j2",)
# `step`, `load_w`, `load_x` and `finish` are of the code that clang makes; on x86, where instructions do not tell the
# time, they are weighted so that they rank tiles as measured. Compilers spill with more sums than there is `room` for.
TILE_ISAS = (
    TileIsa("isa/tile_avx512.j2", "x86", frozenset({"avx512f", "avx512bw", "avx512vpopcntdq"}), {64: 8},
            512, 32, 3, 2, step=2.5, load_w=1.0, load_x=1.0, finish=5.0, trits=3.0, pairs=True, shared=X86),
    TileIsa("isa/tile_avx512.j2", "x86", frozenset({"avx512f", "avx512bw", "avx512vpopcntdq"}), {32: 16},
            512, 32, 3, 2, step=3.3, load_w=1.0, load_x=1.0, finish=5.0, trits=4.0, pairs=True, shared=X86),
    TileIsa("isa/tile_avx2.j2", "x86", frozenset({"avx2"}), {8: 32},
            256, 12, 1, 2, step=4.0, load_w=4.0, load_x=4.0, finish=20.0, expanded=True, flush=31, even_odd=True,
            shared=X86),
    TileIsa("isa/tile_neon.j2", "aarch64", frozenset({"neon"}), {64: 8, 32: 8, 16: 8},
            128, 24, 1, 1, step=3.0, load_w=0.5, load_x=1.0, finish=12.0, trits=4.0),
    TileIsa("isa/tile_neon.j2", "arm-a", frozenset({"neon"}), {64: 8, 32: 8, 16: 8},
            128, 9, 1, 1, step=3.0, load_w=1.0, load_x=1.0, finish=20.0, trits=4.0),
    TileIsa("isa/tile_simd128.j2", "wasm", frozenset({"simd128"}), {64: 8},
            128, 12, 1, 1, step=3.0, load_w=1.0, load_x=1.0, finish=20.0, trits=4.0, flush=31),
    TileIsa("isa/tile_simd128.j2", "wasm", frozenset({"simd128"}), {32: 8, 16: 8},
            128, 12, 1, 1, step=3.5, load_w=1.0, load_x=2.0, finish=20.0, trits=4.5, flush=31),
)  # fmt: skip


def tile_isas(target: Target) -> list[TileIsa]:
    """The rows that the target can run."""
    return [i for i in TILE_ISAS if i.isa == target.isa and i.needs <= target.features]


@dataclass(frozen=True)
class Region:
    """A rectangle of output pixels whose windows have the same taps inside the input."""

    oy: int
    ox: int
    rows: int
    cols: int
    ky: range
    kx: range

    @property
    def count(self) -> int:
        return self.rows * self.cols

    @property
    def taps(self) -> int:
        return len(self.ky) * len(self.kx)


def regions(geo: Geometry) -> list[Region]:
    """The output plane as regions: the inside first, then what the border cuts."""
    rows = _classes(geo.oh, geo.kh, geo.sy, geo.pt, geo.dy, geo.h)
    cols = _classes(geo.ow, geo.kw, geo.sx, geo.pl, geo.dx, geo.w)
    found = [Region(oy, ox, m, n, ky, kx) for oy, m, ky in rows for ox, n, kx in cols]
    return sorted(found, key=lambda r: -r.taps * r.count)


def _classes(outs: int, taps: int, stride: int, pad: int, dilation: int, size: int) -> list[tuple[int, int, range]]:
    """(first output, number of outputs, taps inside the input) along one axis."""

    def inside(out: int) -> range:
        found = [t for t in range(taps) if 0 <= out * stride - pad + t * dilation < size]
        return range(found[0], found[-1] + 1) if found else range(0)

    groups = [(key, list(g)) for key, g in groupby(range(outs), inside)]
    return [(members[0], len(members), key) for key, members in groups]


def pack_tiles(w: Array, word: int, lanes: int, blocks: int) -> Array:
    """Bit weights ``[O, kh, kw, C]`` in the order of use: ``[tile, tap, word of the tap, block of the tile, lane]``.
    A tile has `blocks` blocks; outputs that do not exist have zero weights. The result is a flat array of words."""
    words = pack_bits(w.reshape(w.shape[0], -1, w.shape[3]), word)
    padded = np.zeros((-(-w.shape[0] // (lanes * blocks)) * lanes * blocks, *words.shape[1:]), words.dtype)
    padded[: w.shape[0]] = words
    return padded.reshape(-1, blocks, lanes, *words.shape[1:]).transpose(0, 3, 4, 1, 2).reshape(-1)


def pack_planes(planes: Sequence[Array], word: int, lanes: int, blocks: int) -> Array:
    """The same of several planes of weights, as bytes: in each step of a tile those of the first, then the next one."""
    steps = [pack_tiles(p, word, lanes, blocks).reshape(-1, lanes * blocks) for p in planes]
    return np.stack(steps, axis=1).reshape(-1).view(np.uint8)


def unpack_tiles(words: Array, shape: tuple[int, int, int, int], word: int, lanes: int, blocks: int) -> Array:
    """Inverse of `pack_tiles`, for weights of `shape`."""
    outputs, kh, kw, channels = shape
    tiles = words.reshape(-1, kh * kw, -(-channels // word), blocks, lanes).transpose(0, 3, 4, 1, 2)
    rows = tiles.reshape(-1, kh * kw, tiles.shape[-1])[:outputs].astype(WORDS[word])
    return unpack_bits(rows, channels).reshape(shape)


@dataclass(frozen=True)
class Tiling:
    """How one convolution (or one group of it) is cut into tiles."""

    isa: TileIsa
    geo: Geometry
    regions: list[Region]
    word: int
    """Channels per step."""
    tap: int
    """Steps per tap."""
    adjacent: bool
    """Whether the words of a kernel row lie side by side; else only those of a tap."""
    outputs: int
    """Outputs, a multiple of those of a tile unless there is one tile."""
    blocks: int
    """Blocks of outputs per tile."""
    pixels: int
    """Pixels per tile, in regions that have so many; one elsewhere."""
    planes: int = 1
    """Planes of the weights: 2 for trits."""
    tail: int = 0
    """Channels after the last whole word of a tap. Those of all taps are gathered in words of their own."""

    @staticmethod
    def offers(
        isa: TileIsa, geo: Geometry, word: int, channels: int, row: int, outputs: int, planes: int = 1, tail: int = 0
    ) -> list[list[Tiling]]:
        """Whole tiles of each size that fits in the registers, and a tile for the outputs that are left. `row` is the
        length in words of a row of activations, which has other words than those of the `channels` if there are
        groups."""
        tap, found = -(-(channels - tail) // word), regions(geo)
        adjacent = geo.dx == 1 and row == tap
        lanes, vectors = isa.lanes[word], isa.lanes[word] * word // isa.register
        per_weight = planes * isa.per_weight
        most = isa.room // vectors // (isa.per_sum + per_weight)

        def tiles(count: int, blocks: int) -> list[Tiling]:
            """With every number of pixels."""
            return [
                Tiling(isa, geo, found, word, tap, adjacent, count, blocks, pixels, planes, tail)
                for pixels in range(1, isa.room + 1)
                if blocks * vectors * (pixels * isa.per_sum + per_weight) <= isa.room
            ]

        offers = []
        for blocks in range(1, most + 1):
            rest = outputs % (blocks * lanes)
            parts = [(outputs - rest, blocks), (rest, -(-rest // lanes))]
            offers.append([min(tiles(*part), key=lambda t: t.instructions) for part in parts if part[0]])
        return offers

    def key(self, r: Region) -> tuple[int, ...]:
        """What the count of the products inside depends on: the number of taps, or with trits or tails the taps."""
        return (r.taps,) if self.planes == 1 and not self.tail else (r.ky.start, r.ky.stop, r.kx.start, r.kx.stop)

    @cached_property
    def classes(self) -> dict[tuple[int, ...], Region]:
        """A region for each key that occurs."""
        return dict(sorted({self.key(r): r for r in self.regions}.items()))

    @property
    def lanes(self) -> int:
        return self.isa.lanes[self.word]

    @property
    def tiles(self) -> int:
        """Tiles of outputs."""
        return -(-self.outputs // (self.lanes * self.blocks))

    @property
    def padded(self) -> int:
        """Outputs with those that fill the last tile."""
        return self.tiles * self.lanes * self.blocks

    @property
    def short(self) -> bool:
        """Whether there is one tile, of fewer outputs than it has lanes. It has no weights for the other lanes: these
        see the weights of the next step, and limits that give zero bits."""
        return self.outputs < self.blocks * self.lanes

    @property
    def w_step(self) -> int:
        """Bytes of weights per step and tile."""
        return self.planes * self.w_plane

    @property
    def w_plane(self) -> int:
        """Bytes of those of one plane."""
        return (self.outputs if self.short else self.blocks * self.lanes) * self.word // 8

    @property
    def w_block(self) -> int:
        """Bytes of weights that a block loads."""
        return self.lanes * self.word // 8

    @property
    def w_beyond(self) -> int:
        """Bytes that the last step loads beyond its weights."""
        return self.blocks * self.w_block - self.w_plane

    @property
    def w_tile(self) -> int:
        """Bytes of weights per tile."""
        return (self.geo.taps * self.tap + self.tail_steps) * self.w_step

    @property
    def tail_steps(self) -> int:
        """Steps over the words that hold the tails of all taps."""
        return -(-self.geo.taps * self.tail // self.word)

    @property
    def run(self) -> int:
        """Most steps over adjacent words: of a kernel row, or of a tap."""
        return self.tap * (self.geo.kw if self.adjacent else 1)

    @property
    def odd(self) -> bool:
        """Whether some run has an odd number of steps."""
        return bool(self.tap % 2) and any(not self.adjacent or len(r.kx) % 2 for r in self.regions)

    @property
    def unrolled(self) -> bool:
        """Whether the loops over a whole window get constant bounds, so that compilers unroll them."""
        return self.geo.taps * self.tap <= UNROLL and self.regions[0].taps == self.geo.taps

    @property
    def flush_runs(self) -> int:
        """Runs after which narrow accumulators are emptied; 0: only at the end, or (longer ones) within runs."""
        total = self.geo.taps * self.tap + self.tail_steps
        return self.isa.flush // self.run if self.isa.flush and total > self.isa.flush else 0

    @property
    def flush_inside(self) -> bool:
        return 0 < self.isa.flush < self.run

    @cached_property
    def work(self) -> Work:
        """Terms for all pixels, and for the outputs of one group."""
        vectors = self.lanes * self.word // self.isa.register
        terms = dict.fromkeys(PRICES, 0.0)
        fixed = "" if self.adjacent else "fixed "  # compilers unroll a loop over the steps of a tap
        for r in self.regions:
            p = self.pixels if r.count >= self.pixels else 1
            tiles = self.geo.n * self.tiles * -(-r.count // p)
            runs = tiles * len(r.ky) * (1 if self.adjacent else len(r.kx))
            steps = tiles * (r.taps * self.tap + self.tail_steps)
            terms[f"{fixed}steps"] += steps
            terms["counts" if self.planes == 1 else "trit counts"] += steps * self.blocks * p * vectors
            terms["weights"] += steps * self.blocks * vectors * self.planes
            terms["inputs"] += steps * p
            terms[f"{fixed}runs"] += runs
            terms["run pixels"] += runs * p
            terms["tile pixels"] += tiles * p
            terms["blocks"] += tiles * self.blocks * p
            if self.tail:  # gathering the tail of a tap takes as long as some steps to a next pixel
                terms["run pixels"] += 3 * self.geo.n * r.count * r.taps
        return terms

    @cached_property
    def instructions(self) -> float:
        """Estimate for `work`, by which tiles are compared."""
        isa = self.isa
        own = {"counts": isa.step, "trit counts": isa.trits, "weights": isa.load_w, "inputs": isa.load_x}
        prices = PRICES | own | {"blocks": isa.finish}
        return sum(prices[term] * n for term, n in self.work.items())

    def in_lanes(self, limits: Array, groups: int) -> Array:
        """``[tables, classes, outputs of all groups]`` in the order in which tiles compare: ``[group, tile, class,
        table, lane]``, flat. Lanes without an output get limits that give zero bits."""
        tables = limits.shape[0]
        full = np.full((*limits.shape[:2], groups, self.padded), NEVER, np.int16)
        if tables == 2:
            full[1] = ALWAYS
        full[..., : self.outputs] = limits.reshape(*limits.shape[:2], groups, self.outputs)
        if self.isa.even_odd:
            pairs = full.reshape(*full.shape[:3], -1, self.lanes // 2, 2)
            full = pairs.swapaxes(-1, -2).reshape(full.shape)
        tiled = full.reshape(*full.shape[:3], self.tiles, self.lanes * self.blocks)
        return tiled.transpose(2, 3, 1, 0, 4).reshape(-1)
