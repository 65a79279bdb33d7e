"""int8 layers on Cortex-M, beside CMSIS-NN: exact instructions per multiply-accumulate of whole layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.fit import roomy
from benchmarks.instructions import markdown
from benchmarks.measure import graph_of, measure
from benchmarks.numbers import node
from benchmarks.results import Committed
from benchmarks.suite import Layer
from bitc import runners
from bitc.kernels.costs import predict
from bitc.target import Target

RESULTS = Committed("int8.json")
TARGETS = ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m33", "cortex-m7", "cortex-m55")
PEER = {
    Layer("conv 3x3 64-64 @16", 64, 64, 16, 3): 1.76,
    Layer("conv 3x3 16-16 @32", 16, 16, 32, 3): 2.33,
    Layer("conv 3x3 3-16 @32", 3, 16, 32, 3): 4.82,
    Layer("conv 1x1 64-64 @16", 64, 64, 16): 2.07,
    Layer("conv 1x1 48-32 @24", 48, 32, 24): 2.27,
    Layer("conv 3x3 64 @24, depthwise", 64, 64, 24, 3, group=64): 8.70,
    Layer("conv 3x3 8 @48, depthwise", 8, 8, 48, 3, group=8): 9.95,
    Layer("dense 640-128", 640, 128): 1.95,
}
"""Layers, and what CMSIS-NN needs on a Cortex-M4: GCC 12.2 -Ofast, counted by QEMU -icount."""

Results = dict[str, dict[str, dict[str, Any]]]
"""By target and layer: row, instructions, predicted, weights_bytes."""


def run(names: Sequence[str] = TARGETS) -> Results:
    """Measure the layers on the targets that run here."""
    found: Results = {}
    for name in names or TARGETS:
        if runners.available(Target.load(name)):
            continue
        target = Target.load(name) if Target.load(name).runner.kind == "qemu" else roomy(name)
        for layer in PEER:
            (m,) = measure(graph_of([node(layer, "int8")]), target)
            guess = predict(m.row, m.node, target)
            found.setdefault(name, {})[layer.name] = {
                "row": m.row.name,
                "instructions": m.cost,
                "predicted": None if guess is None else round(guess),
                "code_bytes": m.code_bytes,
            }
    return found


def table(results: Results) -> str:
    """Markdown: a row for each layer."""
    names = [n for n in TARGETS if n in results]
    rows = []
    for layer, peer in PEER.items():
        cells = [f"{results[n][layer.name]['instructions'] / layer.macs:.2f}" for n in names]
        rows.append([layer.name, f"{peer:.2f}", *cells])
    return markdown(["instructions per int8 MAC", "CMSIS-NN, cortex-m4", *names], rows)


def readme() -> str:
    """The README's table."""
    return table(RESULTS.load()) + "\n"
