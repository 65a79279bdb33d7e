"""A binary ResNet-18 for images of 224 x 224 on a Cortex-M7 with 256 kB, input and output included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import resnet
from bitc.cli import main

SETTINGS = ("-t", "cortex-m7", "--ram", "256k", "--flash", "4M", "--input", "stream", "--json")


def verify(model: bytes, folder: Path) -> dict[str, object]:
    path = folder / "resnet.onnx"
    path.write_bytes(model)
    result = CliRunner().invoke(main, ["verify", str(path), *SETTINGS, "--samples", "1"])
    assert result.exit_code == 0, result.output
    report: dict[str, object] = json.loads(result.stdout)
    return report


def test_its_form_runs(tmp_path: Path) -> None:
    """Its first stage, for small images."""
    report = verify(resnet.model(size=64, stages=1), tmp_path)
    assert report["ok"] and str(report["schedule"]).startswith("image.rows ..") and report["mac_factor"] == 1


def test_float_sums_run(tmp_path: Path) -> None:
    """As exported: two stages, with the shortcut between them."""
    report = verify(resnet.model(size=64, stages=2, width=32, float_sums=True), tmp_path)
    assert report["ok"] and str(report["schedule"]) == "image.rows .. y" and report["mac_factor"] == 1


def test_batch_norms_shift_narrow_layers_exactly(tmp_path: Path) -> None:
    """Where a sum has few values, a shift by half of one would be seen in the codes."""
    assert verify(resnet.model(size=64, stages=3, width=8), tmp_path)["ok"]


@pytest.mark.full
@pytest.mark.parametrize(("stages", "float_sums"), [(1, False), (4, False), (1, True), (2, True)])
def test_it_runs_in_256_kb(stages: int, float_sums: bool, tmp_path: Path) -> None:
    report = verify(resnet.model(stages=stages, float_sums=float_sums), tmp_path)
    sizes = [report[f"{what}_bytes"] for what in ("arena", "stack", "input", "output")]
    assert report["ok"]  # labels of random weights say nothing: a sign within rounding of zero moves them
    assert report["mac_factor"] == 1 and sum(s for s in sizes if isinstance(s, int)) <= 256 * 1024
