"""Elementwise operators on integer codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitc.ir.dtypes import INT32, INT64
from bitc.ir.graph import Node
from bitc.ir.program import c_size
from bitc.ir.types import TensorType
from bitc.kernels.epilogues import factors, requantization
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
    e, _ = requantization(op.out, factors(*op.factor, reach), acc)
    context: dict[str, Any] = {"e": e, "zeros": (op.a_zero, op.b_zero), "factors": ()}
    if isinstance(op, AddRequant):
        context["factors"] = (op.a_multiplier, op.b_multiplier)
    kernel = "add_requant" if isinstance(op, AddRequant) else "mul_requant"
    return (loops(node, kernel, "kernels/pointwise_requant.j2", context, "bitc_defs.h"),)


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
