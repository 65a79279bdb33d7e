"""Operators that the ONNX standard defines by other operators: their definitions, for what has no importer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TypeProto, helper

from bitc.frontend.source import subgraphs
from bitc.ir import Value

Schema = Any
"""onnx.defs.OpSchema, whose stubs leave these methods out."""

DOMAINS = ("", "ai.onnx.preview")
"""Domains of the standard with such operators."""


def definition(node: NodeProto, opset: int, inputs: Sequence[Value | None], name: str) -> FunctionProto | None:
    """The body of a node's operator, as the standard defines it: attributes filled in, inputs that are absent left
    out, every node called `name`. None if the standard has none for this node."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return None
    body = _body(schema, node, opset, inputs)
    if body is None:
        return None
    given = {a.name: a for a in node.attribute}
    for attribute_name, attribute in schema.attributes.items():
        if attribute.default_value.name:
            given.setdefault(attribute_name, attribute.default_value)
    absent = {n for i, n in enumerate(body.input) if i >= len(inputs) or inputs[i] is None}
    _instantiate(body.node, given, absent, name)
    return body


def _body(schema: Schema, node: NodeProto, opset: int, inputs: Sequence[Value | None]) -> FunctionProto | None:
    body = FunctionProto()
    version = _version(schema.context_dependent_function_opset_versions, opset)
    if version is not None:
        types = [b"" if v is None else _type(v).SerializeToString() for v in inputs]
        data = schema.get_context_dependent_function_with_opset_version(version, node.SerializeToString(), types)
        body.ParseFromString(data)
        return body if body.node else None
    version = _version(schema.function_opset_versions, opset)
    if version is None:
        return None
    body.ParseFromString(schema.get_function_with_opset_version(version))
    return body


def _version(versions: Iterable[int], opset: int) -> int | None:
    """The newest definition that the opset knows; the oldest if all are newer, since operators keep their meaning."""
    known = sorted(versions)
    return max((v for v in known if v <= opset), default=known[0] if known else None)


def _type(v: Value) -> TypeProto:
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(v.type.dtype.carrier), v.shape)


def _instantiate(nodes: Iterable[NodeProto], given: Mapping[str, AttributeProto], absent: set[str], name: str) -> None:
    for n in nodes:
        n.name = name
        for i, tensor in enumerate(n.input):
            if tensor in absent:
                n.input[i] = ""
        attributes = [_resolved(a, given) for a in n.attribute]
        del n.attribute[:]
        n.attribute.extend(a for a in attributes if a is not None)
        for g in subgraphs(n):
            _instantiate(g.node, given, absent, name)


def _resolved(attribute: AttributeProto, given: Mapping[str, AttributeProto]) -> AttributeProto | None:
    """The attribute itself, or the one of the calling node that it stands for; None if that has none."""
    if not attribute.ref_attr_name:
        return attribute
    source = given.get(attribute.ref_attr_name)
    if source is None:
        return None
    result = AttributeProto()
    result.CopyFrom(source)
    result.name = attribute.name
    return result


def as_graph(body: FunctionProto, wanted: Sequence[bool]) -> GraphProto:
    """The body as a graph of the outputs that are wanted."""
    graph = GraphProto(name=body.name)
    graph.node.extend(body.node)
    for output, needed in zip(body.output, wanted, strict=False):
        if needed:
            graph.output.append(onnx.ValueInfoProto(name=output))
    return graph
