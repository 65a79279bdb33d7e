"""A program: calls of C functions on buffers, in order, and loops of them. What lowering makes of a graph and its
schedule, and what codegen prints."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bitc.ir.graph import Array, Value
from bitc.ir.types import TensorType


class Kind(enum.Enum):
    """Where a buffer lives: in the caller's input or output struct, in the row that the caller gives, in the arena, in
    the part of the arena that keeps its contents between runs, or in flash."""

    INPUT = "input"
    ROW = "row"
    OUTPUT = "output"
    ARENA = "arena"
    STATE = "state"
    CONST = "const"


@dataclass(frozen=True, eq=False)
class Buffer:
    """Memory of one value, compared by identity.

    A view has a `base`, whose memory it shares from byte `offset` on. The `data` of a CONST buffer is what is stored:
    an array of the C type (packed weights are arrays of words).
    """

    name: str
    type: TensorType
    kind: Kind
    base: Buffer | None = None
    data: Array | None = field(default=None, repr=False)
    is_scratch: bool = False
    min_alignment: int = 1
    """Bytes to which the memory is aligned in any case."""
    offset: int = 0
    """Where a view starts in its base, in bytes."""

    @property
    def root(self) -> Buffer:
        """The buffer that owns the memory."""
        return self.base.root if self.base else self

    @property
    def start(self) -> int:
        """Where it starts in its root, in bytes."""
        return self.base.start + self.offset if self.base else 0

    @property
    def alignment(self) -> int:
        """Bytes to which the first element is aligned."""
        return max(self.type.alignment, self.min_alignment)

    @property
    def array(self) -> Array:
        assert self.data is not None, self.name
        return self.data

    @property
    def c_type(self) -> str:
        """C type of one element, or of one word of a packed tensor."""
        return c_type(self.type)


def c_type(t: TensorType) -> str:
    """C type of one element of a tensor, or of one word if it is packed."""
    return f"uint{t.layout.word}_t" if t.layout.word else t.dtype.c_type


def c_size(t: TensorType) -> int:
    """Number of C objects of `c_type` in a tensor."""
    return t.rows * t.row_words if t.layout.word else t.size


def struct_layout(types: Sequence[TensorType]) -> tuple[list[int], int, int]:
    """A C struct of arrays: where each starts, and the size and alignment of all, in bytes. An array has one element at
    least."""
    offsets, at, align = list[int](), 0, 1
    for t in types:
        align = max(align, t.alignment)
        offsets.append(-(-at // t.alignment) * t.alignment)
        at = offsets[-1] + max(t.nbytes, t.alignment)
    return offsets, max(-(-at // align) * align, 1), align


@dataclass(frozen=True)
class Param:
    """A pointer parameter of a kernel function."""

    name: str
    c_type: str
    is_const: bool = True
    restrict: bool = True

    def __str__(self) -> str:
        return f"{'const ' if self.is_const else ''}{self.c_type} *{'restrict ' if self.restrict else ''}{self.name}"


@dataclass(frozen=True, eq=False)
class Function:
    """One specialised C function: the body is `template` rendered with `context`, the head comes from `params`."""

    kernel: str
    """Name of the kernel row, the stem of the C name."""
    template: str
    params: tuple[Param, ...]
    context: Mapping[str, Any]
    uses: tuple[str, ...] = ()
    """What the body needs: headers of runtime_c ("bitc_math.h") and ISA templates ("isa/….j2")."""


@dataclass(frozen=True)
class Place:
    """A pointer: so many bytes into a buffer, and with each iteration of the enclosing loops further."""

    buffer: Buffer
    offset: int = 0
    steps: tuple[int, ...] = ()
    """Bytes per iteration of each enclosing loop, outermost first; empty: none."""

    @property
    def within(self) -> Buffer:
        """What it may point into: its buffer, or all that the buffer is a part of if it moves."""
        return self.buffer.root if any(self.steps) else self.buffer

    @property
    def is_start(self) -> bool:
        """Whether it is always the buffer's first byte."""
        return not self.offset and not any(self.steps)


@dataclass(frozen=True)
class Overlap:
    """What a kernel writes may lie over an input: it starts `lead` bytes after the input, or any number of times `step`
    bytes before that. (Or beyond the input's end, as always.) `lead` may be negative."""

    lead: int
    step: int = 1


@dataclass(frozen=True, eq=False)
class Call:
    """A call of `function`; `writes` numbers the arguments that it writes."""

    function: Function
    args: tuple[Place, ...]
    writes: tuple[int, ...]
    layer: int
    """Index into `Program.layers`."""
    overlaps: tuple[tuple[int, int, Overlap], ...] = ()
    """(written, read, how): arguments that may share memory if what is read dies here."""

    @property
    def written(self) -> tuple[Buffer, ...]:
        return tuple(self.args[i].buffer for i in self.writes)

    @property
    def read(self) -> tuple[Buffer, ...]:
        return tuple(p.buffer for i, p in enumerate(self.args) if i not in self.writes)


@dataclass(frozen=True, eq=False)
class Loop:
    """`body`, `count` times; with a `condition`, only while that bool is true."""

    count: int
    body: tuple[Item, ...]
    condition: Place | None = None


@dataclass(frozen=True, eq=False)
class Done:
    """A layer is finished and its output complete in `buffer`: where a hook may look, unless its rows lie `apart`."""

    layer: int
    buffer: Buffer
    apart: bool = False


@dataclass(frozen=True)
class NextRow:
    """Go on with the next row of the input, as soon as the caller gives it."""


Item = Call | Loop | Done | NextRow


@dataclass(frozen=True)
class Layer:
    """One node of the graph, for comments, reports and hooks."""

    name: str
    """The ONNX node."""
    op: str
    kernel: str
    kind: str
    """What is multiplied: binary, ternary, lowbit (small numbers in bit planes), int8 or float."""
    macs: int
    weights_bytes: int
    text: str
    """Types of the activations, e.g. ``bit1[1x8x8x64] -> bit1[1x8x8x64]``."""
    predicted: int | None = None
    """Instructions, or fuel in WebAssembly, that the cost model predicts; None if it has no prices for this."""
    rejected: tuple[tuple[str, str], ...] = ()
    """Kernels that were not taken, each with the reason."""
    recomputed: int = 0
    """Multiply-accumulates beyond `macs`, where tiles overlap."""
    value: str = ""
    """What it makes."""


@dataclass(frozen=True, eq=False)
class Program:
    name: str
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    body: tuple[Item, ...]
    layers: tuple[Layer, ...]
    values: Mapping[Value, Buffer] = field(repr=False)
    """Where each computed value of the graph is."""
    states: tuple[Buffer, ...] = ()
    """What a run leaves for the next, zeros at first."""
    row: Buffer | None = None
    """One row of the only input, where the input is given by rows; it is an image of pixels then."""
    progress: Buffer | None = None
    """How far an image that comes by rows is: int32, where in the program, then a counter per loop around NextRow."""

    @property
    def kept(self) -> tuple[Buffer, ...]:
        """What the arena keeps from one call to the next, zeros at first."""
        return self.states + ((self.progress,) if self.progress else ())

    @property
    def given_bytes(self) -> int:
        """Bytes that the caller holds as input at a time, outside the arena."""
        if self.input:
            return 0
        return sum(b.type.nbytes for b in ((self.row,) if self.row else self.inputs))

    @property
    def input(self) -> Buffer | None:
        """The struct of the inputs, if it lies in the arena."""
        return next((b.root for b in self.inputs if b.root.kind is Kind.ARENA), None)

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call once, as the text of the program has them."""
        return tuple(item for item in walk(self.body) if isinstance(item, Call))

    @property
    def finished(self) -> tuple[Done, ...]:
        """The layers whose output is whole at some time, in order."""
        return tuple(item for item in walk(self.body) if isinstance(item, Done))

    def loops(self) -> Iterator[tuple[int, int]]:
        """First and last call of each loop, as indices into `calls`; inner loops before outer ones."""
        return _loops(self.body, 0)

    def buffers(self) -> Iterator[Buffer]:
        """Every buffer that a call touches, once, in order of first use."""
        seen: set[Buffer] = set()
        for call in self.calls:
            for b in (p.buffer for p in call.args):
                if b not in seen:
                    seen.add(b)
                    yield b

    @property
    def weights_bytes(self) -> int:
        """Bytes of constants, identical ones counted once."""
        return sum(len(blob) for blob in {b.root.array.tobytes() for b in self.buffers() if b.kind is Kind.CONST})


def walk(items: Iterable[Item]) -> Iterator[Item]:
    """Items and what is in them, in order."""
    for item in items:
        yield item
        if isinstance(item, Loop):
            yield from walk(item.body)


def _loops(items: Iterable[Item], start: int) -> Iterator[tuple[int, int]]:
    for item in items:
        inside = sum(isinstance(i, Call) for i in walk([item]))
        if isinstance(item, Loop) and inside:
            yield from _loops(item.body, start)
            yield start, start + inside - 1
        start += inside
