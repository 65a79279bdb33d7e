"""Element types that bitc holds in others: floats of 64, 16, 8 and 4 bits in float32, integers of 4 and 2 bits in 8."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from bitc.frontend import load
from bitc.interp import run
from bitc.ir.dtypes import FLOAT32, INT8, UINT8
from bitc.pipeline import optimize
from bitc.verification import verify_outputs
from tests.frontend.models import compare, floats, model, session

node = helper.make_node
FLOATS: dict[str, Any] = {
    "FLOAT16": np.float16, "BFLOAT16": ml_dtypes.bfloat16, "FLOAT8E4M3FN": ml_dtypes.float8_e4m3fn,
    "FLOAT8E4M3FNUZ": ml_dtypes.float8_e4m3fnuz, "FLOAT8E5M2": ml_dtypes.float8_e5m2,
    "FLOAT8E5M2FNUZ": ml_dtypes.float8_e5m2fnuz, "FLOAT4E2M1": ml_dtypes.float4_e2m1fn,
}  # fmt: skip


def there_and_back(name: str, **attributes: Any) -> ModelProto:
    to = getattr(TensorProto, name)
    nodes = [node("Cast", ["x"], ["n"], to=to, **attributes), node("Cast", ["n"], ["y"], to=TensorProto.FLOAT)]
    return model(nodes, {"x": np.zeros(8000, np.float32)}, ["y"], opset=25)


@pytest.mark.parametrize("name", FLOATS)
def test_casts_round_as_ml_dtypes(name: str) -> None:
    """Numbers of all magnitudes, and every bit pattern near halves."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=4000) * 10.0 ** rng.integers(-45, 6, 4000), np.arange(-2000, 2000) / 64.0])
    x = x.astype(np.float32)
    saturates = not name.endswith("16")
    graph = load(there_and_back(name, **({"saturate": 0} if saturates else {})).SerializeToString()).graph
    with np.errstate(all="ignore"):
        want = x.astype(FLOATS[name]).astype(np.float32)
    np.testing.assert_array_equal(run(graph, {"x": x})["y"], want)
    if saturates:
        graph = load(there_and_back(name).SerializeToString()).graph
        top = float(ml_dtypes.finfo(FLOATS[name]).max)
        inside = np.abs(x) <= top
        got = run(graph, {"x": x})["y"]
        np.testing.assert_array_equal(got[inside], want[inside])
        assert (np.abs(got[~inside]) == top).all()


@pytest.mark.parametrize(("name", "bits"), [("INT4", 4), ("UINT4", 4), ("INT2", 2), ("UINT2", 2)])
def test_casts_to_narrow_integers_wrap_around(name: str, bits: int) -> None:
    x = np.arange(-40, 40).astype(np.float32) / 2
    m = model([node("Cast", ["x"], ["y"], to=getattr(TensorProto, name))], {"x": x}, ["y"], opset=25)
    graph = load(m.SerializeToString()).graph
    assert graph.outputs[0].type.dtype is (INT8 if name[0] == "I" else UINT8)
    low = np.trunc(x).astype(np.int64) % (1 << bits)
    want = np.where(low >= 1 << (bits - 1), low - (1 << bits), low) if name[0] == "I" else low
    np.testing.assert_array_equal(run(graph, {"x": x})["y"], want)


def classifier(dtype: Any) -> tuple[ModelProto, dict[str, Any]]:
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "d", "e"], ["l"]),
        node("Softmax", ["l"], ["y"], axis=1),
    ]
    constants = {"w": floats(4, 2, 3, 3), "d": floats(4, 5, seed=1), "e": floats(5, seed=2)}
    x = {"x": floats(1, 2, 8, 8).astype(dtype)}
    return model(nodes, x, ["y"], {n: a.astype(dtype) for n, a in constants.items()}, opset=17), x


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_models_in_16_and_64_bits_are_computed_and_compared_in_32(dtype: Any) -> None:
    """onnxruntime has no double convolution, and rounds half floats wherever it likes."""
    m, feeds = classifier(dtype)
    found = optimize(m.SerializeToString())
    assert found.graph.inputs[0].type.dtype is FLOAT32 and any("float32" in n for n in found.imported.notices)
    samples = [{"x": floats(1, 2, 8, 8, seed=i)} for i in range(4)]
    report = verify_outputs(found, found.graph, samples)
    assert report.ok and report.reference == "onnxruntime", report.failures
    compare(m, {"x": feeds["x"].astype(np.float32)})


def test_outputs_of_16_bits_are_rounded() -> None:
    m = model([node("Exp", ["x"], ["y"])], {"x": floats(50).astype(np.float16)}, ["y"])
    m.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT16, [50]))
    feeds = {"x": floats(50).astype(np.float16)}
    (want,) = session(m.SerializeToString()).run(None, feeds)
    got = run(load(m.SerializeToString()).graph, {"x": feeds["x"].astype(np.float32)})["y"]
    np.testing.assert_array_equal(got, want.astype(np.float32))
