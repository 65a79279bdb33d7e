"""Convolution of bits with bits or trits on vector units, in register tiles of outputs x pixels.

``dot = valid - 2 * pop`` with ``pop = popcount(x ^ w)`` over the taps inside the input. So the output bit
``dot < t``, for integer t, is ``2 * pop > valid - t``, which is ``pop > floor((valid - t) / 2)``: one comparison of a
vector of counts with a constant for each output and number of valid taps. A flipped channel (low where ``dot > t``)
is a plain one with inverted weights: then ``dot' = -dot``, and ``dot > t`` is ``dot' < -t``.

Trits have a plane of signs s and one z of what is not zero: ``pop = popcount((x ^ s) & z)``, and `valid`, the number of
nonzero weights whose taps are inside, is another one for each output.

Channels beyond whole words would be counted in words that are mostly empty. So those of all taps of a window, bits of
zero outside, are gathered in words of their own, once per pixel for all outputs. What the taps outside add to the
count is the number of their weights that are ones, which is added to the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bitc.ir.dtypes import BIT1, TERN
from bitc.ir.graph import Array, Node
from bitc.ir.types import TensorType
from bitc.kernels.epilogues import conv_epilogue
from bitc.kernels.geometry import geometry
from bitc.kernels.pack import planes
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, scratch
from bitc.kernels.tiles import Region, TileIsa, Tiling, pack_planes, tile_isas
from bitc.kernels.work import Work, put
from bitc.ops.epilogue import Bases, Levels, TernThreshold, bases
from bitc.ops.linear import Conv2D
from bitc.target import Target

MAX_COUNT = 2**15 - 1
"""Counts are compared as int16, hence at most so many products per output."""

TAIL_BITS = 64
"""Bits that the tails of a window may take."""
TWICE = 1.02
"""Gain that is worth a second function, for a tile of fewer outputs."""


def row_bytes(x: TensorType) -> int:
    return x.row_words * x.layout.word // 8


def step_bytes(x: TensorType) -> int:
    return x.row_step * x.layout.word // 8


def words(x: TensorType, channels: int, isa: TileIsa) -> list[int]:
    """Channels per step: the words of the ISA that divide rows, and groups of them."""
    whole = channels == x.channels
    rows = 8 * row_bytes(x)
    return [w for w in isa.lanes if (whole or channels % w == 0) and (isa.expanded or rows % w == 0)]


def row_words(x: TensorType, word: int, isa: TileIsa) -> int:
    """Words of a row of activations; those that a kernel spreads end with the last channel."""
    return -(-x.channels // word) if isa.expanded else 8 * row_bytes(x) // word


def accepts(node: Node, target: Target) -> str:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    isas = _isas(node, target)
    return first_reason(
        (bool(tile_isas(target)), "no vector unit with a tile kernel"),
        (x.type.dtype is BIT1, f"activations are {x.type.dtype}, not bit1"),
        (w.type.dtype in (BIT1, TERN), f"weights are {w.type.dtype}, neither bits nor trits"),
        (bool(isas), "no primitive for trits"),
        (w.is_const, "weights are computed"),
        (not op.planar, "planes of an image"),
        (not isinstance(op.epilogue, Levels), "the output has binary digits"),
        (bases(op.epilogue) in (1, 2, 4), "sums of three accumulators"),
        (not isinstance(op.epilogue, Bases) or not isinstance(op.epilogue.then, TernThreshold), "sums give trits"),
        (all(v is None or v.is_const for v in node.inputs[2:]), "parameters are computed"),
        (w.type.size // w.shape[0] <= MAX_COUNT, f"more than {MAX_COUNT} products per output"),
        (op.group == 1 or node.output.type.channels // op.group % 8 == 0, "groups of outputs do not end with a byte"),
    ) or first_reason((any(words(x.type, w.shape[3], i) for i in isas), "rows or groups are not whole words"))


def _isas(node: Node, target: Target) -> list[TileIsa]:
    """The instruction sets that count the node's weights."""
    return [i for i in tile_isas(target) if node.input(1).type.dtype is not TERN or i.trits]


def _tails(node: Node, word: int, isa: TileIsa) -> list[int]:
    """No tail, and the one that may be gathered."""
    op, x, w = node.op, node.input(0).type, node.input(1).type
    assert isinstance(op, Conv2D)
    tail, taps = w.channels % word, w.shape[1] * w.shape[2]
    few = 0 < tail * taps <= TAIL_BITS and -(-tail * taps // word) < taps and w.channels == x.channels > word
    return [0, tail] if few and not isa.expanded and w.dtype is BIT1 and bases(op.epilogue) == 1 else [0]


def tilings(node: Node, target: Target) -> list[Tiling]:
    """The tiles that need the fewest instructions, for a node that the row accepts: those of all outputs (of a group),
    or whole ones and then one of fewer outputs."""
    op, x, w = node.op, node.input(0).type, node.input(1).type
    assert isinstance(op, Conv2D)
    geo, outputs = geometry(x, op.window), w.shape[0] // op.group
    offers = [
        offer
        for isa in _isas(node, target)
        for word in words(x, w.channels, isa)
        for tail in _tails(node, word, isa)
        for offer in Tiling.offers(isa, geo, word, w.channels, _adjacent(x, word, isa), outputs, w.dtype.planes, tail)
        if _whole(offer, bases(op.epilogue))
    ]
    return min(offers, key=lambda offer: sum(plan.instructions for plan in offer) * (TWICE if len(offer) > 1 else 1))


def _whole(plans: Sequence[Tiling], count: int) -> bool:
    """Whether each tile but the last computes whole outputs, and bits of them that are not in several bytes."""
    sums = plans[0].lanes * plans[0].blocks / count
    return len(plans) == plans[0].tiles == 1 or 8 % sums == 0 or sums % 8 == 0


def build(node: Node, target: Target) -> tuple[Step, ...]:
    plans, epilogue = tilings(node, target), conv_epilogue(node)
    firsts = [0, *(plan.outputs for plan in plans)]
    return tuple(_part(node, *epilogue, plan, first) for plan, first in zip(plans, firsts, strict=False))


def _side_by_side(plan: Tiling, count: int) -> Array:
    """The accumulators of a plan in the order of its tiles: in each, those of the first base, then of the next one.
    So what belongs to one output is the same number of lanes apart."""
    own = min(plan.outputs, plan.lanes * plan.blocks)
    return np.arange(plan.outputs).reshape(-1, own // count, count).swapaxes(1, 2).reshape(-1)


def _part(node: Node, e: dict[str, Any], params: tuple[Arg, ...], plan: Tiling, first: int) -> Step:
    """The outputs of each group from `first` on for which the plan is."""
    op, x, w, y = node.op, node.input(0), node.input(1), node.output.type
    assert isinstance(op, Conv2D)
    isa, per_group, count = plan.isa, w.shape[0] // op.group, bases(op.epilogue)
    of_group = first + _side_by_side(plan, count)
    chosen = (np.arange(op.group)[:, None] * per_group + of_group).reshape(-1)
    signs = w.array < 0 if w.type.dtype is TERN else w.array.astype(np.bool_)
    parts = planes(w.array)
    nonzero = parts[1] if len(parts) > 1 else np.ones(signs.shape, np.bool_)
    inside = [nonzero[:, r.ky.start : r.ky.stop, r.kx.start : r.kx.stop] for r in plan.classes.values()]
    valid = np.stack([n.reshape(len(n), -1).sum(axis=1) for n in inside])  # [class, output]
    if count > 1:
        outputs = np.unique(chosen // count)
        params = tuple(_chosen(a, chosen if a.name == "factor" else outputs) for a in params)
        if e["word"]:
            params = _sum_limits(params, plan, count, w.shape[3])
    elif e["word"]:
        signs, limits = _thresholds(signs, valid, {a.name: a.operand for a in params})
        limits = np.clip(limits + _outside(signs, plan), -1, MAX_COUNT).astype(np.int16)
        params = (Arg("limit", Packed(plan.in_lanes(limits[..., chosen], op.group), "limit")),)
    else:
        params = tuple(_chosen(a, chosen) for a in params)
        if plan.tail or w.type.dtype is TERN:
            table = (valid + 2 * _outside(signs, plan))[:, chosen].astype(np.int32)
            params += (Arg("products", Packed(table.reshape(-1), "products", is_weight=False)),)
    lanes, blocks = (plan.outputs, 1) if plan.short else (plan.lanes, plan.blocks)
    whole = signs.shape[3] - plan.tail
    groups = zip(*(np.split(p[chosen, ..., :whole], op.group) for p in (signs, nonzero)[: plan.planes]), strict=True)
    packed = [pack_planes(g, plan.word, lanes, blocks) for g in groups]
    if plan.tail:
        gathered = signs[chosen, ..., whole:].reshape(len(chosen), 1, 1, -1)
        both = [p.reshape(plan.tiles, -1) for p in (packed[0], pack_planes([gathered], plan.word, lanes, blocks))]
        packed = [np.concatenate(both, axis=1).reshape(-1)]
    size = sum(p.size for p in packed) + plan.w_beyond
    weights = np.zeros(-(-size // 8), np.uint64)
    weights.view(np.uint8)[: size - plan.w_beyond] = np.concatenate(packed)
    args = [out(node), Arg("x", x), Arg("w", Packed(weights)), *params]
    x_step = 2 if isa.expanded else plan.word // 8
    x_row = row_words(x.type, plan.word, isa) * x_step if isa.expanded else step_bytes(x.type)
    if isa.expanded:
        args.append(scratch("spread", x.type.rows * x_row, np.uint8))
    if plan.tail:
        args.append(scratch("tails", plan.geo.pixels * plan.tail_steps * plan.word // 8, np.uint8))
    y_row = step_bytes(y) if e["word"] else y.row_step
    last = first + plan.outputs == per_group
    context: dict[str, Any] = {
        **plan.geo.context,
        "e": e,
        "isa": isa,
        "plan": plan,
        "first": first,
        "small": any(r.count < plan.pixels for r in plan.regions),
        "tile": f"bitc_tile{plan.word}",
        "groups": op.group,
        "per_group": per_group,
        "x_rows": x.type.rows,
        "x_row_bytes": step_bytes(x.type),
        "x_row": x_row,
        "x_step": x_step,
        "regions": [_numbers(r, plan, x_row, w.shape[3]) for r in plan.regions],
        "y_t": "unsigned char" if e["word"] else e["out_t"],
        "sums": min(plan.outputs, plan.lanes * plan.blocks) // count,
        "y_row": y_row,
        "y_planes": y.dtype.planes,
        "y_plane": e["words"] * e["word"] // 8,
        "y_used": -(-y.channels // 8) if last else e["words"] * e["word"] // 8,
    }
    uses = ("bitc_defs.h", "isa/tile_put.j2", *isa.shared, isa.template)
    return Step(VARIANT.name, "kernels/conv_tiles.j2", tuple(args), context, uses)


def _sum_limits(params: tuple[Arg, ...], plan: Tiling, count: int, channels: int) -> tuple[Arg, ...]:
    """Limits ``[tile, class, output]`` for counts c instead of accumulators ``valid - 2 * c``: with factors m,
    low iff sum m * c > (valid * sum m - t) / 2."""
    named = {p.name: p.operand.data for p in params if isinstance(p.operand, Packed)}
    own = min(plan.outputs, plan.lanes * plan.blocks)
    total = named["factor"].reshape(-1, count, own // count).sum(axis=1, dtype=np.int64).reshape(-1)
    t = named["t"]
    valid = np.array([r.taps * channels for r in plan.classes.values()])
    limit = (valid * total[:, None] - t[:, None]) // 2
    order = limit.reshape(-1, own // count, len(valid)).swapaxes(1, 2).reshape(-1)
    return (params[0], Arg("limit", Packed(order.astype(t.dtype), "limit")))


def _chosen(param: Arg, outputs: Array) -> Arg:
    """A parameter of some outputs."""
    assert isinstance(param.operand, Packed)
    data = param.operand.data
    return replace(param, operand=Packed(data[outputs], param.operand.name)) if data.size > 1 else param


def _numbers(r: Region, plan: Tiling, x_row: int, channels: int) -> list[int]:
    """A region as the loops take it: pixels, columns, byte offset in x, pixel offset in y, byte offset in the weights
    of a tile, kernel rows, kernel columns, number of its class, products."""
    geo, first = plan.geo, r.oy * plan.geo.ow + r.ox
    source = weights = 0
    if r.taps:
        y, x = r.oy * geo.sy - geo.pt + r.ky[0] * geo.dy, r.ox * geo.sx - geo.pl + r.kx[0] * geo.dx
        source = (y * geo.w + x) * x_row
        weights = (r.ky[0] * geo.kw + r.kx[0]) * plan.tap * plan.w_step
    limits = list(plan.classes).index(plan.key(r))
    return [r.count, r.cols, source, first, weights, len(r.ky), len(r.kx), limits, r.taps * channels]


def _outside(signs: Array, plan: Tiling) -> Array:
    """What the tails of taps outside add to counts, ``[class, output]``: their bits are 0, which stands for +1."""
    ones = signs[..., signs.shape[3] - plan.tail :].sum(axis=3, dtype=np.int64)  # [output, ky, kx]
    boxes = [ones[:, r.ky.start : r.ky.stop, r.kx.start : r.kx.stop] for r in plan.classes.values()]
    outside: Array = ones.sum(axis=(1, 2)) - np.stack([box.sum(axis=(1, 2)) for box in boxes])
    return outside


def _thresholds(signs: Array, valid: Array, params: dict[str, Any]) -> tuple[Array, Array]:
    """Weights with flipped channels inverted, and ``floor((valid - t) / 2)`` as ``[tables, classes, outputs]``."""
    flip = params["flip"].data != 0 if "flip" in params else np.zeros(1, np.bool_)
    flip = np.broadcast_to(flip, signs.shape[:1])
    names = [name for name in ("t", "t_low", "t_high") if name in params]
    tables = []
    for name in names:
        t = np.broadcast_to(params[name].data.astype(np.int64), signs.shape[:1])
        limit = (valid - np.where(flip, -t, t)) // 2
        tables.append(np.clip(limit, -1, MAX_COUNT).astype(np.int16))
    return signs ^ flip[:, None, None, None], np.stack(tables)


def _adjacent(x: TensorType, word: int, isa: TileIsa) -> int:
    """Words from a pixel to the next one; 0: there is something between them."""
    return 0 if x.layout.pitch and not isa.expanded else row_words(x, word, isa)


def cost(node: Node, target: Target) -> float:
    assert isinstance(node.op, Conv2D)
    return node.op.group * sum(plan.instructions for plan in tilings(node, target))


def work(node: Node, target: Target) -> Work:
    op, x, plans = node.op, node.input(0).type, tilings(node, target)
    assert isinstance(op, Conv2D)
    isa, word = plans[0].isa, plans[0].word
    terms: Work = {"call": len(plans), put(node): plans[0].geo.pixels * node.input(1).shape[0]}
    terms |= {"spread": len(plans) * x.rows * row_words(x, word, isa) if isa.expanded else 0}
    return terms | {term: op.group * sum(plan.work[term] for plan in plans) for term in plans[0].work}


VARIANT = Variant("conv_tiles", (Conv2D,), accepts, build, cost, work, sums_bases=True, apart="xy")
