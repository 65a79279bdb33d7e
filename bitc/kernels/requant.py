"""Epilogues and dequantization as kernels of their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitc.ir.graph import Array, Node
from bitc.ir.program import c_type
from bitc.ir.types import TensorType
from bitc.kernels import overlap
from bitc.kernels.epilogues import epilogue
from bitc.kernels.pack import storage
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, over_x, product
from bitc.ops.quantize import Dequantize, Requantize
from bitc.target import Target


def _trailing(x: TensorType, params: list[Array]) -> tuple[int, int]:
    """(rows, inner): the trailing elements over which the parameters vary, at least a whole row."""
    rank = max([1, *(p.ndim for p in params if p.size > 1)])
    inner = product(x.shape[x.rank - min(rank, x.rank) :])
    return x.size // max(inner, 1), inner


def _requantize_accepts(node: Node, target: Target) -> str:
    x = node.input(0).type
    return first_reason(
        (all(v is None or v.is_const for v in node.inputs[1:]), "parameters are computed"),
        (not x.dtype.is_packed, "the input is packed"),
    )


def _requantize_build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x, y = node.op, node.input(0), node.output.type
    assert isinstance(op, Requantize)
    params = [v.array for v in node.inputs[1:] if v is not None]
    rows, inner = _trailing(x.type, params)
    full = x.shape[x.type.rank - len(_inner_shape(x.type, inner)) :]
    wide = [None if v is None else _expand(v.array, full) for v in node.inputs[1:]]
    values = [None if a is None else type(x)("p", TensorType(a.shape, y.dtype), a) for a in wide]
    reach = 0.0 if x.type.dtype.is_float else max(abs(x.type.dtype.min), abs(x.type.dtype.max))
    e, args = epilogue(op.epilogue, values, x.type, y, reach)
    channels = x.type.channels
    context: dict[str, Any] = {
        "e": e,
        "x_t": x.type.dtype.c_type,
        "outer": rows,
        "inner_rows": inner // channels,
        "channels": channels,
        "x_row": x.type.row_step,
        "y_row": y.row_step,
    }
    step = Step(REQUANTIZE.name, "kernels/requantize.j2", (out(node, overlay=True), Arg("x", x, overlay=True), *args),
                context, ("bitc_defs.h",), over_x(overlap.in_order(x.type, y)))  # fmt: skip
    return (step,)


def _inner_shape(x: TensorType, inner: int) -> tuple[int, ...]:
    shape = x.shape
    while product(shape) > inner:
        shape = shape[1:]
    return shape


def _expand(param: Array, full: tuple[int, ...]) -> Array:
    """Scalars stay scalars, all else takes the full trailing shape."""
    return param.reshape(1) if param.size == 1 else np.broadcast_to(param, full)


def _dequantize_build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x = node.op, node.input(0)
    assert isinstance(op, Dequantize)
    scale, offset = np.asarray(op.quant.scale, np.float32), np.asarray(op.quant.offset, np.float32)
    context: dict[str, Any] = {
        "kind": storage(x.type.dtype),
        "planes": x.type.dtype.planes,
        "x_t": c_type(x.type),
        "word": x.type.layout.word,
        "words": x.type.words_per_plane if x.type.layout.word else 0,
        "x_row": x.type.row_step,
        "y_row": node.output.type.row_step,
        "rows": x.type.rows,
        "channels": x.type.channels,
        "zero": op.quant.zero,
        "has_offset": bool(offset.any()),
        "scale_size": scale.size,
        "offset_size": offset.size,
    }
    args = [out(node), Arg("x", x), Arg("scale", Packed(scale, "scale"))]
    if offset.any():
        args.append(Arg("offset", Packed(offset, "offset")))
    over = over_x(overlap.in_order(x.type, node.output.type))
    return (Step(DEQUANTIZE.name, "kernels/dequantize.j2", tuple(args), context, ("bitc_defs.h",), over),)


REQUANTIZE = Variant("requantize", (Requantize,), _requantize_accepts, _requantize_build, apart="xy")
DEQUANTIZE = Variant("dequantize", (Dequantize,), lambda node, target: "", _dequantize_build, apart="xy")
