"""Planned memory: for each model of the zoo the peak of live bytes, the arena, and how good the order of layers is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.instructions import markdown
from benchmarks.results import Committed
from bitc.pipeline import Options, optimize, planner
from bitc.target import Target

RESULTS = Committed("memory.json")
ZOO = Path(os.environ.get("BITC_ZOO", Path(__file__).resolve().parents[2] / "shared" / "zoo"))
TARGET = "cortex-m4"
FOLDERS = ("mlperf_kws_int8", "mlperf_ad_int8", "mlperf_ic_fp32", "memory", "micro_kws_dialects", "qonnx_tfc_1w1a",
           "bmxnet_mnist", "larq_gtsrb_30", "smartagri_int", "ultraface_slim", "espcn_sparse")  # fmt: skip

Results = dict[str, dict[str, Any]]
"""By model: bytes, and the order of its layers in words."""


def models(names: Sequence[str] = ()) -> list[Path]:
    """The models of the zoo, or those in the folders named."""
    found = [path for folder in names or FOLDERS for path in sorted((ZOO / folder).glob("*.onnx"))]
    if not found:
        raise SystemExit(f"no models in {ZOO}: set BITC_ZOO")
    return found


def run(names: Sequence[str] = ()) -> Results:
    """Plan each model, layer by layer, and once more with the input in the arena."""
    target = Target.load(TARGET, ram="512M", flash="512M")
    found: Results = {}
    for path in models(names):
        model = optimize(path)
        plans = planner(model, target)
        kept, order = plans.by_layers, plans.ordered
        over = planner(optimize(path, Options(overwrite_input=True)), target).by_layers
        found[f"{path.parent.name}/{path.stem[:40]}"] = {
            "liveness": kept.plan.liveness,
            "bound": kept.plan.lower_bound,
            "arena": kept.plan.arena_bytes,
            "why": kept.plan.why_above_bound,
            "input": kept.program.given_bytes,
            "with_input": over.plan.arena_bytes,
            "with_input_bound": over.plan.lower_bound,
            "with_input_why": over.plan.why_above_bound,
            "order": order.quality,
            "scratch": kept.plan.scratch_bytes,
        }
    return found


def table(results: Results) -> str:
    """Markdown: a row for each model."""

    def above(arena: int, bound: int, why: str) -> str:
        gap = 100 * (arena / bound - 1) if bound else 0.0
        return f"{gap:.1f} %" + (f" ({why})" if why else "")

    rows = [
        [name, f"{r['liveness']:,}", f"{r['arena']:,}", above(r["arena"], r["bound"], r["why"]), f"{r['input']:,}",
         f"{r['with_input']:,}", above(r["with_input"], r["with_input_bound"], r["with_input_why"]), r["order"]]
        for name, r in results.items()
    ]  # fmt: skip
    gap = "over the bound"
    header = ["bytes, cortex-m4", "live at once", "arena", gap, "input", "arena with input", gap, "order"]
    return markdown(header, rows)


def readme() -> str:
    """The README's table."""
    return table(RESULTS.load()) + "\n"
