"""Epilogues as template context and arguments: what the C does between an accumulator and the output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bitc.ir.graph import Array, Value
from bitc.ir.types import TensorType
from bitc.kernels.step import Arg, Packed
from bitc.ops.epilogue import Affine, Epilogue, TernThreshold, Threshold


def epilogue(
    op: Epilogue | None, params: Sequence[Value | None], acc: TensorType, y: TensorType
) -> tuple[dict[str, Any], tuple[Arg, ...]]:
    """Context `e` of ``epilogue.j2`` and the parameter arguments."""
    word = y.layout.word
    base: dict[str, Any] = {
        "kind": "raw",
        "float_acc": acc.dtype.is_float,
        "acc_t": acc.dtype.c_type,
        "word": word,
        "out_t": f"uint{word}_t" if word else y.dtype.c_type,
        "bits_t": "uint64_t" if word == 64 else "uint32_t",
        "words": y.words_per_plane if word else 0,
        "flip": False,
    }
    if op is None:
        return base, ()
    args: list[Arg] = []
    given = dict(zip(op.param_names, params, strict=False)).get("flip")
    flip = given.array if given is not None else np.zeros(1, np.bool_)
    for name, value in zip(op.param_names, params, strict=False):
        if value is None or (name == "flip" and value.is_const and not value.array.any()):
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
