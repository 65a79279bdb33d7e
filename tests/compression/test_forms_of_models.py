"""Models as exporters write them, and data as users give it: each works, or says clearly why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bitc.frontend.edit import EditableModel
from tests.compression.test_compress import bitc

RNG = np.random.default_rng(0)
SHAPES = {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (24, 16, 3, 3), "b2": (24,), "w3": (24, 10), "b3": (10,)}
WEIGHTS = {name: (RNG.normal(size=shape) / 3).astype(np.float32) for name, shape in SHAPES.items()}
Constants = dict[str, Any]


def layers(**gemm: Any) -> list[NodeProto]:
    """Two convolutions and a dense layer."""
    return [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], name="c1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2", "b2"], ["c"], name="c2", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="fc", **gemm),
    ]


def model(nodes: list[NodeProto], constants: Constants = WEIGHTS, opset: int = 13, batch: int | str = 1) -> ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 10, 10])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(v, name) for name, v in constants.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def through(op: str, change: Callable[[Any], Any] = lambda v: v, **attributes: Any) -> ModelProto:
    """Every constant is what `op` makes of another one."""
    made = [helper.make_node(op, [f"{n}.raw"], [n], **attributes) for n in SHAPES]
    return model(made + layers(), {f"{n}.raw": change(v) for n, v in WEIGHTS.items()})


def as_constants() -> ModelProto:
    made = [helper.make_node("Constant", [], [n], value=numpy_helper.from_array(v)) for n, v in WEIGHTS.items()]
    return model(made + layers(), {})


def unnamed() -> ModelProto:
    nodes = layers()
    for node in nodes:
        node.name = ""
    return model(nodes)


def half() -> ModelProto:
    nodes = layers()
    nodes[0].input[0], nodes[-1].output[0] = "x.half", "y.half"
    casts = [helper.make_node("Cast", [a], [b], to=to) for a, b, to in (("x", "x.half", 10), ("y.half", "y", 1))]
    return model([casts[0], *nodes, casts[1]], {n: v.astype(np.float16) for n, v in WEIGHTS.items()})


def with_transposed_weights() -> ModelProto:
    made = helper.make_node("Transpose", ["w3.t"], ["w3"], perm=[1, 0])
    constants = {n: v for n, v in WEIGHTS.items() if n != "w3"} | {"w3.t": WEIGHTS["w3"].T.copy()}
    return model([made, *layers()], constants)


MODELS: dict[str, Callable[[], ModelProto]] = {
    "opset 9": lambda: model(layers(), opset=9),
    "opset 22": lambda: model(layers(), opset=22),
    "Constant nodes": as_constants,
    "through Identity": lambda: through("Identity"),
    "cast from float16": lambda: through("Cast", lambda v: v.astype(np.float16), to=TensorProto.FLOAT),
    "all float16": half,
    "through Transpose": with_transposed_weights,
    "transB": lambda: model(layers(transB=1), {**WEIGHTS, "w3": WEIGHTS["w3"].T.copy()}),
    "alpha and beta": lambda: model(layers(alpha=0.5, beta=2.0)),
    "no names": unnamed,
    "dynamic batch": lambda: model(layers(), batch="N"),
}


def data(folder: Path, **arrays: Any) -> Path:
    x = RNG.normal(size=(6, 3, 10, 10)).astype(np.float32)
    np.savez(folder / "data.npz", **({"x": x} | arrays))
    return folder / "data.npz"


def compress(folder: Path, proto: ModelProto, *steps: str, **arrays: Any) -> Any:
    onnx.save(proto, folder / "net.onnx")
    args: list[Any] = ["--calibration", data(folder, **arrays), "--shape", "x=1x3x10x10", "-o", folder / "small.onnx"]
    return bitc("compress", folder / "net.onnx", *args, *(part for s in steps for part in ("--step", s)))


@pytest.mark.parametrize("name", MODELS)
def test_any_export_is_ternary_and_int8(name: str, tmp_path: Path) -> None:
    result = compress(tmp_path, MODELS[name](), "ternarize@*", "quantize")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert [r["step"] for r in report["layers"]].count("quantize") == 3 and not report["skipped"]
    verified = bitc("verify", tmp_path / "small.onnx", "--inputs", tmp_path / "data.npz", "--samples", 1)
    assert verified.exit_code == 0, verified.stderr
    tensors = onnx.load(tmp_path / "small.onnx").graph.initializer
    codes = [numpy_helper.to_array(t) for t in tensors if t.data_type == TensorProto.INT8 and len(t.dims) > 1]
    assert len(codes) == 3 and all(set(np.unique(c)) == {-127, 0, 127} for c in codes)


@pytest.mark.parametrize("name", ["opset 9", "all float16", "no names"])
def test_any_export_is_binary(name: str, tmp_path: Path) -> None:
    """Weights and activations: comparisons differ by opset, constants by type."""
    result = compress(tmp_path, MODELS[name](), "binarize:activations=sign")
    assert result.exit_code == 0, result.stderr
    found = json.loads(bitc("inspect", tmp_path / "small.onnx", "--shape", "x=1x3x10x10").stdout)
    assert len(found["binary"]) == 1
    verified = bitc("verify", tmp_path / "small.onnx", "--inputs", tmp_path / "data.npz", "--samples", 1)
    assert verified.exit_code == 0, verified.stderr


def test_an_opset_without_comparisons_is_told(tmp_path: Path) -> None:
    result = compress(tmp_path, model(layers(), opset=8), "binarize:activations=sign")
    assert result.exit_code == 3 and "opset 8 has no Where" in result.stderr and "c2" in result.stderr


def dense_block() -> ModelProto:
    """Two layers on a concatenation, batch norms in front of each and behind the last."""
    ones, some = np.ones(24, np.float32), RNG.normal(size=24).astype(np.float32)
    norms = {
        n: v[:k] for k, i in ((16, "1"), (24, "2")) for n, v in ((f"g{i}", ones), (f"s{i}", some), (f"v{i}", ones))
    }
    wide = (RNG.normal(size=(8, 16, 3, 3)) / 5).astype(np.float32)
    constants = {**WEIGHTS, **norms, "wide": wide, "w4": (RNG.normal(size=(10, 24, 3, 3)) / 5).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], name="c1", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "g1", "s1", "s1", "v1"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Conv", ["r", "wide"], ["b"], name="c2", pads=[1, 1, 1, 1]),
        helper.make_node("Concat", ["a", "b"], ["cat"], axis=1),
        helper.make_node("BatchNormalization", ["cat", "g2", "s2", "s2", "v2"], ["m"]),
        helper.make_node("Relu", ["m"], ["q"]),
        helper.make_node("Conv", ["q", "w4"], ["y"], name="c3", pads=[1, 1, 1, 1]),
    ]
    return model(nodes, constants)


def test_removed_channels_are_gone_behind_batch_norms(tmp_path: Path) -> None:
    result = compress(tmp_path, dense_block(), "channels:share=0.5")
    report = json.loads(result.stdout)
    assert report["after"]["weights_bytes"] < 0.6 * report["before"]["weights_bytes"]
    verified = bitc("verify", tmp_path / "small.onnx", "--inputs", tmp_path / "data.npz", "--samples", 2)
    assert verified.exit_code == 0, verified.stderr


def test_factors_of_a_gemm_go_into_its_constants() -> None:
    plain, factors = (EditableModel(model(layers(**k)).SerializeToString()) for k in ({}, {"alpha": 0.5, "beta": 2.0}))
    a, b = plain.layer("fc"), factors.layer("fc")
    np.testing.assert_array_equal(factors.weights(b), plain.weights(a) * 0.5)
    np.testing.assert_array_equal(factors.bias(b), plain.bias(a) * 2)


def test_shared_weights_are_told(tmp_path: Path) -> None:
    nodes = layers()
    nodes[4:4] = [helper.make_node("Conv", ["d", "w2", "b2"], ["d2"], name="again", pads=[1, 1, 1, 1])]
    nodes[5].input[0] = "d2"
    shared = {**WEIGHTS, "w2": WEIGHTS["w2"][:, :16][:16], "b2": WEIGHTS["b2"][:16], "w3": WEIGHTS["w3"][:16]}
    result = compress(tmp_path, model(nodes, shared), "prune")
    assert result.exit_code == 0, result.stderr
    assert {r["node"]: r["why"] for r in json.loads(result.stdout)["skipped"]} == dict.fromkeys(
        ("c2", "again"), "another node reads its weights too"
    )
    result = compress(tmp_path, model(nodes, shared), "prune@c2")
    assert result.exit_code == 2 and "another node reads" in result.stderr and "c1, fc" in result.stderr


def test_a_quantized_model_is_told(tmp_path: Path) -> None:
    assert compress(tmp_path, model(layers()), "quantize").exit_code == 0
    result = compress(tmp_path, onnx.load(tmp_path / "small.onnx"), "prune")
    assert result.exit_code == 3 and "c2: its weights are quantized already" in result.stderr
    assert "quantize it last" in result.stderr


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.full((2, 3, 10, 10), np.nan)}, "holds NaN or infinity"),
        ({"x": np.zeros((2, 3, 9, 9))}, "has shape"),
        ({"x": np.array(["a"])}, ""),
        ({"labels": np.zeros(5, np.int64)}, "not classes"),
        ({"labels": np.eye(6)}, "not classes"),
        ({"labels": np.array([0.5] * 6)}, "not classes"),
    ],
)
def test_bad_data_is_told(arrays: dict[str, Any], said: str, tmp_path: Path) -> None:
    result = compress(tmp_path, model(layers()), "prune", **arrays)
    assert result.exit_code == 2 and said in result.stderr and "data.npz" in result.stderr and "hint" in result.stderr
    assert not (tmp_path / "small.onnx").exists()


def test_whole_floats_are_labels(tmp_path: Path) -> None:
    result = compress(tmp_path, model(layers()), "prune", labels=np.arange(6.0))
    assert json.loads(result.stdout)["metric"] == "accuracy"
