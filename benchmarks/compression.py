"""What each step of `bitc compress` costs and saves, on the trained float example with Fashion-MNIST.

Calibration images come from the training set, accuracy is measured on test images; instructions are exact, of one run
on a Cortex-M4. The data is that of the folder BITC_ZOO, as in the tests.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.instructions import markdown
from benchmarks.results import Committed
from bitc import actions
from bitc.compression import Calibration, Choice, compress, parse_on
from bitc.pipeline import compile_model
from bitc.target import Target
from bitc.toolchain import Toolchain
from bitc.verification.inputs import Sample

RESULTS = Committed("compression.json")
ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "examples" / "fashion_float" / "fashion_float.onnx"
CALIBRATION, TEST = 128, 1000
METHODS = (
    "",
    "quantize",
    "ternarize",
    "ternarize quantize",
    "ternarize:scale=absmedian",
    "binarize",
    "binarize quantize",
    "binarize:bases=2",
    "binarize:salient=0.1",
    "binarize:activations=sign",
    "share:entries=16",
    "prune:pattern=2:4",
    "prune:sparsity=0.7",
    "channels:share=0.25",
    "channels:share=0.25 quantize",
)
"""Steps, one after the other; none: the model as it is."""

Results = dict[str, dict[str, Any]]
"""By method: accuracy, weights_bytes, arena_bytes, instructions."""


def run(names: Sequence[str] = METHODS) -> Results:
    """Compress with each method and measure. Raises FileNotFoundError without the data."""
    data = np.load(Path(os.environ.get("BITC_ZOO", ROOT.parent / "shared" / "zoo")) / "data" / "fashion_mnist.npz")
    calibration, known = _samples(data, "train", CALIBRATION)
    test, classes = _samples(data, "test", TEST)
    source, target = MODEL.read_bytes(), Target.load("cortex-m4", "512k", "1m")
    judge = Calibration(source, test, classes, 0, hold_out=False)
    found: Results = {}
    for name in names or METHODS:
        steps = [(step, Choice(only)) for step, only in map(parse_on, name.split())]
        data_for = Calibration(source, calibration, known, 0, hold_out=False)
        model = compress(source, steps, data_for).model if steps else source
        compiled = compile_model(model, target)
        report, _ = actions.run(compiled, test[:1], None, Toolchain(), "-O3")
        sizes = {key: report[key] for key in ("weights_bytes", "arena_bytes", "instructions")}
        found[name] = {"accuracy": judge.score(model).value, **sizes}
    return found


def _samples(data: Any, part: str, count: int) -> tuple[list[Sample], Any]:
    """Images spread evenly over a part of the data, and their classes."""
    labels = data[f"y_{part}"]
    at = np.linspace(0, len(labels) - 1, count).astype(int)
    images = data[f"x_{part}"][at].astype(np.float32).reshape(-1, 1, 1, 28, 28) / np.float32(255)
    return [{"image": x} for x in images], labels[at].astype(np.int64)


def table(results: Results) -> str:
    """Markdown: a row for each method."""
    rows = [
        [
            f"`{name}`" if name else "as trained",
            f"{100 * r['accuracy']:.1f} %",
            f"{r['weights_bytes']:,}",
            f"{r['arena_bytes']:,}",
            f"{r['instructions']:,}",
        ]
        for name, r in results.items()
    ]
    return markdown(["steps", "accuracy", "weights", "arena", "instructions"], rows)


def readme() -> str:
    """The README's table."""
    return table(RESULTS.load()) + "\n"
