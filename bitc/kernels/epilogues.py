"""Epilogues as template context and arguments: what the C does between an accumulator and the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bitc.ir.dtypes import BIT1, FLOAT32, INT64, from_numpy
from bitc.ir.graph import Array, Node, Value
from bitc.ir.types import TensorType
from bitc.kernels.bases import few_bits
from bitc.kernels.fixed import upper_word
from bitc.kernels.levels import line, steps
from bitc.kernels.step import Arg, Packed
from bitc.ops.epilogue import Affine, Bases, Epilogue, FixedPoint, Levels, Requant, TernThreshold, Threshold
from bitc.ops.linear import Conv2D
from bitc.target import Target

Span = tuple[Array, Array]
"""Lowest and highest value of an integer accumulator, for each output."""


def epilogue(
    op: Epilogue | None,
    params: Sequence[Value | None],
    acc: TensorType,
    y: TensorType,
    reach: float = 2.0**31,
    span: Span | None = None,
    step: int = 1,
) -> tuple[dict[str, Any], tuple[Arg, ...]]:
    """Context `e` of ``epilogue.j2`` and the parameter arguments. `reach` is the largest magnitude of an integer
    accumulator, `span` more of it where that is known; they differ by multiples of `step`."""
    word = y.layout.word
    base: dict[str, Any] = {
        "kind": "raw",
        "adds": False,
        "inner": None,
        "float_acc": acc.dtype.is_float,
        "acc_t": acc.dtype.c_type,
        "word": word,
        "out_t": f"uint{word}_t" if word else y.dtype.c_type,
        "bits_t": "uint64_t" if word == 64 else "uint32_t",
        "words": y.words_per_plane if word else 0,
        "flip": False,
        "scale_size": 0,
        "bias_size": 0,
    }
    if op is None:
        return base, ()
    if isinstance(op, Requant):
        bias, multiplier, shift = (v.array for v in params if v is not None)
        e, tables = requantization(op, factors(bias, multiplier, shift, reach), acc)
        return base | e, tables
    if isinstance(op, Levels):
        return _levels(op, params, acc, y, span, base)
    if isinstance(op, Bases):
        e, tables = _bases(op, params, acc, y, span, step)
        return base | e, tables
    if isinstance(op, FixedPoint):
        e, tables = _fixed_point(op, [v.array.reshape(-1) for v in params if v is not None])
        return base | e, tables
    args: list[Arg] = []
    named = dict(zip(op.param_names, params, strict=False))
    given, scale = named.get("flip"), named.get("scale")
    flip = given.array if given is not None else np.zeros(1, np.bool_)
    negative_zero = acc.dtype.is_float or not (scale is None or (scale.is_const and (scale.array > 0).all()))
    for name, value in zip(op.param_names, params, strict=False):
        if value is None or (value.is_const and _does_nothing(name, value.array, negative_zero)):
            continue
        data = _as_accumulator(value.array, acc, flip) if name.startswith("t") else _plain(name, value.array)
        args.append(Arg(name, Packed(data.reshape(-1), name)))
        base[f"{name}_size"] = data.size
        base["flip"] = base["flip"] or name == "flip"
    if isinstance(op, Affine):
        lo, hi = np.float32(op.lo), np.float32(op.hi)
        base |= {"kind": "affine", "lo": _bound(lo), "hi": _bound(hi)}
    elif isinstance(op, Threshold):
        base |= {"kind": "threshold", "nan_low": op.nan_low and acc.dtype.is_float}
    elif isinstance(op, TernThreshold):
        base |= {"kind": "ternary"}
    return base, tuple(args)


def conv_epilogue(node: Node) -> tuple[dict[str, Any], tuple[Arg, ...]]:
    """`epilogue` of a convolution with constant weights."""
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    acc = op.accumulator(x.type, w.type)
    if acc.dtype.is_float:
        return epilogue(op.epilogue, node.inputs[2:], acc, node.output.type)
    reach, span = float(op.reach(x.type, w.array).max()), op.span(x.type, w.array)
    odd = x.type.dtype is not BIT1 or (op.window.has_padding and w.shape[3] % 2 == 1)  # taps outside add nothing
    return epilogue(op.epilogue, node.inputs[2:], acc, node.output.type, reach, span, 1 if odd else 2)


def summed_epilogue(
    node: Node, low: Array, high: Array, target: Target
) -> tuple[dict[str, Any], tuple[Arg, ...], Array]:
    """As `conv_epilogue`, for kernels whose sums start at a bias, which is returned: int64, one or one per output. The
    sums of products, without it, lie between `low` and `high`, both ``[O]``."""
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    none = np.zeros(1, np.int64)
    if not isinstance(op.epilogue, Requant):
        return *conv_epilogue(node), none
    bias, multiplier, shift = (v.array.reshape(-1).astype(np.int64) for v in node.inputs[2:5] if v is not None)
    acc = op.accumulator(x.type, w.type)
    reach = np.maximum(abs(low), abs(high)) + abs(bias)
    e, args = requantization(op.epilogue, factors(none, multiplier, shift, float(reach.max())), acc)
    base, _ = epilogue(None, (), acc, node.output.type)
    if found := upper_word(op.epilogue, bias, multiplier, shift, low, high):
        halves = None if target.has_long_multiply else found.halves
        multiplier = halves.multiplier if halves else found.multiplier
        one = multiplier.size == 1
        args = () if one else (Arg("multiplier", Packed(multiplier, "multiplier")),)
        e |= {"upper": found, "halves": halves, "multiplier": int(multiplier[0]) if one else None}
    return base | e, args, bias


@dataclass(frozen=True)
class Factors:
    """The parameters of a `Requant` as a kernel takes them, all int64: of one element or one per index."""

    bias: Array
    multiplier: Array
    """Below 2**31."""
    shift: Array
    """One element wherever the factors allow it; at least 1, unless it is 0 for all."""
    ties: bool
    """Whether a sum can lie right between two codes: else halves may be rounded up, since there are none."""
    narrow: bool
    """Whether sums times their factor, with what rounding adds, stay within int32."""
    wide: bool
    """Whether a rounded sum may exceed int32."""


def factors(bias: ArrayLike, multiplier: ArrayLike, shift: ArrayLike, reach: float) -> Factors:
    """Equal factors in the cheapest form, for accumulators of magnitude `reach` or less.

    ``acc + bias`` times an odd multiplier is right between two codes only if it is an odd multiple of
    ``2**(shift - 1)``.
    """
    b, m, s = (np.asarray(p, np.int64).reshape(-1) for p in (bias, multiplier, shift))
    total = reach + float(np.abs(b).max())
    zeros = np.array([(int(v) & -int(v)).bit_length() - 1 if v else 63 for v in m])  # trailing zero bits
    halves = s - 1 - np.minimum(zeros, 62)
    ties = bool(((m != 0) & (halves >= 0) & (2.0**halves <= total)).any())
    if (m * 2.0 ** (s.max() - s) < 2**31).all():
        m, s = m << (s.max() - s), s.max(keepdims=True)
    else:  # one step is as good as many where every sum but 0 exceeds all codes
        m, s = np.where(s == 0, np.minimum(m, 2**30 - 1) * 2, m), np.maximum(s, 1)
    wide = bool(total * float((m / 2.0**s).max()) + 2.0**16 >= 2**31)
    narrow = bool(total * float(m.max()) + 2.0 ** float(s.max()) < 2**31)
    return Factors(_one(b), _one(m), _one(s), ties, narrow, wide)


def _one(values: Array) -> Array:
    return values[:1] if (values == values[0]).all() else values


def requantization(op: Requant, found: Factors, acc: TensorType) -> tuple[dict[str, Any], tuple[Arg, ...]]:
    """Context `e` of ``epilogue.j2`` and the parameters that are no numbers in the code."""
    e: dict[str, Any] = _codes(op) | {
        "kind": "requant",
        "acc_t": acc.dtype.c_type,
        "scaled_t": "int32_t" if found.narrow else "int64_t",
        "ties": found.ties,
        "wide": found.wide,
        "upper": None,
        "halves": None,
    }
    values, args = _numbers(bias=found.bias, multiplier=found.multiplier, shift=found.shift)
    return e | values, args


def _bases(
    op: Bases, params: Sequence[Value | None], acc: TensorType, y: TensorType, span: Span | None, step: int
) -> tuple[dict[str, Any], tuple[Arg, ...]]:
    """Context `inner` is that of `op.then`, `total_t` the type of the sums, `factor_t` that of the factors."""
    factor, *given = (v.array for v in params if v is not None)
    if factor.dtype.kind == "f":
        inner, args = epilogue(op.then, params[1:], replace(acc, dtype=FLOAT32), y)
    else:
        inner, _ = epilogue(op.then, [None] * len(op.then.param_names), replace(acc, dtype=INT64), y)
        limits = [np.broadcast_to(t.reshape(-1), factor.shape[1]) for t in given]
        most = np.maximum(-span[0], span[1]).reshape(-1, op.bases).T if span else np.full_like(factor, 2**31 - 1)
        if found := few_bits(factor, limits, most, step):
            factor, limits = found.factor, list(found.limits)
        names = op.then.param_names[: len(limits)]
        inner |= {f"{name}_size": t.size for name, t in zip(names, limits, strict=True)}
        args = tuple(Arg(name, Packed(t, name)) for name, t in zip(names, limits, strict=True))
    whole = from_numpy((limits[0] if factor.dtype.kind != "f" else factor).dtype).c_type
    types = {"total_t": whole, "factor_t": from_numpy(factor.dtype).c_type}
    e = {"kind": "bases", "bases": op.bases, "inner": inner} | types
    return e, (Arg("factor", Packed(np.ascontiguousarray(factor.T).reshape(-1), "factor")), *args)


def _fixed_point(op: FixedPoint, params: list[Array]) -> tuple[dict[str, Any], tuple[Arg, ...]]:
    multiplier, addend, shift = (_one(p.astype(np.int64)) for p in params)
    values, args = _numbers(multiplier=multiplier, addend=addend, shift=shift)
    return _codes(op.out) | {"kind": "fixed", "scaled_t": "int64_t", "wide": True} | values, args


def _codes(op: Requant) -> dict[str, Any]:
    return {"out_t": op.dtype.c_type, "word": 0, "zero": op.zero, "lo": op.lo, "hi": op.hi}


_STORED = {"shift": np.uint8, "addend": np.int64}


def _numbers(**params: Array) -> tuple[dict[str, Any], tuple[Arg, ...]]:
    """Parameters as numbers in the code, or as None and an argument where they differ by channel."""
    values = {name: int(data[0]) if data.size == 1 else None for name, data in params.items()}
    tables = {n: d.astype(_STORED.get(n, np.int32)) for n, d in params.items() if d.size > 1}
    return values, tuple(Arg(name, Packed(data, name)) for name, data in tables.items())


def _does_nothing(name: str, array: Array, negative_zero: bool) -> bool:
    """Whether a parameter changes no result. Adding 0.0 matters where there may be -0.0."""
    if name == "scale":
        return bool((array == 1).all())
    return not array.any() and (name == "flip" or (name == "bias" and not negative_zero))


def unflipped(w: Array, params: Sequence[Arg]) -> tuple[Array, Array]:
    """Weights ``[O, ...]``, bits or trits, and thresholds ``[O]`` int64 for a threshold whose parameters are given. A
    flipped channel, high where ``acc <= t``, is high where ``-acc >= -t``: its weights are negated."""
    given = {p.name: p.operand.data for p in params if isinstance(p.operand, Packed)}
    t = np.broadcast_to(given["t"].astype(np.int64), w.shape[0])
    if "flip" in given:
        flip = np.broadcast_to(given["flip"] != 0, w.shape[0])
        down = flip.reshape(-1, *[1] * (w.ndim - 1))
        w, t = w ^ down if w.dtype.kind == "b" else np.where(down, -w, w), np.where(flip, -t, t)
    return w, t


def _levels(
    op: Levels, params: Sequence[Value | None], acc: TensorType, y: TensorType, span: Span | None, base: dict[str, Any]
) -> tuple[dict[str, Any], tuple[Arg, ...]]:
    base |= {"kind": "levels", "largest": op.largest, "planes": y.dtype.planes if y.layout.word else 0}
    given = [None if v is None else v.array.reshape(-1) for v in params]
    flip = given[op.largest] if len(given) > op.largest else None
    flip = np.zeros(1, np.bool_) if flip is None else flip
    t = np.stack(np.broadcast_arrays(*(a for a in given[: op.largest] if a is not None), flip)[:-1])
    t = _as_accumulator(t, acc, np.broadcast_to(flip, t.shape))
    found = line(t, *(np.broadcast_to(s, t.shape[1]) for s in span)) if span and not flip.any() else None
    if found:
        slope, start = _narrow(found.slope), _narrow(found.start)
        base |= {"shift": found.shift, "slope_size": slope.size, "intercept_size": start.size}
        return base, (Arg("slope", Packed(slope, "slope")), Arg("intercept", Packed(start, "intercept")))
    rows = steps(t)
    halves = [1 << i for i in reversed(range(len(t).bit_length()))]
    base |= {"shift": None, "t_t": from_numpy(rows.dtype).c_type, "t_size": len(rows), "halves": halves}
    args = [Arg("t", Packed(rows.reshape(-1), "t"))]
    if flip.any():
        args.append(Arg("flip", Packed(_plain("flip", flip), "flip")))
        base |= {"flip": True, "flip_size": flip.size}
    return base, tuple(args)


def _narrow(values: Array) -> Array:
    """In 16 bits if they fit; one element if all are equal."""
    short: Array = values[:1] if (values == values[0]).all() else values
    return short.astype(np.int16) if (abs(short.astype(np.int64)) < 2**15).all() else short


def _bound(value: np.float32) -> float | None:
    return float(value) if np.isfinite(value) else None


def _plain(name: str, array: Array) -> Array:
    return array.astype(np.uint8 if name == "flip" else np.float32)


def _as_accumulator(t: Array, acc: TensorType, flip: Array) -> Array:
    """Thresholds in the accumulator's type, the narrowest that holds them. On integers ``acc < t`` is
    ``acc < ceil(t)``, and where comparisons are flipped ``acc > t`` is ``acc > floor(t)``."""
    if acc.dtype.is_float:
        return t.astype(np.float32)
    real = t.astype(np.float64)
    whole = np.where(flip, np.floor(real), np.ceil(real))
    bounds = np.iinfo(np.int32)
    whole = np.clip(np.nan_to_num(whole, nan=bounds.min, posinf=bounds.max, neginf=bounds.min), bounds.min, bounds.max)
    result: Array = whole.astype(np.int32)
    return result.astype(np.int16) if (abs(result.astype(np.int64)) < 2**15).all() else result
