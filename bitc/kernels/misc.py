"""Product of two computed matrices, FINN's MultiThreshold, and loops."""

from __future__ import annotations

from bitc.ir.graph import Node
from bitc.kernels import matmul, overlap
from bitc.kernels.matmul import sizes
from bitc.kernels.step import Arg, Step, Variant, always, first_reason, out, over_x, product
from bitc.ops.binary import MultiThreshold
from bitc.ops.linear import MatMul
from bitc.ops.repeat import Repeat
from bitc.target import Target


def _matmul_accepts(node: Node, target: Target) -> str:
    return first_reason((bool(node.output.type.dtype.c_type), f"of {node.output.type.dtype}"))


def _matmul_build(node: Node, target: Target) -> tuple[Step, ...]:
    context = {**sizes(node).context, "t": node.output.type.dtype.c_type}
    args = (out(node), Arg("a", node.input(0)), Arg("b", node.input(1)))
    return (Step("matmul", "kernels/matmul.j2", args, context, ("bitc_defs.h",)),)


def _matmul_cost(node: Node, target: Target) -> float:
    return node.output.type.size * node.input(0).type.channels * 6.0


def _steps_accepts(node: Node, target: Target) -> str:
    return first_reason((node.input(0).type.dtype.c_type == "float", f"of {node.input(0).type.dtype}"))


def _steps_build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, t = node.op, node.input(0), node.input(1)
    assert isinstance(op, MultiThreshold)
    axis = x.type.rank + op.axis
    context = {
        "outer": product(x.shape[:axis]),
        "channels": x.shape[axis],
        "inner": product(x.shape[axis + 1 :]),
        "steps": t.shape[1],
        "per_channel": t.shape[0] > 1,
        "t_t": t.type.dtype.c_type,
        "scale": op.scale,
        "bias": op.bias,
    }
    args = (out(node, overlay=True), Arg("x", x, overlay=True), Arg("t", t))
    over = over_x(overlap.in_order(x.type, node.output.type))
    return (Step("multi_threshold", "kernels/multi_threshold.j2", args, context, ("bitc_defs.h",), over),)


MISC = (
    Variant("matmul", (MatMul,), _matmul_accepts, _matmul_build, _matmul_cost),
    matmul.VARIANT,
    Variant("multi_threshold", (MultiThreshold,), _steps_accepts, _steps_build),
    Variant("repeat", (Repeat,), always, lambda node, target: ()),  # lowering makes the loop; its body has own rows
)
