"""Layers of numbers, float32 and codes of 8 bits, as nodes of the graph."""

from __future__ import annotations

import numpy as np

from benchmarks.peers import float_model, int8_model
from benchmarks.suite import Layer
from bitc.ir.dtypes import FLOAT32, INT8, UINT8, DType
from bitc.ir.graph import Graph, Node, Op, Value, constant
from bitc.ir.types import TensorType
from bitc.ops.epilogue import Affine, Requant
from bitc.ops.linear import Conv2D
from bitc.ops.window import Window

LAYERS = (
    Layer("conv 3x3 64-64 @16", 64, 64, 16, 3),
    Layer("conv 3x3 256-256 @14", 256, 256, 14, 3),
    Layer("conv 3x3 3-32 @32", 3, 32, 32, 3),
    Layer("conv 1x1 64-64 @16", 64, 64, 16),
    Layer("conv 1x1 256-256 @14", 256, 256, 14),
    Layer("conv 3x3 64 @24, depthwise", 64, 64, 24, 3, group=64),
    Layer("conv 3x3 256 @14, depthwise", 256, 256, 14, 3, group=256),
    Layer("dense 1024-1024", 1024, 1024),
)
KINDS = {"float32": FLOAT32, "int8": INT8, "uint8": UINT8}
"""Activations of a layer of numbers; weights are float32 or int8."""
PEERS = {"float32": float_model, "uint8": int8_model}
"""The kinds that are timed, with the same layer for onnxruntime."""


def graph(layer: Layer, kind: str) -> Graph:
    """A layer alone."""
    n = node(layer, kind)
    return Graph("layer", (n.input(0),), n.outputs, (n,))


def node(layer: Layer, kind: str) -> Node:
    """A convolution with bias and Relu, or with bias and requantization to the type of its input."""
    rng, dtype = np.random.default_rng(0), KINDS[kind]
    shape = (layer.outputs, layer.kernel, layer.kernel, layer.inputs // layer.group)
    if dtype.is_float:
        weights = rng.normal(size=shape).astype(np.float32)
        op: Op = Conv2D(_window(layer), layer.group, Affine(lo=0.0))
        params: list[np.ndarray] = [np.ones(1, np.float32), rng.normal(size=layer.outputs).astype(np.float32)]
    else:
        weights = rng.integers(-127, 128, shape).astype(np.int8)
        zero = 3 if dtype.is_signed else 120
        op = Conv2D(_window(layer), layer.group, _requant(dtype, zero), x_zero=zero)
        factor = rng.uniform(2.0**23, 2.0**24, layer.outputs).astype(np.int32)
        bias = rng.integers(-500, 500, layer.outputs).astype(np.int32)
        params = [bias, factor, np.full(1, 31 + round(np.log2(weights[0].size)) // 2, np.int32)]
    x = Value("x", TensorType((1, layer.size, layer.size, layer.inputs), dtype))
    values = [constant("w", weights), *(constant(f"p{i}", p) for i, p in enumerate(params))]
    types = op.infer(x.type, *(v.type for v in values))
    return Node(op, (x, *values), (Value("y", types[0]),), f"{layer.name} {kind}")


def _window(layer: Layer) -> Window:
    pad = layer.kernel // 2
    return Window((layer.kernel,) * 2, (layer.stride,) * 2, (pad,) * 4)


def _requant(dtype: DType, zero: int) -> Requant:
    return Requant(dtype, zero, int(dtype.min), int(dtype.max))
