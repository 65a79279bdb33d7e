"""QONNX's operators against what qonnx's Python defines, written out in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper

from bitc.errors import UnsupportedOp
from bitc.frontend import load
from bitc.frontend.source import QONNX_DOMAINS
from bitc.interp import run
from tests.frontend.models import Array, floats, model

X = np.concatenate([floats(4, 30) * 3, np.array([[0.0, -0.0, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5] * 15] * 4) / 4], axis=1)
X = X.astype(np.float32)[None]


def quantize(
    op: str, *constants: Array, domain: str = "qonnx.custom_op.general", x: Array = X, **attributes: Any
) -> Array:
    names = [f"c{i}" for i in range(len(constants))]
    node = helper.make_node(op, ["x", *names], ["y"], domain=domain, **attributes)
    imported = load(model([node], {"x": x}, ["y"], dict(zip(names, constants, strict=True))).SerializeToString())
    assert imported.reference is None
    return run(imported.graph, {"x": x})["y"]


def scalar(value: float) -> Array:
    return np.array(value, np.float32)


def away(x: Array) -> Array:
    return np.sign(x) * np.ceil(np.abs(x))


ROUNDING: dict[str, Callable[[Array], Array]] = {
    "ROUND": np.round,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "ROUND_TO_ZERO": np.trunc,
    "DOWN": np.trunc,
    "UP": away,
    "HALF_UP": lambda x: np.sign(x) * np.floor(np.abs(x) + np.float32(0.5)),
    "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - np.float32(0.5)),
}


@pytest.mark.parametrize("domain", QONNX_DOMAINS)
@pytest.mark.parametrize("shape", [(), (1,)])
def test_bipolar(domain: str, shape: tuple[int, ...]) -> None:
    got = quantize("BipolarQuant", np.full(shape, 0.25, np.float32), domain=domain)
    np.testing.assert_array_equal(got, np.where(X >= 0, np.float32(0.25), np.float32(-0.25)))


def test_bipolar_scale_per_channel() -> None:
    scale = np.array([1, 2, 3, 4], np.float32).reshape(1, 4, 1)
    np.testing.assert_array_equal(quantize("BipolarQuant", scale), np.where(X >= 0, scale, -scale))


@pytest.mark.parametrize("mode", ROUNDING)
@pytest.mark.parametrize(
    ("bits", "signed", "narrow"), [(2, 1, 1), (2, 1, 0), (4, 1, 0), (3, 0, 0), (3, 0, 1), (1, 0, 0)]
)
@pytest.mark.parametrize("zero", [0.0, 1.0])
def test_quant(mode: str, bits: int, signed: int, narrow: int, zero: float) -> None:
    options = {"signed": signed, "narrow": narrow, "rounding_mode": mode}
    got = quantize("Quant", scalar(0.5), scalar(zero), scalar(bits), **options)
    low = -(2 ** (bits - 1)) + narrow if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    y = np.clip(X / np.float32(0.5) + np.float32(zero), low, high)
    np.testing.assert_array_equal(got, (ROUNDING[mode](y) - np.float32(zero)) * np.float32(0.5))


@pytest.mark.parametrize("zero", [0.0, 1.0])
def test_one_signed_bit(zero: float) -> None:
    got = quantize("IntQuant", scalar(0.5), scalar(zero), scalar(1), signed=1, narrow=1)
    want = (np.where(X / np.float32(0.5) + np.float32(zero) >= 0, 1, -1) - zero) * 0.5
    np.testing.assert_array_equal(got, want.astype(np.float32))


@pytest.mark.parametrize("channels", [1, 4])
def test_multi_threshold(channels: int) -> None:
    t = np.sort(floats(channels, 7), axis=1)
    got = quantize("MultiThreshold", t, out_scale=2.0, out_bias=-7.0, out_dtype="INT4")
    count = (X[..., None] >= t[None, :, None, :]).sum(-1)
    np.testing.assert_array_equal(got, count.astype(np.float32) * 2 - 7)


def test_multi_threshold_channels_last() -> None:
    t, x = np.sort(floats(3, 5), axis=1), floats(1, 4, 4, 3)
    got = quantize("MultiThreshold", t, x=x, data_layout="NHWC")
    np.testing.assert_array_equal(got, (x[..., None] >= t).sum(-1).astype(np.float32))


def test_missing_opset_import_and_stub_function() -> None:
    """Brevitas writes a local function whose body returns its input: inlining it would drop the quantizer."""
    stub = helper.make_function(
        "onnx.brevitas", "BipolarQuant", ["x", "s"], ["y"], [helper.make_node("Identity", ["x"], ["y"])],
        [helper.make_opsetid("", 13)],
    )  # fmt: skip
    node = helper.make_node("BipolarQuant", ["x", "s"], ["y"], domain="onnx.brevitas")
    m = model([node], {"x": X}, ["y"], {"s": scalar(1)}, domains={"onnx.brevitas": 1})
    m.functions.append(stub)
    got = run(load(m.SerializeToString()).graph, {"x": X})["y"]
    np.testing.assert_array_equal(got, np.where(X >= 0, 1, -1))


def test_other_functions_are_inlined() -> None:
    body = [helper.make_node("Add", ["a", "a"], ["t"]), helper.make_node("Relu", ["t"], ["y"])]
    function = helper.make_function("mine", "Twice", ["a"], ["y"], body, [helper.make_opsetid("", 13)])
    m = model([helper.make_node("Twice", ["x"], ["y"], domain="mine")], {"x": X}, ["y"], domains={"mine": 1})
    m.functions.append(function)
    imported = load(m.SerializeToString())
    assert [n.op.name for n in imported.graph.nodes] == ["Add", "Relu"]
    assert imported.nodes == 2
    assert imported.reference is not None


@pytest.mark.parametrize(
    ("bits", "mode"), [(np.array([2, 3], np.float32), "ROUND"), (scalar(4), "STOCHASTIC"), (scalar(0), "ROUND")]
)
def test_refused(bits: Array, mode: str) -> None:
    with pytest.raises(UnsupportedOp) as e:
        quantize("Quant", scalar(1), scalar(0), bits, signed=1, narrow=0, rounding_mode=mode)
    assert e.value.nodes[0].op == "qonnx.custom_op.general.Quant"


def test_weights_fold() -> None:
    w = floats(4, 9)
    nodes = [
        helper.make_node("Quant", ["w", "s", "z", "b"], ["q"], domain="onnx.brevitas", signed=1, narrow=1),
        helper.make_node("Transpose", ["q"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    constants = {"w": w, "s": scalar(0.5), "z": scalar(0), "b": scalar(2)}
    graph = load(model(nodes, {"x": floats(1, 9)}, ["y"], constants).SerializeToString()).graph
    (node,) = graph.nodes
    assert node.op.name == "MatMul"
    np.testing.assert_array_equal(node.input(1).array, (np.clip(np.round(w / 0.5), -1, 1) * 0.5).T)
