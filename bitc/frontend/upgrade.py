"""What quantization needs to know of an ONNX model, and to change in it, before it starts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper, version_converter

LEAST_OPSET = 13
"""The first opset with quantization per channel."""


def operators(model: bytes) -> set[str]:
    """The operators of the top-level graph."""
    return {n.op_type for n in _parse(model).graph.node}


def node_names(model: bytes) -> list[str]:
    """The names of the top-level graph's nodes."""
    return [n.name for n in _parse(model).graph.node]


def few_valued(model: bytes, most: int) -> Iterator[str]:
    """The names of layers' weights that have at most so many values in all, other than two or three per output."""
    graph = _parse(model).graph
    layers = {n.input[1]: n for n in graph.node if n.op_type in ("Conv", "Gemm", "MatMul")}
    for tensor in graph.initializer:
        node = layers.get(tensor.name)
        if node is None or len(tensor.dims) < 2:
            continue
        w = numpy_helper.to_array(tensor)
        by_rows = node.op_type == "Conv" or any(a.name == "transB" and a.i for a in node.attribute)
        rows = w.reshape(len(w), -1) if by_rows else w.reshape(-1, w.shape[-1]).T
        if 3 < len(np.unique(w)) <= most and max(len(np.unique(row)) for row in rows) > 3:
            yield tensor.name


def upgraded(model: bytes) -> bytes | None:
    """The model in opset 13 or newer; None if it can not be converted."""
    proto = _parse(model)
    version = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if version >= LEAST_OPSET:
        return model
    try:
        converted = version_converter.convert_version(proto, LEAST_OPSET)
        onnx.checker.check_model(converted)
        return bytes(converted.SerializeToString())
    except Exception:  # the converter's errors have no common base
        return None


def _parse(model: bytes) -> ModelProto:
    proto = ModelProto()
    proto.ParseFromString(model)
    return proto
