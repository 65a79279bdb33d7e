"""The same layers for onnxruntime: float32, and 8-bit integers as it likes them (uint8 by int8)."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from benchmarks.suite import Layer

CHAIN = 4
"""Layers of one model where a layer fits after itself, so that the cost of a call and of layouts is shared."""


def chain(layer: Layer) -> int:
    """How many layers the peers' models of a layer hold."""
    return CHAIN if layer.inputs == layer.outputs and layer.stride == 1 and layer.depth == 1 else layer.depth


def float_model(layer: Layer) -> ModelProto:
    """Conv with bias, after each other."""
    rng = np.random.default_rng(0)
    nodes, constants, x = [], [], "x"
    for i in range(chain(layer)):
        w = rng.normal(size=_weights(layer)).astype(np.float32) * 0.01
        constants += [_const(f"w{i}", w), _const(f"b{i}", np.zeros(layer.outputs, np.float32))]
        nodes.append(helper.make_node("Conv", [x, f"w{i}", f"b{i}"], [f"y{i}"], **_geometry(layer)))
        x = f"y{i}"
    return _model(layer, nodes, constants, x, TensorProto.FLOAT)


def int8_model(layer: Layer) -> ModelProto:
    """QLinearConv with bias, after each other."""
    rng = np.random.default_rng(0)
    scalars = {"one": np.float32(1), "small": np.float32(0.01), "zero": np.uint8(128), "none": np.int8(0)}
    constants = [_const(name, np.asarray(value)) for name, value in scalars.items()]
    nodes, x = [], "x"
    for i in range(chain(layer)):
        constants.append(_const(f"w{i}", rng.integers(-127, 128, _weights(layer)).astype(np.int8)))
        constants.append(_const(f"b{i}", np.zeros(layer.outputs, np.int32)))
        inputs = [x, "one", "zero", f"w{i}", "small", "none", "one", "zero", f"b{i}"]
        nodes.append(helper.make_node("QLinearConv", inputs, [f"y{i}"], **_geometry(layer)))
        x = f"y{i}"
    return _model(layer, nodes, constants, x, TensorProto.UINT8)


def _weights(layer: Layer) -> tuple[int, int, int, int]:
    return layer.outputs, layer.inputs // layer.group, layer.kernel, layer.kernel


def _geometry(layer: Layer) -> dict[str, Any]:
    return {"pads": [layer.kernel // 2] * 4, "strides": [layer.stride] * 2, "group": layer.group}


def _const(name: str, array: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(array, name)


def _model(layer: Layer, nodes: list[NodeProto], constants: list[TensorProto], y: str, kind: int) -> ModelProto:
    shape = (1, layer.outputs, layer.out_size, layer.out_size)
    inputs = [helper.make_tensor_value_info("x", kind, layer.shape)]
    graph = helper.make_graph(nodes, "peer", inputs, [helper.make_tensor_value_info(y, kind, shape)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
