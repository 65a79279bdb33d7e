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
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bitc.ir.dtypes import BIT1
from bitc.ir.graph import Array, Node
from bitc.kernels.adders import accumulate
from bitc.kernels.epilogues import conv_epilogue
from bitc.kernels.geometry import geometry
from bitc.kernels.lanes import LANES, Column, Lanes, plan_lanes
from bitc.kernels.pack import pack_bits
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, scratch
from bitc.kernels.work import Work, put
from bitc.ops.epilogue import TernThreshold
from bitc.ops.linear import Conv2D
from bitc.target import Target

TRIPLE = 3
"""Channels per look-up: their counts 0 ... 3 fill two planes. Seven would fill three, in tables 14 times as large."""
PATTERNS = 1 << TRIPLE
PER_WORD = 10
"""Patterns of weights in a word of weights."""
BODY = 20
"""Look-ups per step of the inner loop, a multiple of PER_WORD. In each step a plane above those that they fill costs
four instructions: with 10 a layer takes 7 % more, with 30 only 1 % fewer. A look-up is 50 bytes of code."""


MIN_MACS = 1 << 18
"""A function of this row has about 4 KiB: too much for a layer that takes under 100,000 instructions anyway."""
STACK = 1 << 10
"""Bytes of RAM to leave for the stack."""


def pack_patterns(w: Array, columns: tuple[Column, ...]) -> Array:
    """Bit weights ``[O, kh, kw, C]`` in the order of use: per output and column the triples of all rows and channels,
    ten to a word."""
    outputs, kh, _, channels = w.shape
    triples = -(-channels // TRIPLE)
    padded = np.zeros((outputs, len(columns), kh, triples * TRIPLE), np.bool_)
    padded[..., :channels] = w[:, :, [c.kx for c in columns]].transpose(0, 2, 1, 3)
    flat = padded.reshape(outputs, len(columns), kh * triples * TRIPLE)
    per_word = PER_WORD * TRIPLE
    words = -(-flat.shape[2] // per_word)
    spread = np.zeros((outputs, len(columns), words * per_word), np.bool_)
    spread[..., : flat.shape[2]] = flat
    return pack_bits(spread.reshape(outputs, len(columns), words, per_word), LANES).reshape(-1)


def limits(t: Array, k: int, planes: int) -> Array:
    """Per output the word whose bits are those of ``~ceil(X / 2)``; bit 31 is set where X is odd."""
    x = k + 1 - t.astype(np.int64)
    limit = np.clip((x + 1) // 2, 0, (1 << planes) - 1)
    return ((~limit & ((1 << planes) - 1)) | (x & 1) << 31).astype(np.uint32)


def edges(lanes: Lanes, channels: int, planes: int) -> tuple[Array, Array]:
    """What the padding adds. Unique rows of words, and which of them each word of pixels uses ``[segments, rows]``.

    A row holds the planes at which the counters start, the planes that come in at each shift to the left (the pixels
    that had no lane before), and q."""
    outside = lanes.outside()
    add = outside * channels // 2 + 1
    odd = outside * channels % 2
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
        (w.type.dtype is BIT1, f"weights are {w.type.dtype}, not bit1"),
        (w.is_const, "weights are computed"),
        (op.group == 1, "grouped"),
        (not op.planar, "planar input"),
        (not isinstance(op.epilogue, TernThreshold), "the output is ternary"),
        (op.macs(x.type, w.type) >= MIN_MACS, f"fewer than {MIN_MACS} products: not worth its code"),
        (target.word_bits == 32, f"words have {target.word_bits} bits"),
    ) or _fits(node, op, target)


def _fits(node: Node, op: Conv2D, target: Target) -> str:
    """Why the tables are too large."""
    x, y = node.input(0).type, node.output.type
    lanes = plan_lanes(geometry(x, op.window))
    if lanes is None:
        return "the window is wider than a word"
    need = x.nbytes + y.nbytes + 4 * (table_words(lanes, x.channels) + lane_words(x.channels))
    ram = target.memory.ram
    return "" if ram is None or need + STACK <= ram else f"the tables and activations take {need} bytes of {ram}"


def lane_words(channels: int) -> int:
    """Words of one row of lanes, for all channels; at least a block, which outputs are collected in."""
    return -(-channels // LANES) * LANES


def table_words(lanes: Lanes, channels: int) -> int:
    return len(lanes.phases) * lanes.geometry.kh * -(-channels // TRIPLE) * PATTERNS * 2


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w, y = node.op, node.input(0), node.input(1), node.output
    assert isinstance(op, Conv2D)
    geo = geometry(x.type, op.window)
    lanes = plan_lanes(geo)
    assert lanes is not None
    e, params = conv_epilogue(node)
    outputs, channels = w.shape[0], w.shape[3]
    k = geo.taps * channels
    planes = (k + 2).bit_length()
    weights = w.array
    if e["kind"] == "threshold":
        weights, params = _with_limits(weights, params, k, planes)
    rows, which = edges(lanes, channels, planes)
    triples = -(-channels // TRIPLE)
    blocks = -(-channels // LANES)
    args = (
        out(node),
        Arg("x", x),
        Arg("w", Packed(pack_patterns(weights, lanes.columns))),
        *params,
        Arg("edges", Packed(rows.reshape(-1), "edges", is_weight=False)),
        Arg("edge_of", Packed(which.reshape(-1).astype(np.uint8 if len(rows) < 256 else np.uint16), "edge_of", False)),
        scratch("table", table_words(lanes, channels), np.uint32),
        scratch("lane", lane_words(channels), np.uint32),
    )
    lookups = geo.kh * triples
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "lanes": lanes,
        "steps": _steps(lanes, geo.kh * triples * PATTERNS * 2),
        "planes": planes,
        "outputs": outputs,
        "channels": channels,
        "triples": triples,
        "blocks": blocks,
        "lookups": lookups,
        "body": accumulate(BODY, 2, planes) if lookups >= BODY else [],
        "body_lookups": BODY,
        "tail": accumulate(lookups % BODY, 2, planes) if lookups % BODY else [],
        "tail_lookups": lookups % BODY,
        "per_word": PER_WORD,
        "edge_words": rows.shape[1],
        "keep": max(geo.kh - geo.sy, 0) if geo.dy == 1 else 0,
        "x_word": x.type.layout.word,
        "x_row": x.type.row_words,
        "y_word": y.type.layout.word,
        "y_row": y.type.row_words if e["word"] else outputs,
        "any_odd": bool(rows[:, -1].any()),
    }
    return (Step(VARIANT.name, "kernels/conv_sliced.j2", args, context, ("bitc_defs.h", "isa/sliced.j2")),)


def _with_limits(w: Array, params: tuple[Arg, ...], k: int, planes: int) -> tuple[Array, tuple[Arg, ...]]:
    """Weights and parameters of a threshold on counts. Flipped channels, high where acc <= t, are high where
    -acc >= -t: their weights are negated."""
    given = {p.name: p.operand.data for p in params if isinstance(p.operand, Packed)}
    t = np.broadcast_to(given["t"].astype(np.int64), w.shape[0])
    if "flip" in given:
        flip = np.broadcast_to(given["flip"] != 0, w.shape[0])
        w, t = w ^ flip[:, None, None, None], np.where(flip, -t, t)
    return w, (Arg("limits", Packed(limits(t, k, planes), "t")),)


def _steps(lanes: Lanes, phase_words: int) -> list[dict[str, Any]]:
    """What happens after each column: lanes to move by, and where the next column's tables are."""
    steps = []
    for i, column in enumerate(lanes.columns):
        after = lanes.columns[i + 1] if i + 1 < len(lanes.columns) else None
        goal = 0 if after is None or (after.shift > 0 >= column.shift) else after.shift
        by = goal - column.shift
        steps.append(
            {
                "left": by if by > 0 else 0,
                "right": -by if by < 0 else 0,
                "mask": lanes.mask(max(by, 0), lanes.width + min(by, 0)),
                "save": after is not None and after.shift > 0 >= column.shift,
                "table": lanes.phases.index(column.phase) * phase_words,
            }
        )
    return steps


def work(node: Node, target: Target) -> Work:
    """Look-ups with their adders dominate; then, per output, column and word of pixels, the planes above; per word of
    pixels, transposing rows in and out and making tables."""
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    lanes = plan_lanes(geometry(x.type, op.window))
    assert lanes is not None
    g, outputs, channels = lanes.geometry, w.shape[0], w.shape[3]
    triples = -(-channels // TRIPLE)
    words = g.n * lanes.segments * lanes.strip_rows
    first = g.n * lanes.segments * g.kh * len(lanes.phases)
    rows = first + (words - g.n * lanes.segments) * (min(g.sy, g.kh) if g.dy == 1 else g.kh) * len(lanes.phases)
    is_bit = node.output.type.dtype is BIT1
    return {
        "call": 1,
        "lookups": words * outputs * g.kw * g.kh * triples,
        "planes": words * outputs * (g.kw + 1) * (g.taps * channels + 2).bit_length(),
        "triples": rows * triples,
        "blocks": rows * -(-channels // LANES),
        "transpositions": words * (-(-outputs // LANES) if is_bit else outputs),
        **({} if is_bit else {put(node): g.pixels * outputs}),
    }


def cost(node: Node, target: Target) -> float:
    wide = "unaligned" in target.features  # Armv7-M and up: three operands, one of them shifted
    lookup, plane, triple, block = (15.6, 6.0, 60.0, 900.0) if wide else (25.0, 11.0, 120.0, 1500.0)
    prices = {"call": 0.0, "lookups": lookup, "planes": plane, "triples": triple, "blocks": block}
    prices["transpositions"] = 0.6 * block
    return sum(n * prices.get(term, 10.0) for term, n in work(node, target).items())


VARIANT = Variant("conv_sliced", (Conv2D,), accepts, build, cost, work)
