"""Binary convolution with an output in each lane: only the weights at the rarer value of the activations are added.

A word holds the weights of 32 outputs for one product. With A the products inside the input whose activation is v, n
their number, S the sum of their weights ``w`` (bits), R that of the weights outside, T that of all, and k the number of
products inside:

    v = 1:  pop = sum over A of (1 - w) + sum over the others of w = n + T - R - 2 * S,   dot = k - 2 * pop = 2 * Q + k
    v = 0:  pop = sum over A of w + sum over the others of (1 - w) = k - n - T + R + 2 * S,           dot = -2 * Q - k
            where Q = 2 * S + R - T - n

So whichever value is the rarer one of a pixel, weights are added at most at half of its products, each with one
carry-save adder for 32 outputs (see adders.py): 32 products take about 3.5 instructions. The list of A is made once per
pixel and serves all outputs, hence this pays for many outputs. Outputs that are bits need no transposition:

    v = 0:  low  iff  dot < t   iff  Q + floor((k + t - 1) / 2) >= 0
    v = 1:  high iff  dot >= t  iff  Q + floor((k - t) / 2) >= 0

The counters are two's complement and start at ``floor((t - 1) / 2) - T`` or ``floor(-t / 2) - T`` of each output, plus
``floor(k / 2) - n`` of the pixel (plus 1 where both halves are cut off). What is left has a magnitude of K + 2 or less.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bitc.ir.dtypes import BIT1
from bitc.ir.graph import Array, Node
from bitc.kernels.adders import accumulate
from bitc.kernels.epilogues import conv_epilogue, unflipped
from bitc.kernels.geometry import Geometry, geometry
from bitc.kernels.lanes import LANES
from bitc.kernels.pack import pack_bits
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, scratch
from bitc.kernels.work import Work, put, windows
from bitc.ops.epilogue import Bases, Levels
from bitc.ops.linear import Conv2D
from bitc.target import Target

STEP, SHORT = 32, 8
"""Weights added per step, and in the last steps; lists are filled up to a multiple of the latter."""
MAX_PRODUCTS = (1 << 14) - 1
"""Lists hold byte offsets of words as uint16, one of them that of a word of zeros."""
PRODUCTS = 32
"""Fewest products per byte of code."""
STACK = 1 << 10
"""Bytes of RAM to leave for the stack."""


def pack_listed(w: Array) -> Array:
    """Bit weights ``[O, kh, kw, C]`` as words of 32 outputs: ``[block, product]``, then a word of zeros per block."""
    outputs = w.shape[0]
    flat = np.zeros((-(-outputs // LANES) * LANES, w.size // outputs + 1), np.bool_)
    flat[:outputs, :-1] = w.reshape(outputs, -1)
    return pack_bits(flat.reshape(-1, LANES, flat.shape[1]).swapaxes(1, 2), LANES)[..., 0]


def planes(k: int) -> int:
    """Bits of counters in two's complement that hold -k - 2 ... k + 2."""
    return (k + 2).bit_length() + 1


def starts(halves: tuple[Array, ...], total: Array, k: int) -> Array:
    """Where counters start ``[block, value, plane]``: ``floor(h / 2) - total`` for the array h of each value, then a
    plane that tells where h is odd."""
    width = planes(k)
    tables = []
    for h in halves:
        start = h // 2 - total
        bits = [start >> p & 1 for p in range(width)] + [h & 1]
        tables.append(pack_bits(np.stack(bits), LANES).T)
    return np.stack(tables, axis=1)


def _halves(t: Array, k: int) -> tuple[Array, Array]:
    """What is halved for thresholds t, for both values. Outputs that do not exist get zero bits."""
    t = np.clip(t, -k - 1, k + 1)
    missing = -len(t) % LANES
    return np.append(t - 1, np.full(missing, -2 * k - 2)), np.append(-t, np.zeros(missing, np.int64))


def accepts(node: Node, target: Target) -> str:
    op, x, w, y = node.op, node.input(0), node.input(1), node.output
    assert isinstance(op, Conv2D)
    reason = first_reason(
        (x.type.dtype is BIT1, f"activations are {x.type.dtype}, not bit1"),
        (w.type.dtype is BIT1, f"weights are {w.type.dtype}, not bit1"),
        (w.is_const, "weights are computed"),
        (op.group == 1, "grouped"),
        (not isinstance(op.epilogue, Levels), "the output has several planes"),
        (not op.planar, "planar input"),
        (all(v is None or v.is_const for v in node.inputs[2:]), "parameters are computed"),
        (w.type.size // w.shape[0] <= MAX_PRODUCTS, f"more than {MAX_PRODUCTS} products per output"),
        (op.macs(x.type, w.type) >= PRODUCTS * code(node), f"too few products to be worth {code(node)} bytes of code"),
        (target.word_bits == 32, f"words have {target.word_bits} bits"),
    )
    if reason:
        return reason
    ram, need = target.memory.ram, x.type.nbytes + y.type.nbytes + 2 * sum(_list_sizes(node))
    return "" if ram is None or need + STACK <= ram else f"the lists and activations take {need} bytes of {ram}"


def code(node: Node) -> int:
    """Bytes of code, roughly."""
    op, w = node.op, node.input(1)
    assert isinstance(op, Conv2D)
    border = geometry(node.input(0).type, op.window).border
    return 1200 + 100 * planes(w.type.size // w.shape[0]) + 1000 * border


def _fewest_taps(g: Geometry) -> int:
    """Taps inside the input of the window that has the fewest."""
    down = (sum(0 <= y * g.sy - g.pt + t * g.dy < g.h for t in range(g.kh)) for y in range(g.oh))
    across = (sum(0 <= x * g.sx - g.pl + t * g.dx < g.w for t in range(g.kw)) for x in range(g.ow))
    return min(down) * min(across)


def _list_sizes(node: Node) -> tuple[int, int]:
    """Elements of the list of activations, and of that of products outside."""
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    g, channels = geometry(x.type, op.window), w.shape[3]
    sizes = g.taps * channels // 2, (g.taps - _fewest_taps(g)) * channels
    most, outside = (-(-size // SHORT) * SHORT for size in sizes)
    return most, outside


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w, y = node.op, node.input(0), node.input(1), node.output
    assert isinstance(op, Conv2D)
    geo = geometry(x.type, op.window)
    e, params = conv_epilogue(node)
    outputs, channels = w.shape[0], w.shape[3]
    k, weights = geo.taps * channels, w.array
    zeros = np.zeros(-(-outputs // LANES) * LANES, np.int64)
    halves: tuple[Array, ...] = (zeros,)
    if e["kind"] == "threshold":
        weights, t = unflipped(weights, params)
        halves, params = _halves(t, k), ()
    total = zeros.copy()
    total[:outputs] = weights.reshape(outputs, -1).sum(axis=1)
    start = starts(halves, total, k)
    odd = bool(start[..., -1].any()) and (k % 2 == 1 or (geo.border and channels % 2 == 1))
    if not odd:
        start = start[..., :-1]
    most, outside = _list_sizes(node)
    args = (
        out(node),
        Arg("x", x),
        Arg("w", Packed(pack_listed(weights).reshape(-1))),
        *params,
        Arg("starts", Packed(start.reshape(-1), "starts")),
        scratch("list", most, np.uint16),
        *([scratch("outside", outside, np.uint16)] if outside else []),
        *([] if e["kind"] == "threshold" else [scratch("lane", LANES, np.uint32)]),
    )
    width = planes(k)
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "outputs": outputs,
        "channels": channels,
        "products": k,
        "blocks": -(-outputs // LANES),
        "planes": width,
        "odd": odd,
        "start_words": start.shape[2],
        "sets": start.shape[1],
        "outside": bool(outside),
        "step": STEP,
        "short": SHORT,
        "long": max(most, outside) >= STEP,
        "sums": {(size, low): accumulate(size, 1, width - low) for size in (STEP, SHORT) for low in (0, 1)},
        "x_word": x.type.layout.word,
        "x_words": x.type.row_words,
        "x_row": x.type.row_step,
        "last": (1 << (channels - 1) % x.type.layout.word + 1) - 1,
        "y_word": y.type.layout.word,
        "y_words": y.type.row_words if e["word"] else 0,
        "y_row": y.type.row_step,
    }
    uses = ("bitc_defs.h", "isa/adders.j2", "isa/listed.j2")
    return (Step(VARIANT.name, "kernels/conv_listed.j2", args, context, uses),)


def work(node: Node, target: Target) -> Work:
    """Adding dominates; per pixel lists are made, and per pixel and block counters started and read."""
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    g, channels = geometry(x.type, op.window), w.shape[3]
    found, blocks = windows(g), -(-w.shape[0] // LANES)
    inside = found.taps * channels
    is_bit = node.output.type.dtype is BIT1 and not isinstance(op.epilogue, Bases)
    return {
        "call": 1,
        "adds": blocks * (inside / 2 + g.pixels * g.taps * channels - inside),
        "listed": inside,
        "taps": found.pixels * g.taps if g.taps > 1 else found.pixels,
        "starts": found.pixels * blocks * planes(g.taps * channels),
        "blocks": found.pixels * blocks,
        **({} if is_bit else {"transpositions": found.pixels * blocks, put(node): g.pixels * w.shape[0]}),
    }


def cost(node: Node, target: Target) -> float:
    wide = "unaligned" in target.features  # Armv7-M and up: three operands, one of them shifted
    add, listed, start, block = (7.5, 4.5, 8.0, 60.0) if wide else (14.0, 7.0, 12.0, 100.0)
    prices = {"adds": add, "listed": listed, "starts": start, "blocks": block, "transpositions": 10 * block}
    return sum(n * prices.get(term, 10.0) for term, n in work(node, target).items())


VARIANT = Variant("conv_listed", (Conv2D,), accepts, build, cost, work, sums_bases=True, apart="xy")
