"""Types of the graph's inputs: fixed shapes from declared ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from bitc.errors import DynamicShape, InvalidModel, UsageError
from bitc.frontend.context import Session, check_size
from bitc.frontend.tensors import dtype_of, is_narrowed, type_name
from bitc.ir import TensorType, Value
from bitc.ir.graph import Array

_HINT = "export the model again"


def graph_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """The inputs that are not initializers."""
    constants = {t.name for t in graph.initializer}
    return [i for i in graph.input if i.name not in constants]


def with_constants(model: ModelProto, constants: Mapping[str, Array]) -> ModelProto:
    """The model with values for some of its inputs, which become initializers. Integers and floats are converted to
    the type of the input. Raises UsageError for what is no input, or does not fit it."""
    if not constants:
        return model
    out = ModelProto()
    out.CopyFrom(model)
    inputs = {i.name: i for i in graph_inputs(out.graph)}
    for name, given in constants.items():
        info = inputs.get(name)
        if info is None:
            hint = f"the inputs are: {', '.join(inputs) or 'none'}"
            raise UsageError(f"a value is given for {name!r}, which is not an input", where="--const", hint=hint)
        out.graph.initializer.append(_initializer(info, given))
        out.graph.input.remove(info)
    return out


def _initializer(info: ValueInfoProto, given: Array) -> TensorProto:
    """The value of an input as a tensor of its type."""
    where, tensor = f"--const {info.name}", info.type.tensor_type
    if not info.type.HasField("tensor_type"):
        raise UsageError("the input is not a tensor", where=where, hint="give tensors")
    dims = [d.dim_value for d in tensor.shape.dim] if tensor.HasField("shape") else list(given.shape)
    if given.ndim <= 1 and all(dims) and given.size == prod(dims):  # a list of numbers fills any shape
        given = given.reshape(dims)
    if len(dims) != given.ndim or any(d and d != g for d, g in zip(dims, given.shape, strict=True)):
        declared = "x".join(str(d) if d else "?" for d in dims) or "scalar"
        raise UsageError(
            f"the value has shape {list(given.shape)}, the input is {declared}", where=where, hint="give all elements"
        )
    try:
        wanted = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        converted = given.astype(wanted)
    except (KeyError, TypeError, ValueError) as e:
        what = f"the input has elements of {type_name(tensor.elem_type)}"
        raise UsageError(what, where=where, hint="use numbers") from e
    if converted.dtype.kind in "iub" and not np.array_equal(converted, given):
        raise UsageError(f"the value is no {converted.dtype}", where=where, hint="give whole numbers of that type")
    return numpy_helper.from_array(converted, info.name)


def input_values(session: Session, graph: GraphProto, shapes: Mapping[str, Sequence[int]]) -> dict[str, Value]:
    """A value per input, by name.

    An unknown first dimension is the batch and becomes 1. Raises DynamicShape for other unknown dimensions that
    `shapes` does not give, UsageError where `shapes` does not fit the model, InvalidModel for inputs that are not
    tensors.
    """
    inputs = graph_inputs(graph)
    names = [i.name for i in inputs]
    for name in shapes:
        if name not in names:
            hint = f"the inputs are: {', '.join(names) or 'none'}"
            raise UsageError(f"a shape is given for {name!r}, which is not an input", where="--shape", hint=hint)
    symbols: dict[str, int] = {}
    for i in inputs:
        _learn(i, shapes.get(i.name), symbols)
    values = {}
    for i in inputs:
        values[i.name] = _value(session, i, shapes.get(i.name), symbols)
    return values


def _learn(info: ValueInfoProto, given: Sequence[int] | None, symbols: dict[str, int]) -> None:
    if given is not None and info.type.tensor_type.HasField("shape"):
        for d, g in zip(info.type.tensor_type.shape.dim, given, strict=False):
            if d.dim_param:
                symbols.setdefault(d.dim_param, int(g))


def _value(session: Session, info: ValueInfoProto, given: Sequence[int] | None, symbols: Mapping[str, int]) -> Value:
    where = f"input {info.name}"
    if not info.name:
        raise InvalidModel("an input has no name", where="model", hint=_HINT)
    if not info.type.HasField("tensor_type"):
        raise InvalidModel("is not a tensor", where=where, hint="sequences, maps and optionals are not supported")
    tensor = info.type.tensor_type
    dtype = dtype_of(tensor.elem_type)
    if dtype is None:
        raise InvalidModel(f"has elements of {type_name(tensor.elem_type)}", where=where, hint="use numeric tensors")
    if is_narrowed(tensor.elem_type):
        session.notice(f"{where}: {type_name(tensor.elem_type)} becomes float32")
    if given is not None:
        shape = _given(info, given)
    elif not tensor.HasField("shape"):
        raise DynamicShape(
            "has no shape", where=where, hint=f"pass --shape {info.name}=1x3x32x32 (with its dimensions)"
        )
    else:
        shape = _resolved(session, info, symbols)
    value = Value(session.builder.unique(info.name), TensorType(shape, dtype))
    session.elements[value] = tensor.elem_type
    check_size(value.type, where)
    return value


def _given(info: ValueInfoProto, given: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(int(d) for d in given)
    text = "x".join(map(str, shape))
    if min(shape, default=1) < 1:
        raise UsageError(
            f"the shape {text} has a dimension below 1", where=f"input {info.name}", hint="use positive sizes"
        )
    if not info.type.tensor_type.HasField("shape"):
        return shape
    dims = info.type.tensor_type.shape.dim
    declared = "x".join(str(d.dim_value) if d.dim_value > 0 else d.dim_param or "?" for d in dims)
    if len(dims) != len(shape) or any(d.dim_value > 0 and d.dim_value != s for d, s in zip(dims, shape, strict=True)):
        what = f"the given shape {text} does not fit the declared {declared}"
        raise UsageError(what, where=f"input {info.name}", hint="only unknown dimensions can be given")
    return shape


def _resolved(session: Session, info: ValueInfoProto, symbols: Mapping[str, int]) -> tuple[int, ...]:
    shape = []
    dims = list(info.type.tensor_type.shape.dim)
    for axis, d in enumerate(dims):
        if d.dim_value > 0:
            shape.append(d.dim_value)
        elif d.dim_param in symbols:
            shape.append(symbols[d.dim_param])
        elif axis == 0:
            session.notice(f"input {info.name}: dynamic batch dimension set to 1")
            shape.append(1)
        else:
            sizes = [str(x.dim_value) if x.dim_value > 0 else ("1" if i == 0 else "N") for i, x in enumerate(dims)]
            symbol = f" ({d.dim_param})" if d.dim_param else ""
            raise DynamicShape(
                f"dimension {axis}{symbol} is unknown",
                where=f"input {info.name}",
                hint=f"pass --shape {info.name}={'x'.join(sizes)}, with a number for each N",
            )
    return tuple(shape)
