"""Exact instructions of the layer suite on every emulated target, and what the cost model predicted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from benchmarks.fit import roomy
from benchmarks.measure import graph_of, measure
from benchmarks.results import Committed
from benchmarks.suite import SUITE, Layer, layer_of, model
from bitc import runners
from bitc.ir.graph import Graph
from bitc.kernels import Goal, assign_layouts, select
from bitc.kernels.costs import instructions, predict
from bitc.kernels.variants import VARIANTS
from bitc.ops.linear import Conv2D
from bitc.pipeline import optimize
from bitc.target import Target

RESULTS = Committed("instructions.json")
TARGETS = ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m33", "cortex-m7", "cortex-m55", "aarch64",
           "aarch64-dotprod", "armv7-neon", "riscv32", "wasm32", "wasm32-simd128")  # fmt: skip

Results = dict[str, dict[str, dict[str, Any]]]
"""By target and layer: row, instructions, predicted, code_bytes, and the instructions of others by row."""


def run(names: Sequence[str] = TARGETS, layers: Sequence[Layer] = SUITE) -> Results:
    """Measure layers on the targets that run here."""
    return {name: suite(roomy(name), layers, True) for name in names if not runners.available(Target.load(name))}


def suite(target: Target, layers: Sequence[Layer] = SUITE, others: bool = False) -> dict[str, dict[str, Any]]:
    """Each layer of the suite on one target, and what `others` of the kernels would have cost."""
    wanted = {layer.name: layer for layer in layers}
    found: dict[str, dict[str, Any]] = {}
    for part in _parts(layers, target):
        graph = optimize(model(part).SerializeToString()).graph
        for m in measure(graph, target):
            name = layer_of(m.node.origin)
            if not isinstance(m.node.op, Conv2D) or name not in wanted:
                continue
            guess = predict(m.row, m.node, target)
            row = found.setdefault(name, {"row": m.row.name, "instructions": 0, "predicted": 0, "code_bytes": 0})
            row["instructions"] += m.cost
            row["predicted"] = None if guess is None or row["predicted"] is None else row["predicted"] + round(guess)
            row["code_bytes"] = None if m.code_bytes is None else row["code_bytes"] + m.code_bytes
        if others:
            for name, alternatives in _others(graph, target, wanted).items():
                found[name]["others"] = alternatives
    return {name: found[name] for name in wanted}


def _others(graph: Graph, target: Target, wanted: Collection[str]) -> dict[str, dict[str, int]]:
    """What the rows cost that were not taken, though predicted to cost less than twice as much."""
    placed = assign_layouts(graph, target)
    selection = select(placed, target, Goal.SPEED)
    found: dict[str, dict[str, int]] = {}
    for row in VARIANTS:
        nodes = []
        for n in placed.nodes:
            if isinstance(n.op, Conv2D) and isinstance(n.op, row.ops) and layer_of(n.origin) in wanted:
                best = selection[n]
                close = row is not best and not row.refuses(n, target)
                if close and instructions(row, n, target) < 2 * instructions(best, n, target):
                    nodes.append(n)
        for m in measure(graph_of(nodes), target, row) if nodes else ():
            costs = found.setdefault(layer_of(m.node.origin), {})
            costs[row.name] = costs.get(row.name, 0) + m.cost
    return found


def _parts(layers: Sequence[Layer], target: Target) -> Iterable[Sequence[Layer]]:
    """All at once, or one at a time where the emulated board has a memory of fixed size."""
    return [[layer] for layer in layers] if target.runner.kind == "qemu" else [layers]


def macs_table(results: Results, names: Sequence[str], per: int) -> str:
    """Markdown: instructions per so many multiply-accumulates, a row for each layer."""
    names = [n for n in names if n in results]
    rows = []
    for layer in SUITE:
        cells = [f"{per * results[n][layer.name]['instructions'] / layer.macs:.2f}" for n in names]
        rows.append([layer.name, *cells])
    fuel = {n: f"{n} (fuel)" if Target.load(n).toolchain.link == "wasm" else n for n in names}
    return markdown([f"instructions per {per} MACs", *fuel.values()], rows)


def readme() -> str:
    """The README's tables."""
    results = RESULTS.load()
    wide = [n for n in TARGETS if has_vectors(n)]
    words = [n for n in TARGETS if n not in wide]
    macs = macs_table(results, words, 32), macs_table(results, wide, 128)
    tables = *macs, code_table(results, "cortex-m4"), error_table(results)
    return "\n\n".join(tables) + "\n"


def has_vectors(name: str) -> bool:
    """Whether 128 products are a natural unit."""
    target = Target.load(name)
    return target.vector_bytes >= 16 and target.isa != "arm-m"


def error_table(results: Results) -> str:
    """Markdown: how far predictions are off, per target over the suite."""
    rows = []
    for name, layers in results.items():
        errors = {k: abs(v["predicted"] / v["instructions"] - 1) for k, v in layers.items() if v["predicted"]}
        if not errors:
            continue
        worst = max(errors, key=lambda k: errors[k])
        rows.append([name, f"{sum(errors.values()) / len(errors):.1%}", f"{errors[worst]:.1%}", worst,
                     f"{sum(e <= 0.15 for e in errors.values())} of {len(layers)}"])  # fmt: skip
    return markdown(["prediction", "mean error", "worst", "worst layer", "within 15 %"], rows)


def code_table(results: Results, name: str) -> str:
    """Markdown: bytes of code per layer on one target."""
    rows = [[layer, v["row"], f"{v['code_bytes']:,}"] for layer, v in results[name].items() if v["code_bytes"]]
    return markdown([f"code on {name}", "kernel", "bytes"], rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
