"""Models whose results are as long as the data says: against onnxruntime, entry by entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from bitc import device
from bitc.errors import UnsupportedOp
from bitc.frontend import load
from bitc.interp import run as interpret
from bitc.pipeline import Options, compile_model
from bitc.target import Target
from bitc.toolchain import build_model
from bitc.verification import verify
from tests.frontend.models import Array, floats, ints, model, session

node = helper.make_node
I64, F32 = np.int64, np.float32


def i64(*values: int) -> Array:
    return np.array(values, I64)


def check(m: ModelProto, feeds: dict[str, Array]) -> dict[str, int]:
    """Compare what is there with onnxruntime, and the rest with zeros; returns the counts."""
    imported = load(m.SerializeToString())
    got = interpret(imported.graph, feeds)
    assert imported.reference is not None
    s = session(imported.reference)
    counts = {}
    for o, want in zip(s.get_outputs(), s.run(None, dict(feeds)), strict=True):
        ours = got[o.name]
        if o.name in imported.ragged:
            r = imported.ragged[o.name]
            counts[o.name] = int(got[r.count])
            there, behind = np.split(ours, [counts[o.name]], axis=r.axis)
            assert ours.shape == r.shape and not behind.any(), o.name
            ours = there
        assert ours.shape == want.shape or want.shape == (0,), o.name
        if want.dtype.kind == "f" and want.size:
            np.testing.assert_allclose(ours, want, rtol=2e-6, atol=1e-6)
        else:
            np.testing.assert_array_equal(ours.reshape(want.shape), want)
    return counts


def checked(
    nodes: list[NodeProto], feeds: dict[str, Array], outputs: list[str], constants: dict[str, Array], opset: int = 18
) -> dict[str, int]:
    return check(model(nodes, feeds, outputs, constants, opset), feeds)


def detector(most: int = 12) -> tuple[ModelProto, dict[str, Array]]:
    """A single-shot detector: two feature maps, priors, softmax, decoded corners, the boxes that are left, with their
    scores and classes."""
    classes, anchors = 3, 2
    nodes, constants = [], {}
    channels = 3
    previous = "image"
    for i, (size, out) in enumerate(((3, 8), (3, 12))):
        constants |= {f"k{i}": floats(out, channels, size, size, seed=i) * F32(0.3), f"b{i}": floats(out, seed=9 + i)}
        nodes += [
            node("Conv", [previous, f"k{i}", f"b{i}"], [f"c{i}"], strides=[2, 2], pads=[1, 1, 1, 1]),
            node("Relu", [f"c{i}"], [f"f{i}"]),
        ]
        for head, per in (("loc", 4), ("conf", classes)):
            constants[f"{head}k{i}"] = floats(anchors * per, out, 3, 3, seed=20 + i) * F32(0.4)
            constants[f"shape_{head}"] = i64(1, -1, per)
            nodes += [
                node("Conv", [f"f{i}", f"{head}k{i}"], [f"{head}m{i}"], pads=[1, 1, 1, 1]),
                node("Transpose", [f"{head}m{i}"], [f"{head}t{i}"], perm=[0, 2, 3, 1]),
                node("Reshape", [f"{head}t{i}", f"shape_{head}"], [f"{head}r{i}"]),
            ]
        previous, channels = f"f{i}", out
    priors = (4 * 4 + 2 * 2) * anchors
    constants |= {
        "center": np.random.default_rng(1).random((1, priors, 2)).astype(F32),
        "extent": np.random.default_rng(2).random((1, priors, 2)).astype(F32) * F32(0.5),
        "tenth": np.array(0.1, F32), "fifth": np.array(0.2, F32), "half": np.array(0.5, F32), "two": i64(2, 2),
        "most": i64(most), "iou": np.array([0.3], F32), "score": np.array([0.5], F32), "last": np.array(2),
        "flat": i64(-1), "first": np.array(0, I64), "col": i64(1), "end": i64(3), "start": i64(2),
    }  # fmt: skip
    nodes += [
        node("Concat", ["locr0", "locr1"], ["loc"], axis=1),
        node("Concat", ["confr0", "confr1"], ["conf"], axis=1),
        node("Softmax", ["conf"], ["p"], axis=2),
        node("Transpose", ["p"], ["scores"], perm=[0, 2, 1]),
        node("Split", ["loc", "two"], ["d_center", "d_extent"], axis=2),
        node("Mul", ["d_center", "tenth"], ["moved"]),
        node("Mul", ["moved", "extent"], ["shifted"]),
        node("Add", ["center", "shifted"], ["middle"]),
        node("Mul", ["d_extent", "fifth"], ["grown"]),
        node("Exp", ["grown"], ["factor"]),
        node("Mul", ["extent", "factor"], ["size"]),
        node("Mul", ["size", "half"], ["arm"]),
        node("Sub", ["middle", "arm"], ["low"]),
        node("Add", ["middle", "arm"], ["high"]),
        node("Concat", ["low", "high"], ["boxes"], axis=2),
        node("NonMaxSuppression", ["boxes", "scores", "most", "iou", "score"], ["kept"]),
        node("Gather", ["kept", "last"], ["which"], axis=1),
        node("Squeeze", ["boxes", "first1"], ["plain"]),
        node("Gather", ["plain", "which"], ["found"], axis=0),
        node("GatherND", ["scores", "kept"], ["sure"]),
        node("Slice", ["kept", "col", "start", "col"], ["label1"]),
        node("Reshape", ["label1", "flat"], ["label"]),
    ]
    constants["first1"] = i64(0)
    feeds = {"image": floats(1, 3, 8, 8, seed=5)}
    return model(nodes, feeds, ["kept", "found", "sure", "label"], constants, opset=13), feeds


def test_a_detector() -> None:
    m, feeds = detector()
    counts = check(m, feeds)
    assert len(set(counts.values())) == 1 and 3 < counts["found"] < 36


@pytest.mark.parametrize("target", ["host", "cortex-m4", "wasm32"])
def test_a_detector_on_targets(target: str, tmp_path: Path) -> None:
    m, feeds = detector()
    compiled = compile_model(m.SerializeToString(), Target.load(target), Options(name="ssd"))
    assert "found_count[0] says how many entries of axis 0 there are" in compiled.files["ssd.h"]
    for name, text in compiled.files.items():
        (tmp_path / name).write_text(text)
    build = build_model(compiled.target, tmp_path, "ssd", tmp_path / "build")
    samples = [feeds, {"image": feeds["image"] * F32(0.1)}, {"image": feeds["image"] * F32(3)}]
    found = verify(compiled, samples, device.run(build, compiled.program, samples))
    assert found["ok"], found["failures"]


def test_no_box_is_left() -> None:
    m, feeds = detector()
    constants = {t.name: t for t in m.graph.initializer}
    constants["score"].raw_data = np.array([2], F32).tobytes()
    assert check(m, feeds) == {"kept": 0, "found": 0, "sure": 0, "label": 0}


def test_thresholds_at_run_time() -> None:
    feeds = {
        "boxes": np.random.default_rng(0).random((2, 9, 4)).astype(F32), "scores": floats(2, 3, 9),
        "most": i64(4), "iou": np.array([0.2], F32), "score": np.array([-0.5], F32),
    }  # fmt: skip
    for most in (0, 2, 99):
        feeds["most"] = i64(most)
        checked([node("NonMaxSuppression", list(feeds), ["y"])], feeds, ["y"], {})


MASK = [
    node("Greater", ["x", "zero"], ["mask"]),
    node("NonZero", ["mask"], ["places"]),
    node("Transpose", ["places"], ["tuples"]),
    node("GatherND", ["x", "tuples"], ["y"]),
]
"""``x[x > 0]``, as torch exports it."""

CHAINS: dict[str, tuple[list[NodeProto], list[str]]] = {
    "mask": (MASK, ["y", "places"]),
    "reduced": (
        [*MASK, *[node(f"Reduce{r}", ["y"], [r.lower()], keepdims=0) for r in ("Sum", "Max", "Min", "Prod")],
         node("ArgMax", ["y"], ["best"], axis=0, keepdims=0), node("Softmax", ["y"], ["share"], axis=0)],
        ["sum", "max", "min", "prod", "best", "share"],
    ),
    "counted": ([*MASK, node("Shape", ["y"], ["n"]), node("Size", ["tuples"], ["m"]), node("Shape", ["tuples"], ["s"]),
                 node("Shape", ["tuples"], ["width"], start=1)], ["n", "m", "s", "width"]),
    "shaped": (
        [*MASK, node("Shape", ["y"], ["n"]), node("Concat", ["n", "one", "two"], ["shape"], axis=0),
         node("Unsqueeze", ["y", "one"], ["c"]),
         node("Concat", ["c", "c"], ["pairs"], axis=1), node("Reshape", ["pairs", "shape"], ["z"]),
         node("Gather", ["shape", "nil"], ["again"]), node("Reshape", ["y", "again"], ["flat"])],
        ["z", "flat"],
    ),
    "top": ([*MASK, node("TopK", ["y", "two"], ["values", "at"], axis=0)], ["values", "at"]),
    "top_of_all": (
        [*MASK, node("Shape", ["y"], ["n"]), node("TopK", ["y", "n"], ["values", "at"], axis=0, largest=0)],
        ["values", "at"],
    ),
    "rows": (
        [*MASK, node("Unsqueeze", ["y", "one"], ["column"]), node("MatMul", ["column", "w"], ["rows"]),
         node("Softmax", ["rows"], ["p"], axis=1), node("Slice", ["p", "one", "big", "nil"], ["rest"]),
         node("Concat", ["p", "rows", "column"], ["wide"], axis=1), node("Concat", ["head", "p"], ["more"], axis=0),
         node("Reshape", ["p", "minus"], ["line"]), node("Split", ["p", "parts"], ["a", "b"], axis=1),
         node("ReduceMax", ["p", "one"], ["top"], keepdims=0)],
        ["p", "rest", "wide", "more", "line", "a", "b", "top"],
    ),
    "again": (
        [*MASK, node("Less", ["y", "oner"], ["small"]), node("Compress", ["y", "small"], ["z"], axis=0),
         node("NonZero", ["small"], ["at"]), node("Squeeze", ["at", "nil"], ["flat"]),
         node("Gather", ["y", "flat"], ["same"])],
        ["z", "at", "same"],
    ),
    "compressed": (
        [node("ReduceSum", ["x", "ones"], ["s"], keepdims=0), node("Greater", ["s", "zero"], ["keep"]),
         node("Compress", ["x", "keep"], ["y"], axis=0), node("LayerNormalization", ["y", "oner5"], ["z"])],
        ["y", "z"],
    ),
    "unique": (
        [node("Round", ["x"], ["r"]), node("Cast", ["r"], ["c"], to=TensorProto.INT64),
         node("Unique", ["c"], ["u", "i", "v", "n"], sorted=1), node("Neg", ["u"], ["y"])],
        ["u", "i", "v", "n", "y"],
    ),
}  # fmt: skip
CONSTANTS = {
    "zero": np.array(0, F32), "two": i64(2), "one": i64(1), "w": floats(1, 4), "big": i64(2**31), "nil": i64(0),
    "head": floats(2, 4), "minus": i64(-1), "parts": i64(1, 3), "ones": i64(1), "oner": np.array(1, F32),
    "oner5": np.ones(5, F32),
}  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", CHAINS)
def test_what_follows(name: str, seed: int) -> None:
    nodes, outputs = CHAINS[name]
    feeds = {"x": floats(4, 5, seed=seed)}
    read = {i for n in nodes for i in n.input}
    checked(nodes, feeds, outputs, {n: a for n, a in CONSTANTS.items() if n in read})


def test_boxes_that_were_chosen_by_their_score() -> None:
    """Scores above a threshold, then suppression among those."""
    nodes = [
        node("Greater", ["s", "least"], ["mask"]),
        node("NonZero", ["mask"], ["at"]),
        node("Squeeze", ["at", "nil"], ["which"]),
        node("Gather", ["b", "which"], ["some"]),
        node("Gather", ["s", "which"], ["their"]),
        node("Unsqueeze", ["some", "nil"], ["boxes"]),
        node("Unsqueeze", ["their", "both"], ["scores"]),
        node("NonMaxSuppression", ["boxes", "scores", "most", "iou"], ["kept"]),
        node("Gather", ["kept", "two"], ["index"], axis=1),
        node("Gather", ["some", "index"], ["y"]),
    ]
    feeds = {"b": np.random.default_rng(3).random((12, 4)).astype(F32), "s": floats(12)}
    constants = {"least": np.array(-0.5, F32), "nil": i64(0), "both": i64(0, 1), "most": i64(5),
                 "iou": np.array([0.2], F32), "two": np.array(2)}  # fmt: skip
    assert 1 < checked(nodes, feeds, ["y", "kept"], constants)["y"] <= 5


REFUSED: dict[str, NodeProto] = {
    "a convolution": node("Conv", ["y3", "k"], ["z"]),
    "another length": node("Add", ["y", "x1"], ["z"]),
    "from the end": node("Slice", ["y", "minus2", "minus"], ["z"]),
    "an unknown place": node("Concat", ["y", "x1"], ["z"], axis=0),
    "along it": node("ReduceMean", ["y"], ["z"]),
    "scattered": node("ScatterElements", ["x1", "at", "y"], ["z"]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_follow_is_refused(what: str) -> None:
    nodes = [
        node("Greater", ["x1", "zero"], ["mask"]),
        node("NonZero", ["mask"], ["at2"]),
        node("Squeeze", ["at2", "nil"], ["at"]),
        node("Gather", ["x1", "at"], ["y"]),
        node("Unsqueeze", ["y", "both"], ["y3"]),
        REFUSED[what],
    ]
    constants: dict[str, Any] = {"zero": np.array(0, F32), "nil": i64(0), "both": i64(0, 1), "k": floats(1, 1, 2),
                                 "minus": i64(-1), "minus2": i64(-2)}  # fmt: skip
    with pytest.raises(UnsupportedOp) as e:
        load(model(nodes, {"x1": floats(7)}, ["z"], constants).SerializeToString())
    assert "at most 7" in e.value.nodes[0].reason


def test_names_of_counts_do_not_clash() -> None:
    nodes = [node("NonZero", ["x"], ["y"]), node("Cast", ["x"], ["y_count"], to=TensorProto.INT32)]
    graph = load(model(nodes, {"x": ints(3)}, ["y", "y_count"]).SerializeToString())
    assert graph.ragged["y"].count not in ("y", "y_count")
    assert checked(nodes, {"x": ints(3)}, ["y", "y_count"], {})["y"] == np.count_nonzero(ints(3))


def test_constants_have_a_fixed_length() -> None:
    nodes = [node("NonZero", ["w"], ["y"]), node("Unique", ["u"], ["z"]), node("Add", ["x", "x"], ["t"])]
    constants = {"w": np.round(floats(4, 5)), "u": i64(3, 1, 3, 2)}
    assert not checked(nodes, {"x": floats(2)}, ["y", "z", "t"], constants)


def test_empty_tensors_are_constants() -> None:
    """A slice that leaves nothing, alone, concatenated, summed, and as an output."""
    nodes = [
        node("Slice", ["x", "two", "one"], ["e"]),
        node("Relu", ["e"], ["none"]),
        node("Concat", ["none", "x", "e"], ["same"], axis=0),
        node("ReduceSum", ["none", "nil"], ["zeros"], keepdims=0),
        node("Add", ["zeros", "same"], ["y"]),
    ]
    constants = {n: CONSTANTS[n] for n in ("two", "one", "nil")}
    checked(nodes, {"x": floats(3, 5)}, ["y", "none", "zeros"], constants)
