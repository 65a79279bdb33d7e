"""Gathers and scatters by computed indices, the largest elements, and running sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bitc.ir.dtypes import DType
from bitc.ir.graph import Node
from bitc.kernels import overlap
from bitc.kernels.loops import index, nest, row_major
from bitc.kernels.step import Arg, Step, Variant, first_reason, out, over_x, product
from bitc.ops.indexing import ArgTop, Cumulate, GatherElements, GatherND, ScatterElements, ScatterND, Take
from bitc.target import Target

USES = ("bitc_defs.h", "index.j2")
Look = tuple[str, int, int]
"""Where an index stands, the size of its axis, and the distance of neighbours along it."""


def _accepts(node: Node, target: Target) -> str:
    types = [v.type for v in (*node.inputs, node.output) if v is not None]
    return first_reason(
        (all(t.dtype.c_type for t in types), "a tensor is packed"), (product(node.output.shape) > 0, "an empty tensor")
    )


def _elements(x: Sequence[int], indices: Sequence[int], axis: int) -> dict[str, Any]:
    """Loops over `indices`, one look on `axis` of a tensor of shape `x`."""
    steps = row_major(x)
    dims = nest(indices, [[0 if a == axis else s for a, s in enumerate(steps)], row_major(indices)])
    looks: list[Look] = [(index(dims, 1), x[axis], steps[axis])]
    return {"dims": [d.size for d in dims], "base": index(dims, 0), "looks": looks}


def _tuples(x: Sequence[int], indices: Sequence[int], batch: int) -> dict[str, Any]:
    """Loops over index tuples and the slices that they name, K looks each."""
    steps, count = row_major(x), indices[-1]
    rest = list(x[batch + count :])
    zeros = [0] * (len(indices) - 1 - batch)
    x_steps = [*steps[:batch], *zeros, *steps[batch + count :]]
    index_steps = [*row_major(indices[:-1], count), *[0] * len(rest)]
    dims = nest([*indices[:-1], *rest], [x_steps, index_steps])
    looks: list[Look] = [(index(dims, 1, k), x[batch + k], steps[batch + k]) for k in range(count)]
    return {"dims": [d.size for d in dims], "base": index(dims, 0), "looks": looks}


def _along(x: Sequence[int], indices: Sequence[int], axis: int) -> dict[str, Any]:
    """Loops over x with `axis` replaced by the indices."""
    steps = row_major(x)
    shape = [*x[:axis], *indices, *x[axis + 1 :]]
    x_steps = [*steps[:axis], *[0] * len(indices), *steps[axis + 1 :]]
    index_steps = [*[0] * axis, *row_major(indices), *[0] * (len(x) - axis - 1)]
    dims = nest(shape, [x_steps, index_steps])
    looks: list[Look] = [(index(dims, 1), x[axis], steps[axis])]
    return {"dims": [d.size for d in dims], "base": index(dims, 0), "looks": looks}


def _loops(node: Node) -> dict[str, Any]:
    op, x, indices = node.op, node.input(0).shape, node.input(1).shape
    match op:
        case Take():
            return _along(x, indices, op.axis)
        case GatherElements() | ScatterElements():
            return _elements(x, indices, op.axis)
        case GatherND():
            return _tuples(x, indices, op.batch)
        case _:
            return _tuples(x, indices, 0)


def _gather(node: Node, target: Target) -> tuple[Step, ...]:
    args = (out(node), Arg("x", node.input(0)), Arg("indices", node.input(1)))
    return (Step("gather", "kernels/gather.j2", args, _loops(node), USES),)


def _folded(t: DType, operator: str, left: str) -> str:
    """``left operator v``; integers wrap around."""
    if t.is_float:
        return f"{left} {operator} v"
    u = "uint64_t" if t.bits == 64 else "uint32_t"
    return f"({t.c_type})(({u}){left} {operator} ({u})v)"


def _update(t: DType, reduction: str) -> str:
    if reduction in ("add", "mul"):
        return _folded(t, "+" if reduction == "add" else "*", "*to")
    if reduction == "none":
        return "v"
    nan = " || *to != *to" if t.is_float else ""
    return f"v {'>' if reduction == 'max' else '<'} *to{nan} ? v : *to"


def _scatter(node: Node, target: Target) -> tuple[Step, ...]:
    op, t = node.op, node.output.type
    assert isinstance(op, ScatterElements | ScatterND)
    context = {**_loops(node), "total": t.size, "t": t.dtype.c_type, "result": _update(t.dtype, op.reduction)}
    args = (out(node), Arg("x", node.input(0)), Arg("indices", node.input(1)), Arg("updates", node.input(2)))
    return (Step("scatter", "kernels/scatter.j2", args, context, USES),)


def _axis(shape: Sequence[int], axis: int) -> dict[str, Any]:
    return {"outer": product(shape[:axis]), "n": shape[axis], "inner": product(shape[axis + 1 :])}


def _arg_top(node: Node, target: Target) -> tuple[Step, ...]:
    op, x = node.op, node.input(0).type
    assert isinstance(op, ArgTop)
    better, worse = (">", "<") if op.largest else ("<", ">")
    context = {
        **_axis(x.shape, op.axis), "k": op.k, "t": x.dtype.c_type, "is_float": x.dtype.is_float,
        "better": better, "worse": worse,
    }  # fmt: skip
    args = (out(node), Arg("x", node.input(0)))
    return (Step("arg_top", "kernels/arg_top.j2", args, context, ("bitc_defs.h",)),)


def _cumulate(node: Node, target: Target) -> tuple[Step, ...]:
    op, x = node.op, node.input(0).type
    assert isinstance(op, Cumulate)
    context = {
        **_axis(x.shape, op.axis), "t": x.dtype.c_type, "start": int(op.product), "exclusive": op.exclusive,
        "reverse": op.reverse, "step": f"run = {_folded(x.dtype, '*' if op.product else '+', 'run')};",
    }  # fmt: skip
    args = (out(node, overlay=True), Arg("x", node.input(0), overlay=True))
    over = over_x(overlap.in_place(node.input(0).type, node.output.type))
    return (Step("cumulate", "kernels/cumulate.j2", args, context, ("bitc_defs.h",), over),)


INDEXING = (
    Variant("gather_computed", (Take, GatherElements, GatherND), _accepts, _gather),
    Variant("scatter", (ScatterElements, ScatterND), _accepts, _scatter),
    Variant("arg_top", (ArgTop,), _accepts, _arg_top),
    Variant("cumulate", (Cumulate,), _accepts, _cumulate),
)
