"""Convolution of numbers in register tiles: some outputs of some pixels of a row at once.

Float32 by float32 on any FPU. Taps in the padding are skipped, or, where memory is not counted and there is a border,
multiplied as zeros in a copy of the activations: ``acc + 0 * w`` is acc for finite w, to the last bit, since a sum that
starts from +0 never becomes -0.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from bitc.ir.dtypes import FLOAT32
from bitc.ir.graph import Node
from bitc.ir.program import c_type
from bitc.kernels.epilogues import conv_epilogue
from bitc.kernels.geometry import Geometry, geometry
from bitc.kernels.products import Products, product_isas
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, scratch
from bitc.kernels.work import Work, put
from bitc.ops.linear import Conv2D
from bitc.target import Target


def accepts(node: Node, target: Target) -> str:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    return first_reason(
        (x.type.dtype is w.type.dtype is FLOAT32, f"{x.type.dtype} by {w.type.dtype}, not float32"),
        (w.is_const, "weights are computed"),
        (bool(product_isas(target, x.type.dtype, w.type.dtype)), "no FPU"),
        (all(v is None or v.is_const for v in node.inputs[2:]), "parameters are computed"),
        (node.output.type.size > 0, "no outputs"),
        (w.shape[0] > op.group, "one output per group"),
        (
            op.group == 1 or not node.output.type.layout.word or w.shape[0] // op.group % 8 == 0,
            "groups of outputs do not end with a byte",
        ),
    )


def plan(node: Node, target: Target) -> Products:
    """The tiles that need the fewest instructions, for a node that the row accepts."""
    op, x, w = node.op, node.input(0).type, node.input(1).type
    assert isinstance(op, Conv2D)
    geo = geometry(op.pixels(x), op.window, op.planar)
    copied = geo.border and target.memory.ram is None and bool(np.isfinite(node.input(1).array).all())
    inner = _padded(geo) if copied else geo
    whole_rows = geo.dx == 1 and op.group == 1 and (copied or not op.planar)
    bits = node.output.type.layout.word > 0
    offers = [
        offer
        for isa in product_isas(target, x.dtype, w.dtype)
        for offer in Products.offers(isa, inner, copied, w.channels, whole_rows, w.shape[0] // op.group)
        if not bits or offer.block_outputs % 8 == 0 or len(offer.shapes) == offer.shapes[0][2] == 1
    ]
    return min(offers, key=lambda offer: offer.instructions)


def _padded(geo: Geometry) -> Geometry:
    """The same windows over activations that have their padding around them."""
    h, w = (geo.oh - 1) * geo.sy + (geo.kh - 1) * geo.dy + 1, (geo.ow - 1) * geo.sx + (geo.kw - 1) * geo.dx + 1
    return replace(geo, h=h, w=w, pt=0, pl=0, border=False)


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w, y = node.op, node.input(0), node.input(1), node.output.type
    assert isinstance(op, Conv2D)
    best = plan(node, target)
    isa, geo = best.isa, best.geo
    e, params = conv_epilogue(node)
    packed = np.concatenate([best.pack(g) for g in np.split(w.array, op.group)])
    args = [out(node), Arg("x", x), Arg("w", Packed(packed)), *params]
    channels = op.pixels(x.type).channels
    if best.copied:
        args.append(scratch("copy", geo.n * geo.h * geo.w * channels, np.float32))
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
        "x_t": c_type(x.type),
        "weight_t": "float",
        "x_row": 1 if planes else channels,
        "x_step": geo.h * geo.w if planes else isa.depth,
        "acc_t": "float",
        "groups": op.group,
        "channels": channels,
        "y_row": y.row_words * y.layout.word // 8 if e["word"] else w.shape[0],
        "y_used": -(-w.shape[0] // 8),
    }
    return (Step(VARIANT.name, "kernels/conv_products.j2", tuple(args), context, ("bitc_defs.h", isa.template)),)


def cost(node: Node, target: Target) -> float:
    op = node.op
    assert isinstance(op, Conv2D)
    return op.group * plan(node, target).instructions


def work(node: Node, target: Target) -> Work:
    op, best = node.op, plan(node, target)
    assert isinstance(op, Conv2D)
    terms: Work = {"call": 1, put(node): node.output.type.size}
    terms |= {"copied": best.geo.n * best.geo.h * best.geo.w * op.pixels(node.input(0).type).channels * best.copied}
    return terms | {term: op.group * n for term, n in best.work.items()}


VARIANT = Variant("conv_products", (Conv2D,), accepts, build, cost, work)
