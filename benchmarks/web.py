"""The layer suite in WebAssembly under Node against onnxruntime-web, one thread, in turns in one process.

onnxruntime-web comes from npm, into a temporary folder, unless ORT_WEB names a folder in which it is installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path

from benchmarks import numbers
from benchmarks.bits import build, build_graph
from benchmarks.host import LAYERS
from benchmarks.instructions import markdown
from benchmarks.peers import chain
from benchmarks.suite import Layer
from bitc.target import Target
from bitc.toolchain import compile_sources, process

RESULTS = Path(__file__).with_name("web.md")
TARGET = "wasm32-simd128"
PACKAGE = "onnxruntime-web"
ENTRY = Path("node_modules", PACKAGE, "dist", "ort.wasm.min.mjs")


def run(layers: Sequence[Layer] = LAYERS) -> str:
    """Measure, and give the table. Needs node, and npm for the first run."""
    results = _measure([partial(_layer, layer) for layer in layers])
    head = ["layer", "int8 GMAC/s", "fp32 GMAC/s", f"{TARGET} GMAC/s", "/ int8", "/ fp32", "of limit"]
    return markdown(head, [_row(layer, r) for layer, r in zip(layers, results, strict=True)])


def readme() -> str:
    """The README's table, as last measured."""
    return RESULTS.read_text(encoding="utf-8")


def run_numbers(layers: Sequence[Layer] = numbers.LAYERS) -> str:
    """The same for layers of numbers: float32 beside float32, and codes of 8 bits beside such."""
    cases = list(product(layers, numbers.PEERS))
    results = _measure([partial(_numbers, layer, kind) for layer, kind in cases])
    rows = []
    for (layer, kind), (ours, _, theirs) in zip(cases, results, strict=True):
        speeds = [f"{layer.macs / t / 1e9:.1f}" for t in (theirs, ours)]
        rows.append([f"{layer.name}, {kind}", *speeds, f"{theirs / ours:.2f}"])
    return markdown(["layer", f"{PACKAGE} GMAC/s", f"{TARGET} GMAC/s", "ratio"], rows)


def _measure(layers: Sequence[Callable[[Target, Path], dict[str, object]]]) -> list[list[float]]:
    """Seconds per layer: of bitc's module, of the limit per product, and of the peers."""
    with tempfile.TemporaryDirectory(prefix="bitc-") as name:
        folder, target = Path(name), Target.load(TARGET)
        home = Path(os.environ.get("ORT_WEB", "")) if os.environ.get("ORT_WEB") else _install(folder / "npm")
        plan = {
            "ort": (home / ENTRY).resolve().as_uri(),
            "limit": str(_limit(target, folder)),
            "layers": [make(target, folder / str(i)) for i, make in enumerate(layers)],
        }
        path = folder / "plan.json"
        path.write_text(json.dumps(plan), encoding="utf-8")
        command = ["node", str(Path(__file__).with_name("web.mjs")), str(path)]
        if shutil.which("taskset"):  # one CPU, the last that this process may use
            command = ["taskset", "-c", str(max(os.sched_getaffinity(0))), *command]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    results: list[list[float]] = json.loads(done.stdout.splitlines()[-1])
    return results


def _row(layer: Layer, seconds: Sequence[float]) -> list[str]:
    bits, limit, int8, fp32 = seconds
    macs = layer.macs / layer.depth
    speeds = [f"{macs / t / 1e9:.1f}" for t in (int8, fp32, bits)]
    return [layer.name, *speeds, f"{int8 / bits:.1f}", f"{fp32 / bits:.1f}", f"{macs / bits * limit:.0%}"]


def _layer(layer: Layer, target: Target, folder: Path) -> dict[str, object]:
    made, _ = build(layer, target, folder)
    peers = [_peer(layer, kind, folder) for kind in ("uint8", "float32")]
    return {"bits": str(made.path), "bitsLayers": layer.depth, "peers": peers}


def _numbers(layer: Layer, kind: str, target: Target, folder: Path) -> dict[str, object]:
    made, _ = build_graph(numbers.graph(layer, kind), target, folder)
    return {"bits": str(made.path), "bitsLayers": 1, "peers": [_peer(layer, kind, folder)]}


def _peer(layer: Layer, kind: str, folder: Path) -> dict[str, object]:
    path = folder / f"{kind}.onnx"
    path.write_bytes(numbers.PEERS[kind](layer).SerializeToString())
    return {"path": str(path), "kind": kind, "shape": layer.shape, "layers": chain(layer)}


def _limit(target: Target, folder: Path) -> Path:
    source, out = Path(__file__).with_name("limit.c"), folder / "limit.wasm"
    objects = compile_sources(target, [source], [], folder / "limit", "-O3", warnings=False)
    exports = [f"--export={name}" for name in ("bitc_limit", "bitc_limit_bits")]
    command = [
        str(process.zig()),
        "wasm-ld",
        "--no-entry",
        *exports,
        *(str(f.path) for f in objects.files),
        "-o",
        str(out),
    ]
    subprocess.run(command, check=True)
    return out


def _install(folder: Path) -> Path:
    folder.mkdir()
    npm = shutil.which("npm") or "npm"
    subprocess.run(
        [npm, "install", "--silent", "--prefix", str(folder), PACKAGE], check=True, stdout=subprocess.DEVNULL
    )
    return folder
