"""Values, nodes and graphs. Immutable: a pass builds a new graph (models have hundreds of nodes, so this is free)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitc.ir.box import Box
from bitc.ir.types import TensorType

Array = NDArray[Any]


class Op:
    """An operator: a frozen dataclass whose fields are its attributes. One class per operator, in ``bitc.ops``.

    Subclasses define `infer` and `reference`; what else a pass or a kernel needs to know of an operator (is it
    elementwise, is it monotone) is answered by the class too, so that no code branches on an operator's name.
    """

    @property
    def name(self) -> str:
        return type(self).__name__

    def input_window(self, output: Box, index: int) -> Box | None:
        """The pixels of computed input `index`, an image ``[N, H, W, C]``, that the pixels `output` of output 0 depend
        on; it may reach over the edges. None: on more than a window, or the operator does not work on images."""
        return None

    def on_window(self, pads: tuple[int, int, int, int], size: tuple[int, int]) -> Op:
        """The operator that makes of an input window what this one makes of it within the whole image: `size` rows and
        columns. The window has lost `pads` (top, left, bottom, right) at the image's edges."""
        return self

    def on_channels(self, start: int, stop: int, of: int, constants: Sequence[Array | None]) -> Channels | None:
        """What computes channels [start, stop) of the `of` channels of output 0: the operator and its constants
        (`constants` holds None for computed inputs). None: not known."""
        return None

    @property
    def strides_over_image(self) -> bool:
        """Whether the kernel finds a window in the whole image by itself, from its first pixel on; others get windows
        as dense tensors."""
        return False

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        """Output types for these input types (None: an optional input that is absent)."""
        raise NotImplementedError(self.name)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        """Evaluate on numpy arrays: reals for dense types, codes for packed ones (bit1: 0/1, tern: -1/0/1)."""
        raise NotImplementedError(self.name)


@dataclass(frozen=True)
class Channels:
    """An operator on some channels. Its computed inputs are those channels alone, or all of them if `all_inputs`."""

    op: Op
    constants: tuple[Array | None, ...]
    all_inputs: bool = False


def last_axis(constants: Sequence[Array | None], start: int, stop: int, of: int) -> tuple[Array | None, ...]:
    """Constants that broadcast over channels, cut to some of them."""
    return tuple(a if a is None or not a.ndim or a.shape[-1] != of else a[..., start:stop] for a in constants)


@dataclass(frozen=True)
class Origin:
    """Which tensor of the ONNX model a value is, seen through view steps.

    The value equals the ONNX tensor after `steps`, each ("reshape", shape) or ("transpose", permutation), up to the
    value's `Quant`.
    """

    tensor: str
    steps: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def then(self, kind: str, argument: Sequence[int]) -> Origin:
        return Origin(self.tensor, (*self.steps, (kind, tuple(int(a) for a in argument))))

    def view(self, array: Array) -> Array:
        """Bring an array of the ONNX tensor's shape into the value's shape."""
        for kind, argument in self.steps:
            array = array.reshape(argument) if kind == "reshape" else array.transpose(argument)
        return array


@dataclass(eq=False)
class Value:
    """A tensor in a graph, compared by identity. `data` is set for constants (codes for packed types)."""

    name: str
    type: TensorType
    data: Array | None = field(default=None, repr=False)
    origin: Origin | None = field(default=None, repr=False)

    @property
    def is_const(self) -> bool:
        return self.data is not None

    @property
    def array(self) -> Array:
        """The data of a constant."""
        assert self.data is not None, f"{self.name} is not a constant"
        return self.data

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape


@dataclass(frozen=True, eq=False)
class Node:
    """One application of an operator. `origin` is the ONNX node's name, for messages."""

    op: Op
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    origin: str = ""

    @property
    def output(self) -> Value:
        return self.outputs[0]

    def input(self, index: int) -> Value:
        """Input `index`, which must be present."""
        value = self.inputs[index]
        assert value is not None, f"{self.op.name} at {self.origin}: input {index} is absent"
        return value

    def __str__(self) -> str:
        ins = ", ".join("-" if v is None else v.name for v in self.inputs)
        outs = ", ".join(f"{v.name}: {v.type}" for v in self.outputs)
        return f"{outs} = {self.op}({ins})"


@dataclass(frozen=True, eq=False)
class Graph:
    """A model: nodes in topological order. `inputs` and `outputs` keep the ONNX names."""

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    nodes: tuple[Node, ...]

    @cached_property
    def producers(self) -> dict[Value, Node]:
        return {v: n for n in self.nodes for v in n.outputs}

    @cached_property
    def consumers(self) -> dict[Value, list[Node]]:
        table: dict[Value, list[Node]] = {}
        for n in self.nodes:
            for v in dict.fromkeys(n.inputs):
                if v is not None:
                    table.setdefault(v, []).append(n)
        return table

    def uses(self, value: Value) -> int:
        """How many nodes and graph outputs read a value."""
        return len(self.consumers.get(value, ())) + sum(o is value for o in self.outputs)

    def constants(self) -> Iterator[Value]:
        """Every constant once, in order of first use."""
        seen: set[Value] = set()
        for n in self.nodes:
            for v in n.inputs:
                if v is not None and v.is_const and v not in seen:
                    seen.add(v)
                    yield v
        for v in self.outputs:
            if v.is_const and v not in seen:
                seen.add(v)
                yield v


def constant(name: str, array: Array, type: TensorType | None = None) -> Value:
    """A constant value; `type` defaults to the dense type of the array."""
    from bitc.ir.types import type_of

    data = np.ascontiguousarray(array).reshape(np.shape(array))
    data.flags.writeable = False
    return Value(name, type or type_of(data), data)
