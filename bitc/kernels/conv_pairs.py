"""Convolution of codes with weights of which at most two in every four are not zero (2:4), on Armv7E-M.

A group of four neighbouring channels has six pairs. All of them are laid out for four pixels, as halfwords less the
zero point; each output takes one pair of each group with SMLAD, so that 29 instructions make 16 groups of four
products: the dense ones of `conv_smlad` take 48. A group takes three bytes: two weights, and the way to its pair from
the one before.
"""

from __future__ import annotations

import numpy as np

from bitc.ir.dtypes import INT8, UINT8
from bitc.ir.graph import Array, Node
from bitc.kernels import conv_sparse
from bitc.kernels.bounds import product_range
from bitc.kernels.conv_sparse_dsp import step, wrapped
from bitc.kernels.epilogues import summed_epilogue
from bitc.kernels.geometry import geometry
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, scratch
from bitc.kernels.work import Work, put
from bitc.ops.linear import Conv2D
from bitc.target import Target

TILE, GROUP, UNIT = 4, 4, 4
"""Pixels at a time, channels of a group, and groups of a unit."""
PAIRS = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
PAIR = 4 * TILE
"""Bytes of a pair of all pixels."""
PRICES = {"call": 100.0, "columns": 3.0, "taps": 15.0, "outputs": 24.0, "units": 29.0}
"""Instructions for each term of the work, roughly; an output that is put takes 5."""


def pack(w: Array) -> Array:
    """Weights ``[O, K]``, K a multiple of 4, as units: words of four steps, and of the weights of groups 0 and 1, and 2
    and 3. A step is in bytes, from pair to pair."""
    groups = w.reshape(len(w), -1, GROUP)
    groups = np.pad(groups, ((0, 0), (0, -groups.shape[1] % UNIT), (0, 0)))
    bits = (groups != 0) @ (1 << np.arange(GROUP))
    pair_of = np.array(
        [next((i for i, (a, b) in enumerate(PAIRS) if not m & ~(1 << a | 1 << b)), -1) for m in range(16)]
    )
    chosen = pair_of[bits]
    steps = PAIR * (len(PAIRS) + np.diff(chosen, prepend=0, axis=1))
    steps[:, 0] = PAIR * chosen[:, 0]
    kept = np.take_along_axis(groups, np.array(PAIRS)[chosen], axis=2).astype(np.int8).view(np.uint8)
    units = np.zeros((len(w), groups.shape[1] // UNIT, 12), np.uint8)
    units[:, :, :4] = steps.reshape(len(w), -1, UNIT)
    for i in range(UNIT):
        units[:, :, 4 + i // 2 * 4 + i % 2 :: 2][:, :, :2] = kept[:, i::UNIT]
    return units.reshape(-1).view("<u4").astype(np.uint32)


def accepts(node: Node, target: Target) -> str:
    op, x, w = node.op, node.input(0).type, node.input(1)
    assert isinstance(op, Conv2D)
    if "dsp" not in target.features:
        return "no DSP instructions"
    if reason := conv_sparse.stored(node):
        return reason
    channels, pixels = w.shape[3], geometry(x, op.window).pixels
    columns = _columns(node)
    return first_reason(
        (x.dtype in (INT8, UINT8), f"activations are {x.dtype}"),
        (channels % GROUP == 0, f"{channels} channels"),
        (pixels >= TILE, f"{pixels} pixels, {TILE} are taken at a time"),
        (columns <= conv_sparse.room(target), f"columns take {columns} bytes"),
    ) or first_reason(
        (
            bool((np.count_nonzero(w.array.reshape(-1, GROUP), axis=1) <= 2).all()),
            "more than two of four weights are not zero",
        )
    )


def _columns(node: Node) -> int:
    """Bytes of pairs of all groups, up to a whole unit."""
    w = node.input(1)
    groups = w.type.size // w.shape[0] // GROUP
    return -(-groups // UNIT) * UNIT * len(PAIRS) * PAIR


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, w = node.op, node.input(1)
    assert isinstance(op, Conv2D)
    flat = w.array.reshape(w.shape[0], -1)
    e, params, bias = summed_epilogue(node, *product_range(node), target)
    packed = pack(flat)
    minus = -op.x_zero & 0xFFFF
    args = (
        Arg("w", Packed(packed)),
        *params,
        Arg("starts", Packed(wrapped(np.broadcast_to(bias, w.shape[0])), "start", is_weight=False)),
        scratch("columns", _columns(node) // 4, np.uint32),
    )
    context = {
        "e": e,
        "pairs": True,
        "minus": minus << 16 | minus,
        "tile": TILE,
        "column": len(PAIRS) * PAIR // GROUP,
        "units": len(packed) // 3 // w.shape[0],
    }
    return step(VARIANT.name, node, args, context, "isa/pairs_dsp.j2")


def work(node: Node, target: Target) -> Work:
    """Per tile its pairs are made and all units passed; per output of a tile sums are started and put."""
    op, w = node.op, node.input(1)
    assert isinstance(op, Conv2D)
    geo, elements = geometry(node.input(0).type, op.window), w.type.size // w.shape[0]
    tiles = -(-geo.pixels // TILE)
    return {
        "call": 1,
        "columns": tiles * TILE * elements,
        "taps": tiles * TILE * geo.taps,
        "outputs": tiles * w.shape[0],
        "units": tiles * w.shape[0] * -(-elements // (GROUP * UNIT)),
        put(node): tiles * TILE * w.shape[0],
    }


def cost(node: Node, target: Target) -> float:
    return sum(n * PRICES.get(term, 5.0) for term, n in work(node, target).items())


VARIANT = Variant("conv_pairs", (Conv2D,), accepts, build, cost, work)
