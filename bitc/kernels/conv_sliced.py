"""Binary convolution on bit slices: a word holds one channel of 32 pixels, and the adders are shared by all of them.

``pop = sum over k of a[k] ^ w[k]`` is summed per pixel in carry-save form (see adders.py). Three channels of a pixel
are looked up at once: for every pattern of their three weights a table holds ``popcount(a ^ w)`` of all 32 pixels, as
two words. The tables belong to the activations alone: made once per row of words, they serve every output channel and
every horizontal tap. Per word of 32 products this leaves 2/3 of a full adder and 1/3 of a look-up, about 4.5
instructions, where XOR and carry-save population counts take 8 or more; and a threshold is compared for 32 pixels at
once. Horizontal taps are lanes away: their sums are shifted, not their addends.

    low  iff  dot < t,  dot = K - C * m - 2 * pop   (m: taps in the padding, which are skipped)
         iff  2 * pop + C * m >= X,  X = K - t + 1
         iff  pop + C * m div 2 + q + 1 > ceil(X / 2),  q = 1 if C * m and X are odd

Counters start at ``C * m div 2 + 1`` of each lane; q is the carry into the comparison. They hold at most
``K + 2 < 2 ** planes``: pop <= K - C * m. Where the output is not a bit, counters c are transposed into integers, and
``dot = K + 2 - 2 * c - C * m mod 2``.

A trit is half the sum of two signs: 0 of unequal ones. So trits are looked up twice, in the same tables; with pop the
count of both, ``dot = K - C * m - pop``, counters start at ``C * m + 1``, hold at most ``2 * K + 1``, and

    low  iff  pop + C * m + 1 > X
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bitc.ir.dtypes import BIT1, TERN
from bitc.ir.graph import Array, Node
from bitc.kernels.adders import accumulate
from bitc.kernels.epilogues import conv_epilogue, unflipped
from bitc.kernels.geometry import geometry
from bitc.kernels.lanes import LANES, Lanes, plan_lanes
from bitc.kernels.pack import WORDS, pack_bits
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, scratch
from bitc.kernels.triples import TRIPLE, Triples, fetches, pack_patterns
from bitc.kernels.work import Work, put
from bitc.ops.epilogue import Bases, Epilogue, Levels, TernThreshold, bases
from bitc.ops.linear import Conv2D
from bitc.target import Target

BODY = 32
"""Look-ups per step of the inner loop: their patterns fill three words. In each step a plane above those that they fill
costs four instructions: with 10 a layer takes 8 % more. A look-up is 50 bytes of code."""
STRAIGHT = 44
"""Look-ups that are one step."""

PRODUCTS = 64
"""Fewest products per byte of code: a layer that takes some 50,000 instructions anyway is not worth 2 KiB."""
STACK = 1 << 10
"""Bytes of RAM to leave for the stack."""


def limits(t: Array, k: int, planes: int, trits: bool = False) -> Array:
    """Per output the word whose bits are those of ``~ceil(X / 2)``; its top bit is set where X is odd. For trits those
    of ``~X``."""
    x = k + 1 - t.astype(np.int64)
    limit = np.clip(x if trits else (x + 1) // 2, 0, (1 << planes) - 1)
    width = limit_bits(planes)
    odd = 0 if trits else x & 1
    return ((~limit & ((1 << planes) - 1)) | odd << (width - 1)).astype(WORDS[width])


def limit_bits(planes: int) -> int:
    """Bits of the words of limits."""
    return 16 if planes < 16 else 32


def edges(lanes: Lanes, channels: int, planes: int, trits: bool = False) -> tuple[Array, Array]:
    """What the padding adds. Unique rows of words, and which of them each word of pixels uses ``[segments, rows]``.

    A row holds the planes at which the counters start, the planes that come in at each shift to the left (the pixels
    that had no lane before), and q."""
    outside = lanes.outside()
    add = outside * channels // (1 if trits else 2) + 1
    odd = np.zeros_like(outside) if trits else outside * channels % 2
    position = np.arange(LANES) % lanes.width
    shifts = sorted({min(c.shift, 0) for c in lanes.columns} | {0})
    parts = []
    for i, d in enumerate(shifts):
        come = position >= -d if i == 0 else (position >= -d) & (position < -shifts[i - 1])
        parts += [_lane_words(np.where(come, add >> p & 1, 0), -d) for p in range(planes)]
    parts.append(_lane_words(odd, 0))
    table = np.stack(parts, axis=-1)
    rows, index = np.unique(table.reshape(-1, table.shape[-1]), axis=0, return_inverse=True)
    return rows, index.reshape(table.shape[:-1])


def _lane_words(bits: Array, down: int) -> Array:
    """Words of the bits ``[..., 32]``, moved down by some lanes."""
    return pack_bits(bits, LANES)[..., 0] >> np.uint32(down)


def accepts(node: Node, target: Target) -> str:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    return first_reason(
        (x.type.dtype is BIT1, f"activations are {x.type.dtype}, not bit1"),
        (w.type.dtype in (BIT1, TERN), f"weights are {w.type.dtype}, neither bits nor trits"),
        (w.is_const, "weights are computed"),
        (not op.planar, "planar input"),
        (not isinstance(_then(op), TernThreshold | Levels), "the output has several planes"),
        (not isinstance(op.epilogue, Bases) or _pairs(node), "sums of other than two accumulators of 16 bits"),
        (op.macs(x.type, w.type) >= PRODUCTS * code(node), f"too few products to be worth {code(node)} bytes of code"),
        (target.word_bits == 32, f"words have {target.word_bits} bits"),
    ) or _fits(node, op, target)


def _then(op: Conv2D) -> Epilogue | None:
    return op.epilogue.then if isinstance(op.epilogue, Bases) else op.epilogue


def _pairs(node: Node) -> bool:
    """Whether each output is a sum of two accumulators, whose counters fill the words of one transposition."""
    assert isinstance(node.op, Conv2D)
    return bases(node.op.epilogue) == 2 and counter_planes(node) <= LANES // 2


def code(node: Node) -> int:
    """Bytes of code, roughly."""
    op, w = node.op, node.input(1)
    assert isinstance(op, Conv2D)
    lookups = Triples(w.shape[1], w.shape[3]).lookups
    straight = lookups if lookups <= STRAIGHT else BODY + lookups % BODY
    return 1600 + 50 * straight + 60 * counter_planes(node)


def _fits(node: Node, op: Conv2D, target: Target) -> str:
    """Why the tables are too large."""
    x, y = node.input(0).type, node.output.type
    lanes = plan_lanes(geometry(x, op.window))
    if lanes is None:
        return "the window is wider than a word"
    run = Triples(op.window.kernel[0], x.channels // op.group)
    words = op.group * len(lanes.phases) * (run.table_words + run.left_words) + lane_words(x.channels)
    need = x.nbytes + y.nbytes + 4 * words
    ram = target.memory.ram
    return "" if ram is None or need + STACK <= ram else f"the tables and activations take {need} bytes of {ram}"


def lane_words(channels: int) -> int:
    """Words of one row of lanes, for all channels; at least a block, which outputs are collected in."""
    return -(-channels // LANES) * LANES


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w, y = node.op, node.input(0), node.input(1), node.output
    assert isinstance(op, Conv2D)
    geo = geometry(x.type, op.window)
    lanes = plan_lanes(geo)
    assert lanes is not None
    e, params = conv_epilogue(node)
    outputs, channels = w.shape[0], w.shape[3]
    k = geo.taps * channels
    trits = w.type.dtype is TERN
    planes = counter_planes(node)
    weights = w.array
    if e["kind"] == "threshold":
        weights, t = unflipped(weights, params)
        params = (Arg("limits", Packed(limits(t, k, planes, trits), "t")),)
    elif e["kind"] == "bases" and e["inner"]["kind"] == "threshold":
        params = _pair_limits(params, k, bool(edges(lanes, channels, planes)[0][:, -1].any()))
    rows, which = edges(lanes, channels, planes, trits)
    run = Triples(geo.kh, channels)
    whole, stream = pack_patterns([weights < 0, weights <= 0] if trits else [weights], lanes.columns)
    args = (
        out(node),
        Arg("x", x),
        Arg("w", Packed(np.append(whole, stream))),
        *params,
        Arg("edges", Packed(rows.reshape(-1), "edges", is_weight=False)),
        Arg("edge_of", Packed(which.reshape(-1).astype(np.uint8 if len(rows) < 256 else np.uint16), "edge_of", False)),
        scratch("table", op.group * len(lanes.phases) * run.table_words, np.uint32),
        scratch("lane", lane_words(x.type.channels), np.uint32),
    )
    if e["kind"] == "bases" and e["word"]:
        args += (scratch("lows", LANES, np.uint32),)
    if run.left:
        args += (scratch("left", op.group * len(lanes.phases) * run.left_words, np.uint32),)
    steps, tail = divmod(run.lookups, BODY) if run.lookups > STRAIGHT else (0, run.lookups)
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "lanes": lanes,
        "moves": _moves(lanes, run.table_words),
        "run": run,
        "planes": planes,
        "outputs": outputs,
        "groups": op.group,
        "channels": channels,
        "trits": trits,
        "blocks": -(-x.type.channels // LANES),
        "steps": steps,
        "body": accumulate(BODY, 2, planes) if steps else [],
        "body_fetches": fetches(BODY, BODY * TRIPLE // LANES),
        "tail": accumulate(tail, 2, planes) if tail else [],
        "tail_fetches": fetches(tail, tail * TRIPLE // LANES),
        "stream_at": whole.size,
        "odd_bit": limit_bits(planes) - 1,
        "limit_t": f"uint{limit_bits(planes)}_t",
        "edge_words": rows.shape[1],
        "keep": max(geo.kh - geo.sy, 0) if geo.dy == 1 else 0,
        "x_word": x.type.layout.word,
        "x_words": x.type.row_words,
        "x_row": x.type.row_step,
        "y_word": y.type.layout.word,
        "y_words": y.type.row_words if e["word"] else 0,
        "y_row": y.type.row_step,
        "any_odd": bool(rows[:, -1].any()),
    }
    uses = ("bitc_defs.h", "isa/adders.j2", "isa/sliced.j2")
    return (Step(VARIANT.name, "kernels/conv_sliced.j2", args, context, uses),)


def _pair_limits(params: Sequence[Arg], k: int, odd: bool) -> tuple[Arg, ...]:
    """Limits for counters c instead of accumulators ``K + 2 - 2 * c``, less 1 in `odd` lanes: with factors m,
    low iff 2 * sum m * c + odd * sum m > sum m * (K + 2) - t."""
    named = {p.name: p.operand.data for p in params if isinstance(p.operand, Packed)}
    t = named["t"]
    limit = named["factor"].reshape(-1, 2).sum(axis=1, dtype=np.int64) * (k + 2) - t
    limit = limit if odd else limit // 2
    rest = (p for p in params if p.name != "t")
    return (*rest, Arg("limits", Packed(limit.astype(t.dtype), "t")))


def counter_planes(node: Node) -> int:
    """Planes of the counters: of up to K + 2, for trits 2 * K + 1."""
    w = node.input(1)
    k = w.type.size // w.shape[0]
    return int(2 * k + 1 if w.type.dtype is TERN else k + 2).bit_length()


def _moves(lanes: Lanes, phase_words: int) -> list[dict[str, Any]]:
    """What happens after each column: lanes to move by, and where the next column's tables are."""
    moves = []
    for i, column in enumerate(lanes.columns):
        after = lanes.columns[i + 1] if i + 1 < len(lanes.columns) else None
        goal = 0 if after is None or (after.shift > 0 >= column.shift) else after.shift
        by = goal - column.shift
        moves.append(
            {
                "left": by if by > 0 else 0,
                "right": -by if by < 0 else 0,
                "mask": lanes.mask(max(by, 0), lanes.width + min(by, 0)),
                "save": after is not None and after.shift > 0 >= column.shift,
                "table": lanes.phases.index(column.phase) * phase_words,
            }
        )
    return moves


def work(node: Node, target: Target) -> Work:
    """Look-ups with their adders dominate; then, per output, column and word of pixels, the planes above; per word of
    pixels, transposing rows in and out and making tables."""
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    lanes = plan_lanes(geometry(x.type, op.window))
    assert lanes is not None
    g, outputs, channels = lanes.geometry, w.shape[0], w.shape[3]
    run = Triples(g.kh, channels)
    words = g.n * lanes.segments * lanes.strip_rows
    first = g.n * lanes.segments * g.kh * len(lanes.phases)
    rows = first + (words - g.n * lanes.segments) * (min(g.sy, g.kh) if g.dy == 1 else g.kh) * len(lanes.phases)
    is_bit = node.output.type.dtype is BIT1 and not isinstance(op.epilogue, Bases)
    columns = words * outputs * g.kw
    passes = columns * w.type.dtype.planes
    made = rows * run.triples + 2 * words * len(lanes.phases) * run.rests  # the latter take twice as long
    return {
        "call": 1,
        "lookups": passes * run.lookups,
        "streams": passes if run.bits else 0,
        "planes": (columns + words * outputs) * counter_planes(node),
        "tables": op.group * made,
        "rows": rows,
        "transpositions": rows * -(-x.type.channels // LANES) + words * -(-outputs // (LANES if is_bit else 2)),
        **({} if is_bit else {put(node): g.pixels * outputs}),
    }


def cost(node: Node, target: Target) -> float:
    wide = "unaligned" in target.features  # Armv7-M and up: three operands, one of them shifted
    lookup, plane, table, block = (14.9, 4.6, 70.0, 800.0) if wide else (24.5, 9.0, 130.0, 1300.0)
    prices = {"call": 0.0, "lookups": lookup, "planes": plane, "tables": table, "transpositions": block, "rows": block}
    return sum(n * prices.get(term, 10.0) for term, n in work(node, target).items())


VARIANT = Variant("conv_sliced", (Conv2D,), accepts, build, cost, work, sums_bases=True, apart="xy")
