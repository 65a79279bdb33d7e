"""Fit prices to measured work: instructions per term of each row, for each kind of chip.

Relative errors are least in squares, and no price is negative (coordinate descent on the normal equations).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from statistics import median
from typing import Any

import numpy as np

from benchmarks.measure import Measurement, graph_of, measure
from benchmarks.training import layers
from bitc.ir.graph import Node
from bitc.kernels import assign_layouts
from bitc.kernels.costs import TABLE, profiles
from bitc.kernels.step import Variant
from bitc.kernels.variants import VARIANTS
from bitc.target import Target

Array = np.ndarray[Any, Any]
TARGETS = ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m33", "cortex-m7", "aarch64", "aarch64-dotprod",
           "armv7-neon", "riscv32", "wasm32", "wasm32-simd128")  # fmt: skip


def fit(names: Sequence[str] = ()) -> None:
    """Measure the training layers on targets and write their prices; those of other targets stay. Names of rows among
    those of targets: only these."""
    old = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {"profiles": []}
    found = {_key(p): p for p in old["profiles"]}
    wanted = {row.name for row in VARIANTS}.intersection(names)
    for name in [n for n in names if n not in wanted] or TARGETS:
        profile = fit_target(roomy(name), wanted)
        if before := found.get(_key(profile)) if wanted else None:
            profile = before | {k: before[k] | profile[k] for k in ("prices", "code")}
        found[_key(profile)] = profile
    text = json.dumps({"profiles": [found[k] for k in sorted(found)]}, indent=1, sort_keys=True)
    TABLE.write_text(text + "\n", encoding="utf-8")
    profiles.cache_clear()


def roomy(name: str) -> Target:
    """A target with memory for all layers at once."""
    return Target.load(name, ram="512M", flash="512M")


def _key(profile: dict[str, Any]) -> tuple[Any, ...]:
    return profile["isa"], profile["triple"], tuple(profile["features"]), profile["word_bits"]


def fit_target(target: Target, rows: Collection[str] = ()) -> dict[str, Any]:
    """The profile of one target, as in costs.json, of all rows or some."""
    prices, code = {}, {}
    for row in VARIANTS:
        if row.name not in (rows or {row.name}):
            continue
        if row.work is not None and (nodes := _accepted(row, target)):
            measured = measure(graph_of(nodes), target, row)
            prices[row.name] = fit_row(row, measured, target)
            code[row.name] = int(median(m.code_bytes or 0 for m in measured))
    return {
        "isa": target.isa,
        "triple": target.toolchain.triple,
        "features": sorted(target.features),
        "word_bits": target.word_bits,
        "prices": prices,
        "code": code,
    }


def _accepted(row: Variant, target: Target) -> list[Node]:
    """Training layers that a row takes; it is asked with the layouts that they will have."""
    nodes = [n for n in layers() if isinstance(n.op, row.ops)]
    placed = assign_layouts(graph_of(nodes), target).nodes
    return [n for n, p in zip(nodes, placed, strict=True) if not row.refuses(p, target)]


def fit_row(row: Variant, measured: Sequence[Measurement], target: Target) -> dict[str, float]:
    """Price of each term that occurs."""
    assert row.work is not None
    works = [row.work(m.node, target) for m in measured]
    terms = sorted({t for w in works for t, n in w.items() if n})
    counts = np.array([[w.get(t, 0) for t in terms] for w in works], np.float64)
    cost = np.array([m.cost for m in measured], np.float64)
    found = non_negative(counts / cost[:, None], np.ones(len(cost)))
    error = counts @ found / cost - 1
    print(f"{target.name:16} {row.name:16} {len(cost):3} layers {len(terms):3} terms  error "
          f"mean {abs(error).mean():6.1%}  worst {abs(error).max():6.1%}", flush=True)  # fmt: skip
    return {t: float(f"{p:.4g}") for t, p in zip(terms, found, strict=True)}


def non_negative(a: Array, b: Array, rounds: int = 20_000) -> Array:
    """The x >= 0 that minimizes |a x - b|², with a trace of |x|² so that it is unique."""
    scale = np.linalg.norm(a, axis=0)
    scale[scale == 0] = 1
    m = a / scale
    gram, right = m.T @ m + 1e-6 * np.eye(m.shape[1]), m.T @ b
    x = np.zeros(m.shape[1])
    for _ in range(rounds):
        before = x.copy()
        for i in range(len(x)):
            x[i] = max(0.0, x[i] + (right[i] - gram[i] @ x) / gram[i, i])
        if abs(x - before).max() < 1e-9:
            break
    return np.asarray(x / scale)
