"""Networks whose layers join and cut channels, as ONNX models: float32, or int8 with quantizers around every layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STEP = 0.05
"""The scale of all int8 activations."""


class Model:
    """A model under construction; values are names."""

    def __init__(self, int8: bool, size: int = 8) -> None:
        self.int8, self.size = int8, size
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(3)

    def const(self, array: object) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, kind: str, *inputs: str, count: int = 1, **attributes: object) -> str:
        names = [f"{kind.lower()}{len(self.nodes)}{'abc'[i] if count > 1 else ''}" for i in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, names[0], **attributes))
        return names[0]

    def quantized(self, v: str) -> str:
        if not self.int8:
            return v
        scale = self.const(np.float32(STEP)), self.const(np.int8(0))
        return self.op("DequantizeLinear", self.op("QuantizeLinear", v, *scale), *scale)

    def conv(self, v: str, channels: int, outputs: int, kernel: int, group: int = 1) -> str:
        """A convolution with a Relu."""
        w = self.rng.normal(0, 0.3, (outputs, channels // group, kernel, kernel)).astype(np.float32)
        if self.int8:
            scale = np.float32(np.abs(w).max() / 127)
            codes = self.const(np.round(w / scale).astype(np.int8))
            weights = self.op("DequantizeLinear", codes, self.const(scale), self.const(np.int8(0)))
        else:
            weights = self.const(w)
        window = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4}
        return self.quantized(self.op("Relu", self.op("Conv", v, weights, group=group, **window)))

    def binary(self, v: str, channels: int, outputs: int) -> str:
        """A 3x3 convolution with signs for weights."""
        w = np.where(self.rng.random((outputs, channels, 3, 3)) < 0.5, -1, 1).astype(np.float32)
        return self.op("Conv", v, self.const(w), kernel_shape=[3, 3], pads=[1] * 4)

    def normalized(self, v: str, channels: int) -> str:
        spread = self.rng.uniform(0.5, 1.5, (2, channels)).astype(np.float32)
        middle = self.rng.normal(0, 0.1, (2, channels)).astype(np.float32)
        return self.op("BatchNormalization", v, *map(self.const, (spread[0], middle[0], middle[1], spread[1])))

    def sign(self, v: str) -> str:
        """+1 or -1."""
        one = (self.const(np.float32(1)), self.const(np.float32(-1)))
        return self.op("Where", self.op("GreaterOrEqual", v, self.const(np.float32(0))), *one)

    def joined(self, *parts: str) -> str:
        return self.quantized(self.op("Concat", *parts, axis=1))

    def done(self, v: str) -> bytes:
        size = [self.size] * 2
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, *size])
        y = helper.make_tensor_value_info(v, TensorProto.FLOAT, [None] * 4)
        graph = helper.make_graph(self.nodes, "joined", [x], [y], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model).SerializeToString()


def densenet(int8: bool) -> bytes:
    """Each layer reads all before it in its block: normalized, 1x1, 3x3."""
    m, c = Model(int8), 16
    v = m.conv(m.quantized("x"), 3, c, 3)
    for block in range(2):
        for _ in range(3):
            t = m.quantized(m.op("Relu", m.normalized(v, c)))
            v = m.joined(v, m.conv(m.conv(t, c, 32, 1), 32, 8, 3))
            c += 8
        if block == 0:
            v = m.quantized(m.op("AveragePool", m.conv(v, c, c // 2, 1), kernel_shape=[2, 2], strides=[2, 2]))
            c //= 2
    return m.done(v)


def plain_densenet(int8: bool) -> bytes:
    """Convolutions and pools read what is joined."""
    m, c = Model(int8), 16
    v = m.conv(m.quantized("x"), 3, c, 3)
    for _ in range(4):
        v = m.joined(v, m.conv(m.conv(v, c, 16, 3), 16, 8, 3))
        c += 8
    return m.done(m.op("MaxPool", v, kernel_shape=[2, 2], strides=[2, 2]))


def shufflenet(int8: bool) -> bytes:
    """Half of the channels goes through each block as it is; then both halves are shuffled."""
    m, c = Model(int8), 24
    v = m.conv(m.quantized("x"), 3, c, 3)
    for _ in range(2):
        kept = m.op("Split", v, count=2, axis=1)
        t = m.conv(m.conv(f"{kept[:-1]}b", c // 2, c // 2, 1), c // 2, c // 2, 3, c // 2)
        v = m.joined(kept, m.conv(t, c // 2, c // 2, 1))
        v = m.op("Reshape", v, m.const(np.array([1, 2, c // 2, m.size, m.size])))
        v = m.op("Reshape", m.op("Transpose", v, perm=[0, 2, 1, 3, 4]), m.const(np.array([1, c, m.size, m.size])))
    return m.done(m.conv(v, c, 8, 1))


def unet(int8: bool) -> bytes:
    """What goes down is joined to what comes up."""
    m = Model(int8)
    e1 = m.conv(m.quantized("x"), 3, 12, 3)
    e2 = m.conv(m.op("MaxPool", e1, kernel_shape=[2, 2], strides=[2, 2]), 12, 16, 3)
    e3 = m.conv(m.op("MaxPool", e2, kernel_shape=[2, 2], strides=[2, 2]), 16, 24, 3)
    twice = m.const(np.array([1, 1, 2, 2], np.float32))
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    d2 = m.conv(m.joined(e2, m.op("Resize", m.conv(e3, 24, 16, 1), "", twice, **nearest)), 32, 16, 3)
    d1 = m.conv(m.joined(e1, m.op("Resize", m.conv(d2, 16, 12, 1), "", twice, **nearest)), 24, 12, 3)
    return m.done(d1)


def inception(int8: bool) -> bytes:
    """Four branches of one tensor."""
    m, c = Model(int8), 16
    v = m.conv(m.quantized("x"), 3, c, 3)
    for _ in range(2):
        pooled = m.op("MaxPool", v, kernel_shape=[3, 3], pads=[1] * 4)
        wide = m.conv(m.conv(v, c, 8, 1), 8, 12, 3)
        v = m.joined(m.conv(v, c, 8, 1), wide, m.conv(m.conv(v, c, 4, 1), 4, 6, 5), m.conv(pooled, c, 6, 1))
        c = 32
    return m.done(v)


def binary_densenet(_: bool) -> bytes:
    """Reals are joined; each layer takes the signs of what it normalizes."""
    m, c = Model(False), 32
    v = m.conv("x", 3, c, 3)
    for _ in range(3):
        v = m.joined(v, m.binary(m.sign(m.normalized(v, c)), c, 32))
        c += 32
    return m.done(m.normalized(v, c))


def joined_bits(_: bool) -> bytes:
    """Signs are joined, whole words of them."""
    m, c = Model(False), 64
    v = m.sign(m.normalized(m.conv("x", 3, c, 1), c))
    for _ in range(3):
        v = m.joined(v, m.sign(m.normalized(m.binary(v, c, 64), 64)))
        c += 64
    return m.done(m.normalized(m.binary(v, c, 16), 16))


NETS: dict[str, Callable[[bool], bytes]] = {
    f.__name__: f for f in (densenet, plain_densenet, shufflenet, unet, inception, binary_densenet, joined_bits)
}
