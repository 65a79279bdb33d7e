"""The layer suite: binary layers as ONNX models, made here so that every benchmark measures the same ones.

A layer reads bits and writes bits unless it says otherwise. In ONNX bits are floats, so each model begins with the
binarization of its input; what counts is the row of the convolution in the report of `bitc bench`, not the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Layer:
    """A convolution, or dense layer where `size` and `kernel` are 1, with weights ±1."""

    name: str
    inputs: int
    """Channels in."""
    outputs: int
    """Channels out."""
    size: int = 1
    """Height and width of the input."""
    kernel: int = 1
    """Height and width; the border is padded with zeros so that stride 1 keeps the size."""
    stride: int = 1
    group: int = 1
    takes: str = "bits"
    """`bits`, `real` (float32) or `byte` (uint8)."""
    gives: str = "bits"
    """`bits` (batch norm and sign), `float` (batch norm), or `sums` (the accumulators)."""
    depth: int = 1
    """How many of these layers follow each other."""

    @property
    def out_size(self) -> int:
        return -(-self.size // self.stride)

    @property
    def macs(self) -> int:
        """Multiply-accumulates, taps in the padding included."""
        per_output = self.inputs // self.group * self.kernel**2
        return self.depth * self.outputs * self.out_size**2 * per_output

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the input, NCHW."""
        return (1, self.inputs, self.size, self.size)


SUITE = (
    Layer("conv 3x3 64-64 @16", 64, 64, 16, 3),
    Layer("conv 3x3 128-128 @28", 128, 128, 28, 3),
    Layer("conv 3x3 256-256 @14", 256, 256, 14, 3),
    Layer("conv 3x3 512-512 @7", 512, 512, 7, 3),
    Layer("conv 3x3 32-32 @32", 32, 32, 32, 3),
    Layer("conv 3x3 s2 64-128 @16", 64, 128, 16, 3, stride=2),
    Layer("conv 1x1 256-256 @14", 256, 256, 14),
    Layer("conv 5x5 64-64 @16", 64, 64, 16, 5),
    Layer("conv 3x3 33-65 @16", 33, 65, 16, 3),
    Layer("conv 3x3 64-64 @16, 2 groups", 64, 64, 16, 3, group=2),
    Layer("conv 3x3 64 @16, depthwise", 64, 64, 16, 3, group=64),
    Layer("dense 1024-1024", 1024, 1024),
    Layer("dense 4096-1000", 4096, 1000),
    Layer("conv 3x3 3-64 @32, real in", 3, 64, 32, 3, takes="real"),
    Layer("conv 3x3 3-64 @32, uint8 in", 3, 64, 32, 3, takes="byte"),
    Layer("conv 3x3 64-64 @16, float out", 64, 64, 16, 3, gives="float"),
    Layer("conv 3x3 64-64 @16, sums out", 64, 64, 16, 3, gives="sums"),
    Layer("conv 3x3 64-64 @16, twice", 64, 64, 16, 3, depth=2),
)


@dataclass
class _Builder:
    """An ONNX graph under construction; values are names."""

    rng: np.random.Generator
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def const(self, array: Array | float) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        name = name or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def binarize(self, x: str) -> str:
        low = self.op("Less", x, self.const(0.0))
        return self.op("Where", low, self.const(-1.0), self.const(1.0))

    def signs(self, *shape: int) -> Array:
        return np.where(self.rng.random(shape) < 0.5, -1, 1).astype(np.float32)

    def batch_norm(self, x: str, channels: int, spread: float) -> str:
        """Gammas of both signs; the mean and the bias move the thresholds off zero."""
        gamma = self.rng.normal(size=channels) + 0.01
        beta, mean = self.rng.normal(size=channels), self.rng.normal(size=channels) * spread
        variance = spread**2 * (0.5 + self.rng.random(channels))
        parameters = (self.const(p) for p in (gamma, beta, mean, variance))
        return self.op("BatchNormalization", x, *parameters)

    def layer(self, layer: Layer, x: str, number: int) -> str:
        """The nodes of one layer; the convolution is named `name#k`, k counting from 0 within `depth`."""
        if layer.takes == "bits":
            x = self.binarize(x)
        elif layer.takes == "byte":
            x = self.op("Cast", x, to=TensorProto.FLOAT)
        pad = layer.kernel // 2
        per_output = layer.inputs // layer.group * layer.kernel**2
        for k in range(layer.depth):
            w = self.const(self.signs(layer.outputs, layer.inputs // layer.group, layer.kernel, layer.kernel))
            strides = [layer.stride] * 2
            sides = [pad] * 4
            x = self.op("Conv", x, w, name=f"{layer.name}#{k}", group=layer.group, pads=sides, strides=strides)
            if layer.gives != "sums":
                x = self.batch_norm(x, layer.outputs, per_output**0.5)
            if layer.gives == "bits":
                x = self.binarize(x)
        if layer.gives == "bits":  # graph outputs are floats, what another binary layer reads is bits
            x = self.op("Conv", x, self.const(self.signs(1, layer.outputs, 1, 1)))
        elif layer.gives == "sums":
            x = self.op("Cast", x, to=TensorProto.INT32)
        return self.op("Identity", x, name=f"y{number}")


def model(layers: Sequence[Layer], seed: int = 0) -> ModelProto:
    """One model with a branch for each layer: input `x{i}`, output `y{i}`, and convolutions named after the layer."""
    b = _Builder(np.random.default_rng(seed))
    inputs, outputs = [], []
    for number, layer in enumerate(layers):
        x, kind = f"x{number}", TensorProto.UINT8 if layer.takes == "byte" else TensorProto.FLOAT
        inputs.append(helper.make_tensor_value_info(x, kind, layer.shape))
        y = b.layer(layer, x, number)
        outputs.append(helper.make_empty_tensor_value_info(y))
    graph = helper.make_graph(b.nodes, "suite", inputs, outputs, b.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def layer_of(row_name: str) -> str:
    """The layer to which a row of the report of `bitc bench` belongs, by the name of its node."""
    return row_name.rpartition("#")[0]
