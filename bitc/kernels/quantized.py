"""Elementwise operators on integer codes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from bitc.ir.dtypes import INT8, INT32, INT64, UINT8, DType
from bitc.ir.graph import Node
from bitc.ir.program import c_size
from bitc.ir.types import TensorType
from bitc.kernels import overlap
from bitc.kernels.codes import codes_isa, lanes_for
from bitc.kernels.epilogues import factors, requantization
from bitc.kernels.fixed import UpperWord, WeightedSum, upper_word, weighted_sum
from bitc.kernels.loops import index
from bitc.kernels.pointwise import OPERANDS, loops, strided
from bitc.kernels.step import Arg, Packed, Step, Variant, always, first_reason, out, over_x
from bitc.ops.quantized import AddRequant, Lookup, MulRequant
from bitc.target import Target


@dataclass(frozen=True)
class _Exact:
    """A function of two codes of 8 bits in integers of 32 bits (a sum), or by the upper word of a product."""

    sum: WeightedSum | None = None
    upper: UpperWord | None = None


@cache
def _exact(op: AddRequant | MulRequant, a: DType, b: DType) -> _Exact | None:
    if not {a, b, op.out.dtype} <= {INT8, UINT8}:
        return None
    if isinstance(op, AddRequant):
        found = weighted_sum(op, a, b)
        return _Exact(sum=found) if found else None
    upper = _upper(op, a, b)
    return _Exact(upper=upper) if upper else None


def _upper(op: AddRequant | MulRequant, a: DType, b: DType) -> UpperWord | None:
    reach = op.reach(a, b)
    if not isinstance(op, MulRequant) or reach >= 2**31:
        return None
    bound, (bias, multiplier, shift) = np.array([reach]), (np.array([p]) for p in op.factor)
    return upper_word(op.out, bias, multiplier, shift, -bound, bound)


def _build(node: Node, target: Target) -> tuple[Step, ...]:
    """The sum or product as an accumulator, then the epilogue."""
    op, a, b = node.op, node.input(0).type.dtype, node.input(1).type.dtype
    assert isinstance(op, AddRequant | MulRequant)
    reach = op.reach(a, b)
    acc = TensorType(node.output.shape, INT32 if reach < 2**31 else INT64)
    found = factors(*op.factor, reach)
    e, _ = requantization(op.out, replace(found, ties=found.ties and _ties(op, a, b)), acc)
    if (upper := _upper(op, a, b)) and target.has_long_multiply:
        e |= {"upper": upper, "multiplier": int(upper.multiplier[0])}
    context: dict[str, Any] = {"e": e, "zeros": (op.a_zero, op.b_zero), "factors": ()}
    if isinstance(op, AddRequant):
        context["factors"] = (op.a_multiplier, op.b_multiplier)
    kernel = "add_requant" if isinstance(op, AddRequant) else "mul_requant"
    return (loops(node, kernel, "kernels/pointwise_requant.j2", context, "bitc_defs.h"),)


def _codes_accepts(node: Node, target: Target) -> str:
    op, a, b = node.op, node.input(0).type.dtype, node.input(1).type.dtype
    assert isinstance(op, AddRequant | MulRequant)
    if not {a, b, op.out.dtype} <= {INT8, UINT8}:
        return f"of {a} and {b} to {op.out.dtype}, not all of 8 bits"
    if (found := _exact(op, a, b)) is None:
        return "not the same for all codes in integers of 32 bits"
    if any(s not in (0, 1) for s in strided(node)[-1].strides):
        return "operands do not run along rows"
    halves = found.upper.halves if found.upper else None
    return first_reason(
        (found.sum is not None or target.has_long_multiply or halves is not None, "no product of 64 bits"),
    )


def _codes_build(node: Node, target: Target) -> tuple[Step, ...]:
    op, a, b = node.op, node.input(0).type.dtype, node.input(1).type.dtype
    assert isinstance(op, AddRequant | MulRequant)
    found, dims = _exact(op, a, b), strided(node)
    assert found is not None
    acc = TensorType(node.output.shape, INT32)
    e, _ = requantization(op.out, replace(factors(*op.factor, op.reach(a, b)), ties=False), acc)
    lanes = lanes_for(target, dims[-1].size)
    if found.upper:
        halves = found.upper.halves
        lanes = lanes if halves and not halves.limit else 0
        one = None if target.has_long_multiply else halves
        e |= {"upper": found.upper, "halves": one, "multiplier": int((one or found.upper).multiplier[0])}
    context: dict[str, Any] = {
        "e": e,
        "sum": found.sum,
        "zeros": (op.a_zero, op.b_zero),
        "lanes": lanes,
        "dims": [d.size for d in dims[:-1]],
        "length": dims[-1].size,
        "operands": [(OPERANDS[i], t.c_type, dims[-1].strides[i]) for i, t in enumerate((a, b))],
        "starts": [index(dims[:-1], i) for i in range(2)],
        "y_skip": node.output.type.row_step - dims[-1].size if node.output.type.layout.pitch else 0,
    }
    kernel = "add_codes" if found.sum else "mul_codes"
    step = loops(node, kernel, "kernels/pointwise_codes.j2", context, "bitc_defs.h")
    return (replace(step, uses=("bitc_defs.h", "isa/saturate.j2", *codes_isa(lanes))),)


def _codes_cost(node: Node, target: Target) -> float:
    lanes = lanes_for(target, strided(node)[-1].size)
    return node.output.type.size * (9.0 if not lanes else 40.0 / lanes)


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
    apart = x.type.layout.pitch or node.output.type.layout.pitch
    isa = _lookup_isa(target) if table.dtype.itemsize == 1 and x.type.size >= 16 and not apart else ""
    template = "kernels/lookup_vectors.j2" if isa else "kernels/lookup.j2"
    uses = ("bitc_defs.h", isa) if isa else ("bitc_defs.h",)
    over = over_x(overlap.in_order(x.type, node.output.type))
    context: dict[str, Any] = {"rows": 1, "size": c_size(x.type)}
    if apart:
        rows = {"x_row": x.type.row_step, "y_row": node.output.type.row_step}
        context = {"rows": x.type.rows, "size": x.type.channels, **rows}
    return (Step("lookup", template, args, context, uses, over),)


def _lookup_isa(target: Target) -> str:
    """Vectors that look up 16 bytes at once, if the target has such."""
    if "mve" in target.features:
        return "isa/lookup_mve.j2"
    return "isa/lookup_neon.j2" if target.isa == "aarch64" and "neon" in target.features else ""


QUANTIZED = (
    Variant(
        "pointwise_requant",
        (AddRequant, MulRequant),
        always,
        _build,
        lambda n, t: n.output.type.size * 14.0,
        apart="xy",
    ),
    Variant("pointwise_codes", (AddRequant, MulRequant), _codes_accepts, _codes_build, _codes_cost, apart="xy"),
    Variant("lookup", (Lookup,), _lookup_accepts, _lookup_build, apart="xy"),
)
