"""Reductions, softmax and arg max: loops over kept axes, then over reduced ones in row-major order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bitc.ir.dtypes import BIT1, DType
from bitc.ir.graph import Node, Op, Value
from bitc.ir.program import c_size, c_type
from bitc.kernels import overlap
from bitc.kernels.codes import lanes_for
from bitc.kernels.copy import copy_step, fill_step
from bitc.kernels.literals import c_number
from bitc.kernels.loops import index, nest, row_major
from bitc.kernels.step import Arg, Step, Variant, first_reason, out, over_x, product
from bitc.ops import reduce as ops
from bitc.target import Target

Fold = Callable[[DType, int], tuple[str, str, str]]
"""(dtype, count) → start value, statement that folds `v` into `best`, result."""


def _arithmetic(op: str, start: str) -> Fold:
    def fold(t: DType, count: int) -> tuple[str, str, str]:
        if t.is_float:
            return start, f"best = best {op} v;", "best"
        u = "uint64_t" if t.bits == 64 else "uint32_t"
        return start, f"best = ({t.c_type})(({u})best {op} ({u})v);", "best"

    return fold


def _mean(t: DType, count: int) -> tuple[str, str, str]:
    start, step, _ = _arithmetic("+", "0")(t, count)
    return start, step, f"best / {c_number(count, t)}" if t.is_float else f"({t.c_type})(best / {count})"


def _limit(comparison: str, end: Callable[[DType], float]) -> Fold:
    def fold(t: DType, count: int) -> tuple[str, str, str]:
        return c_number(end(t), t), f"best = v {comparison} best ? v : best;", "best"

    return fold


FOLDS: dict[type[Op], Fold] = {
    ops.ReduceSum: _arithmetic("+", "0"),
    ops.ReduceProd: _arithmetic("*", "1"),
    ops.ReduceMean: _mean,
    ops.ReduceMax: _limit(">", lambda t: t.min),
    ops.ReduceMin: _limit("<", lambda t: t.max),
}


def _accepts(node: Node, target: Target) -> str:
    x = node.input(0).type
    return first_reason(
        (bool(x.dtype.c_type), f"the input is {x.dtype}"),
        (x.size > 0, "an empty tensor"),
    )


def _reduce_accepts(node: Node, target: Target) -> str:
    return _accepts(node, target) or first_reason((type(node.op) in FOLDS, "no C for this reduction"))


def _split(shape: Sequence[int], axes: Sequence[int]) -> tuple[Any, Any]:
    steps = row_major(shape)
    kept = [a for a in range(len(shape)) if a not in axes]
    outer = nest([shape[a] for a in kept], [[steps[a] for a in kept]])
    inner = nest([shape[a] for a in axes], [[steps[a] for a in axes]])
    return outer, inner


def _reduce_build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x = node.op, node.input(0)
    assert isinstance(op, ops.Reduce)
    outer, inner = _split(x.shape, op.axes)
    start, step, result = FOLDS[type(op)](x.type.dtype, product([x.shape[a] for a in op.axes]))
    context: dict[str, Any] = {
        "outer": [d.size for d in outer],
        "inner": [d.size for d in inner],
        "index": f"{index(outer, 0, name='o')} + {index(inner, 0)}",
        "t": x.type.dtype.c_type,
        "start": start,
        "step": step,
        "result": result,
    }
    args = (out(node), Arg("x", x))
    return (Step(type(op).__name__.lower(), "kernels/reduce.j2", args, context, ("bitc_math.h",)),)


def _add_accepts(node: Node, target: Target) -> str:
    x = node.input(1).type.dtype
    return first_reason((bool(x.c_type) and x.bits <= 32, f"sums of {x}"))


def _add_build(node: Node, target: Target) -> tuple[Step, ...]:
    return _by_pixels(node, target, "add_pixels", "best + v")


def _max_accepts(node: Node, target: Target) -> str:
    x = node.input(1).type.dtype
    return first_reason((bool(x.c_type) or x is BIT1, f"the largest of {x}"))


def _max_build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x = node.op, node.input(1).type
    assert isinstance(op, ops.MaxPixels)
    if x.layout.word:  # the code of the larger bit is 0
        return _by_pixels(node, target, "max_pixels", f"({c_type(x)})(best {'|' if op.minimum else '&'} v)")
    return _by_pixels(node, target, "max_pixels", f"v {'<' if op.minimum else '>'} best ? v : best")


def _by_pixels(node: Node, target: Target, kernel: str, step: str) -> tuple[Step, ...]:
    """What was found goes on where the output lies. Vectors of channels take pixel by pixel, else a register takes all
    pixels of a channel: the order for each channel is the same."""
    found, x = node.input(0), node.input(1)
    context = {
        "pixels": x.type.rows,
        "channels": c_size(x.type) // x.type.rows,
        "t": c_type(found.type),
        "step": step,
        "vectors": lanes_for(target, x.type.channels) > 0,
    }
    steps = (Step(kernel, "kernels/by_pixels.j2", (out(node), Arg("x", x)), context, ("bitc_defs.h",)),)
    return steps if node.output is found else (copy_step(found, node.output), *steps)


def start_step(op: Op, y: Value) -> Step:
    """What totals in y start from: 0, or what is never larger (or never smaller) than any element."""
    if not isinstance(op, ops.MaxPixels):
        return fill_step(y, "0")
    if y.type.layout.word:
        return fill_step(y, "0" if op.minimum else f"({c_type(y.type)})~({c_type(y.type)})0")
    return fill_step(y, c_number(y.type.dtype.max if op.minimum else y.type.dtype.min, y.type.dtype))


def _axis(shape: Sequence[int], axis: int) -> dict[str, Any]:
    return {"outer": product(shape[:axis]), "n": shape[axis], "inner": product(shape[axis + 1 :])}


def _softmax_build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x = node.op, node.input(0)
    assert isinstance(op, ops.Softmax)
    context = {**_axis(x.shape, op.axis), "log": isinstance(op, ops.LogSoftmax)}
    args = (out(node, overlay=True), Arg("x", x, overlay=True))
    over = over_x(overlap.in_place(x.type, node.output.type))
    return (Step(type(op).__name__.lower(), "kernels/softmax.j2", args, context, ("bitc_math.h",), over),)


def _arg_build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x = node.op, node.input(0)
    assert isinstance(op, ops.ArgMax | ops.ArgMin)
    better = ">" if isinstance(op, ops.ArgMax) else "<"
    context = {
        **_axis(x.shape, op.axis),
        "t": x.type.dtype.c_type,
        "better": better + ("=" if op.last else ""),
        "is_float": x.type.dtype.is_float,
        "last": op.last,
    }
    args = (out(node), Arg("x", x))
    return (Step(type(op).__name__.lower(), "kernels/arg.j2", args, context, ("bitc_defs.h",)),)


def _float32(node: Node, target: Target) -> str:
    return first_reason((node.input(0).type.dtype.c_type == "float", f"not float32: {node.input(0).type.dtype}"))


REDUCTIONS = (
    Variant("reduce", (ops.Reduce,), _reduce_accepts, _reduce_build),
    Variant("add_pixels", (ops.AddPixels,), _add_accepts, _add_build),
    Variant("max_pixels", (ops.MaxPixels,), _max_accepts, _max_build),
    Variant("softmax", (ops.Softmax,), _float32, _softmax_build),
    Variant("arg", (ops.ArgMax, ops.ArgMin), _accepts, _arg_build),
)
