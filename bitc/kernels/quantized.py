"""Elementwise operators on integer codes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bitc.ir.dtypes import INT32, INT64, DType
from bitc.ir.graph import Node
from bitc.ir.program import c_size
from bitc.ir.types import TensorType
from bitc.kernels.epilogues import factors, requantization
from bitc.kernels.fixed import upper_word
from bitc.kernels.pointwise import loops
from bitc.kernels.step import Arg, Packed, Step, Variant, always, first_reason, out
from bitc.ops.quantized import AddRequant, Lookup, MulRequant
from bitc.target import Target


def _build(node: Node, target: Target) -> tuple[Step, ...]:
    """The sum or product as an accumulator, then the epilogue."""
    op, a, b = node.op, node.input(0).type.dtype, node.input(1).type.dtype
    assert isinstance(op, AddRequant | MulRequant)
    reach = op.reach(a, b)
    acc = TensorType(node.output.shape, INT32 if reach < 2**31 else INT64)
    found = factors(*op.factor, reach)
    e, _ = requantization(op.out, replace(found, ties=found.ties and _ties(op, a, b)), acc)
    bound = np.array([reach])
    if isinstance(op, MulRequant) and reach < 2**31 and target.has_long_multiply:
        bias, multiplier, shift = (np.array([p]) for p in op.factor)
        if upper := upper_word(op.out, bias, multiplier, shift, -bound, bound):
            e |= {"upper": upper, "multiplier": int(upper.multiplier[0])}
    context: dict[str, Any] = {"e": e, "zeros": (op.a_zero, op.b_zero), "factors": ()}
    if isinstance(op, AddRequant):
        context["factors"] = (op.a_multiplier, op.b_multiplier)
    kernel = "add_requant" if isinstance(op, AddRequant) else "mul_requant"
    return (loops(node, kernel, "kernels/pointwise_requant.j2", context, "bitc_defs.h"),)


def _ties(op: AddRequant | MulRequant, a: DType, b: DType) -> bool:
    """Whether two codes give a sum or product right between two codes of the result: all pairs are tried."""
    if a.bits > 8 or b.bits > 8:
        return True
    _, multiplier, shift = op.factor
    left = np.arange(int(a.min), int(a.max) + 1, dtype=np.int64)[:, None] - op.a_zero
    right = np.arange(int(b.min), int(b.max) + 1, dtype=np.int64) - op.b_zero
    if isinstance(op, AddRequant):
        total = left * op.a_multiplier + right * op.b_multiplier
    else:
        total = left * right * multiplier
    return bool(shift and (total & ((1 << shift) - 1) == 1 << (shift - 1)).any())


def _lookup_accepts(node: Node, target: Target) -> str:
    table = node.input(1)
    return first_reason((table.is_const, "the table is computed"), (not table.type.dtype.is_packed, "of bits"))


def _lookup_build(node: Node, target: Target) -> tuple[Step, ...]:
    x, table = node.input(0), node.input(1).array
    by_byte = np.roll(table, int(x.type.dtype.min))  # entry i belongs to the code whose bits are those of i
    args = (out(node, True), Arg("x", x, overlay=True), Arg("table", Packed(by_byte, "table")))
    context = {"size": c_size(x.type)}
    return (Step("lookup", "kernels/lookup.j2", args, context, ("bitc_defs.h",), inplace="x"),)


QUANTIZED = (
    Variant("pointwise_requant", (AddRequant, MulRequant), always, _build),
    Variant("lookup", (Lookup,), _lookup_accepts, _lookup_build),
)
