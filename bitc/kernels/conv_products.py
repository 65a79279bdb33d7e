"""Convolution of numbers in register tiles: some outputs of some pixels of a row at once.

Float32 by float32 on any FPU, and codes of 8 bits by int8 on vector units. Activations are multiplied as they lie in
memory where that is possible, taps in the padding being skipped. On vector units they are copied where it is not, in
the type that products take and with their padding around them. In float32 the padding is 0: ``acc + 0 * w`` is acc for
finite w, to the last bit, since a sum that starts from +0 never becomes -0. For codes it is their zero point, and as
``sum (x - x_zero) * w = sum (x + s) * w - (x_zero + s) * sum w``, sums start from the last term, with the bias of a
requantization; s moves codes between int8 and uint8.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from bitc.ir.dtypes import INT16, DType
from bitc.ir.graph import Array, Node
from bitc.ir.program import Overlap, c_type
from bitc.ir.types import TensorType
from bitc.kernels import overlap
from bitc.kernels.bounds import product_range
from bitc.kernels.epilogues import conv_epilogue, summed_epilogue
from bitc.kernels.geometry import Geometry, geometry
from bitc.kernels.products import Products, numbers, product_isa
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, over_x, scratch
from bitc.kernels.work import Work, put
from bitc.ops.linear import Conv2D
from bitc.target import Target


def accepts(node: Node, target: Target) -> str:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    per_group = w.shape[0] // op.group
    return first_reason(
        (w.is_const, "weights are computed"),
        (all(v is None or v.is_const for v in node.inputs[2:]), "parameters are computed"),
        (node.output.type.size > 0, "no outputs"),
        (per_group > 1, "one output per group"),
        (
            op.group == 1 or not node.output.type.dtype.is_packed or per_group % 8 == 0,
            "groups end within a byte",
        ),
    ) or first_reason(
        (
            product_isa(target, x.type.dtype, numbers(x.type.dtype, w.array)) is not None,
            f"no products of {x.type.dtype} and {w.type.dtype}",
        )
    )


@dataclass(frozen=True)
class Codes:
    """Codes as they are multiplied: ``x - subtract``, in the type of the products; `zero` is what x_zero becomes."""

    subtract: int
    zero: int


def codes_of(op: Conv2D, x: TensorType, multiplied: DType) -> Codes:
    """How codes of x become those that are multiplied."""
    if multiplied.is_float:
        return Codes(0, 0)
    if multiplied is INT16:
        return Codes(op.x_zero, 0)
    subtract = int(x.dtype.min - multiplied.min)
    return Codes(subtract, op.x_zero - subtract)


def plan(node: Node, target: Target) -> Products:
    """The tiles that need the fewest instructions, for a node that the row accepts."""
    op, x, w = node.op, node.input(0).type, node.input(1)
    assert isinstance(op, Conv2D)
    isa = product_isa(target, x.dtype, numbers(x.dtype, w.array))
    assert isa is not None
    geo, channels = geometry(op.pixels(x), op.window, op.planar), w.shape[3]
    rows = geo.dx == 1 and op.group == 1  # kernel rows without gaps, once there is no border
    side_by_side = geo.kw == 1 or not (op.planar or x.layout.pitch)
    whole_steps = channels * (geo.kw if rows and side_by_side and not geo.border else 1) % isa.depth == 0
    as_it_is = isa.x is x.dtype and whole_steps and not (isa.x.is_integer and (geo.border or op.planar))
    can_copy = isa.lanes > 1 and (geo.border or isa.x.is_integer) and bool(np.isfinite(w.array).all())
    bits = node.output.type.layout.word > 0
    offers = []
    for copied in [c for c, able in ((False, as_it_is), (True, can_copy)) if able]:
        inner = padded(geo) if copied else geo
        adjacent = copied or (side_by_side and not op.planar)
        whole_rows = rows and adjacent and (not inner.border or channels % isa.depth == 0)
        for offer in Products.offers(isa, inner, copied, channels, whole_rows, w.shape[0] // op.group):
            if not bits or offer.block_outputs % 8 == 0 or len(offer.shapes) == offer.shapes[0][2] == 1:
                offers.append(offer)
    return min(offers, key=lambda offer: offer.instructions)


def padded(geo: Geometry) -> Geometry:
    """The same windows over activations that have their padding around them."""
    h, w = (geo.oh - 1) * geo.sy + (geo.kh - 1) * geo.dy + 1, (geo.ow - 1) * geo.sx + (geo.kw - 1) * geo.dx + 1
    return replace(geo, h=h, w=w, pt=0, pl=0, border=False)


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w, y = node.op, node.input(0), node.input(1), node.output.type
    assert isinstance(op, Conv2D)
    best = plan(node, target)
    isa, geo, channels = best.isa, best.geo, op.pixels(x.type).channels
    codes = codes_of(op, x.type, isa.x)
    starts = None
    if isa.x.is_integer:
        e, tables, bias = summed_epilogue(node, *product_range(node), target)
        starts = bias - codes.zero * w.array.reshape(w.shape[0], -1).sum(axis=1, dtype=np.int64)
    else:
        e, tables = conv_epilogue(node)
    weights = numbers(x.type.dtype, w.array)
    packed = np.concatenate([best.pack(g) for g in np.split(weights, op.group)])
    args = (out(node), Arg("x", x), Arg("w", Packed(packed)), *tables)
    if starts is not None and starts.any():
        args += (Arg("start", Packed(_in_vectors(starts, op.group, best), "start", is_weight=False)),)
    if best.copied:
        elements = geo.n * geo.h * geo.w * channels
        args += (scratch("copy", elements + isa.depth, isa.x.carrier.type),)
    planes = op.planar and not best.copied
    if e["word"]:  # tiles put whole bytes
        e |= {"words": e["words"] * e["word"] // 8, "out_t": "uint8_t", "bits_t": "uint32_t", "word": 8}
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "isa": isa,
        "plan": best,
        "f": isa.prefix,
        "source": asdict(geometry(op.pixels(x.type), op.window, op.planar)),
        "planar": op.planar,
        "copied_t": c_type(x.type),
        "subtract": codes.subtract,
        "x_zero": codes.zero,
        "x_t": isa.x.c_type,
        "weight_t": isa.weight.c_type,
        "code_bits": 0,
        "acc_t": "float" if isa.x.is_float else "int32_t",
        "starts": starts is not None and bool(starts.any()),
        "x_row": 1 if planes else channels if best.copied else x.type.row_step,
        "source_row": x.type.row_step,
        "x_step": geo.h * geo.w if planes else isa.depth,
        "groups": op.group,
        "channels": channels,
        "y_row": y.row_step * y.layout.word // 8 if e["word"] else y.row_step,
        "y_planes": y.dtype.planes,
        "y_used": -(-w.shape[0] // 8),
    }
    uses = ("bitc_defs.h", isa.template, isa.codes)
    return (
        Step(
            VARIANT.name,
            "kernels/conv_products.j2",
            args,
            context,
            uses,
            over_x(_overlap(node, best)),
        ),
    )


def _overlap(node: Node, best: Products) -> tuple[Overlap, ...]:
    """Tiles of outputs come one after the other, each with all pixels of x: y may lie over x where there is one, or
    where x is copied."""
    op, x, y = node.op, node.input(0).type, node.output.type
    assert isinstance(op, Conv2D)
    if y.layout.word and y.channels % y.layout.word:
        return ()  # bits after the last output are cleared before anything is read
    if best.copied:
        return overlap.consumed(x)
    alone = op.group == 1 and sum(times for _, _, times in best.shapes) == 1
    rounds = overlap.rows(best.geo) if best.border else overlap.within_rows(best.geo, best.pixels)
    return overlap.by_pixels(best.geo, x, y, rounds, not best.border, op.planar) if alone else ()


def _in_vectors(starts: Array, groups: int, best: Products) -> Array:
    """What sums start from, modulo 2**32, with zeros for lanes without an output."""
    padded = np.zeros((groups, best.padded), np.int64)
    padded[:, : best.outputs] = starts.reshape(groups, -1)
    return padded.astype(np.uint64).astype(np.uint32).view(np.int32).reshape(-1)


def cost(node: Node, target: Target) -> float:
    op = node.op
    assert isinstance(op, Conv2D)
    return op.group * plan(node, target).instructions


def work(node: Node, target: Target) -> Work:
    op, best = node.op, plan(node, target)
    assert isinstance(op, Conv2D)
    kind = best.isa.prefix.removeprefix("bitc_")
    copied = best.geo.n * best.geo.h * best.geo.w * op.pixels(node.input(0).type).channels * best.copied
    terms = {f"{kind} {term}": op.group * n for term, n in best.work.items()}
    return {"call": 1, f"{kind} {put(node)}": node.output.type.size, f"{kind} copied": copied} | terms


VARIANT = Variant("conv_products", (Conv2D,), accepts, build, cost, work, apart="xy")
