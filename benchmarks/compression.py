"""What each step of `bitc compress` costs and saves, and what a search finds, on trained float examples with
Fashion-MNIST.

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
from bitc.compression.mix import Problem
from bitc.compression.search import search
from bitc.compression.workers import local
from bitc.pipeline import Options, compile_model
from bitc.target import Target
from bitc.toolchain import Toolchain
from bitc.verification.inputs import Sample

RESULTS = Committed("compression.json")
ROOT = Path(__file__).resolve().parents[1]
MODELS = ("fashion_float", "fashion_resnet")
CALIBRATION, TEST = 128, 1000
SEARCH = 512
"""Calibration images of a search, which holds half of them out."""
METHODS = (
    "",
    "quantize",
    "ternarize",
    "ternarize quantize",
    "ternarize:scale=absmedian",
    "ternarize:per=tensor",
    "binarize",
    "binarize quantize",
    "binarize:bases=2",
    "binarize:salient=0.1",
    "binarize:salient=0.1,by=magnitude",
    "binarize:activations=sign",
    "share:entries=16",
    "share:entries=16 quantize",
    "share:entries=4 quantize",
    "prune:pattern=2:4",
    "prune:pattern=2:4 quantize",
    "prune:sparsity=0.7",
    "prune:sparsity=0.7,levels=3",
    "prune:sparsity=0.7,pattern=4x1",
    "channels:share=0.25",
    "channels:share=0.25 quantize",
)
"""Steps, one after the other; none: the model as it is."""
QUICK = "--flash 256k --max-drop 0.03 --minimize instructions"
SEARCHES = {
    "fashion_float": ("--flash 32k --max-drop 0.02", "--flash 24k --max-drop 0.03", QUICK),
    "fashion_resnet": ("--flash 64k --max-drop 0.02", "--flash 40k --max-drop 0.03", QUICK),
}
"""What a search is asked for, on a chip with 128 KiB of RAM."""

Results = dict[str, dict[str, dict[str, Any]]]
"""By network and method: accuracy, weights_bytes, arena_bytes, instructions."""


def run(names: Sequence[str] = ()) -> Results:
    """Compress both networks with each method and measure. Raises FileNotFoundError without the data."""
    data = np.load(Path(os.environ.get("BITC_ZOO", ROOT.parent / "shared" / "zoo")) / "data" / "fashion_mnist.npz")
    test, classes = _samples(data, "test", TEST)
    found: Results = RESULTS.load() if RESULTS.path.exists() else {}
    for network in MODELS:
        source = (ROOT / "examples" / network / f"{network}.onnx").read_bytes()
        judge = Calibration(source, test, classes, 0, hold_out=False)
        for name in names or (*METHODS, *SEARCHES[network]):
            if name.startswith("--") and name not in SEARCHES[network]:
                continue
            model, target = _compressed(source, name, data)
            report, _ = actions.run(compile_model(model, target), test[:1], None, Toolchain(), "-O3")
            sizes = {key: report[key] for key in ("weights_bytes", "arena_bytes", "instructions")}
            row = {"accuracy": judge.score(model).value, **sizes}
            found[network] = found.get(network, {}) | {name: row}
            RESULTS.write(found)  # as it comes: a search takes minutes
    return found


def _compressed(source: bytes, name: str, data: Any) -> tuple[bytes, Target]:
    """The model after steps or a search, and what it is for."""
    if not name.startswith("--"):
        samples, known = _samples(data, "train", CALIBRATION)
        steps = [(step, Choice(only)) for step, only in map(parse_on, name.split())]
        calibration = Calibration(source, samples, known, 0, hold_out=False)
        model = compress(source, steps, calibration).model if steps else source
        return model, Target.load("cortex-m4", "512k", "1m")
    words = name.split()
    options = dict(zip(words[::2], words[1::2], strict=True))
    samples, known = _samples(data, "train", SEARCH)
    target = Target.load("cortex-m4", "128k", options["--flash"])
    problem = Problem(source, samples, known, 0, target, Options())
    minimize = options.get("--minimize", "none")
    return search(problem, float(options["--max-drop"]), local(), minimize=minimize).model, target


def _samples(data: Any, part: str, count: int) -> tuple[list[Sample], Any]:
    """Images spread evenly over a part of the data, and their classes."""
    labels = data[f"y_{part}"]
    at = np.linspace(0, len(labels) - 1, count).astype(int)
    images = data[f"x_{part}"][at].astype(np.float32).reshape(-1, 1, 1, 28, 28) / np.float32(255)
    return [{"image": x} for x in images], labels[at].astype(np.int64)


def table(results: Results) -> str:
    """Markdown: a table for each network, a row for each method."""
    return "\n\n".join(f"{network}:\n\n{_rows(rows, network)}" for network, rows in results.items())


def _rows(results: dict[str, dict[str, Any]], network: str) -> str:
    order = [name for name in (*METHODS, *SEARCHES[network]) if name in results]
    rows = [
        [
            f"`{name}`" if name else "as trained",
            f"{100 * r['accuracy']:.1f} %",
            f"{r['weights_bytes']:,}",
            f"{r['arena_bytes']:,}",
            f"{r['instructions']:,}",
        ]
        for name, r in ((name, results[name]) for name in order)
    ]
    return markdown(["steps, or what a search was asked for", "accuracy", "weights", "arena", "instructions"], rows)


def readme() -> str:
    """The README's tables."""
    return table(RESULTS.load()) + "\n"
