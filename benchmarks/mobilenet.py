"""MobileNetV1 (Howard et al., 2017) with random weights, as ONNX: float32, or int8 as QLinearConv, and with most of the
weights of its 1x1 layers zero."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]

BLOCKS = ((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), *[(1, 512)] * 5, (2, 1024), (1, 1024))
"""Stride of the depthwise layer, and outputs of the 1x1 layer, at width 1."""
RANGE = 6.0
"""Activations are cut off here, and codes reach from 0 to it."""


def pruned(w: Array, share: float, pattern: str = "any") -> Array:
    """Weights ``[O, K]`` with the smallest of them zero: a share of all, or for a pattern N:M all but the N largest of
    each M of a row."""
    if pattern == "any":
        limit = np.quantile(abs(w), share)
        return np.where(abs(w) < limit, 0, w)
    n, m = map(int, pattern.split(":"))
    groups = w.reshape(len(w), -1, m)
    order = np.argsort(-abs(groups), axis=2, kind="stable")
    kept = np.zeros(groups.shape, np.bool_)
    np.put_along_axis(kept, order[:, :, :n], True, axis=2)
    return np.where(kept, groups, 0).reshape(w.shape)


@dataclass
class _Network:
    """An ONNX graph under construction."""

    codes: bool
    zeros: float
    pattern: str
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def const(self, array: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def conv(self, x: str, name: str, inputs: int, outputs: int, kernel: int, stride: int, group: int = 1) -> str:
        """Convolution, bias and Relu6; 1x1 layers are pruned."""
        fan = inputs // group * kernel**2
        w = self.rng.normal(0, np.sqrt(2 / fan), (outputs, inputs // group, kernel, kernel))
        if kernel == 1:
            w = pruned(w.reshape(outputs, -1), self.zeros, self.pattern).reshape(w.shape) / np.sqrt(1 - self.zeros)
        bias = self.rng.normal(0, 0.2, outputs)
        # Padding as exporters write it for even sizes and stride 2: one row and column more at the end.
        sides = [0, 0, 1, 1] if kernel == 3 and stride == 2 else [kernel // 2] * 4
        form: dict[str, Any] = {"name": name, "pads": sides, "strides": [stride] * 2, "group": group}
        if not self.codes:
            params = [self.const(a.astype(np.float32)) for a in (w, bias)]
            self.nodes.append(helper.make_node("Conv", [x, *params], [f"{name}_sums"], **form))
            bounds = [self.const(np.float32(v)) for v in (0, RANGE)]
            self.nodes.append(helper.make_node("Clip", [f"{name}_sums", *bounds], [name]))
            return name
        largest = abs(w).reshape(outputs, -1).max(axis=1)
        scale = (np.where(largest > 0, largest, 1) / 127).astype(np.float32)
        step = np.float32(RANGE / 255)
        q = np.round(w / scale.reshape(-1, 1, 1, 1)).astype(np.int8)
        inputs_of = [x, self.const(step), self.const(np.int8(-128)), self.const(q), self.const(scale),
                     self.const(np.zeros(outputs, np.int8)), self.const(step), self.const(np.int8(-128)),
                     self.const(np.round(bias / (scale * step)).astype(np.int32))]  # fmt: skip
        self.nodes.append(helper.make_node("QLinearConv", inputs_of, [name], **form))
        return name


def model(kind: str, width: float, size: int, zeros: float, pattern: str = "any") -> ModelProto:
    """The network up to the last 1x1 layer's average over the image, `kind` float32 or int8, for images of size x size
    pixels; a share of `zeros` in each 1x1 layer, of a pattern (see `pruned`)."""
    net = _Network(kind == "int8", zeros, pattern)
    channels = int(32 * width)
    x = net.conv("x", "first", 3, channels, 3, 2)
    for i, (stride, outputs) in enumerate(BLOCKS):
        x = net.conv(x, f"depthwise{i}", channels, channels, 3, stride, channels)
        x = net.conv(x, f"pointwise{i}", channels, int(outputs * width), 1, 1)
        channels = int(outputs * width)
    element = TensorProto.INT8 if kind == "int8" else TensorProto.FLOAT
    last = size // 32
    graph = helper.make_graph(
        net.nodes,
        "mobilenet",
        [helper.make_tensor_value_info("x", element, (1, 3, size, size))],
        [helper.make_tensor_value_info(x, element, (1, channels, last, last))],
        net.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
