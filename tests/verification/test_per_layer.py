"""Every tensor against onnxruntime: all are equal or explained, and a fault is found where it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import helper

from bitc.cli import main
from bitc.ops.linear import Conv2D
from bitc.pipeline import Compiled, Options, compile_model
from bitc.target import Target
from bitc.verification.inputs import random_inputs
from bitc.verification.per_layer import per_layer
from tests.frontend.models import floats, model

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "fashion_cnn" / "fashion_cnn.onnx"


def compiled() -> Compiled:
    return compile_model(EXAMPLE, Target.load("host"), Options())


def test_a_binary_network_does_not_depart() -> None:
    c = compiled()
    rows = per_layer(c.model, c.graph, random_inputs(c.graph, 3, 0))
    assert all(r["status"] != "departs" for r in rows)
    assert len({r["tensor"] for r in rows}) == len(rows) >= 15
    held = [r for r in rows if r["compiled"]]
    assert len(held) >= 5 and any(r["type"].startswith("bit1") for r in held)
    assert any(r["max_abs_error"] and r["status"] == "rounding" and r["why"] for r in rows)


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_a_fault_is_found_at_its_node(layer: int) -> None:
    c = compiled()
    broken = [n for n in c.graph.nodes if isinstance(n.op, Conv2D)][layer]
    weights = broken.input(1)
    weights.data = ~weights.array if weights.array.dtype.kind == "b" else -weights.array
    rows = per_layer(c.model, c.graph, random_inputs(c.graph, 2, 0))
    first = next(r for r in rows if r["status"] == "departs")
    after = c.graph.nodes[c.graph.nodes.index(broken) :]
    origin = next(n.output.origin for n in after if n.output.origin is not None)
    assert first["tensor"] == origin.tensor
    spread = [r for r in rows if r["max_abs_error"] > 1e-3 and r["status"] == "same"]
    assert all("came before" in r["why"] for r in spread)


def test_states_are_looped() -> None:
    nodes = [helper.make_node("Add", ["x", "h_in"], ["h_out"]), helper.make_node("Exp", ["h_out"], ["y"])]
    m = model(nodes, {"x": floats(3), "h_in": floats(3)}, ["y", "h_out"])
    c = compile_model(m.SerializeToString(), Target.load("host"), Options(states=("auto",)))
    rows = per_layer(c.model, c.graph, [{"x": np.full(3, 0.25, np.float32)}] * 4)
    assert {r["tensor"]: r["status"] for r in rows}["h_out"] == "same"


def test_command() -> None:
    done = CliRunner().invoke(main, ["verify", str(EXAMPLE), "--samples", "2", "--per-layer", "--json"])
    rows = json.loads(done.stdout)["per_layer"]
    assert done.exit_code == 0 and {"node", "tensor", "max_abs_error", "max_lsb_error", "status"} <= set(rows[0])
    shown = CliRunner().invoke(main, ["verify", str(EXAMPLE), "--samples", "2", "--per-layer"])
    assert "no node departs" in shown.stdout
