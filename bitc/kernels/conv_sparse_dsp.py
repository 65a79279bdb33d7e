"""Convolution of codes with the zeros of its weights left out, on Armv7E-M: two pixels with each multiplication.

A word holds an unsigned code at bit 0 and a signed one, of the next pixel, at bit 24: u + 2**24 * s. SMLAL multiplies
it by a weight and adds to 64 bits. The other code than that which activations have is 128 more or less, which goes with
the zero point and bias to where sums start, so that both are right at the end, and with |a| < 2**23 can be told apart:

    sum w (u + 2**24 s) + start = a + 2**24 * b,  a from 24 bits with their sign, b with the carry out of bit 23

Eight pixels lie column by column in working memory, 16 bytes per column; a weight and the bytes to its column
from the one before take 16 bits. 17 instructions make 16 products; they are 19 where steps are so long that they
count columns instead, which is where weights of zero would have to lie between too many others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from bitc.ir.dtypes import INT8, UINT8
from bitc.ir.graph import Array, Node
from bitc.kernels import conv_sparse
from bitc.kernels.bounds import product_range
from bitc.kernels.epilogues import summed_epilogue
from bitc.kernels.geometry import geometry
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, scratch
from bitc.kernels.work import Work, put
from bitc.ops.linear import Conv2D
from bitc.target import Target

TILE, COLUMN = 8, 16
"""Pixels at a time, and bytes of their column."""
UNITS = {"bytes": COLUMN, "columns": 1}
"""Forms of steps: what a column is to them."""
BLOCK = 16
"""Outputs whose sums wait for the epilogue."""
LARGEST = 1 << 23
"""What sums have to stay below."""
PRICES = {"call": 100.0, "columns": 2.3, "taps": 15.0, "outputs": 30.0, "words in bytes": 17.0,
          "words in columns": 19.0}  # fmt: skip
"""Instructions for each term of the work, roughly; an output that is put takes 6."""


@dataclass(frozen=True)
class Words:
    """Pairs of weights and steps as words, output after output, and per output how many there are (at least one)."""

    form: str
    words: Array
    counts: Array

    @property
    def instructions(self) -> float:
        """Per tile."""
        return PRICES[f"words in {self.form}"] * len(self.words)


def words(w: Array, form: str) -> Words:
    """Of weights ``[O, K]``. A word holds weight, step, weight, step, from the lowest byte up."""
    unit = UNITS[form]
    found = conv_sparse.stream(w, 255 // unit)
    counts = np.maximum(-(-found.counts.astype(np.int64) // 2), 1)
    ends = np.cumsum(found.counts, dtype=np.int64)
    at = np.arange(ends[-1]) + np.repeat(2 * (np.cumsum(counts) - counts) - (ends - found.counts), found.counts)
    entries = np.zeros((2 * int(counts.sum()), 2), np.uint8)
    entries[at, 0] = found.values[: ends[-1]].view(np.uint8)
    entries[at, 1] = unit * found.steps[: ends[-1]]
    counts = counts.astype(np.uint8 if counts.max() < 256 else np.uint16)
    return Words(form, entries.reshape(-1).view("<u4").astype(np.uint32), counts)


@lru_cache(maxsize=32)  # every stage of selection asks again
def best_words(node: Node) -> Words:
    """Those that take the fewest instructions."""
    w = node.input(1)
    flat = w.array.reshape(w.shape[0], -1)
    return min((words(flat, form) for form in UNITS), key=lambda found: found.instructions)


def accepts(node: Node, target: Target) -> str:
    op, x, w = node.op, node.input(0).type, node.input(1)
    assert isinstance(op, Conv2D)
    if "dsp" not in target.features:
        return "no DSP instructions"
    if reason := conv_sparse.stored(node):
        return reason
    geo, column = geometry(x, op.window), COLUMN * w.type.size // w.shape[0]
    if reason := first_reason(
        (x.dtype in (INT8, UINT8), f"activations are {x.dtype}"),
        (geo.pixels >= TILE, f"{geo.pixels} pixels, {TILE} are taken at a time"),
        (column <= conv_sparse.room(target), f"columns take {column} bytes"),
    ):
        return reason
    low, high = product_range(node)
    bias = summed_epilogue(node, low, high, target)[2]
    return first_reason((bool(np.maximum(abs(low + bias), abs(high + bias)).max() < LARGEST), "sums of 24 bits"))


def build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    flat = w.array.reshape(w.shape[0], -1)
    e, params, bias = summed_epilogue(node, *product_range(node), target)
    found, total = best_words(node), flat.sum(axis=1, dtype=np.int64)
    signed = x.type.dtype is INT8
    even = bias - (op.x_zero + 128 * signed) * total
    odd = bias - (op.x_zero - 128 * (not signed)) * total
    args = (
        Arg("w", Packed(found.words)),
        Arg("counts", Packed(found.counts, "counts")),
        *params,
        Arg("starts", Packed((even + (odd << 24)).astype(np.uint64), "start", is_weight=False)),
        scratch("columns", COLUMN // 4 * flat.shape[1], np.uint32),
    )
    count_t = f"{found.counts.dtype.name}_t"
    context = {
        "e": e,
        "pairs": False,
        "flip": 0x80808080,
        "tile": TILE,
        "column": COLUMN,
        "form": found.form,
        "count_t": count_t,
    }
    return step(VARIANT.name, node, args, context, f"isa/sparse_dsp.j2#{found.form} {count_t}")


def wrapped(starts: Array) -> Array:
    """Where sums start, modulo 2**32."""
    return starts.astype(np.uint64).astype(np.uint32).view(np.int32)


def step(name: str, node: Node, args: Sequence[Arg], context: dict[str, Any], isa: str) -> tuple[Step, ...]:
    """The call of templates/kernels/conv_sparse_dsp.j2: what belongs to the weights is given, the rest is added."""
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    geo = geometry(x.type, op.window)
    if geo.border:
        outside = np.full(w.shape[3], op.x_zero, x.type.dtype.carrier)
        args = (*args, Arg("padding", Packed(outside, "padding", is_weight=False)))
    context = {
        **geo.context,
        **context,
        "x_t": x.type.dtype.c_type,
        "signed": x.type.dtype is INT8,
        "point": geo.taps == geo.sy == geo.sx == 1 and not geo.border,
        "pixels": geo.pixels,
        "channels": w.shape[3],
        "outputs": w.shape[0],
        "block": BLOCK,
    }
    return (Step(name, "kernels/conv_sparse_dsp.j2", (out(node), Arg("x", x), *args), context, ("bitc_defs.h", isa)),)


def work(node: Node, target: Target) -> Work:
    """Per tile its columns are filled and all words passed; per output of a tile sums are started and put."""
    op, w = node.op, node.input(1)
    assert isinstance(op, Conv2D)
    geo, flat = geometry(node.input(0).type, op.window), w.array.reshape(w.shape[0], -1)
    tiles, found = -(-geo.pixels // TILE), best_words(node)
    return {
        "call": 1,
        "columns": tiles * TILE * flat.shape[1],
        "taps": tiles * TILE * geo.taps,
        "outputs": tiles * w.shape[0],
        f"words in {found.form}": tiles * len(found.words),
        put(node): tiles * TILE * w.shape[0],
    }


def cost(node: Node, target: Target) -> float:
    return sum(n * PRICES.get(term, 6.0) for term, n in work(node, target).items())


VARIANT = Variant("conv_sparse_dsp", (Conv2D,), accepts, build, cost, work)
