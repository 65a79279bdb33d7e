"""Real models, where they are at hand: the imported graph computes what onnxruntime does."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bitc.errors import UnsupportedOp
from bitc.frontend import load
from bitc.interp import run
from tests.frontend.models import Array, compare, session

ZOO = Path(os.environ.get("BITC_ZOO") or Path(__file__).parents[2] / ".." / "shared" / "zoo").resolve()
pytestmark = pytest.mark.skipif(not ZOO.is_dir(), reason=f"no models in {ZOO}; set BITC_ZOO")

MODELS = {
    "qonnx_tfc_1w1a/TFC_1W1A.plain.onnx": 1e-6,
    "bmxnet_mnist/*.onnx": 1e-5,
    "larq_gtsrb_30/*.onnx": 1e-5,
    "mlperf_ic_fp32/*.onnx": 1e-5,
    "ultraface_slim/*.onnx": 1e-5,
    "smartagri_int/*.onnx": 0.0,
    "mlperf_ad_int8/*.onnx": 1e-5,
    "mlperf_kws_int8/*.onnx": 1e-5,
    "micro_kws_dialects/*emx.onnx": 1e-5,
    "micro_kws_dialects/*dequant.onnx": 1e-5,
}


def random_feeds(graph_inputs: object, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    feeds = {}
    for v in graph_inputs:  # type: ignore[attr-defined]
        carrier = v.type.dtype.carrier
        if v.type.dtype.is_float:
            feeds[v.name] = rng.random(v.shape).astype(carrier)
        else:
            feeds[v.name] = rng.integers(int(v.type.dtype.min), int(v.type.dtype.max) + 1, v.shape).astype(carrier)
    return feeds


@pytest.mark.parametrize("pattern", MODELS)
def test_model_matches_onnxruntime(pattern: str) -> None:
    (path,) = ZOO.glob(pattern)
    graph = load(path).graph
    for seed in range(2):
        compare(path.read_bytes(), random_feeds(graph.inputs, seed), MODELS[pattern])


def test_super_resolution_differs_by_one_code_at_most() -> None:
    """Its outputs are codes over 255; sums in another order may round one of them the other way."""
    imported = load(ZOO / "espcn_sparse" / "espcn_subpixel.plain.onnx")
    feeds = random_feeds(imported.graph.inputs, 0)
    (got,) = run(imported.graph, feeds).values()
    (want,) = session(imported.reference or b"").run(None, feeds)
    assert np.abs(got - want).max() < 1.01 / 255
    assert (got == want).mean() > 0.99


def test_qonnx_and_plain_form_agree() -> None:
    """onnxruntime can not load the QONNX form: its translation to standard operators is the witness."""
    qonnx = load(ZOO / "qonnx_tfc_1w1a" / "TFC_1W1A.onnx")
    plain = load(ZOO / "qonnx_tfc_1w1a" / "TFC_1W1A.plain.onnx")
    assert qonnx.reference is None
    for seed in range(4):
        x = np.random.default_rng(seed).random((1, 1, 28, 28)).astype(np.float32)
        (got,) = run(qonnx.graph, {"0": x}).values()
        (want,) = run(plain.graph, {"global_in": x}).values()
        np.testing.assert_allclose(got, want, rtol=1e-6)


def deeploy() -> list[Path]:
    return sorted((ZOO / "deeploy").glob("*")) if ZOO.is_dir() else []


@pytest.mark.parametrize("folder", deeploy() or [ZOO], ids=lambda p: p.name)
def test_deeploy_case(folder: Path) -> None:
    """The authors' inputs and outputs; float ones to float accuracy."""
    try:
        graph = load(folder / "model.onnx").graph
    except UnsupportedOp as e:
        pytest.skip(str(e))
    inputs, outputs = np.load(folder / "inputs.npz"), np.load(folder / "outputs.npz")
    feeds = [inputs[k] for k in inputs.files]
    by_name = all(v.name in inputs.files for v in graph.inputs)
    fed = {v.name: inputs[v.name] if by_name else feeds[i] for i, v in enumerate(graph.inputs)}
    got = list(run(graph, fed).values())
    for have, name in zip(got, outputs.files, strict=True):
        want = outputs[name].reshape(have.shape)
        scale = max(1.0, float(np.abs(want[np.isfinite(want)]).max(initial=0)))
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5 * scale)
