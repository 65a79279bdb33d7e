"""Loop nests over strided operands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitc.ir.types import TensorType


@dataclass(frozen=True)
class Dim:
    """One loop: its length, and how far each operand moves per iteration."""

    size: int
    strides: tuple[int, ...]


def nest(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> list[Dim]:
    """Loops over `shape`, with loops of one iteration dropped and loops merged where every operand allows it."""
    dims: list[Dim] = []
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        dim = Dim(size, tuple(s[axis] for s in strides))
        if dims and all(o == i * size for o, i in zip(dims[-1].strides, dim.strides, strict=True)):
            dim = Dim(dims.pop().size * size, dim.strides)
        dims.append(dim)
    return dims or [Dim(1, tuple(0 for _ in strides))]


def row_major(shape: Sequence[int], last: int = 1) -> list[int]:
    """Strides of a dense row-major tensor whose last axis has stride `last`."""
    strides: list[int] = []
    step = last
    for size in reversed(shape):
        strides.insert(0, step)
        step *= size
    return strides


def element_strides(t: TensorType) -> list[int]:
    """Strides of a tensor that is not packed."""
    return [*row_major(t.shape[:-1], t.row_step), 1] if t.shape else []


def broadcast_strides(shape: Sequence[int], to: Sequence[int], own: Sequence[int] = ()) -> list[int]:
    """Strides with which a tensor of `shape` is read over the shape `to`: 0 along broadcast axes. `own`: its strides,
    if it is not dense."""
    own = own or row_major(shape)
    missing = len(to) - len(shape)
    return [0] * missing + [0 if d == 1 else s for d, s in zip(shape, own, strict=True)]


def index(dims: Sequence[Dim], operand: int, offset: int = 0, name: str = "i") -> str:
    """The C expression of an operand's index, loop variables being i0, i1, …"""
    terms = [f"{name}{k}" if d.strides[operand] == 1 else f"{name}{k} * {d.strides[operand]}"
             for k, d in enumerate(dims) if d.strides[operand]]  # fmt: skip
    if offset or not terms:
        terms.append(str(offset))
    return " + ".join(terms)
