"""What an importer function sees of the node it imports, and how it emits IR."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np
from onnx import NodeProto

from bitc.errors import InvalidModel
from bitc.frontend.attributes import Attributes
from bitc.frontend.tensors import LIMIT_BYTES, carried
from bitc.ir import BOOL, FLOAT32, DType, Op, TensorType, Value
from bitc.ir.graph import Array
from bitc.ir.rewrite import Builder
from bitc.ops.linear import MatMul
from bitc.ops.unary import Cast

FOLD_BYTES = 2 << 30
FOLD_PRODUCTS = 1 << 31
SMALL = 64
"""Elements of an input that may be a shape, axes or a count."""


class Refused(Exception):
    """A node that can not be imported, with the reason and a hint. The walk catches it, to report all at once."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True)
class Extent:
    """Of a tensor that is as long as the data says: only the first `count` (an int32 scalar) entries at `axis` are
    there. Behind them lie zeros if it is `zeroed`, else anything."""

    axis: int
    count: Value
    zeroed: bool = False


@dataclass
class Session:
    """State of one import that all nodes share."""

    builder: Builder
    folder: Path | None
    notices: dict[str, None] = field(default_factory=dict)
    inputs: dict[Value, str] = field(default_factory=dict)
    """The model's inputs with their ONNX names."""
    folded_bytes: int = 0
    elements: dict[Value, int] = field(default_factory=dict)
    """ONNX element types of inputs, initializers and casts: bitc holds several in one dtype."""
    extents: dict[Value, Extent] = field(default_factory=dict)
    """Tensors that are as long as the data says."""
    bounds: dict[Value, Array] = field(default_factory=dict)
    """The greatest values that sizes of such tensors can have."""

    def not_constant(self, value: Value, what: str) -> Refused:
        """Why a value, which is not constant, can not be `what`. Where only small inputs stand behind it, the hint says
        how to give these at compile time."""
        sources = self._sources(value)
        if value in self.inputs:
            reason = f"{what} is the model's input {self.inputs[value]!r}"
        else:
            reason = f"{what} is computed at run time"
        if value not in self.inputs and any(v.type.size > SMALL for v in sources):
            return Refused(reason, "make it a constant, or fix the shapes and export again")
        given = " ".join(f"--const {self.inputs[v]}=VALUE" for v in sources)
        return Refused(reason, f"give it at compile time: {given}")

    def _sources(self, value: Value) -> list[Value]:
        """The model's inputs that a value is computed from."""
        makers = {o: n for n in self.builder.nodes for o in n.outputs}
        seen: dict[Value, None] = {}
        pending = [value]
        while pending:
            v = pending.pop()
            if v not in seen:
                seen[v] = None
                pending += [i for i in makers[v].inputs if i is not None] if v in makers else []
        return [v for v in self.inputs if v in seen]

    def notice(self, text: str) -> None:
        """Tell the user something once."""
        self.notices.setdefault(text)

    def charge(self, t: TensorType, where: str) -> None:
        """Refuse a folded tensor that is absurdly large before it is computed."""
        check_size(t, where)
        self.folded_bytes += t.nbytes
        if self.folded_bytes > FOLD_BYTES:
            raise InvalidModel("constant subgraphs need more than 2 GiB", where=where, hint="fold them before export")


def check_size(t: TensorType, where: str) -> None:
    """Raise InvalidModel for a tensor that is absurdly large or has a negative dimension."""
    if min(t.shape, default=0) < 0 or t.nbytes > LIMIT_BYTES:
        raise InvalidModel(f"makes a tensor of {t}", where=where, hint="the limit is 512 MiB per tensor")


class Context:
    """One ONNX node being imported.

    `emit` folds: an operator whose inputs are all constant is evaluated on the spot, so importers need not care
    whether they work on weights or on activations.
    """

    def __init__(
        self,
        session: Session,
        node: NodeProto,
        opset: int,
        inputs: Sequence[Value | None],
        wanted: Sequence[bool],
        at: str,
    ) -> None:
        self.session = session
        self.node = node
        self.opset = opset
        self.inputs = tuple(inputs)
        self.attrs = Attributes(node, at)
        self.at = at
        self._wanted = wanted

    def within(self, session: Session) -> Context:
        """The same node, emitting elsewhere."""
        other = copy(self)
        other.session = session
        return other

    def invalid(self, what: str) -> InvalidModel:
        return InvalidModel(what, where=self.at, hint="the node is malformed; export the model again")

    def wanted(self, index: int) -> bool:
        """Whether output `index` is read by anything."""
        return index < len(self._wanted) and self._wanted[index]

    # Inputs

    def extent(self, value: Value | None) -> Extent | None:
        """How long a tensor is whose length depends on the data."""
        return None if value is None else self.session.extents.get(value)

    def optional(self, index: int) -> Value | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def input(self, index: int = 0) -> Value:
        value = self.optional(index)
        if value is None:
            raise self.invalid(f"input {index} is missing")
        return value

    def floats(self, index: int = 0) -> Value:
        """Input `index`, which must be a float tensor."""
        value = self.input(index)
        if not value.type.dtype.is_float:
            raise Refused(f"input {index} is {value.type.dtype}; only float is supported", "cast it to float")
        return value

    def number(self, index: int = 0) -> Value:
        """Input `index`, which must not be bool."""
        value = self.input(index)
        if value.type.dtype is BOOL:
            raise self.invalid(f"input {index} is bool")
        return value

    def array(self, index: int, what: str) -> Array:
        """The data of input `index`, which must be constant; `what` says what it is."""
        value = self.input(index)
        if not value.is_const:
            raise self.session.not_constant(value, what)
        return value.array

    def optional_array(self, index: int, what: str) -> Array | None:
        return None if self.optional(index) is None else self.array(index, what)

    def ints(self, index: int, what: str) -> tuple[int, ...]:
        """A constant list of integers."""
        array = self.array(index, what)
        if array.dtype.kind not in "iu" or array.ndim > 1:
            raise self.invalid(f"{what} must be a list of integers")
        if array.size > 64:
            raise self.invalid(f"{what} has {array.size} entries")
        return tuple(int(i) for i in array.reshape(-1))

    def axis(self, axis: int, rank: int) -> int:
        """An axis counted from the front. Raises InvalidModel if it is out of range."""
        if not -rank <= axis < rank:
            raise self.invalid(f"axis {axis} of a tensor of rank {rank}")
        return axis + rank if axis < 0 else axis

    def axes(self, axes: Sequence[int], rank: int) -> tuple[int, ...]:
        """Distinct axes counted from the front, sorted."""
        found = sorted(self.axis(a, rank) for a in axes)
        if len(set(found)) < len(found):
            raise self.invalid(f"axes {list(axes)} repeat")
        return tuple(found)

    # Outputs

    def const(self, array: Array | float | Sequence[int], dtype: DType | None = None) -> Value:
        """A constant; Python floats become float32."""
        data = carried(np.asarray(array, np.float32 if isinstance(array, float) else None))
        if dtype is not None:
            data = data.astype(dtype.carrier)
        return self.session.builder.const(data, "const")

    def scalar(self, value: float, like: Value) -> Value:
        """A constant scalar of the dtype of `like`."""
        return self.const(np.array(value, like.type.dtype.carrier))

    def emit(self, op: Op, *inputs: Value | None) -> Value:
        """Apply an operator with one output; evaluated now if all inputs are constant, or nothing is computed."""
        types = op.infer(*(None if v is None else v.type for v in inputs))
        if not types[0].size:
            return self.const(np.zeros(types[0].shape, types[0].dtype.carrier))
        if not all(v is None or v.is_const for v in inputs):
            check_size(types[0], self.at)
            return self.session.builder.emit(op, *inputs, at=self.at)
        self.session.charge(types[0], self.at)
        if isinstance(op, MatMul) and types[0].size * (inputs[0].shape[-1] if inputs[0] else 0) > FOLD_PRODUCTS:
            raise Refused("the product of these constants is too large to fold", "fold it before export")
        with np.errstate(all="ignore"):
            (result,) = op.reference(*(None if v is None else v.data for v in inputs))
        return self.session.builder.const(np.asarray(result, types[0].dtype.carrier), "const")

    def emit_all(self, op: Op, *inputs: Value | None) -> tuple[Value, ...]:
        """Apply an operator with several outputs; evaluated now if all inputs are constant."""
        types = op.infer(*(None if v is None else v.type for v in inputs))
        if not all(v is None or v.is_const for v in inputs):
            for t in types:
                check_size(t, self.at)
            return self.session.builder.emit_all(op, inputs, self.at)
        for t in types:
            self.session.charge(t, self.at)
        with np.errstate(all="ignore"):
            results = op.reference(*(None if v is None else v.data for v in inputs))
        return tuple(
            self.session.builder.const(np.asarray(r, t.dtype.carrier), "const")
            for r, t in zip(results, types, strict=True)
        )

    def cast(self, value: Value, dtype: DType) -> Value:
        return value if value.type.dtype is dtype else self.emit(Cast(dtype), value)

    def to_float(self, value: Value) -> Value:
        return self.cast(value, FLOAT32)

    def check_elements(self, shape: Sequence[int], itemsize: int = 8) -> None:
        """Refuse a shape that is absurdly large before numpy allocates it."""
        if min(shape, default=0) < 0 or prod(shape) * itemsize > LIMIT_BYTES:
            raise self.invalid(f"makes a tensor of shape {list(shape)}; the limit is 512 MiB")


Importer = Callable[[Context], Value | Sequence[Value]]
"""Imports one node: returns the values of its outputs, in order."""
Table = dict[tuple[str, str], Importer]
"""Importers by (domain, operator); QONNX's domains are all "qonnx" here."""
