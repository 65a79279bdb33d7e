"""The members of the input and output structs, and what the header says about each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from bitc.ir.program import Buffer, c_size
from bitc.ir.types import TensorType
from bitc.kernels.literals import Names, c_float


@dataclass(frozen=True)
class Member:
    """One array of a struct."""

    name: str
    upper: str
    c_type: str
    size: int
    shape: str
    rank: int
    text: str
    nbytes: int
    """Of the array; one of no elements has one that is not used, as C wants it."""
    scale: str = ""
    """Literals of the affine map of a quantized tensor: real = scale * (code - zero_point); empty if there is none."""
    zero_point: str = ""
    low: int = 0
    high: int = 0


def members(buffers: Sequence[Buffer], lengths: Mapping[str, tuple[int, str]] = MappingProxyType({})) -> list[Member]:
    """A member per buffer. `lengths`: of those that are as long as the data says, the axis and where the length is."""
    names = Names()
    taken = {b.name: names.unique(b.name) for b in buffers}
    notes = {n: f"; {taken[count]}[0] says how many entries of axis {axis} there are, the others are 0"
             for n, (axis, count) in lengths.items() if count in taken}  # fmt: skip
    return [_member(taken[b.name], b.type, b.c_type, b.name, notes.get(b.name, "")) for b in buffers]


def _member(name: str, t: TensorType, c_type: str, original: str, note: str) -> Member:
    shape = ", ".join(map(str, t.shape)) or "1"
    text = f"{original}: {t}{note}".replace("*/", "* /")
    plain = (name, name.upper(), c_type, max(c_size(t), 1), shape, t.rank, text, max(t.nbytes, t.alignment))
    q = t.quant
    if q is None or not q.per_tensor or t.dtype.is_packed or not t.dtype.is_integer or t.dtype.bits > 16:
        return Member(*plain)
    zero_point = -q.offset[0] / q.scale[0]
    return Member(*plain, c_float(q.scale[0]), c_float(zero_point), int(t.dtype.min), int(t.dtype.max))
