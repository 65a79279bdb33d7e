"""What quantization needs to know of an ONNX model, and to change in it, before it starts."""

from __future__ import annotations

import onnx
from onnx import ModelProto, version_converter

LEAST_OPSET = 13
"""The first opset with quantization per channel."""


def operators(model: bytes) -> set[str]:
    """The operators of the top-level graph."""
    return {n.op_type for n in _parse(model).graph.node}


def node_names(model: bytes) -> list[str]:
    """The names of the top-level graph's nodes."""
    return [n.name for n in _parse(model).graph.node]


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
