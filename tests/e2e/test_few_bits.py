"""Networks with activations of one to four bits, from ONNX to firmware, against onnxruntime layer by layer."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from bitc import runners
from bitc.cli import main
from bitc.target import Target
from tests.passes.nets import Net
from tests.passes.test_few_activations import BINARY, FEW, TERNARY, Quantizer, dorefa, heaviside, lsq, weights

TARGETS = ("host", "cortex-m0plus", "cortex-m4", "aarch64", "wasm32-simd128")


def network(quantizer: Quantizer, kind: str, channels: int = 33) -> bytes:
    """Real convolution, two layers of codes, pool, dense layer."""
    n, size = Net(), 8
    x = n.op("Conv", n.input(1, 3, size, size), n.reals(channels, 3, 3, 3), kernel_shape=[3, 3], pads=[1] * 4)
    for k in (kind, TERNARY):
        w = weights(n, k, channels, channels, 3, 3)
        x = n.op("Conv", quantizer(n, n.bn(x, channels)), w, kernel_shape=[3, 3], pads=[1] * 4)
        x = n.bn(n.op("Mul", x, 0.1), channels)
    x = n.op("Flatten", n.op("MaxPool", quantizer(n, x), kernel_shape=[2, 2], strides=[2, 2]))
    dense = weights(n, BINARY, 10, channels * size * size // 4, 1, 1)
    return n.model(n.op("Gemm", x, dense.reshape(10, -1), n.reals(10), transB=1))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("quantizer", "kind"),
    [(partial(dorefa, 2), BINARY), (partial(lsq, 4), FEW), (heaviside, BINARY)],
    ids=["dorefa", "lsq", "step"],
)
def test_verified(quantizer: Quantizer, kind: str, target: str, tmp_path: Path) -> None:
    if reason := runners.available(Target.load(target)):
        pytest.skip(reason)
    model = tmp_path / "net.onnx"
    model.write_bytes(network(quantizer, kind))
    result = CliRunner().invoke(main, ["verify", str(model), "--target", target, "--samples", "2", "--json"])
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["ok"] and report["macs"]["float"] == 8 * 8 * 33 * 27, "all but the first layer run on codes"
    assert report["macs"]["lowbit"] + report["macs"]["int8"] > 0
