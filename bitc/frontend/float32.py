"""A model with its floats of 16 and 64 bits as float32: as the compiler computes it, and so that a reference runtime
that has no kernels for them runs it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from bitc.frontend.source import subgraphs

_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_OTHER = (*_HALF, TensorProto.DOUBLE)
_TYPE_ATTRIBUTES = ("dtype", "output_datatype", "to")


def in_float32(model: ModelProto) -> None:
    """Change the model in place. A Cast to 16 bits still rounds, and so does an output of 16 bits."""
    _graph(model.graph)
    _outputs(model.graph)


def unrounded(output: str) -> str:
    """The tensor that is rounded to become an output of 16 bits."""
    return f"{output}/float32"


def _graph(graph: GraphProto) -> None:
    for info in (*graph.input, *graph.value_info):
        _widen(info)
    for tensor in graph.initializer:
        _tensor(tensor)
    nodes = [part for node in graph.node for part in _node(node)]
    del graph.node[:]
    graph.node.extend(nodes)


def _outputs(graph: GraphProto) -> None:
    """Round the computed outputs of 16 bits."""
    computed = {name for n in graph.node for name in n.output}
    narrow = {o.name: o.type.tensor_type.elem_type for o in graph.output}
    narrow = {name: elem for name, elem in narrow.items() if elem in _HALF and name in computed}
    for node in graph.node:
        _rename(node, {name: unrounded(name) for name in narrow})
    for name, elem in narrow.items():
        graph.node.extend(_rounding(unrounded(name), name, elem))
    for info in graph.output:
        _widen(info)


def _rename(node: NodeProto, names: dict[str, str]) -> None:
    for side in (node.input, node.output):
        for i, name in enumerate(side):
            side[i] = names.get(name, name)
    for graph in subgraphs(node):
        for inner in graph.node:
            _rename(inner, names)


def _rounding(source: str, result: str, elem_type: int) -> list[NodeProto]:
    narrow = f"{result}/narrow"
    return [
        helper.make_node("Cast", [source], [narrow], to=elem_type),
        helper.make_node("Cast", [narrow], [result], to=TensorProto.FLOAT),
    ]


def _node(node: NodeProto) -> Iterable[NodeProto]:
    for graph in subgraphs(node):
        _graph(graph)
        for info in graph.output:
            _widen(info)
    for a in node.attribute:
        if a.HasField("t"):
            _tensor(a.t)
        if a.name == "to" and node.op_type == "Cast" and a.i in _HALF:
            return _rounding(node.input[0], node.output[0], a.i)
        if a.name in _TYPE_ATTRIBUTES and a.i in _OTHER:
            a.i = TensorProto.FLOAT
    return [node]


def _widen(info: ValueInfoProto) -> None:
    if info.type.tensor_type.elem_type in _OTHER:
        info.type.tensor_type.elem_type = TensorProto.FLOAT


def _tensor(tensor: TensorProto) -> None:
    if tensor.data_type in _OTHER:
        wide = np.asarray(numpy_helper.to_array(tensor)).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
