"""The README's table of the examples is made from the budgets, never typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.e2e.test_examples import BUDGETS, EXAMPLES

README = Path(__file__).resolve().parents[2] / "README.md"
TARGETS = ["cortex-m0plus", "cortex-m4", "cortex-m7", "cortex-m33", "riscv32", "aarch64", "wasm32-simd128"]
MARKED = re.compile(r"(<!-- table: examples -->\n).*?(<!-- end -->)", re.DOTALL)


def table() -> str:
    budgets = json.loads(BUDGETS.read_text(encoding="utf-8"))
    lines = [
        "| example | target | arena (RAM) | stack | weights | code | instructions |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for example in EXAMPLES:
        for target in TARGETS:
            row = budgets[example].get(target)
            if row is None:  # only the slow sweep runs it there
                continue
            keys = ("arena_bytes", "stack_bytes", "weights_bytes", "code_bytes", "instructions")
            cells = [f"{row[k]:,}" if k in row else "-" for k in keys]
            lines.append(f"| {example} | {target} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def test_readme_shows_the_budgets(update_golden: bool) -> None:
    text = README.read_text(encoding="utf-8")
    wanted = MARKED.sub(lambda m: m[1] + table() + m[2], text)
    if update_golden:
        README.write_text(wanted, encoding="utf-8")
        return
    assert text == wanted, "run pytest tests/e2e --update-golden"
