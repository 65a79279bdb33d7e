"""Goals: instructions against bytes, and the README's table of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from bitc.cli import main
from bitc.kernels.select import Goal, Offer, weigh
from bitc.target import Target

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ("fashion_cnn", "mnist_mlp")
GOALS = ("speed", "balanced", "size")
MARKED = re.compile(r"(<!-- table: goals -->\n).*?(<!-- end -->)", re.DOTALL)


@pytest.fixture(scope="module")
def reports() -> dict[str, dict[str, dict]]:
    found: dict[str, dict[str, dict]] = {}
    for example in EXAMPLES:
        model = str(ROOT / "examples" / example / f"{example}.onnx")
        for goal in GOALS:
            result = CliRunner().invoke(main, ["bench", model, "-t", "cortex-m4", "--optimize", goal, "--json"])
            assert result.exit_code == 0, result.stderr
            found.setdefault(example, {})[goal] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_goal_gets_what_it_asks_for(example: str, reports: dict[str, dict[str, dict]]) -> None:
    speed, balanced, size = (reports[example][g] for g in GOALS)
    assert speed["total"] <= balanced["total"] < size["total"]
    flash = [r["weights_bytes"] + r["code_bytes"] for r in (speed, balanced, size)]
    assert flash[0] >= flash[1] > flash[2]


def test_binary_weights_take_an_eighth_of_a_byte(reports: dict[str, dict[str, dict]]) -> None:
    """1/8 byte per weight plus at most 5 %, thresholds apart."""
    layers = [r for r in reports["fashion_cnn"]["balanced"]["layers"] if r["kind"] in ("binary", "int8")]
    thresholds = 2 * (32 + 64 + 64 + 128) + 2 * 4 * 10
    weights = 9 * (32 + 32 * 64 + 64 * 64 + 64 * 128) + 16 * 128 * 10
    assert sum(r["weights_bytes"] for r in layers) - thresholds <= weights / 8 * 1.05


def test_readme_shows_the_goals(reports: dict[str, dict[str, dict]], update_golden: bool) -> None:
    lines = ["| cortex-m4 | goal | instructions | weights | code | arena |", "|---|---|--:|--:|--:|--:|"]
    keys = ("total", "weights_bytes", "code_bytes", "arena_bytes")
    for example, goals in reports.items():
        for goal, report in goals.items():
            lines.append(f"| {example} | {goal} | {' | '.join(f'{report[k]:,}' for k in keys)} |")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    wanted = MARKED.sub(lambda m: m[1] + "\n".join(lines) + "\n" + m[2], text)
    if update_golden:
        readme.write_text(wanted, encoding="utf-8")
        return
    assert text == wanted, "run pytest tests/kernels/test_goals.py --update-golden"


def test_larger_weights_have_to_pay() -> None:
    """Twice the flash for three times the speed is no bargain; for five times it is."""
    target = Target.load("cortex-m4")
    small, large, fast = Offer(1000, 1000, 0), Offer(333, 2000, 0), Offer(200, 2000, 0)
    assert weigh([small, large], target, Goal.BALANCED) is small
    assert weigh([small, fast], target, Goal.BALANCED) is fast
    assert weigh([small, large], target, Goal.SPEED) is large
    assert weigh([small, fast], target, Goal.SIZE) is small
