"""If, Loop and Scan against onnxruntime, and what of them is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from bitc.errors import InvalidModel, UnsupportedOp
from bitc.frontend import control, load
from bitc.interp import run as interpret
from bitc.target import Target
from tests.frontend.models import Array, compare, floats, model, subgraph
from tests.kernels.harness import assert_same, compile_graph, run_on_target

node = helper.make_node
TRUE = np.array(True)


def body(
    nodes: list[NodeProto], inputs: dict[str, int], outputs: dict[str, int], constants: dict[str, Array] | None = None
) -> GraphProto:
    """A subgraph; inputs and outputs have their element types, and any shape but for step number and condition."""
    infos = [
        [helper.make_tensor_value_info(n, t, [] if t != F and n in "ic" else None) for n, t in side.items()]
        for side in (inputs, outputs)
    ]
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()]
    return helper.make_graph(nodes, "body", *infos, tensors)


F, L, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


@pytest.mark.parametrize("condition", [True, False])
def test_if_at_run_time_computes_both_branches(condition: bool) -> None:
    then = subgraph([node("Exp", ["x"], ["e"]), node("Add", ["e", "w"], ["a"])], ["a", "x2"], {"x2": floats(2, 3)})
    other = subgraph([node("Neg", ["x"], ["n"]), node("Identity", ["x"], ["same"])], ["n", "same"])
    m = model(
        [node("If", ["c"], ["y", "z"], then_branch=then, else_branch=other)],
        {"x": floats(2, 3), "c": np.array(condition)},
        ["y", "z"],
        {"w": floats(3)},
    )
    compare(m, {"x": floats(2, 3), "c": np.array(condition)})


def test_if_of_different_shapes_is_refused() -> None:
    then = subgraph([node("Neg", ["x"], ["a"])], ["a"])
    other = subgraph([node("ReduceMax", ["x"], ["b"])], ["b"])
    x = {"x": floats(2, 3), "c": TRUE}
    m = model([node("If", ["c"], ["y"], then_branch=then, else_branch=other)], x, ["y"])
    with pytest.raises(UnsupportedOp) as e:
        load(m.SerializeToString())
    assert "run time" in e.value.nodes[0].reason and "float32[2x3]" in e.value.nodes[0].reason


def counting(inside: str = "keep", **more: Any) -> NodeProto:
    """Adds the step's number, scaled by a captured tensor, to a state, and collects its cosine."""
    nodes = [
        node("Cast", ["i"], ["f"], to=F),
        node("Mul", ["f", "w"], ["p"]),
        node("Add", ["v", "p"], ["next"]),
        node("Tanh", ["next"], ["scanned"]),
        node("ReduceMax", ["next"], ["top"], keepdims=0),
        node("Less", ["top", "limit"], ["less"]),
        node("Identity", ["c"], ["keep"]),
    ]
    graph = body(nodes, {"i": L, "c": B, "v": F}, {inside: B, "next": F, "scanned": F}, {"limit": np.float32(4)})
    return node("Loop", ["m", "go", "x"], ["y", "all"], body=graph, **more)


def test_loop_of_known_steps() -> None:
    feeds, constants = {"x": floats(2, 3)}, {"w": floats(3), "m": np.array(4), "go": TRUE}
    compare(model([counting()], feeds, ["y", "all"], constants), feeds)


@pytest.mark.parametrize("start", [-9.0, 2.0, 5.0])
def test_loop_that_ends_at_run_time(start: float) -> None:
    feeds = {"x": np.full((2, 3), start, np.float32)}
    constants = {"w": np.abs(floats(3)), "m": np.array(6), "go": TRUE}
    compare(model([counting("less")], feeds, ["y"], constants), feeds)


def test_loop_that_counts_to_its_end() -> None:
    """No number of steps: the condition folds, since the count is known."""
    graph = body(
        [
            node("Add", ["n", "one"], ["n2"]),
            node("Less", ["n2", "five"], ["c2"]),
            node("Concat", ["v", "x"], ["v2"], axis=0),
        ],
        {"i": L, "c": B, "n": L, "v": F},
        {"c2": B, "n2": L, "v2": F},
        {"one": np.array(1), "five": np.array(5)},
    )
    m = model(
        [node("Loop", ["", "go", "zero", "x"], ["count", "y"], body=graph)],
        {"x": floats(2, 3)},
        ["y"],
        {"go": TRUE, "zero": np.array(0)},
    )
    assert load(m.SerializeToString()).graph.outputs[0].shape == (12, 3)
    compare(m, {"x": floats(2, 3)})


def test_endless_loops_and_mystery_bodies_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "LIMIT_NODES", 200)
    feeds, constants = {"x": floats(2, 3)}, {"w": floats(3), "m": np.array(2**62), "go": TRUE}
    with pytest.raises(UnsupportedOp) as e:
        load(model([counting()], feeds, ["y"], constants).SerializeToString())
    assert "unrolls to more than" in e.value.nodes[0].reason
    mystery = body(
        [node("Mystery", ["v"], ["v2"], domain="com.acme", name="who")], {"i": L, "c": B, "v": F}, {"c": B, "v2": F}
    )
    m = model(
        [node("Loop", ["m", "", "x"], ["h"], body=mystery), node("Relu", ["h"], ["y"])],
        feeds,
        ["y"],
        {"m": np.array(9)},
        domains={"com.acme": 1},
    )
    with pytest.raises(UnsupportedOp) as e:
        load(m.SerializeToString())
    assert [n.node for n in e.value.nodes] == ["who"]
    m = model([node("Loop", ["m", "", "x", "x"], ["y"], body=mystery)], feeds, ["y"], {"m": np.array(9)})
    with pytest.raises(InvalidModel):
        load(m.SerializeToString())


def scan(**attributes: Any) -> NodeProto:
    """A state with decay over two sequences."""
    nodes = [
        node("Mul", ["h", "half"], ["decayed"]),
        node("MatMul", ["a", "k"], ["p"]),
        node("Add", ["p", "b"], ["q"]),
        node("Add", ["decayed", "q"], ["h2"]),
        node("Identity", ["h2"], ["out"]),
        node("ReduceMax", ["h2"], ["top"], keepdims=0),
    ]
    graph = body(nodes, {"h": F, "a": F, "b": F}, {"h2": F, "out": F, "top": F}, {"half": np.float32(0.5)})
    return node("Scan", ["h0", "s", "t"], ["h", "all", "tops"], body=graph, num_scan_inputs=2, **attributes)


def scanned(**attributes: Any) -> tuple[Any, dict[str, Array]]:
    feeds = {"h0": floats(3), "s": floats(5, 4, seed=1), "t": floats(5, 3, seed=2)}
    axes = attributes.get("scan_input_axes")
    if axes:
        feeds["t"] = np.ascontiguousarray(feeds["t"].T)
    return model([scan(**attributes)], feeds, ["h", "all", "tops"], {"k": floats(4, 3)}), feeds


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"scan_input_directions": [1, 0], "scan_output_directions": [0, 1]},
        {"scan_input_axes": [0, 1], "scan_output_axes": [1, 0]},
    ],
    ids=str,
)
def test_scan(attributes: dict[str, Any]) -> None:
    compare(*scanned(**attributes))


@pytest.mark.parametrize("target", ["host", "cortex-m4"])
def test_unrolled_loops_share_their_functions(target: str, tmp_path: Path) -> None:
    m, feeds = scanned()
    graph = load(m.SerializeToString()).graph
    compiled = compile_graph(graph, Target.load(target))
    got, _ = run_on_target(compiled, tmp_path, feeds)
    for name, want in interpret(graph, feeds).items():
        assert_same(got[name], want, name)
    text = next(t for n, t in compiled.files.items() if n.endswith(".c") and "weights" not in n)
    assert text.count("BITC_KERNEL void matmul") == 1
