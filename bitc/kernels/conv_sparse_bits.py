"""Convolution of packed activations with int8 weights most of which are zero: a list of the others for each output.

The activations of a window are unpacked once, for all outputs; then each weight that is not zero costs the loads of its
place and of both factors, and a multiplication: of some pixels at once, where the output is not packed. This is what
partially binary layers add to their bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bitc.ir.dtypes import INT8
from bitc.ir.graph import Array, Node
from bitc.ir.program import c_type
from bitc.kernels import overlap
from bitc.kernels.epilogues import conv_epilogue
from bitc.kernels.geometry import geometry
from bitc.kernels.pack import storage
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, over_x, scratch
from bitc.kernels.work import Work, convolution
from bitc.ops.linear import Conv2D
from bitc.target import Target

MOST = 0.3
"""Share of weights that may differ from zero: with its place one takes two bytes, or three."""


ROOM = 4096
"""Bytes of unpacked activations, where RAM is counted."""


def tile(node: Node, target: Target) -> int:
    """Pixels at a time."""
    w = node.input(1)
    pixels = 1 if node.output.type.layout.word else max(target.vector_bytes // 2, 4)
    while pixels > 1 and target.memory.ram is not None and pixels * w.type.size // w.shape[0] > ROOM:
        pixels //= 2
    return pixels


def lists(w: Array) -> tuple[Array, Array, Array]:
    """Weights ``[O, kh, kw, C]`` as how many of each output are not zero ``[O]``, their places in the window, and what
    they are, one output after the other. There is at least one element of each: C has no empty arrays."""
    rows = w.reshape(len(w), -1)
    output, place = np.nonzero(rows)
    counts = np.bincount(output, minlength=len(w))
    values = rows[output, place]
    if not len(values):
        place, values = np.zeros(1, np.int64), np.zeros(1, w.dtype)
    narrow = [a.astype(np.min_scalar_type(int(a.max()))) for a in (counts, place)]
    return narrow[0], narrow[1], values


def accepts(node: Node, target: Target) -> str:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    return first_reason(
        (x.type.dtype.is_packed, f"activations are {x.type.dtype}, not packed"),
        (w.is_const and w.type.dtype is INT8, f"weights are {w.type.dtype}, not constant int8"),
        (op.group == 1, "groups"),
        (not op.planar, "the image lies in planes"),
    ) or first_reason(
        (bool(np.count_nonzero(w.array) <= MOST * w.type.size), f"more than {MOST:.0%} of the weights are not zero")
    )


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    e, params = conv_epilogue(node)
    counts, places, values = lists(w.array)
    geo = geometry(x.type, op.window)
    args = (
        out(node),
        Arg("x", x),
        Arg("w", Packed(values)),
        Arg("places", Packed(places, "places")),
        Arg("counts", Packed(counts, "counts")),
        *params,
        scratch("patch", tile(node, target) * w.type.size // w.shape[0], np.int8),
    )
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "x_kind": storage(x.type.dtype),
        "x_t": c_type(x.type),
        "x_word": x.type.layout.word,
        "x_words": x.type.words_per_plane,
        "x_planes": x.type.dtype.planes,
        "x_row": x.type.row_words,
        "x_zero": op.x_zero,
        "tile": tile(node, target),
        "place_t": f"uint{8 * places.itemsize}_t",
        "channels": w.shape[3],
        "outputs": w.shape[0],
        "y_row": node.output.type.row_step,
    }
    over = over_x(overlap.by_pixels(geo, x.type, node.output.type, overlap.rows(geo), False))
    return (Step(VARIANT.name, "kernels/conv_sparse_bits.j2", args, context, ("bitc_defs.h",), over),)


def cost(node: Node, target: Target) -> float:
    shared = 2.5 if target.vector_bytes < 16 else 0.6
    product = 6.0 if tile(node, target) == 1 else shared + 3.5 / tile(node, target)
    prices = {"numbers": 5.0 + 3.0 * node.input(0).type.dtype.planes, "products": product}
    return sum(n * prices.get(term, 10.0) for term, n in work(node, target).items())


def work(node: Node, target: Target) -> Work:
    """A window is unpacked, and each weight that is there multiplied."""
    terms, found = convolution(node)
    w = node.input(1)
    numbers = found.pixels * w.type.size // w.shape[0]
    return terms | {"numbers": numbers, "products": found.pixels * int(np.count_nonzero(w.array))}


VARIANT = Variant("conv_sparse_bits", (Conv2D,), accepts, build, cost, work, apart="y")
