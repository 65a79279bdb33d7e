"""What kernel rows are made of: variants, and the steps that they build."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bitc.ir.dtypes import from_numpy
from bitc.ir.graph import Array, Node, Op, Value
from bitc.ir.program import Call, Function, Overlap, Param, Place, c_type
from bitc.ir.types import TensorType
from bitc.ops.epilogue import bases
from bitc.ops.linear import Conv2D
from bitc.target import Target


@dataclass(frozen=True, eq=False)
class Packed:
    """A constant made by a weight packer: an array of the C type."""

    data: Array
    name: str = "w"
    is_weight: bool = True
    """Whether it counts as weights of the layer, rather than as a table of the kernel."""


@dataclass(frozen=True, eq=False)
class Scratch:
    """Memory for the time of one call."""

    type: TensorType


Operand = Value | Packed | Scratch


@dataclass(frozen=True, eq=False)
class Arg:
    """One argument: the C parameter's name and what is passed."""

    name: str
    operand: Operand
    written: bool = False
    overlay: bool = False
    """Whether it may share memory with another argument: no `restrict`, and stores that may alias other types."""
    c_type: str = ""
    """The C type through which the memory is seen, if not its own."""

    @property
    def param(self) -> Param:
        if isinstance(self.operand, Packed):
            return Param(self.name, from_numpy(self.operand.data.dtype).c_type)
        c = self.c_type or c_type(self.operand.type)
        # No restrict on working memory, which is read through other types than it is written: GCC 12 reorders the
        # two (SLP vectorizer, -O2) if the pointer is restrict.
        plain = self.overlay or isinstance(self.operand, Scratch)
        return Param(self.name, _ALIASING.get(c, c) if self.overlay else c, not self.written, not plain)


_BYTES = {"int8_t", "uint8_t"}
_ALIASING = {"uint16_t": "bitc_u16", "uint32_t": "bitc_u32", "uint64_t": "bitc_u64", "float": "bitc_f32"}
"""Types of runtime_c/bitc_defs.h with which stores may alias loads of another type."""


@dataclass(frozen=True)
class Part:
    """A part of a tensor: it starts at byte `at`, and its rows are `row` C objects apart, or adjacent if that is 0."""

    at: int
    row: int = 0


@dataclass(frozen=True, eq=False)
class Step:
    """One call of a specialised C function."""

    kernel: str
    template: str
    args: tuple[Arg, ...]
    context: dict[str, Any]
    uses: tuple[str, ...] = ()
    overlaps: tuple[tuple[str, Overlap], ...] = ()
    """Arguments over which the first one, which is written, may lie."""
    part: Part | None = None
    """Set for a copy of the second argument into the first one, unchanged: where it goes. Made there at once, it need
    not be copied."""

    @property
    def function(self) -> Function:
        return Function(self.kernel, self.template, tuple(a.param for a in self.args), self.context, self.uses)

    def call(self, function: Function, args: tuple[Place, ...], layer: int) -> Call:
        """The call with these pointers."""
        writes = tuple(i for i, a in enumerate(self.args) if a.written)
        numbers = {a.name: i for i, a in enumerate(self.args)}
        overlaps = tuple((0, numbers[name], how) for name, how in self.overlaps if self._may_alias(numbers[name]))
        return Call(function, args, writes, layer, overlaps)

    def _may_alias(self, index: int) -> bool:
        """Whether C allows that the output is stored where an argument is read: through one type, or through bytes, or
        through types made for that."""
        y, x = self.args[0], self.args[index]
        types = {y.param.c_type, x.param.c_type}
        return len(types) == 1 or bool(types & _BYTES) or (y.overlay and x.overlay)


@dataclass(frozen=True)
class View:
    """No code: output 0 shares the memory of input 0, from byte `offset` on."""

    offset: int = 0


Built = tuple[Step, ...] | View


@dataclass(frozen=True)
class Variant:
    """A kernel row: which nodes it takes, at what cost, and how it is built."""

    name: str
    ops: tuple[type[Op], ...]
    accepts: Callable[[Node, Target], str]
    """Empty if the row takes the node, else the reason why not."""
    build: Callable[[Node, Target], Built]
    cost: Callable[[Node, Target], float] = field(default=lambda node, target: 1.0)
    """Rough instructions, for targets without measured prices; the cheapest row that accepts wins."""
    work: Callable[[Node, Target], Mapping[str, float]] | None = None
    """What it does for a node, in terms that `bitc.kernels.costs` prices; None if only `cost` is known."""
    like: str = ""
    """Name of the row whose prices hold for this one, if it has none of its own."""
    apart: str = ""
    """Which rows may lie apart (`Layout.pitch`): those that it reads ("x"), of its output ("y"), or both ("xy")."""
    sums_bases: bool = False
    """Whether it takes convolutions with several accumulators for each output (`Bases`)."""

    def refuses(self, node: Node, target: Target) -> str:
        """Empty if the row takes the node, else the reason why not."""
        if not isinstance(node.op, self.ops):
            return f"{node.op.name} is not for it"
        if not self.sums_bases and isinstance(node.op, Conv2D) and bases(node.op.epilogue) > 1:
            return "each output is a sum of several accumulators"
        if any(v is not None and v.type.layout.pitch for v in node.inputs) and "x" not in self.apart:
            return "rows of an operand lie apart"
        if isinstance(node.op, Conv2D) and node.op.planar and node.input(0).type.layout.pitch:
            return "rows of planes lie apart"
        if any(v.type.layout.pitch for v in node.outputs) and "y" not in self.apart:
            return "rows of the output lie apart"
        return self.accepts(node, target)


def always(node: Node, target: Target) -> str:
    return ""


def out(node: Node, overlay: bool = False) -> Arg:
    """The argument `y` for the output of a node."""
    return Arg("y", node.output, written=True, overlay=overlay)


def over_x(how: Sequence[Overlap]) -> tuple[tuple[str, Overlap], ...]:
    """The output over the argument `x`."""
    return tuple(("x", o) for o in how)


def scratch(name: str, elements: int, numpy_type: type) -> Arg:
    """Working memory of `elements` objects."""
    return Arg(name, Scratch(TensorType((elements,), from_numpy(np.dtype(numpy_type)))), written=True)


def first_reason(*checks: tuple[bool, str]) -> str:
    """The reason of the first check that is false, or an empty text."""
    return next((reason for ok, reason in checks if not ok), "")


def product(shape: Sequence[int]) -> int:
    total = 1
    for d in shape:
        total *= d
    return total
