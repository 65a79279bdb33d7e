"""The quantized forms that exporters write become integer kernels that agree with onnxruntime to one step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitc.interp import run
from bitc.ir import FLOAT32, Graph
from bitc.ops.binary import Binary
from bitc.ops.epilogue import Requant
from bitc.ops.linear import Conv2D, MatMul
from bitc.ops.pool import AveragePool
from bitc.ops.quantize import Dequantize, Quantize
from bitc.ops.quantized import Lookup
from bitc.ops.reduce import Reduce
from bitc.ops.unary import Unary
from bitc.pipeline import optimize
from bitc.target import Target
from tests.kernels.harness import check as check_c
from tests.kernels.harness import merge, portable, random_feeds

Array = np.ndarray[Any, Any]
OUT = 0.05
"""Step of every output."""


class Net:
    """An ONNX model under construction; values are names."""

    def __init__(self, opset: int = 13) -> None:
        self.rng = np.random.default_rng(0)
        self.opset = opset
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def const(self, array: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, domain=domain, **attributes))
        return name

    def params(self, scale: Any, zero: Any, dtype: Any) -> tuple[str, str]:
        return self.const(scale), self.const(zero, dtype)

    def q(self, x: str, scale: Any = OUT, zero: Any = 3, dtype: Any = np.int8, **attributes: Any) -> str:
        return self.op("QuantizeLinear", x, *self.params(scale, zero, dtype), **attributes)

    def dq(self, x: str, scale: Any = OUT, zero: Any = 3, dtype: Any = np.int8, **attributes: Any) -> str:
        return self.op("DequantizeLinear", x, *self.params(scale, zero, dtype), **attributes)

    def qdq(self, x: str, scale: Any = OUT, zero: Any = 3, dtype: Any = np.int8) -> str:
        return self.dq(self.q(x, scale, zero, dtype), scale, zero, dtype)

    def codes(self, *shape: int, low: int = -127, high: int = 127) -> Array:
        return self.rng.integers(low, high + 1, shape)

    def weights(self, *shape: int, dtype: Any = np.int8, per_channel: bool = False, zero: int = 0) -> str:
        """Dequantized constant weights."""
        low, high = max(np.iinfo(dtype).min, -127), np.iinfo(dtype).max
        scale = self.rng.uniform(0.002, 0.01, shape[0]) if per_channel else 0.004
        zeros = np.full(shape[0], zero) if per_channel else zero
        axis = {"axis": 0} if per_channel else {}
        return self.dq(self.const(self.codes(*shape, low=low, high=high), dtype), scale, zeros, dtype, **axis)

    def bias(self, n: int, scale: Any = 0.004 * 0.1) -> str:
        return self.op("DequantizeLinear", self.const(self.codes(n, low=-2000, high=2000), np.int32), self.const(scale))

    def model(self, output: str, shape: tuple[int, ...], dtype: int) -> bytes:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", dtype, shape)],
            [helper.ValueInfoProto(name=output)],  # type: ignore[attr-defined]  # onnx re-exports it
            self.constants,
        )
        imports = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()


def floats(graph: Graph) -> list[str]:
    """Operators that compute with reals, but for quantizing an input and dequantizing an output."""
    edges = (Quantize, Dequantize)
    kinds = (Conv2D, MatMul, AveragePool, Reduce, Binary, Unary)
    return [
        str(n)
        for n in graph.nodes
        if isinstance(n.op, kinds) and not isinstance(n.op, edges) and n.input(0).type.dtype is FLOAT32
    ]


def check(
    net: Net, output: str, shape: tuple[int, ...] = (1, 4, 6, 6), dtype: Any = np.float32, step: float = OUT
) -> Graph:
    """Compile and compare with onnxruntime on random inputs."""
    shape, kind = (1, 4, 6, 6), helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    data = net.model(output, shape, kind)
    graph = optimize(data).graph
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    worst, differ, total = 0.0, 0, 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        x = rng.normal(0, 2, shape).astype(np.float32)
        if np.dtype(dtype).kind in "iu":
            x = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype)
        theirs = session.run(None, {"x": x})[0]
        ours = run(graph, {"x": x})[graph.outputs[0].name]
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype and len(np.unique(theirs)) >= 3
        gap = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)) / (step if theirs.dtype.kind == "f" else 1)
        worst, differ, total = max(worst, float(gap.max())), differ + int((gap > 0.01).sum()), total + gap.size
    assert worst < 1.01, f"{worst} steps"
    assert differ <= 0.01 * total, f"{differ} of {total} differ"
    return graph


def conv(n: Net, x: str, per_channel: bool = False, dtype: Any = np.int8, bias: bool = True, **attributes: Any) -> str:
    inputs = [n.weights(8, 4, 3, 3, per_channel=per_channel, dtype=dtype, zero=0 if dtype == np.int8 else 120)]
    inputs += [n.bias(8)] if bias else []
    return n.op("Conv", x, *inputs, pads=[1, 1, 1, 1], **attributes)


def dense(n: Net, x: str) -> str:
    flat = n.op("Flatten", x)
    return n.op("Gemm", flat, n.weights(10, 144), n.bias(10), transB=1)


def branches(n: Net) -> tuple[str, str]:
    """Two quantized tensors of one shape."""
    x = n.qdq("x", 0.1)
    return x, n.qdq(n.op("Conv", x, n.weights(4, 4, 1, 1)), 0.15)


def far_from_zero(n: Net) -> str:
    """A constant of int8 codes whose zero point lets them reach beyond int8."""
    codes = n.rng.integers(-128, 100, (1, 4, 6, 6)).astype(np.int8)
    return n.op("DequantizeLinear", n.const(codes, np.int8), n.const(0.02), n.const(60, np.int8))


def concat_of_relus(n: Net) -> str:
    """Two quantized tensors that are not negative, of two scales."""
    parts = (n.qdq(n.op("Relu", x), scale, -128) for x, scale in zip(branches(n), (0.1, 0.15), strict=True))
    return n.op("Concat", *parts, axis=1)


def residual(n: Net) -> str:
    """A convolution added to its input before any quantizer."""
    x = n.qdq("x", 0.1)
    return n.op("Add", x, n.op("Conv", x, n.weights(4, 4, 1, 1), n.bias(4)))


def padded(n: Net) -> str:
    """Padding in front of a quantizer."""
    x = n.qdq(n.op("Pad", n.qdq("x", 0.1), n.const([0, 0, 1, 1, 0, 0, 1, 1], np.int64)), 0.1)
    return n.op("Conv", x, n.weights(8, 4, 3, 3))


def batch_norm(n: Net, x: str) -> str:
    """Some gammas are negative."""
    params = (n.rng.normal(size=8), n.rng.normal(size=8), n.rng.normal(size=8), n.rng.uniform(0.5, 2, 8))
    return n.op("BatchNormalization", x, *(n.const(p) for p in params))


def hard_swish(n: Net) -> str:
    return n.op("Mul", n.qdq("x", 0.1), n.qdq(n.op("HardSigmoid", n.qdq("x", 0.1)), 1 / 255, -128))


def pooled(n: Net) -> str:
    y = n.op("Relu", conv(n, n.qdq("x", 0.1)))
    return n.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])


def moved(n: Net) -> str:
    y = n.op("Reshape", n.qdq("x", 0.1), n.const([1, 6, 4, 6], np.int64))
    return n.op("Conv", n.op("Transpose", y, perm=[0, 3, 1, 2]), n.weights(4, 6, 3, 3))


def powers_of_two(n: Net) -> str:
    return n.op("Conv", n.qdq("x", 0.125, 0), n.dq(n.const(n.codes(4, 4, 1, 1), np.int8), 0.0078125, 0))


def layer(n: Net, **options: Any) -> str:
    return conv(n, n.qdq("x", 0.1), **options)


def average(n: Net) -> str:
    return n.op("AveragePool", n.qdq("x", 0.1), kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])


Form = Callable[[Net], str]
QDQ: dict[str, Form] = {
    "per tensor": lambda n: n.qdq(layer(n), 0.2),
    "per channel": lambda n: n.qdq(layer(n, per_channel=True), 0.2),
    "u8 u8": lambda n: n.qdq(conv(n, n.qdq("x", 0.1, 128, np.uint8), dtype=np.uint8), 0.2, 100, np.uint8),
    "u8 s8": lambda n: n.qdq(conv(n, n.qdq("x", 0.1, 128, np.uint8)), 0.2, 100, np.uint8),
    "relu": lambda n: n.qdq(n.op("Relu", layer(n)), 0.2, -128),
    "relu6": lambda n: n.qdq(n.op("Clip", layer(n), n.const(0.0), n.const(6.0)), 0.04, -128),
    "relu on codes": lambda n: conv(n, n.op("Relu", n.qdq("x", 0.1)), bias=False),
    "leaky relu": lambda n: n.qdq(n.op("LeakyRelu", n.qdq(layer(n), 0.2), alpha=0.1), 0.15),
    "sigmoid": lambda n: n.qdq(n.op("Sigmoid", n.qdq("x", 0.1)), 1 / 256, -128),
    "hard swish": lambda n: n.qdq(hard_swish(n), 0.06),
    "max pool between": lambda n: n.qdq(pooled(n), 0.2),
    "average pool": lambda n: n.qdq(average(n), 0.053),
    "global average pool": lambda n: n.qdq(n.op("GlobalAveragePool", n.qdq("x", 0.1)), 0.0113),
    "reduce mean": lambda n: n.qdq(n.op("ReduceMean", n.qdq("x", 0.1), axes=[2, 3], keepdims=0), 0.0113),
    "sum": lambda n: n.qdq(n.op("Add", *branches(n)), 0.17, -5),
    "sum with a constant": lambda n: n.qdq(n.op("Add", n.qdq("x", 0.1), far_from_zero(n)), 0.17, -5),
    "difference": lambda n: n.qdq(n.op("Sub", *branches(n)), 0.17, -5),
    "product": lambda n: n.qdq(n.op("Mul", *branches(n)), 0.317, -5),
    "concat of two scales": lambda n: n.qdq(n.op("Concat", *branches(n), axis=1), 0.13),
    "concat to the scale of one": lambda n: n.qdq(concat_of_relus(n), 0.15, -128),
    "movement": lambda n: n.qdq(moved(n), 0.2),
    "gemm": lambda n: n.qdq(dense(n, n.qdq("x", 0.1)), 0.4),
    "matmul": lambda n: n.qdq(n.op("MatMul", n.qdq("x", 0.1), n.op("Transpose", n.weights(10, 6), perm=[1, 0])), 0.1),
    "no quantizer behind": lambda n: n.op("Identity", layer(n)),
    "bias of reals": lambda n: n.qdq(n.op("Add", layer(n), n.const(n.rng.normal(size=(1, 8, 1, 1)))), 0.2),
    "batch norm behind": lambda n: n.qdq(batch_norm(n, layer(n)), 0.2),
    "sum with an accumulator": lambda n: n.qdq(n.op("Relu", residual(n)), 0.17, -128),
    "sum of accumulators": lambda n: n.qdq(n.op("Add", layer(n), layer(n, per_channel=True)), 0.27),
    "pad in front": lambda n: n.qdq(padded(n), 0.2),
    "two quantizers": lambda n: n.qdq(n.qdq(layer(n), 0.2), 0.21, -20),
    "powers of two": lambda n: n.qdq(powers_of_two(n), 0.25, 0),
}
STEPS = {"no quantizer behind": 0.01, "relu on codes": 0.01}
"""Of outputs that are not quantized."""


@pytest.mark.parametrize("form", QDQ)
def test_qdq(form: str) -> None:
    net = Net()
    output = QDQ[form](net)
    scales = [n.input[1] for n in net.nodes if n.op_type == "QuantizeLinear"]
    scale = next(float(numpy_helper.to_array(c)) for c in net.constants if c.name == scales[-1])
    graph = check(net, output, step=STEPS.get(form, scale))
    assert not floats(graph), floats(graph)


def qlinear(
    n: Net, kind: str, *operands: tuple[str, Any, Any, Any], out: tuple[Any, Any, Any], **attributes: Any
) -> str:
    """An operator of com.microsoft whose operands and result each have a scale and a zero point."""
    inputs = [i for x, *rest in operands for i in (x, *n.params(*rest))]
    return n.op(kind, *inputs, *n.params(*out), domain="com.microsoft", **attributes)


def qlinear_conv(n: Net, x: str, dtype: Any = np.int8, per_channel: bool = True) -> str:
    scale = n.rng.uniform(0.002, 0.01, 8) if per_channel else 0.004
    w = n.const(n.codes(8, 4, 3, 3), np.int8)
    zeros = np.zeros(8) if per_channel else 0
    bias = n.const(n.codes(8, low=-2000, high=2000), np.int32)
    return n.op(
        "QLinearConv", x, *n.params(0.1, 3, dtype), w, *n.params(scale, zeros, np.int8), *n.params(0.2, 5, dtype), bias,
        pads=[1, 1, 1, 1], strides=[2, 2],
    )  # fmt: skip


def qlinear_matmul(n: Net, x: str) -> str:
    w = n.const(n.codes(6, 10), np.int8)
    out = n.params(0.1, 5, np.int8)
    return n.op("QLinearMatMul", x, *n.params(0.1, 3, np.int8), w, *n.params(0.004, 0, np.int8), *out)


I8 = (0.1, 3, np.int8)


def concat(n: Net) -> str:
    operands = ("x", *n.params(*I8), "x", *n.params(0.07, 9, np.int8))
    return n.op("QLinearConcat", *n.params(0.13, 2, np.int8), *operands, domain="com.microsoft", axis=1)


def qgemm(n: Net) -> str:
    x, w = n.op("Reshape", "x", n.const([24, 6], np.int64)), n.const(n.codes(10, 6), np.int8)
    bias = n.const(n.codes(10, low=-500, high=500), np.int32)
    params = (*n.params(0.004, 0, np.int8), bias, *n.params(0.11, 5, np.int8))
    return n.op("QGemm", x, *n.params(*I8), w, *params, domain="com.microsoft", transB=1)


def conv_integer(n: Net) -> str:
    w = n.const(n.codes(8, 4, 3, 3), np.int8)
    return n.op("ConvInteger", "x", w, n.const(128, np.uint8), pads=[1, 1, 1, 1])


X = ("x", *I8)
Y = ("x", 0.07, 9, np.int8)
HALVES = {"kernel_shape": [2, 2], "strides": [2, 2]}
OPERATORS: dict[str, tuple[Form, Any]] = {
    "QLinearConv": (lambda n: qlinear_conv(n, "x"), np.int8),
    "QLinearConv uint8": (lambda n: qlinear_conv(n, "x", np.uint8, False), np.uint8),
    "QLinearMatMul": (lambda n: qlinear_matmul(n, "x"), np.int8),
    "QLinearAdd": (lambda n: qlinear(n, "QLinearAdd", X, Y, out=(0.133, -4, np.int8)), np.int8),
    "QLinearAdd of a constant": (
        lambda n: qlinear(
            n, "QLinearAdd", X, (n.const(n.codes(1, 4, 1, 1), np.int8), 0.03, 9, np.int8), out=(0.133, -4, np.int8)
        ),
        np.int8,
    ),
    "QLinearMul": (lambda n: qlinear(n, "QLinearMul", X, Y, out=(0.733, -4, np.int8)), np.int8),
    "QLinearSigmoid": (lambda n: qlinear(n, "QLinearSigmoid", X, out=(1 / 256, -128, np.int8)), np.int8),
    "QLinearLeakyRelu": (lambda n: qlinear(n, "QLinearLeakyRelu", X, out=(0.09, 0, np.int8), alpha=0.1), np.int8),
    "QLinearAveragePool": (lambda n: qlinear(n, "QLinearAveragePool", X, out=(0.077, 1, np.int8), **HALVES), np.int8),
    "QLinearGlobalAveragePool": (
        lambda n: qlinear(n, "QLinearGlobalAveragePool", X, out=(0.177, 1, np.int8)),
        np.int8,
    ),
    "QLinearConcat": (concat, np.int8),
    "QGemm": (qgemm, np.int8),
    "ConvInteger": (conv_integer, np.uint8),
    "MatMulInteger": (
        lambda n: n.op("MatMulInteger", "x", n.const(n.codes(6, 10), np.int8), n.const(128, np.uint8)),
        np.uint8,
    ),
}


@pytest.mark.parametrize("form", OPERATORS)
def test_operators_on_codes(form: str) -> None:
    build, dtype = OPERATORS[form]
    net = Net()
    graph = check(net, build(net), dtype=dtype)
    assert not floats(graph), floats(graph)


def round_clip(n: Net, x: str, scale: float, low: float, high: float) -> str:
    """A quantizer of float operators."""
    y = n.op("Clip", n.op("Div", x, n.const(scale)), n.const(low), n.const(high))
    return n.op("Mul", n.op("Round", y), n.const(scale))


def float_carriers(n: Net, bits: int, per_channel: bool) -> str:
    most = 2 ** (bits - 1) - 1
    scale = n.rng.uniform(0.002, 0.01, (8, 1, 1, 1)) if per_channel else 0.004
    w = n.const(n.codes(8, 4, 3, 3, low=-most, high=most) * scale)
    y = n.op("Conv", round_clip(n, "x", 0.31, -15, 15), w, pads=[1, 1, 1, 1])
    y = n.op("Relu", batch_norm(n, y))
    return round_clip(n, y, 0.217, 0, 31)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bits", [3, 4, 6, 8])
def test_quantizers_of_float_operators(bits: int, per_channel: bool) -> None:
    net = Net()
    graph = check(net, float_carriers(net, bits, per_channel), step=0.217)
    convs = [n for n in graph.nodes if isinstance(n.op, Conv2D)]
    assert [n.input(1).type.dtype.name for n in convs] == ["int8"] and not floats(graph)[3:]


def test_fixed_point() -> None:
    """Integers in float carriers, with divisions: exact."""
    n = Net()
    y = n.op("Clip", n.op("Round", "x"), n.const(0.0), n.const(255.0))
    y = n.op("Conv", y, n.const(n.codes(8, 4, 3, 3)), pads=[1, 1, 1, 1])
    y = n.op("Add", n.op("Mul", y, n.const(n.codes(1, 8, 1, 1, low=1, high=100))), n.const(n.codes(1, 8, 1, 1) * 1000))
    y = n.op("Mul", n.op("Cast", y, to=TensorProto.INT64), n.const(27, np.int64))
    y = n.op("Cast", n.op("Div", y, n.const(4096, np.int64)), to=TensorProto.FLOAT)
    graph = check(n, n.op("Clip", y, n.const(0.0), n.const(255.0)), step=1)
    assert [type(n.op.epilogue).__name__ for n in graph.nodes if isinstance(n.op, Conv2D)] == ["FixedPoint"]


@pytest.mark.parametrize("kind", ["int16", "uint16", "int4", "uint4"])
def test_other_widths(kind: str) -> None:
    """16-bit activations and 4-bit weights, which ONNX has from opset 21."""
    n = Net(21)
    if kind.endswith("16"):
        dtype = np.dtype(kind)
        zero = 0 if kind == "int16" else 32768
        y = n.qdq(n.op("Conv", n.qdq("x", 0.0005, zero, dtype), n.weights(8, 4, 3, 3)), 0.0011, zero, dtype)
        graph = check(n, y, step=0.0011)
    else:
        low, high = (-8, 7) if kind == "int4" else (0, 15)
        codes = n.codes(8, 4, 3, 3, low=low, high=high)
        elem = TensorProto.INT4 if kind == "int4" else TensorProto.UINT4
        n.constants.append(helper.make_tensor("w", elem, codes.shape, codes.reshape(-1).tolist()))
        n.constants.append(helper.make_tensor("wz", elem, (), [0 if kind == "int4" else 8]))
        w = n.op("DequantizeLinear", "w", n.const(0.05), "wz")
        graph = check(n, n.qdq(n.op("Conv", n.qdq("x", 0.1), w), 0.2), step=0.2)
    assert not floats(graph), floats(graph)


def test_dynamic_quantization() -> None:
    n = Net()
    codes, scale, zero = "codes", "scale", "zero"
    n.nodes.append(helper.make_node("DynamicQuantizeLinear", ["x"], [codes, scale, zero], name="dyn"))
    acc = n.op("MatMulInteger", codes, n.const(n.codes(6, 10), np.int8), zero)
    y = n.op("Mul", n.op("Cast", acc, to=TensorProto.FLOAT), n.op("Mul", scale, n.const(0.004)))
    graph = check(n, y, step=0.02)
    convs = [n for n in graph.nodes if isinstance(n.op, Conv2D | MatMul)]
    assert [(c.input(0).type.dtype.name, c.input(1).type.dtype.name) for c in convs] == [("uint8", "int8")]


@pytest.mark.parametrize("target", ["host", "portable"])
def test_generated_code(target: str, tmp_path: Path) -> None:
    """The C of some forms, on wide and on narrow words: the oracle's integers."""
    graphs = []
    for form in ("per channel", "u8 u8", "average pool", "concat of two scales", "product", "bias of reals", "sigmoid"):
        net = Net()
        graphs.append(optimize(net.model(QDQ[form](net), (1, 4, 6, 6), TensorProto.FLOAT)).graph)
    graph = merge(graphs)
    check_c(graph, portable() if target == "portable" else Target.load("host"), tmp_path, random_feeds(graph))


def test_bits_between_bytes() -> None:
    """int8 layer -> threshold on its accumulator -> binary layer -> requantized -> int8 layer."""
    n = Net()
    y = n.op("Sign", n.op("Add", batch_norm(n, layer(n)), n.const(0.0123)))
    y = n.op("Conv", y, n.const(np.sign(n.rng.normal(size=(8, 8, 3, 3)))), pads=[1, 1, 1, 1])
    y = n.qdq(batch_norm(n, y), 0.31, -7)
    graph = check(n, n.qdq(n.op("Conv", y, n.weights(5, 8, 3, 3)), 0.4), step=0.4)
    convs = [n for n in graph.nodes if isinstance(n.op, Conv2D)]
    types = [(c.input(0).type.dtype.name, c.input(1).type.dtype.name, c.output.type.dtype.name) for c in convs]
    assert types == [("int8", "int8", "bit1"), ("bit1", "bit1", "int8"), ("int8", "int8", "int8")]
    assert not floats(graph), floats(graph)


@pytest.mark.parametrize("zero", [0, 3])
def test_a_relu_between_quantizers_of_one_scale_is_a_limit(zero: int) -> None:
    n = Net()
    x = n.qdq(conv(n, n.qdq("x", 0.1)), zero=zero)
    graph = check(n, n.qdq(n.op("Relu", x), zero=zero))
    (layer,) = (v.op for v in graph.nodes if isinstance(v.op, Conv2D))
    assert isinstance(layer, Conv2D) and isinstance(layer.epilogue, Requant) and layer.epilogue.lo == zero
    assert not any(isinstance(v.op, Lookup) for v in graph.nodes)


def test_a_relu_between_other_quantizers_stays_a_table() -> None:
    n = Net()
    graph = check(n, n.qdq(n.op("Relu", n.qdq(conv(n, n.qdq("x", 0.1)), scale=0.07))))
    assert any(isinstance(v.op, Lookup) for v in graph.nodes)


def test_a_clip_that_a_quantizer_does_not_do() -> None:
    n = Net()
    x = n.op("Div", "x", n.const(0.1))
    wide, narrow = (n.op("Clip", x, n.const(-128), n.const(high)) for high in (127, 15))
    y = [n.op("Conv", n.qdq(c, 1.0, 0), n.weights(8, 4, 3, 3), pads=[1] * 4) for c in (wide, narrow)]
    check(n, n.qdq(n.op("Add", *y), 0.5), step=0.5)
