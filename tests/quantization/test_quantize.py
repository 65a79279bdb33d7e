"""A small float network, fitted to the images of an example, becomes int8 and still knows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import ModelProto, helper

from bitc.cli import main
from tests.frontend.models import floats, model, session

IMAGES = Path(__file__).resolve().parents[2] / "examples" / "fashion_cnn" / "images.npz"
node = helper.make_node


def fitted(opset: int) -> tuple[ModelProto, dict[str, Any]]:
    """Random 5x5 filters with batch norm, then a dense layer by ridge regression on real images."""
    data = np.load(IMAGES)
    x, labels = data["image"].astype(np.float32) / 255, data["labels"]
    filters = floats(12, 1, 5, 5) * (2.0 ** floats(12, 1, 1, 1, seed=3)).astype(np.float32)
    layers = [
        node("Conv", ["image", "filters"], ["c"], strides=[2, 2]),
        node("BatchNormalization", ["c", "one", "zero", "zero", "var"], ["n"]),
        node("Relu", ["n"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["p"], ["f"]),
    ]
    one = np.ones(12, np.float32)
    constants = {"filters": filters, "one": one, "zero": 0 * one, "var": 4 * one}
    body = session(model(layers, {"image": x[0]}, ["f"], constants, opset).SerializeToString())
    features = np.concatenate([body.run(None, {"image": i})[0] for i in x])
    wanted = np.eye(10)[labels]
    gram = features.T @ features
    ridge = 1e-2 * np.trace(gram) / len(gram) * np.eye(len(gram))
    dense = np.linalg.solve(gram + ridge, features.T @ wanted).astype(np.float32)
    layers.append(node("MatMul", ["f", "dense"], ["logits"]))
    made = model(layers, {"image": x[0]}, ["logits"], {**constants, "dense": dense}, opset)
    return made, {"image": x, "labels": labels}


def call(*args: object) -> Result:
    return CliRunner().invoke(main, ["quantize", *map(str, args)])


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    m, data = fitted(11)
    (tmp_path / "float.onnx").write_bytes(m.SerializeToString())
    np.savez(tmp_path / "images.npz", **data)
    return tmp_path / "float.onnx", tmp_path / "images.npz"


@pytest.mark.parametrize("options", [(), ("--method", "percentile"), ("--symmetric",)])
def test_a_float_network_becomes_int8(files: tuple[Path, Path], tmp_path: Path, options: tuple[str, ...]) -> None:
    source, images = files
    out = tmp_path / "int8.onnx"
    done = call(source, "--calibration", images, "-o", out, "--json", *options)
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["samples"] == 48 and report["accuracy_before"] > 0.9
    assert report["argmax_agreement"] > 0.9 and report["accuracy_after"] > 0.85
    assert report["bytes"] < report["float_bytes"] / 2
    made = onnx.load(out)
    assert [o.version for o in made.opset_import if not o.domain] == [13]
    types = {t.data_type for t in made.graph.initializer if t.name.endswith("_quantized")}
    assert types <= {onnx.TensorProto.INT8, onnx.TensorProto.INT32} and onnx.TensorProto.INT8 in types
    per_channel = [list(t.dims) for t in made.graph.initializer if t.name.endswith("_scale") and t.dims]
    assert [12] in per_channel  # of the filters
    arguments = ["verify", str(out), "--inputs", str(images), "--samples", "8", "--per-layer", "--json"]
    verified = CliRunner().invoke(main, arguments)
    assert verified.exit_code == 0, verified.output
    found = json.loads(verified.stdout)
    assert found["macs"]["int8"] > 0 and found["macs"]["float"] == 0
    rows = found["per_layer"]
    assert any(r["compiled"] and r["type"].startswith("int8") for r in rows)
    assert all(r["status"] != "departs" for r in rows)
    assert all("exact integer" in r["why"] for r in rows if r["own_lsb_error"] and r["compiled"])


def test_bad_calls(files: tuple[Path, Path], tmp_path: Path) -> None:
    source, images = files
    out = tmp_path / "int8.onnx"
    assert call(source, "--calibration", tmp_path / "none.npz", "-o", out).exit_code == 2
    assert call(source, "--calibration", images, "-o", tmp_path / "none" / "int8.onnx").exit_code == 2
    np.savez(tmp_path / "few.npz", labels=np.array([1]))
    short = call(source, "--calibration", images, "--labels", tmp_path / "few.npz", "-o", out)
    assert short.exit_code == 2 and "48 samples" in short.stderr
    assert not out.exists()
    assert call(source, "--calibration", images, "-o", out).exit_code == 0
    again = call(out, "--calibration", images, "-o", tmp_path / "again.onnx")
    assert again.exit_code == 3 and "quantized already" in again.stderr
    trivial = tmp_path / "size.onnx"
    floor = model([node("Floor", ["image"], ["y"])], {"image": floats(1, 1, 28, 28)}, ["y"])
    trivial.write_bytes(floor.SerializeToString())
    assert call(trivial, "--calibration", images, "-o", out).exit_code == 3
