"""Depthwise convolution of numbers: neighbouring channels side by side in vectors, some pixels of a row at once.

Float32 products are added one by one in the order of
the taps. Codes are taken two taps at a time, for which instruction sets have products that add in pairs; they are
copied first, with their padding around them (see `conv_products`). The last block of channels may overlap the one
before.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from bitc.ir.dtypes import FLOAT32, INT8, INT16, UINT8, DType
from bitc.ir.graph import Array, Node
from bitc.ir.program import Overlap, c_type
from bitc.ir.types import TensorType
from bitc.kernels import overlap
from bitc.kernels.bounds import product_range
from bitc.kernels.conv_products import codes_of, padded
from bitc.kernels.epilogues import conv_epilogue, summed_epilogue
from bitc.kernels.geometry import Geometry, geometry
from bitc.kernels.products import inside
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, over_x, scratch
from bitc.kernels.work import Work, put
from bitc.ops.linear import Conv2D
from bitc.target import Target

MAX_TAPS = 49
"""Taps of a window, which are all written out in the code."""
MOST = 128
"""Products that a tile may write out."""


@dataclass(frozen=True)
class LaneIsa:
    """Primitives ``<prefix>_…`` of one instruction set on vectors of `lanes` channels."""

    template: str
    prefix: str
    isas: frozenset[str]
    needs: frozenset[str]
    x: DType
    """What activations are multiplied as."""
    lanes: int
    room: int
    """Vector registers."""
    order: tuple[tuple[int, ...], ...] = ()
    """Lanes whose weights for two taps lie together, in turns: ``(0, 1), …``; none: those of a tap lie together."""
    least: int = -128
    """The least weight for which narrow sums do not overflow."""
    codes: str = ""
    """Primitives that make four sums to codes, where compilers do not."""

    def takes(self, x: DType, w: Array) -> bool:
        """Whether it multiplies such operands."""
        if self.x.is_float:
            return x is FLOAT32 and w.dtype == np.float32
        return x in (INT8, UINT8) and w.dtype == np.int8 and int(w.min()) >= self.least

    @property
    def pairs(self) -> bool:
        """Whether taps are taken in pairs."""
        return self.x.is_integer

    def pack(self, w: Array) -> Array:
        """Weights ``[taps, channels]`` of one block in the order of use."""
        if not self.pairs:
            return w.reshape(-1)
        even = np.concatenate([w, np.zeros((len(w) % 2, w.shape[1]), w.dtype)]).reshape(-1, 2, self.lanes)
        order = [lane for group in self.order for lane in group]
        return (even[:, :, order].transpose(0, 2, 1) if order else even).reshape(-1)


def _interleaved(lanes: int) -> tuple[tuple[int, ...], ...]:
    """The lanes that x86 gives when it interleaves the lower, and the upper, halves of each 8 of 16 bits."""
    groups = [tuple(range(i, i + 4)) for i in range(0, lanes, 4)]
    return (*groups[::2], *groups[1::2])


_X86, _AARCH64, _WASM = frozenset({"x86"}), frozenset({"aarch64"}), frozenset({"wasm"})
LANE_ISAS = (
    LaneIsa("isa/f32x16.j2", "bitc_f32x16", _X86, frozenset({"avx512f"}), FLOAT32, 16, 32),
    LaneIsa("isa/f32x8.j2", "bitc_f32x8", _X86, frozenset({"avx2"}), FLOAT32, 8, 24),
    LaneIsa("isa/f32x4.j2", "bitc_f32x4", _X86, frozenset({"fpu"}), FLOAT32, 4, 24),
    LaneIsa("isa/f32x4_neon.j2", "bitc_f32x4", _AARCH64, frozenset({"neon"}), FLOAT32, 4, 32),
    LaneIsa("isa/f32x4.j2", "bitc_f32x4", _WASM, frozenset({"simd128"}), FLOAT32, 4, 24),
    LaneIsa("isa/f32x4.j2", "bitc_f32x4", frozenset({"arm-m"}), frozenset({"mvefp"}), FLOAT32, 4, 8),
    LaneIsa("isa/f32x1.j2", "bitc_f32x1", frozenset({"arm-m", "arm-a", "aarch64", "riscv", "wasm", "x86"}),
            frozenset({"fpu"}), FLOAT32, 1, 24),
    LaneIsa("isa/lanes_avx512.j2", "bitc_lanes32", _X86, frozenset({"avx512f", "avx512bw"}), INT16, 32, 32,
            _interleaved(32)),
    LaneIsa("isa/lanes_avx2.j2", "bitc_lanes16", _X86, frozenset({"avx2"}), INT16, 16, 24, _interleaved(16)),
    LaneIsa("isa/lanes_neon.j2", "bitc_lanes8", frozenset({"aarch64", "arm-a"}), frozenset({"neon"}), INT8, 8, 32,
            least=-127),
    LaneIsa("isa/lanes_neon.j2", "bitc_lanes8w", frozenset({"aarch64", "arm-a"}), frozenset({"neon"}), INT8, 8, 32),
    LaneIsa("isa/lanes_simd128.j2", "bitc_lanes8", _WASM, frozenset({"simd128"}), INT16, 8, 24, ((*range(8),),),
            codes="isa/codes_simd128.j2"),
)  # fmt: skip


def lane_isa(target: Target, x: TensorType, w: Array) -> LaneIsa | None:
    """The widest vectors of the target that the channels fill."""
    able = (i for i in LANE_ISAS if target.isa in i.isas and i.needs <= target.features and i.lanes <= w.shape[0])
    return next((i for i in able if i.takes(x.dtype, w)), None)


def accepts(node: Node, target: Target) -> str:
    op, x, w, y = node.op, node.input(0), node.input(1), node.output.type
    assert isinstance(op, Conv2D)
    if reason := first_reason(
        (op.group == op.pixels(x.type).channels == w.shape[0], "not depthwise with one output per channel"),
        (not op.planar, "planes of an image"),
        (w.is_const, "weights are computed"),
        (y.size > 0, "no outputs"),
        (w.type.size // w.shape[0] <= MAX_TAPS, f"more than {MAX_TAPS} taps"),
        (all(v is None or v.is_const for v in node.inputs[2:]), "parameters are computed"),
    ):
        return reason
    isa = lane_isa(target, x.type, w.array)
    if isa is None:
        return f"no vectors of so many channels for {x.type.dtype} and {w.type.dtype}"
    whole = isa.lanes % 8 == 0 and w.shape[0] % isa.lanes == 0
    return first_reason((not y.dtype.is_packed or whole, "blocks of outputs end within a byte"))


@dataclass(frozen=True)
class Plan:
    """How a layer is cut: blocks of channels, and tiles of so many pixels of a row."""

    isa: LaneIsa
    geo: Geometry
    copied: bool
    pixels: int
    blocks: tuple[int, ...]
    """First channel of each."""

    @property
    def across(self) -> bool:
        """Whether pixels are done with all their channels, as they lie in caches, rather than channels with all pixels,
        which leaves weights in registers."""
        return self.isa.lanes > 1

    @property
    def inside(self) -> tuple[int, int]:
        """Columns of outputs whose windows lie between the left and right edge."""
        return inside(self.geo)

    @property
    def rows(self) -> tuple[int, int]:
        """Rows of outputs whose windows lie between the upper and lower edge."""
        g = self.geo
        return inside(replace(g, ow=g.oh, sx=g.sy, pl=g.pt, kw=g.kh, dx=g.dy, w=g.h))


def plan(node: Node, target: Target) -> Plan:
    """For a node that the row accepts."""
    op, x, w = node.op, node.input(0).type, node.input(1)
    assert isinstance(op, Conv2D)
    isa = lane_isa(target, x, w.array)
    assert isa is not None
    geo, lanes = geometry(x, op.window), isa.lanes
    copied = isa.x.is_integer and (geo.border or isa.x is not x.dtype)
    inner = padded(geo) if copied else geo
    first, last = inside(inner)
    most = max(1, min(last - first, 8, MOST // geo.taps, isa.room - min(geo.taps, isa.room // 2) - 4))
    pixels = min(range(1, most + 1), key=lambda p: (-(-(last - first) // p) * (p + 1), -p))
    channels = w.shape[0]
    blocks = tuple(min(start, channels - lanes) for start in range(0, channels, lanes))
    return Plan(isa, inner, copied, pixels, blocks)


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w, y = node.op, node.input(0), node.input(1), node.output.type
    assert isinstance(op, Conv2D)
    best = plan(node, target)
    isa, geo, channels = best.isa, best.geo, w.shape[0]
    codes, starts = codes_of(op, x.type, isa.x), np.zeros(channels, np.int64)
    if isa.x.is_integer:
        e, tables, bias = summed_epilogue(node, *product_range(node), target)
        starts = bias - codes.zero * w.array.reshape(channels, -1).sum(axis=1, dtype=np.int64)
    else:
        e, tables = conv_epilogue(node)
    flat = w.array.reshape(channels, -1).T
    packed = np.concatenate([isa.pack(flat[:, start : start + isa.lanes]) for start in best.blocks])
    args = (out(node), Arg("x", x), Arg("w", Packed(packed)), *tables)
    if starts.any():
        wrapped = starts.astype(np.uint64).astype(np.uint32).view(np.int32)
        args += (Arg("start", Packed(wrapped, "start", is_weight=False)),)
    if best.copied:
        args += (scratch("copy", geo.n * geo.h * geo.w * channels, isa.x.carrier.type),)
    if e["word"]:  # blocks put whole bytes
        e |= {"words": e["words"] * e["word"] // 8, "out_t": "uint8_t", "bits_t": "uint32_t", "word": 8}
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "isa": isa,
        "plan": best,
        "f": isa.prefix,
        "source": asdict(geometry(x.type, op.window)),
        "planar": False,
        "copied_t": c_type(x.type),
        "subtract": codes.subtract,
        "x_zero": codes.zero,
        "x_t": isa.x.c_type,
        "weight_t": packed.dtype.name + "_t" if isa.pairs else "float",
        "w_block": packed.size // len(best.blocks),
        "acc_t": "float" if isa.x.is_float else "int32_t",
        "starts": bool(starts.any()),
        "channels": channels,
        "x_row": channels if best.copied else x.type.row_step,
        "source_row": x.type.row_step,
        "y_row": y.row_step * y.layout.word // 8 if e["word"] else y.row_step,
        "y_planes": y.dtype.planes,
        "y_used": -(-channels // 8),
    }
    uses = ("bitc_defs.h", isa.template, isa.codes)
    return (
        Step(
            VARIANT.name,
            "kernels/depthwise_products.j2",
            args,
            context,
            uses,
            over_x(_overlap(node, best)),
        ),
    )


def _overlap(node: Node, best: Plan) -> tuple[Overlap, ...]:
    x, y = node.input(0).type, node.output.type
    if y.layout.word and y.channels % y.layout.word:
        return ()  # bits after the last output are cleared before anything is read
    if best.copied:
        return overlap.consumed(x)
    return overlap.by_pixels(best.geo, x, y, overlap.rows(best.geo), False) if best.across else ()


def work(node: Node, target: Target) -> Work:
    """Blocks of channels, their rows and tiles, products and loads of vectors, outputs put, elements copied."""
    best = plan(node, target)
    g, (first, last), (top, bottom) = best.geo, best.inside, best.rows
    kind, rows = best.isa.prefix.removeprefix("bitc_"), g.n * len(best.blocks) * (bottom - top)
    tiles = rows * -(-(last - first) // best.pixels)
    columns = {p * g.sx + k * g.dx for p in range(best.pixels) for k in range(g.kw)}
    outside = len(best.blocks) * g.pixels - rows * (last - first)
    terms: Work = {
        "blocks": len(best.blocks),
        "rows": g.n * len(best.blocks) * g.oh,
        "tiles": tiles,
        "products": tiles * best.pixels * g.taps,
        "loads": tiles * len(columns) * g.kh,
        "sums": tiles * best.pixels,
        "outside": outside,
        "outside products": outside * g.taps,
        "copied": g.n * g.h * g.w * node.input(1).shape[0] * best.copied,
        put(node): node.output.type.size,
    }
    return {"call": 1} | {f"{kind} {term}": n for term, n in terms.items()}


PRICES = {"blocks": 20, "rows": 15, "tiles": 6, "products": 2, "loads": 1, "sums": 6, "outside": 30, "copied": 0.5,
          "outside products": 6}  # fmt: skip


def cost(node: Node, target: Target) -> float:
    return sum(n * PRICES.get(term.partition(" ")[2], 0.0) for term, n in work(node, target).items())


VARIANT = Variant("depthwise_products", (Conv2D,), accepts, build, cost, work, apart="xy")
