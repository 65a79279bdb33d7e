"""Pooling."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitc.ir.dtypes import INT8, INT32, UINT8
from bitc.ir.graph import Node
from bitc.ir.program import c_type
from bitc.ir.types import TensorType
from bitc.kernels.epilogues import epilogue
from bitc.kernels.geometry import geometry
from bitc.kernels.pack import pack_bits, storage
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out
from bitc.ops.pool import ArgMaxPool, AveragePool, MaxPool
from bitc.target import Target


def _max_accepts(node: Node, target: Target) -> str:
    minimum = node.inputs[1] if len(node.inputs) > 1 else None
    return first_reason((minimum is None or minimum.is_const, "the choice of minimum is computed"))


def _max_build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x = node.op, node.input(0)
    assert isinstance(op, MaxPool)
    flags = node.inputs[1].array if len(node.inputs) > 1 and node.inputs[1] is not None else None
    minimum = np.broadcast_to(flags, (x.type.channels,)) if flags is not None else np.zeros(x.type.channels, np.bool_)
    args, word = [out(node), Arg("x", x)], x.type.layout.word
    mixed = bool(minimum.any() and not minimum.all())
    if mixed:
        table = pack_bits(minimum, word) if word else minimum.astype(np.uint8)
        args.append(Arg("minimum", Packed(table, "minimum", is_weight=False)))
    context: dict[str, Any] = {
        **geometry(x.type, op.window).context,
        "packed": bool(word),
        "ternary": storage(x.type.dtype) == "tern",
        "planes": x.type.dtype.planes,
        "words": x.type.words_per_plane if word else 0,
        "t": c_type(x.type),
        "row": x.type.row_words if word else x.type.channels,
        "mixed": mixed,
        "all_minimum": bool(minimum.all()),
        "is_float": x.type.dtype.is_float,
        "lowest": x.type.dtype.min,
        "highest": x.type.dtype.max,
    }
    template = "kernels/max_pool_planes.j2" if x.type.dtype.digits else "kernels/max_pool.j2"
    return (Step(MAX.name, template, tuple(args), context, ("bitc_math.h",)),)


def _average_accepts(node: Node, target: Target) -> str:
    op = node.op
    assert isinstance(op, AveragePool)
    return first_reason(
        (node.input(0).type.dtype.is_float == (op.requant is None), "not float, and not requantized"),
        (all(v is not None and v.is_const for v in node.inputs[1:]), "parameters are computed"),
    )


def _average_build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x = node.op, node.input(0)
    assert isinstance(op, AveragePool)
    geo = geometry(x.type, op.window)
    acc = TensorType(x.shape, INT32 if op.requant else x.type.dtype)
    most = geo.taps * max(abs(x.type.dtype.min - op.x_zero), abs(x.type.dtype.max - op.x_zero))
    e, params = epilogue(op.requant, node.inputs[1:], acc, node.output.type, most)
    context = {
        **geo.context,
        "e": e,
        "channels": x.type.channels,
        "x_t": x.type.dtype.c_type,
        "x_zero": op.x_zero,
        "t": acc.dtype.c_type,
        "counted": geo.border and not op.count_include_pad and not (op.requant and not params),
    }
    args = (out(node), Arg("x", x), *params)
    return (Step(AVERAGE.name, "kernels/average_pool.j2", args, context, ("bitc_defs.h",)),)


def _arg_accepts(node: Node, target: Target) -> str:
    return first_reason((bool(node.input(0).type.dtype.c_type), "the input is packed"))


def _arg_build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x = node.op, node.input(0)
    assert isinstance(op, ArgMaxPool)
    context = {**geometry(x.type, op.window).context, "channels": x.type.channels, "t": x.type.dtype.c_type}
    args = (out(node), Arg("x", x))
    return (Step(ARG.name, "kernels/arg_max_pool.j2", args, context, ("bitc_defs.h",)),)


ARG = Variant("arg_max_pool", (ArgMaxPool,), _arg_accepts, _arg_build)


def _words_accepts(node: Node, target: Target) -> str:
    x = node.input(0).type
    return first_reason(
        ("dsp" in target.features, "no DSP instructions"),
        (x.dtype in (INT8, UINT8), f"of {x.dtype}, not of 8 bits"),
        (x.channels % 4 == 0, "channels fill no words"),
        (len(node.inputs) == 1 or node.inputs[1] is None, "minima"),
    )


def _words_build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x = node.op, node.input(0)
    assert isinstance(op, MaxPool)
    context: dict[str, Any] = {
        **geometry(x.type, op.window).context,
        "words": x.type.channels // 4,
        "t": x.type.dtype.c_type,
        "signed": x.type.dtype is INT8,
        "least": 0x80808080 if x.type.dtype is INT8 else 0,
    }
    uses = ("bitc_defs.h", "isa/max8.j2")
    return (Step(MAX_WORDS.name, "kernels/max_pool_words.j2", (out(node), Arg("x", x)), context, uses),)


def _max_cost(node: Node, target: Target) -> float:
    assert isinstance(node.op, MaxPool)
    return node.output.type.size * node.op.window.kernel[0] * node.op.window.kernel[1] * 5.0


MAX = Variant("max_pool", (MaxPool,), _max_accepts, _max_build, _max_cost)
MAX_WORDS = Variant("max_pool_words", (MaxPool,), _words_accepts, _words_build, lambda n, t: _max_cost(n, t) / 3)
AVERAGE = Variant("average_pool", (AveragePool,), _average_accepts, _average_build)
