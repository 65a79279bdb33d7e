"""Make inner tensors of a model its outputs, so that a reference runtime shows them."""

from __future__ import annotations

from collections.abc import Iterable

from onnx import ModelProto, ValueInfoProto


def expose(model: bytes, tensors: Iterable[str]) -> bytes:
    """The model with the named tensors as further outputs. Names that no node of its top-level graph computes are left
    out; types are left to the runtime, which infers them."""
    proto = ModelProto()
    proto.ParseFromString(model)
    have = {o.name for o in proto.graph.output}
    computed = {name for node in proto.graph.node for name in node.output if name}
    for name in dict.fromkeys(tensors):
        if name in computed and name not in have:
            proto.graph.output.append(ValueInfoProto(name=name))
    return bytes(proto.SerializeToString())
