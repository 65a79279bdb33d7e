"""Tensors of codes: what they mean, and the arithmetic on them that passes do at compile time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bitc.ir.dtypes import INT8, INT16, UINT8, UINT16, DType
from bitc.ir.graph import Array, Node, Value
from bitc.ir.rewrite import Rewriter
from bitc.ops.epilogue import Requant
from bitc.passes.stairs import EVEN, ROUNDS, Stairs, climb
from bitc.passes.weights import integers

NEAR = 1e-3
"""Distance from a code that float32 scales explain."""


@dataclass(frozen=True)
class Coded:
    """A tensor of reals as ``scale * (value - zero)``."""

    value: Value
    scale: float
    zero: int

    @property
    def reach(self) -> int:
        """The largest magnitude of ``value - zero``."""
        dtype = self.value.type.dtype
        return max(abs(int(dtype.min) - self.zero), abs(int(dtype.max) - self.zero))


def is_codes(dtype: DType) -> bool:
    """Whether tensors of this type hold codes of 8 or 16 bits."""
    return dtype.is_code and not dtype.is_packed and dtype.bits <= 16


def fraction(factor: Array, most: Array | int = 62) -> tuple[Array, Array] | None:
    """Positive float32 factors as ``multiplier / 2**shift``, shift at most `most`; None if one is out of range."""
    mantissa, exponent = np.frexp(factor.astype(np.float32))
    multiplier, shift = (mantissa * 2.0**24).astype(np.int64), 24 - exponent.astype(np.int64)
    small = np.maximum(shift - most, 0)
    multiplier, shift = multiplier >> np.minimum(small, 62), np.minimum(shift, most)
    return None if (shift < 0).any() or (factor < 0).any() else (multiplier, shift)


def constant(rw: Rewriter, v: Value) -> Coded | None:
    """A constant that is integers times a scale."""
    found = integers(v.array[None]) if v.array.dtype.kind == "f" else None
    if found is None:
        return None
    return Coded(rw.const(found.codes[0], f"{v.name}.codes"), float(found.scale[0]), 0)


def scalar(rw: Rewriter, v: Value) -> Value:
    """A constant of one element as a scalar, which broadcasts to any rank."""
    return rw.const(v.array.reshape(()), v.name) if v.type.size == 1 else v


def all_codes(dtype: DType) -> Array:
    """Every code of a type, ascending."""
    return np.arange(dtype.min, dtype.max + 1).astype(dtype.carrier)


def codes_of(x: Array, nodes: Sequence[Node], s: Stairs, want: Requant) -> Array | None:
    """Codes of a vector of values of a staircase's root, of the same function for all channels; None if some is not
    finite."""
    with np.errstate(all="ignore"):
        for node in nodes:
            args = [v if v is None else v.array.reshape(-1) if v.is_const else x for v in node.inputs]
            (x,) = node.op.reference(*args)
        steps = np.rint((x.astype(np.float64) - s.offset) / s.scale)
    return want.finish(steps.astype(np.int64)) if np.isfinite(steps).all() else None


def code_of(real: float, nodes: Sequence[Node], s: Stairs, want: Requant) -> int:
    """The code of one value of a staircase's root."""
    codes = codes_of(np.full(1, real, np.float32), nodes, s, want)
    assert codes is not None
    return int(codes[0])


def shift_of_bias(error: float) -> str:
    """What to say of a bias that was rounded to an integer of the accumulator."""
    return f", its bias moved by up to {error:.2g} steps" if error > NEAR else ""


def quantizer(root: Value, nodes: Sequence[Node]) -> Stairs | None:
    """The staircase of the nodes if it rounds, or does not need to: codes of one quantizer in those of an equal one."""
    s = climb(root, nodes)
    if s is None or s.scale <= 0 or s.mode:
        return s if s is not None and s.scale > 0 else None
    rounds = any(isinstance(n.op, ROUNDS) for n in nodes)
    return replace(s, mode=EVEN) if rounds and s.integral(root) else None


def storage(lo: float, hi: float) -> tuple[DType, int] | None:
    """The narrowest type for the rounded numbers lo ... hi, and what is added to them to fit it; None if none does."""
    for dtype in (INT8, UINT8, INT16, UINT16):
        if dtype.min <= lo and hi <= dtype.max:
            return dtype, 0
        if hi - lo <= dtype.max - dtype.min:
            return dtype, int(dtype.min - lo)
    return None
