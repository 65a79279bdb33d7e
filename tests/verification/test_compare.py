"""Ties are proved, every other difference is a failure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bitc.errors import InvalidModel
from bitc.ir.graph import Array, Graph, Node, Value, constant
from bitc.ir.rewrite import Rewriter, rewrite
from bitc.ops.linear import Conv2D
from bitc.pipeline import Optimized, Options, optimize
from bitc.verification import verify_outputs
from bitc.verification.compare import Comparison
from bitc.verification.reference import Numpy, OnnxRuntime, Reference
from bitc.verification.verify import label_agreement, open_comparison
from tests.conftest import zoo

Sample = dict[str, Array]


def model(nodes: list[NodeProto], shape: tuple[int, ...], constants: dict[str, Any], output: str) -> bytes:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info(output)],
        [numpy_helper.from_array(np.asarray(a, np.float32), n) for n, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


node = helper.make_node
LENGTH = 256


def two_layers(rng: np.random.Generator, **changes: Any) -> bytes:
    """Real input, binary weights, sign, binary layer, bias."""
    constants = {
        "w1": rng.choice([-1.0, 1.0], (LENGTH, 64)),
        "w2": rng.choice([-1.0, 1.0], (64, 10)),
        "bias": rng.standard_normal(10),
        "zero": 0.0,
        "one": 1.0,
        "minus": -1.0,
    } | changes
    nodes = [
        node("MatMul", ["x", "w1"], ["sum"]),
        node("GreaterOrEqual", ["sum", "zero"], ["high"]),
        node("Where", ["high", "one", "minus"], ["bits"]),
        node("MatMul", ["bits", "w2"], ["acc"]),
        node("Add", ["acc", "bias"], ["y"]),
    ]
    return model(nodes, (1, LENGTH), constants, "y")


def samples(rng: np.random.Generator, count: int, shape: tuple[int, ...] = (1, LENGTH)) -> list[Sample]:
    return [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(count)]


def test_ordinary_inputs_agree() -> None:
    rng = np.random.default_rng(0)
    found = optimize(two_layers(rng))
    report = verify_outputs(found, found.graph, samples(rng, 20))
    assert (report.ok, report.ties, report.argmax_agreement, report.reference) == (True, 0, 1.0, "onnxruntime")
    assert report.max_abs_error <= 1e-5


def test_sums_that_cancel_are_ties() -> None:
    """Each value comes with its negative at a place of equal weights, so every exact sum is 0 and how products and
    sums are rounded decides the sign: onnxruntime fuses them."""
    rng = np.random.default_rng(1)
    half = rng.standard_normal((LENGTH // 2, 64))
    order = rng.permutation(LENGTH)
    found = optimize(two_layers(rng, w1=np.concatenate([half, half])[order]))
    inputs = []
    for _ in range(10):
        x = rng.standard_normal(LENGTH // 2).astype(np.float32)
        inputs.append({"x": np.concatenate([x, -x])[order][None]})
    report = verify_outputs(found, found.graph, inputs)
    assert report.ok, report.failures
    assert report.ties > 0
    assert report.max_abs_error <= 1e-5  # what follows is computed from the reference's bits


class Flipped:
    """A reference with one element of a ±1 tensor inverted."""

    def __init__(self, inner: Reference, tensor: str, index: int) -> None:
        self.inner, self.tensor, self.index = inner, tensor, index
        self.name = inner.name

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        values = {k: v.copy() for k, v in self.inner.run(feeds).items()}
        values[self.tensor].reshape(-1)[self.index] *= -1
        return values


def test_a_flipped_bit_far_from_its_threshold_is_a_failure() -> None:
    rng = np.random.default_rng(2)
    found = optimize(two_layers(rng))
    reference = found.imported.reference
    assert reference is not None
    comparison = Comparison(
        found.imported.graph, found.graph, lambda names: Flipped(OnnxRuntime(reference, names), "bits", 5), 1e-4
    )
    result = comparison.sample(3, samples(rng, 1)[0])
    assert (result.ties, result.failed) == (0, 1 + 10)  # and the outputs, which the reference has from other bits
    text = str(result.failures[0])
    assert text.startswith("sample 3: bits[0, 5] is ") and "rounding explains 0" in text


def _with_first_weights(found: Optimized, change: Any) -> Graph:
    """The optimized graph with the weights of its first layer changed."""
    done: list[Node] = []

    def rule(rw: Rewriter, n: Node) -> Value | None:
        if not isinstance(n.op, Conv2D) or done:
            return None
        done.append(n)
        w = n.input(1)
        data = w.array.copy()
        change(data)
        return rw.emit(n.op, n.input(0), constant("changed", data, w.type), *n.inputs[2:], name=n.output.name)

    return rewrite(found.graph, rule)


def test_a_softmax_of_codes_is_that_of_the_model() -> None:
    """onnxruntime's fused one is a step off: -46 where the nearest code is -45."""
    scale, zero, to, low = np.float32(0.0012249588), np.int8(48), np.float32(1 / 255), np.int8(-128)
    constants = {"s": scale, "t": to}
    nodes = [
        node("Cast", ["zero8"], ["z"], to=TensorProto.INT8),
        node("Cast", ["low8"], ["l"], to=TensorProto.INT8),
        node("QuantizeLinear", ["x", "s", "z"], ["codes"]),
        node("DequantizeLinear", ["codes", "s", "z"], ["reals"]),
        node("Softmax", ["reals"], ["p"], axis=1),
        node("QuantizeLinear", ["p", "t", "l"], ["q"]),
        node("DequantizeLinear", ["q", "t", "l"], ["y"]),
    ]
    data = model(nodes, (1, 3), constants | {"zero8": zero, "low8": low}, "y")
    x = ((np.array([[2, 15, 58]]) - 48) * scale).astype(np.float32)
    found = optimize(data)
    assert open_comparison(found, found.graph).sample(0, {"x": x}).failed == 0


def test_a_wrong_weight_is_found() -> None:
    rng = np.random.default_rng(3)
    found = optimize(two_layers(rng))

    def negate_a_kernel(w: Array) -> None:
        w[0] = ~w[0] if w.dtype.kind == "b" else -w[0]

    report = verify_outputs(found, _with_first_weights(found, negate_a_kernel), samples(rng, 5))
    assert not report.ok and report.failed_elements == 5 and report.ties == 0
    assert report.failures[0].startswith("sample 0: ")


def test_a_wrong_float_output_is_found() -> None:
    rng = np.random.default_rng(4)
    found = optimize(two_layers(rng))
    bias = next(n for n in reversed(found.graph.nodes) if isinstance(n.op, Conv2D)).inputs[-1]
    assert bias is not None
    off = constant("off", bias.array + np.float32(0.01), bias.type)
    nodes = tuple(replace(n, inputs=tuple(off if v is bias else v for v in n.inputs)) for n in found.graph.nodes)
    graph = Graph("off", found.graph.inputs, found.graph.outputs, nodes)
    report = verify_outputs(found, graph, samples(rng, 3))
    assert not report.ok and report.failed_elements == 30
    assert report.max_abs_error == pytest.approx(0.01, rel=1e-3)


def test_weights_off_by_a_straight_through_estimator_are_covered() -> None:
    rng = np.random.default_rng(5)
    noisy = rng.choice([-0.3, 0.3], (LENGTH, 64)) * (1 + rng.uniform(-3e-5, 3e-5, (LENGTH, 64)))
    found = optimize(two_layers(rng, w1=noisy))
    report = verify_outputs(found, found.graph, samples(rng, 50))
    assert report.ok, report.failures


def test_straight_through_activations() -> None:
    """Add(Sub(Sign(x), T), T): the reference's bits are off ±1 by rounding, which is no difference of codes."""
    rng = np.random.default_rng(6)
    constants = {
        "w1": rng.standard_normal((LENGTH, 65)),
        "w2": rng.choice([-1.0, 1.0], (65, 10)),
        "lo": -1.0,
        "hi": 1.0,
    }
    nodes = [
        node("MatMul", ["x", "w1"], ["sum"]),
        node("Sign", ["sum"], ["sign"]),
        node("Clip", ["sum", "lo", "hi"], ["clip"]),
        node("Sub", ["sign", "clip"], ["difference"]),
        node("Add", ["difference", "clip"], ["bits"]),
        node("MatMul", ["bits", "w2"], ["y"]),
    ]
    found = optimize(model(nodes, (1, LENGTH), constants, "y"), Options(sign0=1))
    report = verify_outputs(found, found.graph, samples(rng, 20))
    assert report.ok, report.failures


def test_the_users_sign_of_zero_is_the_meaning() -> None:
    rng = np.random.default_rng(7)
    constants = {"w1": rng.choice([-1.0, 1.0], (16, 32)), "w2": rng.choice([-1.0, 1.0], (32, 4))}
    nodes = [
        node("Sign", ["x"], ["first"]),
        node("MatMul", ["first", "w1"], ["sum"]),
        node("Sign", ["sum"], ["second"]),
        node("MatMul", ["second", "w2"], ["y"]),
    ]
    zeros = [{"x": rng.choice([-1.0, 0.0, 1.0], (1, 16)).astype(np.float32)} for _ in range(10)]
    net = model(nodes, (1, 16), constants, "y")
    for sign0, reference in ((0, "onnxruntime"), (1, "numpy"), (-1, "numpy")):
        found = optimize(net, Options(sign0=sign0))
        report = verify_outputs(found, found.graph, zeros)
        assert report.ok, report.failures
        assert (report.ties, report.reference, report.max_abs_error) == (0, reference, 0)


def test_labels_as_outputs() -> None:
    rng = np.random.default_rng(8)
    nodes = [
        node("MatMul", ["x", "w"], ["scores"]),
        node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    found = optimize(model(nodes, (1, LENGTH), {"w": rng.standard_normal((LENGTH, 10))}, "label"))
    report = verify_outputs(found, found.graph, samples(rng, 10))
    assert (report.ok, report.argmax_agreement, report.max_abs_error, report.max_lsb_error) == (True, 1.0, 0, 0)


def test_accuracy_counts_labels() -> None:
    rng = np.random.default_rng(9)
    found = optimize(two_layers(rng))
    inputs = samples(rng, 4)
    (name,) = (v.name for v in found.graph.outputs)
    outputs = [{name: np.eye(10, dtype=np.float32)[[i]]} for i in range(4)]
    report = verify_outputs(found, found.graph, inputs, outputs, np.array([0, 1, 2, 9]))
    assert report.accuracy == 0.75
    assert report.max_abs_error > 1  # of what the device gave, not of the oracle


@pytest.mark.parametrize(
    ("ours", "theirs", "share"),
    [
        ([[1, 3, 2]], [[1, 3, 2]], 1.0),
        ([[1, 3, 2]], [[1, 2, 3]], 0.0),
        ([[1, 3, 2]], [[1, 3, 3]], 1.0),
        ([[1, 2], [2, 1]], [[1, 2], [1, 2]], 0.5),
        ([[0.7]], [[0.6]], 1.0),
        ([[0.4]], [[0.6]], 0.0),
        ([[-0.1]], [[0.1]], 0.0),
        ([[np.nan, 1.0]], [[np.nan, 1.0]], 1.0),
    ],
)
def test_label_agreement(ours: Any, theirs: Any, share: float) -> None:
    assert label_agreement(np.array(ours, np.float32), np.array(theirs, np.float32)) == share


def test_integer_labels_agree_if_equal() -> None:
    assert label_agreement(np.array([3]), np.array([3])) == 1
    assert label_agreement(np.array([3, 4]), np.array([3, 5])) == 0.5


def test_references_show_inner_tensors() -> None:
    rng = np.random.default_rng(10)
    found = optimize(two_layers(rng))
    assert found.imported.reference is not None
    feeds = samples(rng, 1)[0]
    tensors = ["bits", "high", "no such tensor"]
    a = OnnxRuntime(found.imported.reference, tensors).run(feeds)
    b = Numpy(found.imported.graph, tensors).run(feeds)
    assert set(a) == set(b) == {"y", "bits", "high"}
    assert (a["bits"] == b["bits"]).all() and (a["high"] == b["high"]).all()
    assert np.allclose(a["y"], b["y"], atol=1e-4)


def test_a_model_that_onnxruntime_refuses() -> None:
    with pytest.raises(InvalidModel, match="onnxruntime refuses"):
        OnnxRuntime(model([node("MatMul", ["x", "x"], ["y"])], (2, 3), {}, "y"))


def test_each_quantizer_is_compared_once() -> None:
    found = optimize(two_layers(np.random.default_rng(11)))
    comparison = open_comparison(found, found.graph)
    assert [o.tensor for o in comparison.anchors.values()] == ["bits"]


ZOO = [
    ("qonnx_tfc_1w1a/TFC_1W1A.onnx", "data/mnist.npz", "x_test", 2.0, -1.0, 4),
    ("qonnx_tfc_1w1a/TFC_1W1A.plain.onnx", "data/mnist.npz", "x_test", 2.0, -1.0, 4),
    ("bmxnet_mnist/binarized_mnist_64bit.onnx", "data/mnist.npz", "x_test", 1.0, 0.0, 2),
    (
        "larq_gtsrb_30/XNOR_QConv__MP__enhanced__BN__30x30_3_30_30_QConv_16_3_MP_2_QConv_32_2_MP_2_BN_Dense_43_ep_30.onnx",
        "larq_gtsrb_30/images.npz", "x", 255.0, 0.0, 2,
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "data", "array", "scale", "offset", "layers"), ZOO, ids=[z[0].split("/")[0] for z in ZOO]
)
def test_real_models(path: str, data: str, array: str, scale: float, offset: float, layers: int) -> None:
    found = optimize(zoo(path))
    (v,) = found.graph.inputs
    images = np.load(zoo(data))[array][:20].astype(np.float32) / np.float32(255) * np.float32(scale) + np.float32(
        offset
    )
    report = verify_outputs(found, found.graph, [{v.name: image.reshape(v.shape)} for image in images])
    assert report.ok, report.failures
    assert report.ties <= 2
    assert report.argmax_agreement == 1
    assert len(open_comparison(found, found.graph).anchors) == layers
