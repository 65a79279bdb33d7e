"""Operators without importer: imported by the standard's definitions of them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from bitc.errors import UnsupportedOp
from bitc.frontend import load
from bitc.interp import run
from tests.frontend.cases import Case, F, case
from tests.frontend.models import compare, floats, model
from tests.frontend.test_operators import build

DEFINED = [
    case("MeanVarianceNormalization", F(2, 3, 4, 5), opsets=(9, 13), axes=[0, 2]),
    case("LayerNormalization", F(2, 3, 4), c=(F(3, 4), F(3, 4)), axis=1, outputs=3, opsets=(17,)),
    case("LayerNormalization", F(2, 3, 4), c=(F(4),), outputs=2, opsets=(17,)),
    case("HannWindow", c=(np.array(9, np.int64),), periodic=0, opsets=(17,)),
]


@pytest.mark.parametrize("c", DEFINED, ids=str)
def test_definitions_compute_what_onnxruntime_does(c: Case) -> None:
    for opset in c.opsets:
        compare(*build(c, opset))


@pytest.mark.parametrize(
    "c",
    [
        case("Attention", F(1, 2, 3, 4), F(1, 2, 5, 4), F(1, 2, 5, 4), is_causal=1, softcap=2.0, opsets=(23,)),
        case("Attention", F(2, 3, 8), F(2, 5, 4), F(2, 5, 4), q_num_heads=4, kv_num_heads=2, opsets=(23,)),
        case("SwiGLU", F(2, 3, 8), F(2, 3, 8, seed=1), opsets=(28,)),
    ],
    ids=str,
)
def test_definitions_compute_what_onnx_does(c: Case) -> None:
    m, feeds = build(c, c.opsets[0])
    got = run(load(m.SerializeToString()).graph, feeds)
    for name, want in zip(got, ReferenceEvaluator(m).run(None, feeds), strict=True):
        np.testing.assert_allclose(got[name], want, rtol=1e-5, atol=1e-6)


def test_a_definition_that_can_not_be_imported_says_what_it_needs() -> None:
    node = helper.make_node("CenterCropPad", ["x", "shape"], ["y"])
    m = model([node], {"x": floats(1, 4, 4), "shape": np.array([1, 2, 2])}, ["y"], opset=18)
    with pytest.raises(UnsupportedOp) as e:
        load(m.SerializeToString())
    assert "its definition needs" in e.value.nodes[0].reason
    assert [n.op for n in e.value.nodes] == ["CenterCropPad"]


def test_the_importer_s_reason_stands_where_the_definition_does_not_help() -> None:
    node = helper.make_node("ReduceSumSquare", ["x", "axes"], ["y"])
    m = model([node], {"x": floats(2, 3), "axes": np.array([1])}, ["y"], opset=18)
    with pytest.raises(UnsupportedOp) as e:
        load(m.SerializeToString())
    assert e.value.nodes[0].reason == "the axes is the model's input 'axes'"
