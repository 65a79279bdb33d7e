"""ONNX model in, graph out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from bitc.errors import InvalidModel, Unsupported, UnsupportedOp
from bitc.frontend import states as states_of
from bitc.frontend.context import Session
from bitc.frontend.float32 import in_float32, unrounded
from bitc.frontend.layer_states import RECURRENT, with_layer_states
from bitc.frontend.order import live_nodes
from bitc.frontend.shapes import graph_inputs, input_values, with_constants
from bitc.frontend.source import LIMIT_NODES, inline_functions, is_qonnx, opsets_of, read_model, subgraphs
from bitc.frontend.states import States
from bitc.frontend.tensors import narrowing, with_data
from bitc.frontend.walk import Scope, Unknown, Walker
from bitc.ir import Graph, Origin, Value
from bitc.ir.graph import Array, Node, constant
from bitc.ir.rewrite import Builder, dead_code
from bitc.ir.verify import verify
from bitc.ops.dynamic import FillTail
from bitc.ops.movement import Reshape

_HINT = "export the model again"


@dataclass(frozen=True)
class Ragged:
    """An ONNX tensor that is as long as the data says. It is held in `shape`, its entries followed by zeros."""

    shape: tuple[int, ...]
    axis: int
    """Where its length depends on the data."""
    count: str = ""
    """The output that says how many entries there are, where the tensor is an output itself."""


@dataclass(frozen=True)
class Imported:
    """A model as the compiler sees it."""

    graph: Graph
    """Inputs and outputs keep their ONNX names."""
    notices: tuple[str, ...]
    """What was decided for the user, one line each."""
    reference: bytes | None
    """The same model, shapes fixed, functions inlined and floats in 32 bits, for onnxruntime; None if it has QONNX
    operators, which only bitc evaluates."""
    opset: int
    producer: str
    nodes: int
    """ONNX nodes after inlining functions, those that no output needs included."""
    states: States = ()
    """Inputs and outputs that one run hands to the next."""
    ragged: Mapping[str, Ragged] = field(default_factory=dict)
    """By name, those tensors whose length depends on the data and that the graph has with zeros behind."""


@dataclass(frozen=True)
class Checked:
    """What `check` finds: the notices, and either the import or what stands in its way."""

    imported: Imported | None
    unsupported: tuple[Unsupported, ...]
    notices: tuple[str, ...]
    opset: int
    producer: str
    nodes: int


def load(
    source: str | Path | bytes,
    shapes: Mapping[str, Sequence[int]] | None = None,
    constants: Mapping[str, Array] | None = None,
    states: Sequence[str] = (),
) -> Imported:
    """Import an ONNX model from a path or from bytes.

    `shapes` gives the dimensions of inputs that the model leaves open, `constants` the values of inputs that are known
    at compile time, both by name; `states` the pairs "IN:OUT" that are kept between runs, "auto" for those that their
    names show, or "recurrent" for those inside recurrent layers. Raises UsageError (no such file, a shape, constant or
    state that does not fit), InvalidModel, DynamicShape, or UnsupportedOp with every node that is not supported.
    """
    checked = check(source, shapes, constants, states)
    if checked.imported is None:
        raise UnsupportedOp(list(checked.unsupported))
    return checked.imported


def check(
    source: str | Path | bytes,
    shapes: Mapping[str, Sequence[int]] | None = None,
    constants: Mapping[str, Array] | None = None,
    states: Sequence[str] = (),
) -> Checked:
    """As `load`, but unsupported nodes are returned, not raised."""
    model, folder = read_model(source)
    try:
        return _check(with_constants(model, constants or {}), folder, dict(shapes or {}), states)
    except RecursionError as e:
        raise InvalidModel("is nested too deeply", where="model", hint=_HINT) from e
    except MemoryError as e:
        raise InvalidModel("needs more memory than there is", where="model", hint=_HINT) from e


def _check(
    model: ModelProto, folder: Path | None, shapes: Mapping[str, Sequence[int]], states: Sequence[str]
) -> Checked:
    opsets = opsets_of(model)
    model = inline_functions(model)
    if RECURRENT in states:
        states = [*(s for s in states if s != RECURRENT), *with_layer_states(model)]
    if len(model.graph.node) > LIMIT_NODES:
        raise InvalidModel(f"has {len(model.graph.node)} nodes", where="model", hint="the limit is a million")
    session = Session(Builder(), folder)
    nodes, read = live_nodes(model.graph)
    _check_outputs(model.graph)
    inputs = input_values(session, model.graph, shapes)
    for o in model.graph.output:
        session.builder.unique(o.name)
    scope = Scope(session, model.graph)
    for name, value in inputs.items():
        value.origin = Origin(name)
        session.inputs[value] = name
        scope.define(name, value)
    walker = Walker(session, opsets)
    walker.graph(model.graph, scope, nodes, read, top=True)
    found = [scope.lookup(o.name, "graph output") for o in model.graph.output]
    imported = None
    if not walker.unsupported:
        graph, ragged = _finish(model.graph, session, list(inputs.values()), found)
        reference = _reference(model, folder, nodes, read, graph, ragged)
        pairs, said = states_of.resolve(graph, states)
        for line in said:
            session.notice(line)
        imported = Imported(
            graph, tuple(session.notices), reference, opsets[""], _producer(model), len(model.graph.node), pairs, ragged
        )
    unsupported = tuple(walker.unsupported)
    return Checked(imported, unsupported, tuple(session.notices), opsets[""], _producer(model), len(model.graph.node))


def _producer(model: ModelProto) -> str:
    return f"{model.producer_name} {model.producer_version}".strip()


def _check_outputs(graph: GraphProto) -> None:
    names = [o.name for o in graph.output]
    if not names or not all(names) or len(set(names)) < len(names):
        what = "two outputs have the same name" if names and all(names) else "an output has no name"
        raise InvalidModel(what if names else "the graph has no outputs", where="model", hint=_HINT)


def _finish(
    onnx_graph: GraphProto, session: Session, inputs: list[Value], found: Sequence[Value | Unknown]
) -> tuple[Graph, dict[str, Ragged]]:
    """Give the outputs their names and drop what they do not need. An output that is as long as the data says gets
    zeros behind what is there, and a count, which comes after all outputs of the model."""
    outputs: list[Value] = []
    counts: list[Value] = []
    ragged: dict[str, Ragged] = {}
    taken = set(inputs)

    def put(value: Value, name: str, to: list[Value]) -> None:
        if value.is_const:
            value = constant(name, value.array)
        elif value in taken:  # the same tensor under a second name
            value = session.builder.emit(Reshape(value.shape), value, at=f"output {name}")
        taken.add(value)
        value.name, value.origin = name, Origin(name)
        to.append(value)

    for info, value in zip(onnx_graph.output, found, strict=True):
        assert isinstance(value, Value)
        extent = session.extents.get(value)
        elem = info.type.tensor_type.elem_type
        narrow = narrowing(elem)
        if narrow is not None and not value.is_const and session.elements.get(value) != elem:
            if value.origin == Origin(info.name):  # the reference rounds its outputs in the same way
                value.origin = Origin(unrounded(info.name))
                value.name = session.builder.unique(value.origin.tensor)
            value = session.builder.emit(narrow, value, at=f"output {info.name}")
        if extent is not None:
            if not extent.zeroed:
                value = session.builder.emit(FillTail(extent.axis), value, extent.count, at=f"output {info.name}")
            count = session.builder.unique(f"{info.name}_count")
            put(extent.count, count, counts)
            ragged[info.name] = Ragged(value.shape, extent.axis, count)
        put(value, info.name, outputs)
    outputs += counts
    graph = dead_code(Graph(onnx_graph.name or "model", tuple(inputs), tuple(outputs), tuple(session.builder.nodes)))
    for node in graph.nodes:
        _check_not_empty(node)
    for v, e in session.extents.items():
        if e.zeroed and v.origin is not None and v.origin.tensor not in ragged:
            ragged[v.origin.tensor] = Ragged(v.shape, e.axis)
    return verify(graph, after="import"), ragged


def _check_not_empty(node: Node) -> None:
    for v in node.outputs:
        if not v.type.size:
            raise InvalidModel(f"makes an empty tensor {v.type}", where=node.origin, hint=_HINT)


def _reference(
    model: ModelProto,
    folder: Path | None,
    nodes: list[NodeProto],
    read: set[str],
    graph: Graph,
    ragged: Mapping[str, Ragged],
) -> bytes | None:
    """The model for onnxruntime: needed nodes in order and their data, fixed shapes, no repeated names,
    no unused opsets."""
    if any(is_qonnx(n.domain, n.op_type) for n in nodes):
        return None
    out = ModelProto()
    out.CopyFrom(model)
    del out.graph.node[:], out.graph.value_info[:], out.functions[:], out.opset_import[:]
    out.graph.node.extend(nodes)
    seen: set[str] = set()
    for node in out.graph.node:
        if node.name in seen:  # names are optional there, but must not repeat
            node.name = ""
        seen.add(node.name)
    domains = {""} | {d for n in nodes for d in _domains(n)}
    out.opset_import.extend(o for o in model.opset_import if _default(o.domain) in domains)
    kept = graph_inputs(out.graph)
    del out.graph.input[:]
    out.graph.input.extend(kept)
    del out.graph.initializer[:]
    out.graph.initializer.extend(t for t in model.graph.initializer if t.name in read)
    for info, value in zip(graph_inputs(out.graph), graph.inputs, strict=True):
        _fix(info.type.tensor_type.shape, value)
    for info, value in zip(out.graph.output, graph.outputs, strict=False):  # counts come last
        if info.type.HasField("tensor_type"):
            _fix(info.type.tensor_type.shape, value)
            if info.name in ragged:
                info.type.tensor_type.shape.dim[ragged[info.name].axis].Clear()
    for tensor in _external(out.graph):
        tensor.CopyFrom(with_data(tensor, folder))
    in_float32(out)
    try:
        return bytes(out.SerializeToString())
    except ValueError as e:
        raise InvalidModel("is larger than 2 GiB", where="model", hint="bitc is for models of a few megabytes") from e


def _default(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _domains(node: NodeProto) -> set[str]:
    return {_default(node.domain)} | {d for g in subgraphs(node) for n in g.node for d in _domains(n)}


def _fix(shape: object, value: Value) -> None:
    dims = getattr(shape, "dim")  # noqa: B009  (the protobuf stubs do not export the class)
    del dims[:]
    for d in value.shape:
        dims.add().dim_value = d


def _external(graph: GraphProto) -> list[TensorProto]:
    tensors = list(graph.initializer)
    tensors += [a.t for n in graph.node for a in n.attribute if a.HasField("t")]
    for n in graph.node:
        for g in subgraphs(n):
            tensors += _external(g)
    return [t for t in tensors if t.data_location == TensorProto.EXTERNAL]
