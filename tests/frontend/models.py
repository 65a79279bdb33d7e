"""Small ONNX models for the tests of the frontend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bitc.frontend import Imported, load
from bitc.interp import run

Array = np.ndarray[Any, Any]
ort.set_default_logger_severity(4)


def info(name: str, array: Array) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def model(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Array],
    outputs: Sequence[str],
    constants: Mapping[str, Array] | None = None,
    opset: int = 13,
    domains: Mapping[str, int] | None = None,
) -> ModelProto:
    """A model whose inputs have the shapes of the given arrays."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [info(n, a) for n, a in inputs.items()],
        [onnx.ValueInfoProto(name=n) for n in outputs],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(d, v) for d, v in (domains or {}).items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=8 if opset < 19 else 10)


def session(data: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def compare(
    m: ModelProto | bytes,
    feeds: Mapping[str, Array],
    tolerance: float = 2e-6,
    oracle: ModelProto | None = None,
) -> Imported:
    """Import, evaluate, and compare every output with onnxruntime (on `oracle` if the model is not for it)."""
    data = m if isinstance(m, bytes) else m.SerializeToString()
    imported = load(data)
    got = run(imported.graph, feeds)
    reference = imported.reference if oracle is None else oracle.SerializeToString()
    assert reference is not None
    s = session(reference)
    for o, want in zip(s.get_outputs(), s.run(None, dict(feeds)), strict=True):
        assert got[o.name].shape == want.shape, o.name
        assert got[o.name].dtype == (np.float32 if want.dtype.kind == "f" else want.dtype), o.name
        if want.dtype.kind == "f":
            scale = max(1.0, float(np.nanmax(np.abs(np.where(np.isfinite(want), want, 0)), initial=0)))
            np.testing.assert_allclose(got[o.name], want, rtol=tolerance, atol=tolerance * scale)
        else:
            np.testing.assert_array_equal(got[o.name], want)
    return imported


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ints(*shape: int, low: int = -9, high: int = 9, dtype: type = np.int32, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def subgraph(
    nodes: Sequence[NodeProto], outputs: Sequence[str], constants: Mapping[str, Array] | None = None
) -> GraphProto:
    return helper.make_graph(
        list(nodes),
        "branch",
        [],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()],
    )
