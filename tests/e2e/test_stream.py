"""`--input stream`: an image row by row, from the command line, on the host, a microcontroller and in WebAssembly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bitc.cli import main

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CNN, MLP = (EXAMPLES / name / f"{name}.onnx" for name in ("fashion_cnn", "mnist_mlp"))


def bitc(*args: object) -> Result:
    return CliRunner().invoke(main, [*map(str, args), "--json"])


def report(*args: object) -> dict[str, Any]:
    result = bitc(*args)
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("target", ["host", "cortex-m4", "wasm32-simd128"])
def test_same_bits_in_less_memory(target: str) -> None:
    inputs = ("--inputs", CNN.with_name("images.npz"), "--samples", 2)
    found = report("verify", CNN, "-t", target, "--input", "stream", *inputs)
    assert found["ok"] and found["argmax_agreement"] == 1 and found["ties"] == 0
    assert found["input_bytes"] == 28  # a line of the image, not its 784 pixels
    assert found["arena_bytes"] < 2100  # layer by layer 3,920 and more
    assert found["schedule"].startswith("image.rows ..") and found["mac_factor"] == 1


def test_plan_bench_and_run(tmp_path: Path) -> None:
    plan = report("plan", CNN, "-t", "cortex-m4", "--input", "stream")
    sizes = [p["arena_bytes"] for p in plan["points"]]
    assert sizes == sorted(sizes, reverse=True)
    chosen = plan["points"][plan["chosen"]]
    assert chosen["mac_factor"] == 1 and chosen["schedule"].startswith("image.rows ..")
    bench = report("bench", CNN, "-t", "cortex-m4", "--input", "stream")
    assert bench["total"] > 1_000_000 and bench["input_bytes"] == 28
    inputs = ("--inputs", CNN.with_name("images.npz"), "--outputs", tmp_path / "y.npz")
    assert report("run", CNN, "--input", "stream", *inputs)["samples"] == 48


def test_a_model_that_needs_the_whole_input_says_which_node() -> None:
    result = bitc("compile", MLP, "-o", "unused", "--input", "stream")
    error = json.loads(result.stdout)["error"]
    assert result.exit_code == 2 and not Path("unused").exists()
    assert "not read as an image by rows: " in error["what"] and "--input stream" in error["hint"]
    assert "reads float32[1x1x1x784]" in error["what"]
