"""Loops that stay loops: against onnxruntime, and as C on targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from bitc import device
from bitc.errors import UnsupportedOp
from bitc.frontend import control, load
from bitc.ops.repeat import Repeat
from bitc.pipeline import Options, compile_model
from bitc.target import Target
from bitc.toolchain import build_model
from bitc.verification import verify
from tests.frontend.models import Array, floats, model
from tests.frontend.test_control import TRUE, B, F, L, body, counting, node, scan
from tests.frontend.test_dynamic import check

T, A = 60, 5


@pytest.fixture
def rolled(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short they are."""
    monkeypatch.setattr(control, "SHORT", 0)


def loops(m: ModelProto) -> list[Repeat]:
    return [n.op for n in load(m.SerializeToString()).graph.nodes if isinstance(n.op, Repeat)]


def gru(steps: int = T) -> tuple[ModelProto, dict[str, Array]]:
    """A gated unit spelled out, over a sequence; its states and a class of each frame."""
    sums = [node("MatMul", ["x", f"w{g}"], [f"xw{g}"]) for g in "zrn"]
    sums += [node("MatMul", ["h", f"u{g}"], [f"hu{g}"]) for g in "zrn"]
    nodes = [
        *sums,
        *[node("Add", [f"xw{g}", f"hu{g}"], [f"s{g}"]) for g in "zr"],
        *[node("Sigmoid", [f"s{g}"], [g]) for g in "zr"],
        node("Mul", ["r", "hun"], ["rn"]),
        node("Add", ["xwn", "rn"], ["sn"]),
        node("Tanh", ["sn"], ["n"]),
        node("Sub", ["h", "n"], ["d"]),
        node("Mul", ["z", "d"], ["zd"]),
        node("Add", ["n", "zd"], ["h2"]),
        node("Identity", ["h2"], ["out"]),
        node("ArgMax", ["h2"], ["best"], axis=1, keepdims=0),
    ]
    graph = body(nodes, {"h": F, "x": F}, {"h2": F, "out": F, "best": L})
    constants = {f"w{g}": floats(A, 8, seed=i) for i, g in enumerate("zrn")}
    constants |= {f"u{g}": floats(8, 8, seed=3 + i) * np.float32(0.5) for i, g in enumerate("zrn")}
    feeds = {"h0": floats(1, 8, seed=8), "s": floats(steps, 1, A, seed=9)}
    outer = node("Scan", ["h0", "s"], ["h_end", "all", "class"], body=graph, num_scan_inputs=1)
    return model([outer], feeds, ["h_end", "all", "class"], constants), feeds


def test_a_long_scan_is_one_loop() -> None:
    m, feeds = gru()
    check(m, feeds)
    (loop,) = loops(m)
    assert loop.steps == T and len(loop.body.nodes) < 25


def test_its_code_does_not_grow_with_its_length() -> None:
    host = Target.load("cortex-m4")
    short, long = (compile_model(gru(n)[0].SerializeToString(), host, Options(name="m")) for n in (T, 2 * T))
    lines = [len(c.files["m.c"].splitlines()) for c in (short, long)]
    assert lines[0] == lines[1] and "i0 < 60;" in short.files["m.c"]


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"scan_input_directions": [1, 0], "scan_output_directions": [0, 1]},
        {"scan_input_axes": [0, 1], "scan_output_axes": [1, 0]},
    ],
    ids=str,
)
def test_scans(attributes: dict[str, Any], rolled: None) -> None:
    feeds = {"h0": floats(3), "s": floats(5, 4, seed=1), "t": floats(5, 3, seed=2)}
    if attributes.get("scan_input_axes"):
        feeds["t"] = np.ascontiguousarray(feeds["t"].T)
    m = model([scan(**attributes)], feeds, ["h", "all", "tops"], {"k": floats(4, 3)})
    check(m, feeds)
    assert len(loops(m)) == 1


def looped(
    inside: str, outputs: list[str], start: float = 2.0, **constants: Any
) -> tuple[ModelProto, dict[str, Array]]:
    """`counting` with a number of steps, or one that is computed."""
    feeds = {"x": np.full((2, 3), start, np.float32), "m": np.array(6), "go": TRUE}
    known = {"w": np.abs(floats(3)), **constants}
    return model([counting(inside)], {n: a for n, a in feeds.items() if n not in known}, outputs, known), feeds


@pytest.mark.parametrize("start", [-9.0, 2.0, 5.0])
def test_loops_that_end_at_run_time(start: float) -> None:
    m, feeds = looped("less", ["y", "all"], start, m=np.array(6), go=TRUE)
    counts = check(m, {"x": feeds["x"]})
    assert 0 < counts["all"] <= 6 and len(loops(m)) == 1


@pytest.mark.parametrize("steps", [0, 1, 40])
@pytest.mark.parametrize("go", [True, False])
def test_steps_that_are_computed(steps: int, go: bool) -> None:
    m, feeds = looped("keep", ["y"])
    check(m, feeds | {"m": np.array(steps), "go": np.array(go)})
    with pytest.raises(UnsupportedOp) as e:
        load(looped("keep", ["y", "all"])[0].SerializeToString())
    assert "--const m=VALUE" in e.value.nodes[0].hint


def test_a_bounded_loop_that_may_not_start(rolled: None) -> None:
    m, feeds = looped("keep", ["y", "all"], m=np.array(4))
    for go in (True, False):
        assert check(m, {"x": feeds["x"], "go": np.array(go)}) == {"all": 4 * go}


def swapping() -> tuple[ModelProto, dict[str, Array]]:
    """States that change places, one that stays, one that is a constant after a step, and a loop in a loop."""
    inner = body(
        [node("Mul", ["u", "scale"], ["v"]), node("Add", ["v", "r"], ["u2"]), node("Identity", ["u"], ["before"])],
        {"u": F, "r": F}, {"u2": F, "before": F}, {"scale": np.float32(0.5)},
    )  # fmt: skip
    for v in inner.output:  # onnxruntime wants to know
        v.type.tensor_type.shape.dim.add().dim_value = 4
    nodes = [
        node("Scan", ["a", "rows"], ["a2", "history"], body=inner, num_scan_inputs=1),
        node("ReduceSum", ["history"], ["total"], keepdims=0),
        node("Identity", ["b"], ["a3"]),
        node("Identity", ["fixed"], ["fixed2"]),
        node("Add", ["a2", "fixed"], ["b2"]),
        node("Identity", ["c"], ["c2"]),
        node("Identity", ["seven"], ["k2"]),
    ]
    graph = body(
        nodes, {"i": L, "c": B, "a": F, "b": F, "fixed": F, "k": F},
        {"c2": B, "a3": F, "b2": F, "fixed2": F, "k2": F, "total": F, "history": F}, {"seven": np.float32(7)},
    )  # fmt: skip
    outer = node("Loop", ["m", "", "a0", "b0", "f0", "k0"], ["a", "b", "f", "k", "totals", "histories"], body=graph)
    feeds = {"a0": floats(4), "b0": floats(4, seed=1), "f0": floats(4, seed=2), "rows": floats(3, 4, seed=3),
             "k0": np.float32(1)}  # fmt: skip
    feeds = {n: np.asarray(a) for n, a in feeds.items()}
    return model([outer], feeds, ["a", "b", "f", "k", "totals", "histories"], {"m": np.array(9)}), feeds


def test_states_that_change_places_and_a_loop_in_a_loop(rolled: None) -> None:
    m, feeds = swapping()
    check(m, feeds)
    (loop,) = loops(m)
    assert sum(isinstance(n.op, Repeat) for n in loop.body.nodes) == 1


def ternary() -> tuple[ModelProto, dict[str, Array]]:
    """A layer of trits in the body."""
    nodes = [
        node("Add", ["h", "x"], ["moved"]),
        node("Sign", ["moved"], ["bits"]),
        node("MatMul", ["bits", "w"], ["sum"]),
        node("Mul", ["sum", "scale"], ["h2"]),
        node("Identity", ["h2"], ["out"]),
    ]
    graph = body(nodes, {"h": F, "x": F}, {"h2": F, "out": F}, {"scale": np.float32(0.125)})
    w = np.where(floats(64, 64) < 0, np.float32(-1), np.float32(1))
    feeds = {"h0": floats(1, 64), "s": floats(50, 1, 64, seed=9)}
    outer = node("Scan", ["h0", "s"], ["h", "all"], body=graph, num_scan_inputs=1)
    return model([outer], feeds, ["h", "all"], {"w": w}), feeds


def test_the_body_is_optimized_too() -> None:
    m, _ = ternary()
    compiled = compile_model(m.SerializeToString(), Target.load("cortex-m4"), Options(name="m"))
    assert [layer.kind for layer in compiled.program.layers if layer.macs] == ["ternary"]
    assert sum(layer.macs for layer in compiled.program.layers) == 50 * 64 * 64


def ending() -> tuple[ModelProto, dict[str, Array]]:
    m, feeds = looped("less", ["y", "all"], m=np.array(6), go=TRUE)
    return m, {"x": feeds["x"]}


MODELS: dict[str, Any] = {
    "gru": gru, "ternary": ternary, "swapping": swapping,
    "ending": ending,
    "computed": lambda: looped("keep", ["y"]),
}  # fmt: skip


@pytest.mark.parametrize("target", ["host", "cortex-m4", "wasm32"])
@pytest.mark.parametrize("name", MODELS)
def test_on_targets(name: str, target: str, tmp_path: Path, rolled: None) -> None:
    m, feeds = MODELS[name]()
    compiled = compile_model(m.SerializeToString(), Target.load(target), Options(name="m"))
    for file, text in compiled.files.items():
        (tmp_path / file).write_text(text)
    for hooks in (False, True):
        build = build_model(compiled.target, tmp_path, "m", tmp_path / f"build{hooks}", hooks=hooks)
        samples = [feeds, {n: np.asarray(a * 0.5).astype(a.dtype) for n, a in feeds.items()}]
        done = device.run(build, compiled.program, samples, record=hooks)
        found = verify(compiled, samples, done, done if hooks else None)
        assert found["ok"], found["failures"]


def test_a_body_that_differs_from_step_to_step_is_unrolled(rolled: None) -> None:
    nodes = [node("Concat", ["v", "x"], ["v2"], axis=0), node("Identity", ["c"], ["c2"])]
    graph = body(nodes, {"i": L, "c": B, "v": F}, {"c2": B, "v2": F})
    feeds = {"x": floats(1, 3)}
    m = model([node("Loop", ["m", "", "x"], ["y"], body=graph)], feeds, ["y"], {"m": np.array(5)})
    check(m, feeds)
    assert not loops(m)


def test_a_loop_without_an_end_is_refused() -> None:
    nodes = [node("Neg", ["v"], ["v2"]), node("Identity", ["c"], ["c2"])]
    graph = body(nodes, {"i": L, "c": B, "v": F}, {"c2": B, "v2": F})
    m = model([node("Loop", ["", "go", "x"], ["y"], body=graph)], {"x": floats(3)}, ["y"], {"go": TRUE})
    with pytest.raises(UnsupportedOp) as e:
        load(m.SerializeToString())
    assert "it has no end" in e.value.nodes[0].reason
