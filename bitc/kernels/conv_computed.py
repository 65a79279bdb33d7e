"""Convolution by weights that are computed at run time, read as they lie: one product after the other."""

from __future__ import annotations

from typing import Any

from bitc.ir.graph import Node
from bitc.kernels.epilogues import epilogue
from bitc.kernels.geometry import geometry
from bitc.kernels.step import Arg, Step, Variant, first_reason, out
from bitc.ops.linear import Conv2D
from bitc.target import Target


def _accepts(node: Node, target: Target) -> str:
    x, w = node.input(0), node.input(1)
    return first_reason(
        (not w.is_const, "weights are constant"),
        (bool(x.type.dtype.c_type and w.type.dtype.c_type), "an operand is packed"),
        (all(v is None or v.is_const for v in node.inputs[2:]), "parameters are computed"),
    )


def _build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    geo, acc = geometry(op.pixels(x.type), op.window, op.planar), op.accumulator(x.type, w.type)
    e, params = epilogue(op.epilogue, node.inputs[2:], acc, node.output.type, 0.0 if acc.dtype.is_float else 2.0**31)
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "x_t": x.type.dtype.c_type,
        "w_t": w.type.dtype.c_type,
        "acc_t": acc.dtype.c_type,
        "x_cast": x.type.dtype is not acc.dtype,
        "w_cast": w.type.dtype is not acc.dtype,
        "x_zero": op.x_zero,
        "x_row": 1 if op.planar else x.type.row_step,
        "x_step": geo.h * geo.w if op.planar else 1,
        "x_image": x.type.size // geo.n,
        "groups": op.group,
        "outputs": w.shape[0],
        "per_group": w.shape[0] // op.group,
        "channels": w.shape[3],
        "y_row": node.output.type.row_step,
    }
    args = (out(node), Arg("x", x), Arg("w", w), *params)
    return (Step("conv_computed", "kernels/conv_computed.j2", args, context, ("bitc_defs.h",)),)


VARIANT = Variant("conv_computed", (Conv2D,), _accepts, _build, apart="xy")
