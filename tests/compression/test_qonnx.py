"""QONNX written and read back: the same bits in onnxruntime, which runs the operators' bodies, and in bitc."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from bitc.errors import UsageError
from bitc.frontend.forms import Floats, summed, terms
from bitc.frontend.to_qonnx import to_qonnx
from bitc.interp import run
from bitc.pipeline import compile_model, optimize
from bitc.target import Target
from tests.compression.test_compress import IMAGES, MODEL, bitc

RNG = np.random.default_rng(0)
SIGNS = np.where(RNG.random((4, 30)) < 0.5, -1, 1).astype(np.float32)
ROWS = np.array([[0.3], [1.7], [1e-3], [5]], np.float32)


def compressed(out: Path, *args: str) -> Path:
    result = bitc("compress", MODEL, "--calibration", IMAGES, "--samples", 4, "-o", out, *args)
    assert result.exit_code == 0, result.stderr
    return out


ALL = {
    "binarize:activations=sign@node_conv2d_2": {"BipolarQuant": 2, "Where": 0},
    "binarize:bases=2@node_conv2d_4": {"BipolarQuant": 2},
    "binarize:bases=3@node_linear": {"BipolarQuant": 3},
    "binarize:salient=0.1@node_conv2d_6": {"Quant": 2},
    "ternarize@node_conv2d_8": {"Quant": 1},
}


@pytest.mark.parametrize("steps", [list(ALL), ["ternarize@node_conv2d_8", "quantize:zero=symmetric"]])
def test_the_same_bits(tmp_path: Path, steps: list[str]) -> None:
    plain = compressed(tmp_path / "plain.onnx", *(part for s in steps for part in ("--step", s)))
    quantized = tmp_path / "quantized.onnx"
    quantized.write_bytes(to_qonnx(plain.read_bytes()))
    counts = Counter(n.op_type for n in onnx.load(quantized).graph.node)
    if steps == list(ALL):
        total = sum((Counter(c) for c in ALL.values()), Counter[str]())
        assert {k: counts[k] for k in total} == total and not counts["Where"]
    else:
        assert counts["Quant"] > 20 and not counts["QuantizeLinear"]
    sessions = [onnxruntime.InferenceSession(path) for path in (plain, quantized)]
    models = [optimize(path) for path in (plain, quantized)]
    for x in np.load(IMAGES)["image"][:2].reshape(2, 1, 1, 28, 28):
        theirs = [s.run(None, {"image": x})[0] for s in sessions]
        np.testing.assert_array_equal(*theirs)
        ours = [run(m.graph, {"image": x})["logits"] for m in models]
        np.testing.assert_array_equal(*ours)
    found = [[f.form for f in (*m.findings.binary, *m.findings.integer) if " x " in f.form] for m in models]
    assert Counter(found[0]) == Counter(found[1]) and found[0]
    chosen = [compile_model(path, Target.load("cortex-m4")).selection for path in (plain, quantized)]
    kernels = [Counter(c.variant.name for c in s.choices.values()) for s in chosen]
    assert kernels[0] == kernels[1]


def test_the_format_is_an_option(tmp_path: Path) -> None:
    out = compressed(tmp_path / "net.onnx", "--step", "binarize@node_conv2d_2", "--format", "qonnx")
    assert [n.op_type for n in onnx.load(out).graph.node].count("BipolarQuant") == 1
    verified = bitc("verify", out, "-t", "host", "--inputs", IMAGES, "--samples", 1)
    assert verified.exit_code == 0, verified.stderr


def test_nothing_to_say_in_qonnx() -> None:
    with pytest.raises(UsageError, match="nothing that QONNX can say"):
        to_qonnx(MODEL.read_bytes())


@pytest.mark.parametrize(
    ("w", "bits"),
    [
        (SIGNS * ROWS, [1]),
        (SIGNS * ROWS * (RNG.random((4, 30)) < 0.7), [2]),
        (SIGNS * ROWS * np.array([[1], [0], [1], [1]], np.float32), [2]),
        (SIGNS * ROWS * np.where(RNG.random((4, 30)) < 0.5, 1, 2).astype(np.float32), [1, 1]),
        (ROWS * sum(a * np.where(RNG.random((4, 30)) < 0.5, -1, 1) for a in (1, 0.41, 0.13)), [1, 1, 1]),
        (ROWS * sum(a * np.where(RNG.random((4, 30)) < 0.5, -1, 1) for a in (0.7, 0.53, 0.31, 0.09)), [1, 1, 1, 1]),
        (SIGNS * ROWS * np.where(RNG.random((4, 30)) < 0.1, RNG.integers(2, 128, (4, 30)), 1), []),
        (RNG.normal(size=(4, 30)).astype(np.float32), []),
        (np.zeros((4, 30), np.float32), []),
    ],
)
def test_terms(w: Floats, bits: list[int]) -> None:
    found = terms(w)
    assert [t.bits for t in found] == bits or (not bits and [t.bits for t in found] in ([], [2, 8]))
    if found:
        np.testing.assert_allclose(summed(found), w, rtol=2.0**-15)
        np.testing.assert_array_equal(summed(terms(summed(found))), summed(found))
    if len(found) == 1:
        np.testing.assert_array_equal(found[0].value, w)
