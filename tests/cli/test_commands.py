"""The command line: its JSON, its exit codes, and that it leaves nothing half written."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from bitc.cli import main

SIZES = {"arena_bytes", "stack_bytes", "input_bytes", "output_bytes", "weights_bytes", "code_bytes"}


def bitc(*args: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args])


def save(
    path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], shape: list[Any], **output: Any
) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", output.get("dtype", TensorProto.FLOAT), output.get("shape"))
    tensors = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "net", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two binary dense layers: 40 -> 33 -> 5."""
    rng = np.random.default_rng(0)
    weights = {f"w{i}": np.sign(rng.standard_normal(s)).astype(np.float32) for i, s in enumerate([(40, 33), (33, 5)])}
    nodes = []
    source = "x"
    for i in range(2):
        nodes.append(helper.make_node("GreaterOrEqual", [source, "zero"], [f"g{i}"], name=f"compare{i}"))
        nodes.append(helper.make_node("Where", [f"g{i}", "one", "minus"], [f"s{i}"], name=f"sign{i}"))
        source = f"d{i}" if i == 0 else "y"
        nodes.append(helper.make_node("MatMul", [f"s{i}", f"w{i}"], [source], name=f"dense{i}"))
    scalars = {k: np.array(v, np.float32) for k, v in (("zero", 0), ("one", 1), ("minus", -1))}
    return save(tmp_path / "two-layers.onnx", nodes, weights | scalars, [1, 40])


def test_compile_reports_and_writes(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = bitc("compile", model, "--target", "cortex-m4", "-o", out, "--build", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report.keys() >= SIZES | {"model", "target", "files", "macs", "layers", "warnings"}
    assert report["macs"] == {"binary": 40 * 33 + 33 * 5, "ternary": 0, "lowbit": 0, "int8": 0, "float": 0}
    assert all(r.keys() >= {"name", "op", "kernel", "macs", "weights_bytes"} for r in report["layers"])
    written = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert written == set(report["files"])
    assert written >= {"two_layers.h", "two_layers.c", "two_layers_weights.c", "CMakeLists.txt", "report.json"}
    assert (out / "build" / "libtwo_layers.a").stat().st_size > 0
    assert json.loads((out / "report.json").read_text()) == report


def test_compile_again_replaces_its_own_files_only(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert bitc("compile", model, "-o", out, "--build").exit_code == 0
    assert bitc("compile", model, "-o", out, "--name", "other").exit_code == 0
    assert not (out / "two_layers.c").exists() and (out / "other.c").exists()
    (out / "notes.txt").write_text("mine")
    result = bitc("compile", model, "-o", out)
    assert result.exit_code == 2 and "notes.txt" in result.stderr and "hint: " in result.stderr
    assert (out / "other.c").exists()
    assert bitc("compile", model, "-o", out, "--force").exit_code == 0
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("target", ["host", "cortex-m0plus", "wasm32"])
def test_verify_run_and_bench(model: Path, target: str, tmp_path: Path) -> None:
    inputs, outputs = tmp_path / "in.npz", tmp_path / "out.npz"
    x = np.random.default_rng(1).standard_normal((4, 1, 40)).astype(np.float32)
    np.savez(inputs, x=x, labels=np.zeros(4, np.int64))
    result = bitc("verify", model, "--target", target, "--inputs", inputs, "--json")
    assert result.exit_code == 0, result.stderr + result.stdout
    report = json.loads(result.stdout)
    keys = {"ok", "samples", "max_abs_error", "max_lsb_error", "argmax_agreement", "ties", "instructions"}
    assert report.keys() >= keys | SIZES
    assert report["ok"] and report["samples"] == 4 and report["max_abs_error"] == 0
    assert bitc("run", model, "--target", target, "--inputs", inputs, "--outputs", outputs).exit_code == 0
    with np.load(outputs) as saved:
        w0, w1 = (numpy_helper.to_array(t) for t in onnx.load(model).graph.initializer[:2])
        hidden = np.where(np.where(x >= 0, 1, -1) @ w0 >= 0, 1, -1)
        np.testing.assert_array_equal(saved["y"], (hidden @ w1).astype(np.float32))
    bench = json.loads(bitc("bench", model, "--target", target, "--json").stdout)
    assert bench["metric"] == {"host": "nanoseconds", "wasm32": "fuel"}.get(target, "instructions")
    assert len(bench["layers"]) == len(report["layers"]) and bench["total"] == sum(r["value"] for r in bench["layers"])


def test_plan(model: Path, tmp_path: Path) -> None:
    result = bitc(
        "plan", model, "-t", "cortex-m4", "--max-overhead", "1.25", "-o", tmp_path / "plan", "--png", "--json"
    )
    assert result.exit_code == 0, result.output
    for picture in ("memory.png", "front.png"):
        with Image.open(tmp_path / "plan" / picture) as image:
            assert image.size == (2000, 840) and len(image.getcolors(2**16) or ()) > 3  # shapes of several colours
    report = json.loads(result.stdout)
    chosen = report["points"][report["chosen"]]
    assert chosen["mac_factor"] <= 1.25 and set(chosen) >= {"arena_bytes", "mac_factor", "schedule"}
    assert (tmp_path / "plan" / "plan.html").read_text().startswith("<!doctype html>")
    assert "<svg" in (tmp_path / "plan" / "memory.svg").read_text()
    shown = bitc("plan", model, "-t", "cortex-m4")
    assert shown.exit_code == 0 and f"{report['points'][0]['arena_bytes']:,}" in shown.stdout


def test_inspect(model: Path) -> None:
    found = json.loads(bitc("inspect", model, "--json").stdout)
    assert [f["node"] for f in found["binary"]] == ["dense0", "dense1"]
    assert found["unsupported"] == found["not_binary"] == []
    shown = bitc("inspect", model)
    assert shown.exit_code == 0 and "bit1[1x1x1x33]" in shown.stdout


def test_targets() -> None:
    found = json.loads(bitc("targets", "--json").stdout)["targets"]
    assert {"host", "cortex-m0plus", "cortex-m55", "aarch64", "wasm32-simd128", "riscv32"} <= {t["name"] for t in found}
    assert bitc("targets").exit_code == 0


def test_a_board_of_the_user(model: Path, tmp_path: Path) -> None:
    board = tmp_path / "my-board.toml"
    board.write_text('extends = "cortex-m4"\n[memory]\nram = "1k"\nflash = "64k"\n')
    result = bitc("compile", model, "--target", board, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    board.write_text('extends = "cortex-m4"\n[memory]\nram = 100\nflash = "64k"\n')
    result = bitc("compile", model, "--target", board, "-o", tmp_path / "small")
    assert result.exit_code == 4 and "bytes of RAM" in result.stderr and "arena" in result.stderr
    assert not (tmp_path / "small").exists()


def test_too_large_for_flash(model: Path, tmp_path: Path) -> None:
    result = bitc("compile", model, "--target", "cortex-m4", "--flash", "512", "-o", tmp_path / "out")
    assert result.exit_code == 4 and "of flash" in result.stderr and "dense0" in result.stderr
    assert not (tmp_path / "out").exists()


def _missing(model: Path) -> Path:
    return model.with_name("nowhere.onnx")


def _truncated(model: Path) -> Path:
    path = model.with_name("truncated.onnx")
    path.write_bytes(model.read_bytes()[:-100])
    return path


def _text(model: Path) -> Path:
    path = model.with_name("text.onnx")
    path.write_text("this is no protobuf\n" * 10)
    return path


def _no_external_data(model: Path) -> Path:
    path = model.with_name("external.onnx")
    onnx.save_model(onnx.load(model), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    path.with_name("weights.bin").unlink()
    return path


def _dynamic(model: Path) -> Path:
    node = helper.make_node("Relu", ["x"], ["y"], name="r")
    return save(model.with_name("dynamic.onnx"), [node], {}, [1, 3, "height", "width"])


def _undefined_input(model: Path) -> Path:
    node = helper.make_node("Relu", ["nobody"], ["y"], name="r")
    return save(model.with_name("undefined.onnx"), [node], {}, [1, 3])


@pytest.mark.parametrize(
    ("make", "code", "says"),
    [
        (_missing, 2, "no such file"),
        (_truncated, 3, "truncated"),
        (_text, 3, "not an ONNX model"),
        (_no_external_data, 3, "weights.bin"),
        (_dynamic, 3, "--shape x="),
        (_undefined_input, 3, "nobody"),
    ],
)
def test_bad_models(make: Callable[[Path], Path], code: int, says: str, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = bitc("compile", make(model), "-o", out)
    assert result.exit_code == code, result.stderr
    lines = result.stderr.splitlines()
    assert lines[0].startswith("error: ") and lines[-1].startswith("hint: ") and says in result.stderr
    assert "Traceback" not in result.stderr and not out.exists() and not result.stdout


def test_all_unsupported_nodes_at_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Frobnicate", ["x"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="fine"),
        helper.make_node("StringNormalizer", ["b"], ["y"], name="second"),
    ]
    path = save(tmp_path / "odd.onnx", nodes, {}, [1, 3])
    result = bitc("compile", path, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 3
    assert "first" in result.stderr and "second" in result.stderr and "fine" not in result.stderr
    assert [n["node"] for n in json.loads(result.stdout)["unsupported"]] == ["first", "second"]
    assert [n["node"] for n in json.loads(bitc("inspect", path, "--json").stdout)["unsupported"]] == ["first", "second"]


def test_shape_for_a_dynamic_input(model: Path, tmp_path: Path) -> None:
    path = _dynamic(model)
    assert bitc("compile", path, "--shape", "x=1x3x4x5", "-o", tmp_path / "out").exit_code == 0
    for bad in ("x", "x=1xa", "x=1x0x4x5", "other=1x3x4x5", "x=1x3x4"):
        result = bitc("compile", path, "--shape", bad, "-o", tmp_path / "out2")
        assert result.exit_code == 2 and "hint: " in result.stderr, result.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--target", "cortex-m9"],
        ["--target", "cortex-m4", "--feature", "turbo"],
        ["--target", "nowhere.toml"],
        ["--target", "cortex-m4", "--ram", "much"],
    ],
)
def test_bad_targets(options: list[str], model: Path, tmp_path: Path) -> None:
    result = bitc("compile", model, *options, "-o", tmp_path / "out")
    assert result.exit_code == 4 and result.stderr.startswith("error: ") and "hint: " in result.stderr


@pytest.mark.parametrize("folder", ["/proc/nowhere/out", "file.txt", "file.txt/below"])
def test_unwritable_output(folder: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("mine")
    result = bitc("compile", model, "-o", tmp_path / folder)  # an absolute folder stays as it is
    assert result.exit_code == 2 and result.stderr.startswith("error: ") and "hint: " in result.stderr
    assert (tmp_path / "file.txt").read_text() == "mine"


def test_full_disk_leaves_nothing(model: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands for a full disk: the write of the C file fails half way."""
    project = """
import signal, resource, sys
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
from bitc.project import write_project
from bitc.errors import UsageError
try:
    write_project(Path(sys.argv[1]), {"a.h": b"x" * 10, "b.c": b"x" * 5000, "report.json": b"{}"})
except UsageError as error:
    sys.exit(error.exit_code)
"""
    assert hasattr(resource, "RLIMIT_FSIZE")
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", project, str(out)], check=False, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["two-layers.onnx"]


def test_bad_inputs_file(model: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "in.npz"
    for arrays in ({"z": np.zeros((1, 40))}, {"x": np.zeros((2, 41))}, {"x": np.array(["text"])}):
        np.savez(inputs, **arrays)
        result = bitc("verify", model, "--inputs", inputs)
        assert result.exit_code == 2 and "hint: " in result.stderr, result.stderr
    inputs.write_text("no archive")
    assert bitc("verify", model, "--inputs", inputs).exit_code == 2


def test_bad_names_and_missing_options(model: Path, tmp_path: Path) -> None:
    assert bitc("compile", model, "-o", tmp_path / "out", "--name", "1x").exit_code == 2
    assert bitc("compile", model).exit_code == 2
    assert bitc("--version").exit_code == 0


def test_errors_are_json_too(tmp_path: Path) -> None:
    result = bitc("compile", "none.onnx", "-o", tmp_path / "out", "--json")
    assert result.exit_code == 2 and json.loads(result.stdout)["error"]["kind"] == "UsageError"


@pytest.fixture
def reshaper(tmp_path: Path) -> Path:
    """Reshapes x [2, 6] to an input `shape`."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 6])
    shape = helper.make_tensor_value_info("shape", TensorProto.INT64, [2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Reshape", ["x", "shape"], ["y"])], "net", [x, shape], [y])
    path = tmp_path / "reshaper.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_an_input_that_must_be_constant_can_be_given(reshaper: Path, tmp_path: Path) -> None:
    result = bitc("compile", reshaper, "-o", tmp_path / "out")
    assert result.exit_code == 3 and "--const shape=VALUE" in result.stderr
    np.save(tmp_path / "shape.npy", np.array([3, 4]))
    for value in ("3,4", tmp_path / "shape.npy"):
        report = json.loads(bitc("inspect", reshaper, "--const", f"shape={value}", "--json").stdout)
        assert report["nodes"][0]["type"] == "float32[3x4]"
    report = json.loads(bitc("verify", reshaper, "--const", "shape=4,3", "--samples", "2", "--json").stdout)
    assert report["ok"]


@pytest.mark.parametrize(
    "given", ["shape", "shape=", "shape=1,b", "shape=1.5,8", "shape=3,4,1", "other=3", "shape=missing.npy"]
)
def test_a_constant_that_does_not_fit_is_a_usage_error(reshaper: Path, given: str) -> None:
    result = bitc("inspect", reshaper, "--const", given)
    assert result.exit_code == 2 and "--const" in result.stderr
