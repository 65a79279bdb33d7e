"""The command on a trained network: the file still runs in onnxruntime, and bitc finds the form again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from bitc.cli import main
from bitc.compression.calibration import windows
from bitc.frontend.edit import EditableModel

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "fashion_float"
MODEL, IMAGES = EXAMPLE / "fashion_float.onnx", EXAMPLE / "images.npz"


def bitc(*args: object) -> Any:
    return CliRunner().invoke(main, [*map(str, args), "--json"])


def compress(tmp_path: Path, *args: object) -> tuple[dict[str, Any], Path]:
    out = tmp_path / "small.onnx"
    result = bitc("compress", MODEL, "--calibration", IMAGES, "-t", "cortex-m4", "-o", out, *args)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout), out


def test_ternary_network(tmp_path: Path) -> None:
    report, out = compress(tmp_path, "--step", "ternarize")
    assert report["metric"] == "accuracy" and report["samples"] == 48
    assert report["after"]["score"] >= report["before"]["score"] - 0.1
    assert report["after"]["weights_bytes"] < report["before"]["weights_bytes"] / 3
    verified = bitc("verify", out, "-t", "cortex-m4", "--inputs", IMAGES, "--samples", 1)
    assert verified.exit_code == 0, verified.stderr


def test_channels_are_really_gone(tmp_path: Path) -> None:
    report, out = compress(tmp_path, "--step", "channels:share=0.25")
    before, after = report["before"], report["after"]
    assert after["weights_bytes"] < 0.7 * before["weights_bytes"]
    assert after["arena_bytes"] < 0.8 * before["arena_bytes"]
    verified = bitc("verify", out, "-t", "host", "--inputs", IMAGES)
    assert json.loads(verified.stdout)["argmax_agreement"] == 1


def test_max_drop_keeps_layers_as_they_were(tmp_path: Path) -> None:
    report, out = compress(tmp_path, "--step", "binarize:activations=sign", "--max-drop", 0.05)
    assert report["after"]["score"] >= report["before"]["score"] - 0.05
    kept = [r["layer"] for r in report["layers"] if r["kept"] and r["step"] == "binarize"]
    assert kept
    before, after = EditableModel(MODEL), EditableModel(out)
    levels = {n.output[0] for n in onnx.load(out).graph.node if n.op_type == "Where"}
    assert len(levels) == sum(r["step"] == "binarize" and not r["kept"] for r in report["layers"])
    assert all(len(np.unique(np.abs(after.weights(after.layer(k))[0]))) > 1 for k in kept)
    assert [a.name for a in before.layers] == [a.name for a in after.layers]


def test_bits_and_int8_in_one_command(tmp_path: Path) -> None:
    bits = "node_conv2d_2,node_conv2d_4"
    steps = (f"binarize:activations=sign@{bits}", "ternarize@node_conv2d_6", "quantize")
    report, out = compress(tmp_path, "--samples", 8, *(part for s in steps for part in ("--step", s)))
    rows = [r for r in report["layers"] if r["step"] == "quantize"]
    assert {r["layer"] for r in rows if r["kept"]} == set(bits.split(",")) and len(rows) == 10
    found = bitc("compile", out, "-t", "cortex-m4", "-o", tmp_path / "out")
    assert json.loads(found.stdout)["macs"]["float"] == 0
    forms = {r["node"]: r["form"] for r in json.loads(bitc("inspect", out).stdout)["binary"]}
    assert set(forms) == {*bits.split(","), "node_conv2d_6"} and "{-s, 0, s}" in forms["node_conv2d_6"]
    assert report["after"]["arena_bytes"] < report["before"]["arena_bytes"] / 2
    verified = bitc("verify", out, "-t", "host", "--inputs", IMAGES, "--samples", 4)
    assert verified.exit_code == 0, verified.stderr


def test_quantization_leaves_the_most_sensitive_layers(tmp_path: Path) -> None:
    steps = ("--step", "ternarize", "--step", "quantize", "--samples", 8)
    report, out = compress(tmp_path, *steps, "--max-drop", 0.07)
    assert report["after"]["score"] >= report["before"]["score"] - 0.07
    rows = [r for r in report["layers"] if r["step"] == "quantize"]
    kept = [r["error"] for r in rows if r["kept"]]
    assert min(kept, default=1) >= max((r["error"] for r in rows if not r["kept"]), default=0)
    again = bitc("compress", out, "--calibration", IMAGES, "--step", "quantize", "-o", tmp_path / "again.onnx")
    assert bool(again.exit_code) == (len(kept) == 0)


def test_include_and_exclude(tmp_path: Path) -> None:
    chosen = ("--include", "node_conv2d_[24]", "--exclude", "*_4")
    report, out = compress(tmp_path, "--step", "share:entries=4", *chosen)
    assert [r["layer"] for r in report["layers"] if r["step"] == "share"] == ["node_conv2d_2"]
    model = EditableModel(out)
    assert len(np.unique(model.weights(model.layer("node_conv2d_2")))) == 4
    result = bitc("compress", MODEL, "--calibration", IMAGES, "--step", "share", "--include", "conv9", "-o", out)
    assert result.exit_code == 2 and "no layer is called 'conv9'" in result.stderr and "node_linear" in result.stderr


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        out = tmp_path / f"{name}.onnx"
        args = ("--step", "prune:sparsity=0.5", "--samples", 8, "--seed", 3)
        assert bitc("compress", MODEL, "--calibration", IMAGES, "-o", out, *args).exit_code == 0
        files.append(out.read_bytes())
    assert files[0] == files[1]


def test_nothing_is_written_on_failure(tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    result = bitc("compress", MODEL, "--calibration", tmp_path / "none.npz", "--step", "prune", "-o", out)
    assert result.exit_code == 2 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.arange(6) + 5, "labels are 5 to 10, the model tells 10 classes apart"),
        (-np.arange(6), "labels are -5 to 0"),
        (np.arange(9), "array 'labels' is int64[9], not classes"),
    ],
)
def test_labels_that_are_none(labels: Any, said: str, tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, image=np.load(IMAGES)["image"][:6], labels=labels)
    result = bitc("compress", MODEL, "--calibration", data, "--step", "prune", "-o", tmp_path / "small.onnx")
    assert result.exit_code == 2 and said in result.stderr
    assert not (tmp_path / "small.onnx").exists()


@pytest.mark.parametrize("out", [".", "none/small.onnx"])
def test_an_output_that_can_not_be_written_is_said_at_once(out: str, tmp_path: Path) -> None:
    result = bitc("compress", MODEL, "--calibration", IMAGES, "--flash", "30k", "-o", tmp_path / out)
    assert result.exit_code == 2 and "can not write the output" in result.stderr
    assert not list(tmp_path.iterdir())


# Editing


def _net(op: str, weights: Any, **attributes: Any) -> bytes:
    """x -> op -> y, with a bias by an Add behind a MatMul."""
    shape = [1, weights.shape[1] * attributes.get("group", 1), 7, 9] if op == "Conv" else [3, 5]
    nodes = [helper.make_node(op, ["x", "w"], ["p" if op == "MatMul" else "y"], name="layer", **attributes)]
    tensors = [numpy_helper.from_array(weights.astype(np.float32), "w")]
    if op == "MatMul":
        nodes.append(helper.make_node("Add", ["p", "b"], ["y"]))
        tensors.append(numpy_helper.from_array(np.arange(weights.shape[1], dtype=np.float32), "b"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("op", "shape", "attributes"),
    [
        ("Conv", (6, 4, 3, 3), {"pads": [1, 0, 1, 2], "strides": [2, 1]}),
        ("Conv", (6, 2, 3, 2), {"group": 2, "dilations": [2, 1], "strides": [2, 2]}),
        ("Conv", (6, 2, 3, 2), {"group": 2, "auto_pad": "SAME_LOWER", "strides": [2, 2]}),
        ("Conv", (4, 1, 2, 2), {"group": 4, "auto_pad": "SAME_UPPER"}),
        ("Gemm", (5, 6), {}),
        ("Gemm", (6, 5), {"transB": 1}),
        ("MatMul", (5, 6), {}),
    ],
)
def test_rows_times_windows_are_the_layer(op: str, shape: tuple[int, ...], attributes: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    model = EditableModel(_net(op, rng.normal(size=shape), **attributes))
    (layer,) = model.layers
    w, bias = model.weights(layer) * 2, model.bias(layer) + np.arange(layer.outputs, dtype=np.float32)
    model.set_weights(layer, w)
    model.set_bias(layer, bias)
    session = onnxruntime.InferenceSession(model.to_bytes())
    x = rng.normal(size=session.get_inputs()[0].shape).astype(np.float32)
    (y,) = session.run(None, {"x": x})
    rows = windows(x, layer)
    parts = [rows[g] @ part.T for g, part in enumerate(np.split(w, layer.group))]
    ours = np.concatenate(parts, axis=1) + bias
    np.testing.assert_allclose(ours, np.moveaxis(y, 1, -1).reshape(ours.shape), rtol=1e-4, atol=1e-4)
    assert [n.op_type for n in onnx.load_from_string(model.to_bytes()).graph.node].count("Add") == (op == "MatMul")
    again = EditableModel(model.to_bytes())
    np.testing.assert_array_equal(again.bias(again.layers[0]), bias)


def test_compile_takes_the_same_steps(tmp_path: Path) -> None:
    sizes = {}
    for steps in ((), ("--step", "share:entries=16", "--calibration", IMAGES, "--samples", 8)):
        result = bitc("compile", MODEL, "-t", "cortex-m4", "-o", tmp_path / "out", *steps)
        assert result.exit_code == 0, result.stderr
        report = json.loads(result.stdout)
        sizes[bool(steps)] = report["weights_bytes"]
        assert report["model"] == "fashion_float"
    assert sizes[True] < sizes[False] / 4
    result = bitc("compile", MODEL, "-t", "cortex-m4", "-o", tmp_path / "out", "--step", "share")
    assert result.exit_code == 2 and "--calibration" in result.stderr
