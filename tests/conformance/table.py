"""The committed table: what becomes of every case."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import onnx

from tests.conformance.cases import KINDS, Case
from tests.conformance.sweep import BUGS, OUT_OF_SCOPE, PASSED, REFUSED, WRONG, Result

TABLE = Path(__file__).with_name("table.json")
PAGE = Path(__file__).with_name("README.md")
STATUSES = (PASSED, REFUSED, OUT_OF_SCOPE, *BUGS)


def read() -> dict[str, Result]:
    """What the committed table says, by case."""
    found = json.loads(TABLE.read_text(encoding="utf-8"))
    return {
        name: Result(r["status"], r.get("reason", ""), tuple(r.get("constants", ())))
        for cases in found["cases"].values()
        for name, r in cases.items()
    }


def write(results: Mapping[Case, Result]) -> None:
    """Write table and page."""
    cases: dict[str, dict[str, object]] = {kind: {} for kind in KINDS}
    for case, r in sorted(results.items(), key=lambda item: item[0].name):
        entry: dict[str, object] = {"status": r.status}
        if r.reason:
            entry["reason"] = r.reason
        if r.constants:
            entry["constants"] = list(r.constants)
        cases[case.kind][case.name] = entry
    lines = [f'    "{kind}": {{' + _rows(rows) + "\n    }" for kind, rows in cases.items()]
    text = f'{{\n  "onnx": "{onnx.__version__}",\n  "cases": {{\n' + ",\n".join(lines) + "\n  }\n}\n"
    TABLE.write_text(text, encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")


def _rows(rows: Mapping[str, object]) -> str:
    """One case per line, so that differences read well."""
    return ",".join(f"\n      {json.dumps(name)}: {json.dumps(entry)}" for name, entry in rows.items())


def page(results: Mapping[Case, Result]) -> str:
    """The page: counts per kind and operator, and the reasons of refusals."""
    lines = [
        "# Conformance",
        "",
        f"The backend tests of onnx {onnx.__version__}, compiled for the host and run; each output is compared with",
        "the expected one within the tolerance of the case, or two units in the last place of a 16-bit float, which is",
        "computed in float32 and rounded once. `python -m tests.conformance` writes this page and",
        "[table.json](table.json), which has every case; tests hold both to be true.",
        "",
        "An input that shapes the network (a shape, axes, `k`) is given at compile time, as `--const NAME=VALUE` does.",
        "Out of scope are training, text, sequences and optionals, image files, random numbers and classical machine",
        "learning.",
        "",
    ]
    counts = Counter((c.kind, r.status) for c, r in results.items())
    shown = (PASSED, REFUSED, OUT_OF_SCOPE, WRONG)
    used = [s for s in STATUSES if s in shown or any(counts[kind, s] for kind in KINDS)]
    lines += [f"| tests | {' | '.join(used)} | all |", "|---|" + "---:|" * (len(used) + 1)]
    for kind in KINDS:
        numbers = [counts[kind, s] for s in used]
        lines.append(f"| {kind} | {' | '.join(map(str, numbers))} | {sum(numbers)} |")
    lines += ["", "## What is refused, and why", "", "| cases | reason |", "|---:|---|"]
    reasons = Counter(r.reason for r in results.values() if r.status == REFUSED)
    lines += [f"| {n} | {_cell(reason)} |" for reason, n in sorted(reasons.items(), key=lambda x: (-x[1], x[0]))]
    bugs = sorted(f"| {c.name} | {r.status} | {_cell(r.reason)} |" for c, r in results.items() if r.status in BUGS)
    if bugs:
        lines += ["", "## Bugs", "", "| case | what | |", "|---|---|---|", *bugs]
    lines += ["", "## By operator", "", "The first operator of each node case.", ""]
    lines += ["| operator | passed | refused | out of scope |", "|---|---:|---:|---:|"]
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for case, r in results.items():
        if case.kind == "node":
            table[_operator(case)][r.status] += 1
    for op, found in sorted(table.items()):
        lines.append(f"| {op} | {found[PASSED]} | {found[REFUSED]} | {found[OUT_OF_SCOPE]} |")
    return "\n".join(lines) + "\n"


def _operator(case: Case) -> str:
    """What a node case tests: its operator, or for a case whose function was expanded, that function."""
    nodes = case.model.graph.node
    return nodes[0].op_type if len(nodes) == 1 else "expanded functions"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
