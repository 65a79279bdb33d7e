"""Models with state: frame by frame on the target as in onnxruntime's loop."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

from bitc import device
from bitc.errors import UsageError
from bitc.frontend import load
from bitc.pipeline import Compiled, Options, compile_model
from bitc.target import Target
from bitc.toolchain import build_model
from bitc.verification import verify
from tests.frontend.models import Array, floats, model, session
from tests.kernels.harness import library_of

node = helper.make_node
FRAMES = 7


def streaming() -> ModelProto:
    """A convolution over the last three frames, then a GRU; and a delay of two frames, by two states."""
    nodes = [
        node("Concat", ["conv_cache_in", "x"], ["window"], axis=2),
        node("Slice", ["window", "one", "end", "two"], ["conv_cache_out"]),
        node("Conv", ["window", "k"], ["f"]),
        node("Relu", ["f"], ["g"]),
        node("Transpose", ["g"], ["s"], perm=[2, 0, 1]),
        node("GRU", ["s", "w", "r", "b", "", "h0"], ["", "hn"], hidden_size=5, linear_before_reset=1),
        node("Squeeze", ["hn", "axis"], ["y"]),
        node("Identity", ["prev_a"], ["prev_b_next"]),
        node("Reshape", ["x", "flat"], ["prev_a_next"]),
        node("Sub", ["prev_b", "prev_a"], ["z"]),
    ]
    constants = {
        "k": floats(4, 3, 3, seed=1),
        "w": floats(1, 15, 4, seed=2),
        "r": floats(1, 15, 5, seed=3),
        "b": floats(1, 30, seed=4),
        "one": np.array([1]),
        "end": np.array([3]),
        "two": np.array([2]),
        "axis": np.array([0]),
        "flat": np.array([3]),
    }
    inputs = {
        "x": floats(1, 3, 1),
        "conv_cache_in": floats(1, 3, 2),
        "h0": floats(1, 1, 5),
        "prev_a": floats(3),
        "prev_b": floats(3),
    }
    return model(nodes, inputs, ["y", "z", "conv_cache_out", "hn", "prev_a_next", "prev_b_next"], constants, opset=14)


STATES = ("auto", "prev_a:prev_a_next", "prev_b:prev_b_next")
PAIRS = {"conv_cache_in": "conv_cache_out", "h0": "hn", "prev_a": "prev_a_next", "prev_b": "prev_b_next"}


def compiled(target: str) -> Compiled:
    return compile_model(streaming().SerializeToString(), Target.load(target), Options(states=STATES, name="stream"))


def frames() -> list[dict[str, Array]]:
    return [{"x": floats(1, 3, 1, seed=i)} for i in range(FRAMES)]


def looped() -> list[dict[str, Array]]:
    """The outputs of onnxruntime, which is given its own states."""
    m = streaming()
    s = session(m.SerializeToString())
    types = {i.name: i.shape for i in s.get_inputs()}
    kept = {name: np.zeros(types[name], np.float32) for name in PAIRS}
    outputs = []
    for frame in frames():
        found = dict(zip([o.name for o in s.get_outputs()], s.run(None, {**frame, **kept}), strict=True))
        kept = {name: found[output] for name, output in PAIRS.items()}
        outputs.append(found)
    return outputs


def write(c: Compiled, folder: Path) -> Path:
    folder.mkdir()
    for name, text in c.files.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("target", ["host", "cortex-m4", "wasm32"])
def test_frames_are_as_in_a_loop_of_onnxruntime(target: str, tmp_path: Path) -> None:
    c = compiled(target)
    assert c.model.imported.states == tuple(PAIRS.items())
    assert [v.name for v in c.interface.inputs] == ["x"] and [v.name for v in c.interface.outputs] == ["y", "z"]
    build = build_model(c.target, write(c, tmp_path / "c"), c.name, tmp_path / "build")
    done = device.run(build, c.program, frames())
    for got, want in zip(done.outputs, looped(), strict=True):
        np.testing.assert_array_equal(got["z"], want["z"])
        np.testing.assert_allclose(got["y"], want["y"], rtol=1e-5, atol=1e-6)
    report = verify(c, frames(), done)
    assert report["ok"] and report["max_abs_error"] < 1e-5, report["failures"]


def test_a_wrong_state_is_found(tmp_path: Path) -> None:
    c = compiled("host")
    build = build_model(c.target, write(c, tmp_path / "c"), c.name, tmp_path / "build")
    done = device.run(build, c.program, frames())
    done.outputs[3] = done.outputs[2]
    assert not verify(c, frames(), done)["ok"]


def test_reset_starts_the_sequence_anew(tmp_path: Path) -> None:
    c = compiled("host")
    folder = write(c, tmp_path / "c")
    library = ctypes.CDLL(str(library_of(c.target, sorted(folder.glob("*.c")), folder, tmp_path)))
    arena = np.full(c.plan.arena_bytes + 64, 0xA5, np.uint8)
    base = arena.ctypes.data + (-arena.ctypes.data % 64)

    def run() -> list[Array]:
        outputs = []
        for frame in frames():
            x, y = np.ascontiguousarray(frame["x"]), np.zeros(8, np.float32)
            pointers = [ctypes.c_void_p(p) for p in (base, x.ctypes.data, y.ctypes.data)]
            assert library.stream_run(*pointers) == 0
            outputs.append(y)
        return outputs

    library.stream_reset(ctypes.c_void_p(base))
    first = run()
    library.stream_reset(ctypes.c_void_p(base))
    np.testing.assert_array_equal(run(), first)
    assert not np.array_equal(run()[0], first[0])


def test_states_that_do_not_fit_are_refused() -> None:
    data = streaming().SerializeToString()
    for text, words in (
        ("h0:nothing", "h0:nothing"),
        ("h0:y", "h0 is float32[1x1x5]"),
        ("prev_b:prev_a_next", "two inputs"),
    ):
        with pytest.raises(UsageError) as e:
            load(data, states=("prev_a:prev_a_next", text))
        assert words in str(e.value) and e.value.hint


def test_states_by_name_are_pointed_out() -> None:
    imported = load(streaming().SerializeToString())
    assert not imported.states and any("--state auto" in n and "h0 and hn" in n for n in imported.notices)
    x = {"x": floats(2)}
    signal = model([node("Relu", ["x"], ["x_out"])], x, ["x_out"])
    assert not load(signal.SerializeToString()).notices


def recurrent(**attributes: Any) -> ModelProto:
    """Two layers over a sequence of any length, as exported: no states, or zeros of the input's batch."""
    nodes = [
        node("LSTM", ["x", "w", "r", "b"], ["a"], name="first", hidden_size=4, **attributes),
        node("Squeeze", ["a", "axis"], ["s"]),
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "axis"], ["batch"]),
        node("Concat", ["axis", "batch", "three"], ["zeros_shape"], axis=0),
        node("ConstantOfShape", ["zeros_shape"], ["zeros"]),
        node("GRU", ["s", "w2", "r2", "", "", "zeros"], ["", "last"], name="second", hidden_size=3),
        node("Neg", ["last"], ["y"]),
    ]
    constants = {
        "w": floats(1, 16, 2, seed=1),
        "r": floats(1, 16, 4, seed=2),
        "b": floats(1, 32, seed=3),
        "w2": floats(1, 9, 4, seed=4),
        "r2": floats(1, 9, 3, seed=5),
        "axis": np.array([1]),
        "three": np.array([3]),
    }
    m = model(nodes, {"x": floats(5, 1, 2)}, ["y"], constants, opset=14)
    m.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "length"
    return m


def test_layers_without_states_run_step_by_step(tmp_path: Path) -> None:
    """The last output of N steps is that of the whole sequence."""
    data = recurrent().SerializeToString()
    c = compile_model(data, Target.load("host"), Options({"x": (1, 1, 2)}, states=("recurrent",), name="steps"))
    assert [v.name for v in c.interface.inputs] == ["x"] and c.plan.state_bytes == 4 * (4 + 4 + 3)
    sequence = floats(6, 1, 2, seed=9)
    steps = [{"x": sequence[i : i + 1]} for i in range(6)]
    build = build_model(c.target, write(c, tmp_path / "c"), c.name, tmp_path / "build")
    done = device.run(build, c.program, steps)
    (want,) = session(data).run(None, {"x": sequence})
    np.testing.assert_allclose(done.outputs[-1]["y"], want, rtol=1e-5, atol=1e-6)
    report = verify(c, steps, done)
    assert report["ok"], report["failures"]


def test_layers_that_can_not_be_stepped_are_refused() -> None:
    for m, words in ((recurrent(direction="reverse"), "backwards"), (streaming(), "no recurrent layer")):
        with pytest.raises(UsageError) as e:
            load(m.SerializeToString(), {"x": (1, 1, 2)} if "back" in words else {}, states=("recurrent",))
        assert words in str(e.value)
