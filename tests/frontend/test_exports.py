"""Graphs as exporters write them: shape chains, weight subgraphs, branches, old opsets, odd bookkeeping."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitc.frontend import load
from bitc.interp import run
from tests.frontend.models import Array, compare, floats, info, model, subgraph

node = helper.make_node
I64 = np.int64


def i64(*values: int) -> Array:
    return np.array(values, I64)


def ops(imported: Any) -> list[str]:
    return [n.op.name for n in imported.graph.nodes]


def test_flatten_through_shape_arithmetic() -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Unsqueeze", ["n", "axis"], ["n1"]),
        node("Concat", ["n1", "minus"], ["shape"], axis=0),
        node("Reshape", ["x", "shape"], ["y"]),
    ]
    x = floats(2, 3, 4)
    constants = {"zero": np.array(0, I64), "axis": i64(0), "minus": i64(-1)}
    assert ops(compare(model(nodes, {"x": x}, ["y"], constants), {"x": x})) == ["Reshape"]


def test_torchscript_padding_chain() -> None:
    """F.pad: ConstantOfShape, Concat, Reshape, Slice with step -1, Transpose, Cast, Pad."""
    nodes = [
        node("ConstantOfShape", ["four"], ["zeros"], value=numpy_helper.from_array(i64(0))),
        node("Concat", ["given", "zeros"], ["all"], axis=0),
        node("Reshape", ["all", "pairs"], ["table"]),
        node("Slice", ["table", "m1", "min", "a0", "m1"], ["reversed"]),
        node("Transpose", ["reversed"], ["turned"], perm=[1, 0]),
        node("Reshape", ["turned", "m1"], ["flat"]),
        node("Cast", ["flat"], ["pads"], to=TensorProto.INT64),
        node("Pad", ["x", "pads", "value"], ["y"]),
    ]
    constants = {
        "four": i64(4), "given": i64(1, 2, 3, 4), "pairs": i64(-1, 2), "m1": i64(-1), "min": i64(-(2**63)),
        "a0": i64(0), "value": np.array(1, np.float32),
    }  # fmt: skip
    x = floats(1, 2, 5, 5)
    assert ops(compare(model(nodes, {"x": x}, ["y"], constants), {"x": x})) == ["Pad"]


@pytest.mark.parametrize("size", [8, 96])
def test_xnor_weight_subgraph_folds_whatever_its_size(size: int) -> None:
    """w -> sign(w) * mean|w| through a straight-through estimator."""
    nodes = [
        node("Abs", ["w"], ["abs"]),
        node("ReduceMean", ["abs"], ["alpha"], axes=[1, 2, 3], keepdims=1),
        node("Sign", ["w"], ["sign"]),
        node("Mul", ["sign", "alpha"], ["q"]),
        node("Clip", ["w", "lo", "hi"], ["c"]),
        node("Sub", ["q", "c"], ["d"]),
        node("Add", ["d", "c"], ["ste"]),
        node("Conv", ["x", "ste"], ["y"], pads=[1, 1, 1, 1]),
    ]
    x, w = floats(1, size, 6, 6), floats(size, size, 3, 3, seed=1)
    constants = {"w": w, "lo": np.array(-1, np.float32), "hi": np.array(1, np.float32)}
    imported = compare(model(nodes, {"x": x}, ["y"], constants), {"x": x}, 1e-5)
    assert ops(imported) == ["Transpose", "Conv2D", "Transpose"]
    weights = imported.graph.nodes[1].input(1).array
    assert weights.shape == (size, 3, 3, size)
    np.testing.assert_allclose(np.abs(weights[0]), np.abs(weights[0]).mean(), rtol=1e-4)


def test_activation_straight_through_estimator() -> None:
    nodes = [
        node("Sign", ["x"], ["s"]),
        node("Clip", ["x", "lo", "hi"], ["c"]),
        node("Sub", ["s", "c"], ["d"]),
        node("Add", ["d", "c"], ["y"]),
    ]
    x = floats(1, 40)
    constants = {"lo": np.array(-1, np.float32), "hi": np.array(1, np.float32)}
    assert ops(compare(model(nodes, {"x": x}, ["y"], constants), {"x": x})) == ["Sign", "Clip", "Sub", "Add"]


@pytest.mark.parametrize("condition", [True, False])
def test_constant_if_is_inlined_with_captured_names(condition: bool) -> None:
    then = subgraph([node("Add", ["t", "w"], ["a"])], ["a"])
    other = subgraph([node("Mul", ["t", "inner"], ["m"])], ["m"], {"inner": np.array(3, np.float32)})
    nodes = [
        node("Relu", ["x"], ["t"]),
        node("If", ["condition"], ["b"], then_branch=then, else_branch=other),
        node("Neg", ["b"], ["y"]),
    ]
    x = floats(2, 3)
    constants = {"condition": np.array(condition), "w": floats(3, seed=5)}
    imported = compare(model(nodes, {"x": x}, ["y"], constants), {"x": x})
    assert ops(imported) == ["Relu", "Add" if condition else "Mul", "Neg"]


def test_untaken_branch_is_not_checked() -> None:
    then = subgraph([node("Identity", ["x"], ["a"])], ["a"])
    other = subgraph([node("Nonsense", ["x"], ["m"], domain="nowhere")], ["m"])
    m = model(
        [node("If", ["c"], ["y"], then_branch=then, else_branch=other)], {"x": floats(2)}, ["y"], {"c": np.array(True)}
    )
    assert ops(load(m.SerializeToString())) == ["Reshape"]


def test_unsorted_nodes_duplicate_names_and_dead_nodes() -> None:
    nodes = [
        node("Neg", ["t"], ["y"], name="same"),
        node("Nonsense", ["x"], ["dead"], name="same", domain="nowhere"),
        node("Relu", ["x"], ["t"], name="same"),
    ]
    x = floats(3)
    imported = compare(model(nodes, {"x": x}, ["y"], domains={"unused": 3}), {"x": x})
    assert ops(imported) == ["Relu", "Neg"]
    assert imported.nodes == 3


def test_initializers_listed_as_inputs() -> None:
    x, w = floats(2, 3), floats(3, 4)
    m = model([node("MatMul", ["x", "w"], ["y"])], {"x": x}, ["y"], {"w": w})
    m.graph.input.append(info("w", w))
    assert [v.name for v in compare(m, {"x": x}).graph.inputs] == ["x"]


def test_outputs_keep_their_names() -> None:
    """Outputs that are an input, a constant, or the same tensor twice."""
    x = floats(2, 3)
    nodes = [
        node("Identity", ["x"], ["same"]),
        node("Relu", ["x"], ["r"]),
        node("Identity", ["r"], ["r1"]),
        node("Identity", ["r"], ["r2"]),
        node("Neg", ["w"], ["constant"]),
    ]
    m = model(nodes, {"x": x}, ["same", "r1", "r2", "constant"], {"w": floats(2)})
    imported = compare(m, {"x": x})
    assert [v.name for v in imported.graph.outputs] == ["same", "r1", "r2", "constant"]
    assert [v.origin.tensor for v in imported.graph.outputs if v.origin] == ["same", "r1", "r2", "constant"]


def test_values_know_their_onnx_tensor() -> None:
    x, w = floats(1, 2, 5, 5), floats(3, 2, 3, 3)
    imported = load(
        model(
            [node("Conv", ["x", "w"], ["c"]), node("Relu", ["c"], ["y"])], {"x": x}, ["y"], {"w": w}
        ).SerializeToString()
    )
    named = {v.origin.tensor: v for n in imported.graph.nodes for v in n.outputs if v.origin}
    assert named["c"].shape == (1, 3, 3, 3)
    assert {n.origin for n in imported.graph.nodes} == {"Conv c", "Relu y"}
    assert imported.graph.inputs[0].origin is not None


def test_dynamic_batch_becomes_one() -> None:
    m = model([node("Relu", ["x"], ["y"])], {"x": floats(1, 3)}, ["y"])
    for dim in ({"dim_param": "N"}, {"dim_value": 0}, {"dim_value": -1}, {}):
        m.graph.input[0].type.tensor_type.shape.dim[0].Clear()
        for k, v in dim.items():
            setattr(m.graph.input[0].type.tensor_type.shape.dim[0], k, v)
        imported = compare(m, {"x": floats(1, 3)})
        assert imported.notices == ("input x: dynamic batch dimension set to 1",)


def test_given_shapes_reach_inputs_with_the_same_symbol() -> None:
    m = model([node("Add", ["x", "z"], ["y"])], {"x": floats(1, 3), "z": floats(1, 3)}, ["y"])
    for i in m.graph.input:
        i.type.tensor_type.shape.dim[0].dim_param = "N"
        i.type.tensor_type.shape.dim[1].dim_param = "L"
    graph = load(m.SerializeToString(), {"x": (2, 7)}).graph
    assert [v.shape for v in (*graph.inputs, *graph.outputs)] == [(2, 7)] * 3


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_become_float32(dtype: type) -> None:
    x, w = floats(2, 3).astype(dtype), floats(3, 4).astype(dtype)
    m = model([node("MatMul", ["x", "w"], ["y"])], {"x": x}, ["y"], {"w": w})
    imported = compare(m, {"x": x.astype(np.float32)})
    assert len(imported.notices) == 2
    assert imported.graph.inputs[0].type.dtype.name == "float32"


def test_external_data(tmp_path: Any) -> None:
    x, w = floats(2, 300), floats(300, 4)
    m = model([node("MatMul", ["x", "w"], ["y"])], {"x": x}, ["y"], {"w": w})
    onnx.save_model(m, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    imported = load(tmp_path / "m.onnx")
    np.testing.assert_allclose(run(imported.graph, {"x": x})["y"], x @ w, rtol=1e-4, atol=1e-5)
    compare(imported.reference or b"", {"x": x}, 1e-5)
