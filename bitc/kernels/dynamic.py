"""Rows of operators whose results are as long as the data says."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitc.ir.graph import Node
from bitc.kernels import overlap
from bitc.kernels.literals import c_float, c_int
from bitc.kernels.loops import row_major
from bitc.kernels.step import Arg, Step, Variant, first_reason, out, over_x, product, scratch
from bitc.ops.dynamic import FillTail, NonMaxSuppression, NonZero, Unique
from bitc.target import Target

USES = ("bitc_defs.h",)


def _accepts(node: Node, target: Target) -> str:
    types = [v.type for v in (*node.inputs, *node.outputs) if v is not None]
    return first_reason((all(t.dtype.c_type for t in types), "a tensor is packed"))


def _written(node: Node, *names: str) -> tuple[Arg, ...]:
    return tuple(Arg(n, v, written=True) for n, v in zip(names, node.outputs, strict=True))


def _nonzero(node: Node, target: Target) -> tuple[Step, ...]:
    x = node.input(0)
    context = {"n": x.type.size, "dims": list(zip(x.shape, row_major(x.shape), strict=True))}
    args = (*_written(node, "y", "count"), Arg("x", x))
    return (Step("nonzero", "kernels/nonzero.j2", args, context, USES),)


def _unique(node: Node, target: Target) -> tuple[Step, ...]:
    op, x = node.op, node.input(0)
    assert isinstance(op, Unique)
    context = {
        "n": x.shape[op.axis], "outer": product(x.shape[: op.axis]), "inner": product(x.shape[op.axis + 1 :]),
        "ordered": op.ordered, "t": x.type.dtype.c_type, "is_float": x.type.dtype.is_float,
    }  # fmt: skip
    args = (*_written(node, "first", "inverse", "times", "count"), Arg("x", x))
    return (Step("unique", "kernels/unique.j2", args, context, USES),)


def _suppress(node: Node, target: Target) -> tuple[Step, ...]:
    op, boxes, scores = node.op, node.input(0), node.input(1)
    assert isinstance(op, NonMaxSuppression)
    names = ("most", "overlap", "least")
    given = [Arg(n, v) for n, v in zip(names, node.inputs[2:], strict=True) if v is not None]
    context: dict[str, Any] = {
        "batches": boxes.shape[0], "classes": scores.shape[1], "boxes_each": boxes.shape[1], "limit": op.limit,
        "center": op.center, "given": [a.name for a in given],
    }  # fmt: skip
    closed = scratch("closed", boxes.shape[1], np.uint8)
    args = (*_written(node, "y", "count"), closed, Arg("boxes", boxes), Arg("scores", scores), *given)
    return (Step("non_max_suppression", "kernels/non_max_suppression.j2", args, context, USES),)


def _fill_tail(node: Node, target: Target) -> tuple[Step, ...]:
    op, t = node.op, node.output.type
    assert isinstance(op, FillTail)
    fill = c_float(op.fill) if t.dtype.is_float else c_int(op.fill, t.dtype.c_type)
    context = {
        "outer": product(t.shape[: op.axis]), "n": t.shape[op.axis], "inner": product(t.shape[op.axis + 1 :]),
        "fill": fill,
    }  # fmt: skip
    args = (out(node, overlay=True), Arg("x", node.input(0), overlay=True), Arg("count", node.input(1)))
    over = over_x(overlap.in_order(node.input(0).type, t))
    return (Step("fill_tail", "kernels/fill_tail.j2", args, context, USES, over),)


DYNAMIC = (
    Variant("nonzero", (NonZero,), _accepts, _nonzero),
    Variant("unique", (Unique,), _accepts, _unique),
    Variant("non_max_suppression", (NonMaxSuppression,), _accepts, _suppress),
    Variant("fill_tail", (FillTail,), _accepts, _fill_tail),
)
