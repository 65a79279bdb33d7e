"""Zeros in weights: MobileNetV1 with 90 % zeros in its 1x1 layers, and layers with N:M sparse weights.

Each is measured beside the same without the rows that leave out zeros: in instructions on emulators, on WebAssembly
also in time under Node, in turns.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import mobilenet, numbers
from benchmarks.bits import NAME
from benchmarks.instructions import markdown
from benchmarks.measure import graph_of
from benchmarks.measure import measure as measure_nodes
from benchmarks.results import Committed
from benchmarks.suite import Layer
from bitc import actions, runners
from bitc.ir.graph import Node, Value, constant
from bitc.kernels.variants import ZEROS_SKIPPED
from bitc.pipeline import Options, compile_model
from bitc.target import Target
from bitc.toolchain import ZIG, build_model

RESULTS = Committed("sparse.json")
TARGETS = ("cortex-m4", "cortex-m55", "aarch64", "wasm32-simd128")
NETWORKS = ((0.25, 96), (0.5, 128))
"""Width of MobileNetV1, and of its images in pixels."""
ZEROS = 0.9
PATTERNS = ("2:4", "1:4", "4:8", "2:8")
LAYERS = (Layer("conv 1x1 64-64 @16", 64, 64, 16), Layer("conv 1x1 256-256 @8", 256, 256, 8),
          Layer("conv 3x3 64-64 @16", 64, 64, 16, 3))  # fmt: skip
KINDS = ("int8", "float32")

Results = dict[str, dict[str, Any]]
"""By target: `networks` and `layers`, each a list of measurements."""


def open_target(name: str) -> Target:
    """The target; microcontrollers with memory for any of the networks."""
    target = Target.load(name)
    return Target.load(name, ram="512M", flash="512M") if target.memory.ram is not None else target


def run(names: Sequence[str] = TARGETS) -> Results:
    """Measure on the targets that run here."""
    found: Results = {}
    for name in names or TARGETS:
        target = open_target(name)
        if runners.available(target):
            continue
        networks = [_network(target, kind, *n) for kind in KINDS for n in NETWORKS]
        found[name] = {"networks": networks, "layers": _layers(target)}
    return found


def _network(target: Target, kind: str, width: float, size: int) -> dict[str, Any]:
    model = mobilenet.model(kind, width, size, ZEROS).SerializeToString()
    dense, sparse = (compile_model(model, target, Options(name=NAME, sparse=s)) for s in (False, True))
    reports = [actions.bench(c, None, None, ZIG, "-O3") for c in (dense, sparse)]
    found = {
        "network": f"MobileNetV1 {width} @{size}, {kind}",
        "metric": reports[0]["metric"],
        "dense": reports[0]["total"],
        "sparse": reports[1]["total"],
        "dense_bytes": reports[0]["weights_bytes"],
        "sparse_bytes": reports[1]["weights_bytes"],
    }
    if target.isa == "wasm" and shutil.which("node"):
        with tempfile.TemporaryDirectory(prefix="bitc-") as name:
            paths = []
            for label, c in (("dense", dense), ("sparse", sparse)):
                folder = Path(name) / label
                folder.mkdir()
                for path, text in c.files.items():
                    (folder / path).write_text(text, encoding="utf-8")
                paths.append(build_model(target, folder, NAME, folder / "out").path)
            found["dense_ms"], found["sparse_ms"] = (round(1e3 * s, 3) for s in _times(paths, Path(name)))
    return found


def _times(modules: Sequence[Path], folder: Path) -> list[float]:
    """Seconds of each module under Node."""
    plan = folder / "plan.json"
    plan.write_text(json.dumps({"layers": [{"modules": [str(m) for m in modules]}]}), encoding="utf-8")
    command = ["node", str(Path(__file__).with_name("web.mjs")), str(plan)]
    if shutil.which("taskset"):  # one CPU, the last that this process may use
        command = ["taskset", "-c", str(max(os.sched_getaffinity(0))), *command]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    times: list[float] = json.loads(done.stdout.splitlines()[-1])[0]
    return times


def node(layer: Layer, kind: str, pattern: str, number: int = 0) -> Node:
    """A layer with N:M sparse weights; nodes of one graph are numbered."""
    n = numbers.node(layer, kind)
    w = n.input(1).array
    thinned = mobilenet.pruned(w.reshape(len(w), -1).astype(np.float64), 0.0, pattern).reshape(w.shape)
    x, y = Value(f"x{number}", n.input(0).type), Value(f"y{number}", n.output.type)
    return replace(n, inputs=(x, constant("w", thinned.astype(w.dtype)), *n.inputs[2:]), outputs=(y,))


def _layers(target: Target) -> list[dict[str, Any]]:
    cases = [(kind, layer, pattern) for kind in KINDS for layer in LAYERS for pattern in PATTERNS]
    graph = graph_of([node(layer, kind, pattern, i) for i, (kind, layer, pattern) in enumerate(cases)])
    both = [measure_nodes(graph, target, without=without) for without in (ZEROS_SKIPPED, ())]
    return [
        {
            "layer": f"{layer.name}, {kind}",
            "pattern": pattern,
            "row": sparse.row.name,
            "dense": dense.cost,
            "sparse": sparse.cost,
            "dense_bytes": dense.weights_bytes,
            "sparse_bytes": sparse.weights_bytes,
        }
        for (kind, layer, pattern), dense, sparse in zip(cases, *both, strict=True)
    ]


def table(results: Results) -> str:
    """Markdown: how many times fewer instructions each network takes, and under Node how much less time."""
    rows = []
    for target, found in results.items():
        for n in found["networks"]:
            rows.append(
                [
                    f"{n['network']}, {target}",
                    f"{n['dense'] / 1e6:.2f} → {n['sparse'] / 1e6:.2f} M, {n['dense'] / n['sparse']:.2f}x",
                    _time(n),
                    f"{n['dense_bytes'] / 1024:.0f} → {n['sparse_bytes'] / 1024:.0f} KiB",
                ]
            )
    return markdown(["90 % zeros in 1x1 layers", "instructions", "Node", "weights"], rows)


def _time(n: dict[str, Any]) -> str:
    if "dense_ms" not in n:
        return ""
    return f"{n['dense_ms']:.2f} → {n['sparse_ms']:.2f} ms, {n['dense_ms'] / n['sparse_ms']:.2f}x"


def layers_table(results: Results) -> str:
    """Markdown: the gain of each N:M pattern, and the share of dense weights' bytes that it takes."""
    lines: dict[str, list[str]] = {}
    for found in results.values():
        for cell in found["layers"]:
            gain, size = cell["dense"] / cell["sparse"], cell["sparse_bytes"] / cell["dense_bytes"]
            name = f"{cell['layer']}, {cell['pattern']}"
            lines.setdefault(name, [name]).append(f"{gain:.2f}x {cell['row']}, {size:.0%}")
    return markdown(["layer", *results], list(lines.values()))


def readme() -> str:
    """The README's tables."""
    return f"{table(RESULTS.load())}\n\n{layers_table(RESULTS.load())}\n"
