"""Pointwise operators: a loop nest, and one row per operator with its C statements."""

from __future__ import annotations

from typing import Any

from bitc.ir.dtypes import BOOL
from bitc.ir.graph import Node
from bitc.kernels import overlap
from bitc.kernels.loops import Dim, broadcast_strides, element_strides, index, nest
from bitc.kernels.pointwise_rows import ROWS
from bitc.kernels.step import Arg, Step, Variant, first_reason, out
from bitc.ops.base import Pointwise
from bitc.ops.trig import Trigonometric
from bitc.target import Target

OPERANDS = "abcdefgh"


def _accepts(node: Node, target: Target) -> str:
    types = [v.type for v in node.inputs if v is not None]
    packed = any(t.dtype.is_packed for t in [*types, node.output.type])
    no_c = [str(t.dtype) for t in [*types, node.output.type] if not t.dtype.c_type and not t.dtype.is_packed]
    if type(node.op) not in ROWS:
        return "no C expression"
    return first_reason(
        (not packed, "a tensor is packed"),
        (not no_c, f"{', '.join(no_c)} has no C type"),
        (bool(_body(node)), f"no C expression for {types[0].dtype if types else 'nothing'}"),
    )


def _body(node: Node) -> str:
    types = [v.type for v in node.inputs if v is not None]
    row = ROWS[type(node.op)]
    return row(node.op, types[-1].dtype, node.output.type.dtype) or ""


def _build(node: Node, target: Target) -> tuple[Step, ...]:
    context = {"body": _body(node), "is_bool": node.output.type.dtype is BOOL}
    header = "bitc_trig.h" if isinstance(node.op, Trigonometric) else "bitc_math.h"
    return (loops(node, type(node.op).__name__.lower(), "kernels/pointwise.j2", context, header),)


def strided(node: Node) -> list[Dim]:
    """The loops over a pointwise node's output, with the strides of its operands, and of the output as the last one."""
    y = node.output.type
    read = [broadcast_strides(v.shape, y.shape, element_strides(v.type)) for v in node.inputs if v is not None]
    return nest(y.shape, [*read, element_strides(y)])


def loops(node: Node, kernel: str, template: str, context: dict[str, Any], header: str, *more: Arg) -> Step:
    """A step that runs over the elements of a pointwise node's operands, and may overwrite one that it reads."""
    operands, y, dims = [v for v in node.inputs if v is not None], node.output, strided(node)
    whole = [i for i, v in enumerate(operands) if v.shape == y.shape and not v.is_const]
    context = {
        "dims": [d.size for d in dims],
        "loads": [(OPERANDS[i], v.type.dtype.c_type, index(dims, i)) for i, v in enumerate(operands)],
        "y_t": y.type.dtype.c_type,
        "y_at": index(dims, len(operands)) if y.type.layout.pitch else "",
        **context,
    }
    overlay = bool(whole)
    args = (out(node, overlay), *(Arg(f"x{OPERANDS[i]}", v, overlay=overlay) for i, v in enumerate(operands)))
    over = tuple((f"x{OPERANDS[i]}", how) for i in whole for how in overlap.in_order(operands[i].type, y.type))
    return Step(kernel, template, (*args, *more), context, (header,), over)


POINTWISE = Variant("pointwise", (Pointwise,), _accepts, _build, apart="xy")
