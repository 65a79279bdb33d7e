"""A binary ResNet-18 in the form of Bi-Real: real first convolution, then residual units x + BN(conv(sign(x))) with 3x3
weights of ±alpha; shortcuts of a stage's first unit are an average pool and a 1x1 convolution.

The first layer, the shortcuts, the sums and the classifier are quantized to int8 (QDQ), as microcontrollers want them,
or all float, as they are trained and exported: then each sum of the first stage is a map of 802,816 bytes. Weights are
random, with a fixed seed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

STEP = 0.05
"""Scale of the codes between layers."""
CLASSES = 1000


class _Net:
    def __init__(self, float_sums: bool) -> None:
        self.float_sums = float_sums
        self.rng = np.random.default_rng(1)
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, value: Any, dtype: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def quantized(self, x: str) -> str:
        if self.float_sums:
            return x
        scale, zero = self.constant(STEP), self.constant(0, np.int8)
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, scale, zero), scale, zero)

    def real_weights(self, *shape: int) -> str:
        w = self.rng.normal(0, 0.1, shape)
        if self.float_sums:
            return self.constant(w)
        scale = np.abs(w).reshape(len(w), -1).max(1) / 127
        codes = np.round(w / scale.reshape(-1, *(1,) * (w.ndim - 1)))
        zeros = self.constant(np.zeros(len(w)), np.int8)
        return self.node("DequantizeLinear", self.constant(codes, np.int8), self.constant(scale), zeros, axis=0)

    def unit(self, x: str, inputs: int, outputs: int, stride: int) -> str:
        """x + BN(conv(sign(x)))."""
        shortcut = x
        if stride > 1:
            pooled = self.quantized(self.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]))
            shortcut = self.quantized(self.node("Conv", pooled, self.real_weights(outputs, inputs, 1, 1)))
        positive = self.node("GreaterOrEqual", x, self.constant(0))
        sign = self.node("Where", positive, self.constant(1), self.constant(-1))
        w = np.sign(self.rng.normal(size=(outputs, inputs, 3, 3))) * self.rng.uniform(0.02, 0.1, (outputs, 1, 1, 1))
        y = self.node("Conv", sign, self.constant(w), pads=[1] * 4, strides=[stride] * 2)
        around = [(0.5, 1.5), (-0.3, 0.3), (-3, 3), (50, 200)]  # scale, bias, mean, variance
        y = self.node("BatchNormalization", y, *(self.constant(self.rng.uniform(a, b, outputs)) for a, b in around))
        return self.quantized(self.node("Add", self.quantized(y), shortcut))


def model(size: int = 224, stages: int = 4, width: int = 64, float_sums: bool = False) -> bytes:
    """The ONNX model for images ``[1, 3, size, size]``, a multiple of 32, of int8 or float32; cut after so many
    stages."""
    net = _Net(float_sums)
    x = "image"
    if not float_sums:
        x = net.node("DequantizeLinear", x, net.constant(1 / 64), net.constant(0, np.int8))
    bias = net.constant(net.rng.normal(0, 0.1, width))
    x = net.quantized(net.node("Conv", x, net.real_weights(width, 3, 7, 7), bias, pads=[3] * 4, strides=[2, 2]))
    x = net.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = width
    for stage in range(stages):
        for unit in range(4):
            wider = stage > 0 and unit == 0
            x = net.unit(x, channels, width << stage, 2 if wider else 1)
            channels = width << stage
    x = net.node("Flatten", net.quantized(net.node("GlobalAveragePool", x)))
    w = net.real_weights(CLASSES, channels)
    net.nodes.append(helper.make_node("Gemm", [x, w], ["y"], name="classifier", transB=1))
    kind = TensorProto.FLOAT if float_sums else TensorProto.INT8
    image = helper.make_tensor_value_info("image", kind, [1, 3, size, size])
    y = helper.make_tensor_value_info("y", 1, [1, CLASSES])
    tensors = [numpy_helper.from_array(v, k) for k, v in net.constants.items()]
    graph = helper.make_graph(net.nodes, "binary_resnet18", [image], [y], tensors)
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(onnx.SerializeToString())
