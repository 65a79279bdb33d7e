"""Pooling."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitc.ir.dtypes import INT8, INT32, UINT8
from bitc.ir.graph import Array, Node
from bitc.ir.program import Overlap, c_type
from bitc.ir.types import TensorType
from bitc.kernels import overlap
from bitc.kernels.codes import codes_isa, lanes_for
from bitc.kernels.epilogues import epilogue
from bitc.kernels.fixed import UpperWord, upper_word
from bitc.kernels.geometry import Geometry, geometry
from bitc.kernels.pack import pack_bits, storage
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, over_x
from bitc.kernels.work import windows
from bitc.ops.pool import ArgMaxPool, AveragePool, MaxPool
from bitc.ops.window import Window
from bitc.target import Target


def _over(node: Node, window: Window) -> tuple[tuple[str, Overlap], ...]:
    """Pixel by pixel, the channels of each one after the other."""
    x = node.input(0).type
    geo = geometry(x, window)
    return over_x(overlap.by_pixels(geo, x, node.output.type, overlap.singly(geo), False))


def _max_accepts(node: Node, target: Target) -> str:
    op, x = node.op, node.input(0).type
    assert isinstance(op, MaxPool)
    minimum = node.inputs[1] if len(node.inputs) > 1 else None
    least = not x.dtype.digits and storage(x.dtype) != "tern"
    return first_reason(
        (minimum is None or minimum.is_const, "the choice of minimum is computed"),
        (
            least or not windows(geometry(x, op.window)).empty,
            f"a window holds only padding, {x.dtype} has no -infinity",
        ),
    )


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
    geo = geometry(x.type, op.window)
    context: dict[str, Any] = {
        **geo.context,
        "ones": _ones(x.type, geo),
        "packed": bool(word),
        "ternary": storage(x.type.dtype) == "tern",
        "planes": x.type.dtype.planes,
        "words": x.type.words_per_plane if word else 0,
        "t": c_type(x.type),
        "row": x.type.row_words if word else x.type.channels,
        "x_row": x.type.row_step,
        "y_row": node.output.type.row_step,
        "mixed": mixed,
        "all_minimum": bool(minimum.all()),
        "is_float": x.type.dtype.is_float,
        "lowest": x.type.dtype.min,
        "highest": x.type.dtype.max,
    }
    template = "kernels/max_pool_planes.j2" if x.type.dtype.digits else "kernels/max_pool.j2"
    return (Step(MAX.name, template, tuple(args), context, ("bitc_math.h",), _over(node, op.window)),)


def _ones(x: TensorType, geo: Geometry) -> str:
    """Word c where all channels are ones: what AND starts from. Words end in zeros, which needs care only where nothing
    follows, in windows that lie outside."""
    t, word = c_type(x), x.layout.word
    if not word or not x.channels % word or not windows(geo).empty:
        return f"({t})~({t})0"
    return f"({t})(c == {x.words_per_plane - 1} ? {2 ** (x.channels % word) - 1:#x}u : {2**word - 1:#x}u)"


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
        "x_row": x.type.row_step,
        "y_row": node.output.type.row_step,
        "x_t": x.type.dtype.c_type,
        "x_zero": op.x_zero,
        "t": acc.dtype.c_type,
        "counted": geo.border and not op.count_include_pad and not (op.requant and not params),
    }
    args = (out(node), Arg("x", x), *params)
    return (
        Step(
            AVERAGE.name,
            "kernels/average_pool.j2",
            args,
            context,
            ("bitc_defs.h",),
            _over(node, op.window),
        ),
    )


def _average_work(node: Node) -> float:
    assert isinstance(node.op, AveragePool)
    return float(node.output.type.size * (node.op.window.kernel[0] * node.op.window.kernel[1] + 3))


def _exact(node: Node) -> tuple[UpperWord, Array] | None:
    """The requantization of sums without zero points, by number of taps or for all, and the bias in front of it."""
    op, x = node.op, node.input(0).type.dtype
    assert isinstance(op, AveragePool) and op.requant is not None
    bias, multiplier, shift = (v.array.reshape(-1) for v in node.inputs[1:] if v is not None)
    taps = op.window.kernel[0] * op.window.kernel[1]
    counts = np.arange(taps + 1) if max(bias.size, multiplier.size, shift.size) > 1 else np.array([taps])
    low, high = counts * min(int(x.min) - op.x_zero, 0), counts * max(int(x.max) - op.x_zero, 0)
    found = upper_word(op.requant, bias, multiplier, shift, low, high)
    return (found, bias) if found else None


def _codes_accepts(node: Node, target: Target) -> str:
    op, x = node.op, node.input(0).type
    assert isinstance(op, AveragePool)
    if op.requant is None or x.dtype not in (INT8, UINT8) or op.requant.dtype not in (INT8, UINT8):
        return "not from and to 8 bits"
    if reason := first_reason(
        (bool(_sums_width(x, target)), "no DSP instructions or vectors, or not enough channels"),
        (all(v is not None and v.is_const for v in node.inputs[1:]), "parameters are computed"),
        (op.window.kernel[1] <= SHORT_SUM, f"more than {SHORT_SUM} columns"),
    ):
        return reason
    found = _exact(node)
    halves = found and found[0].halves
    vectors = lanes_for(target, x.channels) > 0
    return first_reason((found is not None and (not vectors or bool(halves and not halves.limit)), "no exact factor"))


SHORT_SUM = 128
"""Codes of which a sum fits 16 bits."""


def _sums_width(x: TensorType, target: Target) -> int:
    """Channels whose sums are made at once; 0: none."""
    return lanes_for(target, x.channels) or (4 if "dsp" in target.features and x.channels >= 4 else 0)


def _codes_build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x = node.op, node.input(0)
    found = _exact(node)
    assert isinstance(op, AveragePool) and op.requant is not None and found is not None
    (upper, bias), geo, width = found, geometry(x.type, op.window), _sums_width(x.type, target)
    acc = TensorType(x.shape, INT32)
    e, _ = epilogue(op.requant, node.inputs[1:], acc, node.output.type)
    halves = upper.halves if width > 4 else None
    multiplier = (halves or upper).multiplier
    tables = {"multiplier": multiplier, "bias": bias.astype(np.int32)}
    e |= {"upper": upper, "halves": halves}
    e |= {name: int(t[0]) if t.size == 1 else None for name, t in tables.items()}
    context: dict[str, Any] = {
        **geo.context,
        "e": e,
        "channels": x.type.channels,
        "x_row": x.type.row_step,
        "y_row": node.output.type.row_step,
        "x_zero": op.x_zero,
        "t": x.type.dtype.c_type,
        "signed": x.type.dtype is INT8,
        "width": width,
        "at_once": geo.taps <= SHORT_SUM,
        "counted": geo.border and not op.count_include_pad,
    }
    args = [out(node), Arg("x", x)]
    args += [Arg(name, Packed(t, name, is_weight=False)) for name, t in tables.items() if t.size > 1]
    uses = ("bitc_defs.h", *(codes_isa(width) if width > 4 else ("isa/sums8.j2", "isa/words.j2")))
    over = _over(node, op.window)
    return (Step(AVERAGE_CODES.name, "kernels/average_codes.j2", tuple(args), context, uses, over),)


def _codes_cost(node: Node, target: Target) -> float:
    return _average_work(node) * 8.0 / _sums_width(node.input(0).type, target)


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
        (x.dtype in (INT8, UINT8), f"of {x.dtype}, not of 8 bits"),
        (bool(_width(x, target)), "no DSP instructions or vectors, or not enough channels"),
        (len(node.inputs) == 1 or node.inputs[1] is None, "minima"),
    )


def _width(x: TensorType, target: Target) -> int:
    """Bytes that are compared at once; 0: none."""
    return lanes_for(target, x.channels) or (4 if "dsp" in target.features and x.channels >= 4 else 0)


def _words_build(node: Node, target: Target) -> tuple[Step, ...]:
    op, x = node.op, node.input(0)
    assert isinstance(op, MaxPool)
    width = _width(x.type, target)
    signed = x.type.dtype is INT8
    context: dict[str, Any] = {
        **geometry(x.type, op.window).context,
        "channels": x.type.channels,
        "x_row": x.type.row_step,
        "y_row": node.output.type.row_step,
        "width": width,
        "vectors": width > 4,
        "t": x.type.dtype.c_type,
        "signed": signed,
        "least": (-128 if width > 4 else 0x80808080) if signed else 0,
    }
    uses = ("bitc_defs.h", *(codes_isa(width) if width > 4 else ("isa/max8.j2", "isa/words.j2")))
    args = (out(node), Arg("x", x))
    return (Step(MAX_WORDS.name, "kernels/max_pool_words.j2", args, context, uses, _over(node, op.window)),)


def _words_cost(node: Node, target: Target) -> float:
    return _max_cost(node, target) * 1.3 / _width(node.input(0).type, target)


def _max_cost(node: Node, target: Target) -> float:
    assert isinstance(node.op, MaxPool)
    return node.output.type.size * node.op.window.kernel[0] * node.op.window.kernel[1] * 5.0


MAX = Variant("max_pool", (MaxPool,), _max_accepts, _max_build, _max_cost, apart="xy")
MAX_WORDS = Variant("max_pool_words", (MaxPool,), _words_accepts, _words_build, _words_cost, apart="xy")
AVERAGE = Variant(
    "average_pool", (AveragePool,), _average_accepts, _average_build, lambda n, t: _average_work(n) * 4.0, apart="xy"
)
AVERAGE_CODES = Variant("average_codes", (AveragePool,), _codes_accepts, _codes_build, _codes_cost, apart="xy")
