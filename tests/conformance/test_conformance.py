"""The committed table is true: on the host for a sample of the cases (the full tier: for all), and in emulators."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from bitc import device
from bitc.target import Target
from bitc.toolchain import build_model
from tests.conformance import table
from tests.conformance.cases import Case, load_cases
from tests.conformance.sweep import BUGS, PASSED, Ready, Result, feeds_of, judge, prepare, sweep

STEP = 7
"""The default tier runs every so many-th case."""
EMULATED = 170
FEW = 12
"""Cases per emulated target, in the full tier and in the default one."""

pytestmark = pytest.mark.skipif(
    not onnx.__version__.startswith("1.23."), reason="the table is of another version of onnx"
)


def check(cases: list[Case]) -> None:
    expected, found = table.read(), dict(sweep(cases))
    other = [f"{c.name}: {r}, the table says {expected[c.name]}" for c, r in found.items() if r != expected[c.name]]
    assert not other, "\n".join(["run python -m tests.conformance if this is right", *other])


def test_a_sample_does_what_the_table_says() -> None:
    check(load_cases()[::STEP])


@pytest.mark.full
def test_all_cases_do_what_the_table_says() -> None:
    check(load_cases())


def test_no_case_is_wrong_and_enough_pass() -> None:
    """Every case passes, is refused with a reason, or is out of scope."""
    found = table.read()
    assert not {name: r for name, r in found.items() if r.status in BUGS}
    assert all(r.reason for r in found.values() if r.status != PASSED)
    assert sum(r.status == PASSED for r in found.values()) >= 1850


def test_the_table_has_every_case_and_the_page_shows_it() -> None:
    cases, expected = load_cases(), table.read()
    assert expected.keys() == {c.name for c in cases}
    assert table.page({c: expected[c.name] for c in cases}) == table.PAGE.read_text(encoding="utf-8")


def passing(count: int, offset: int) -> list[Case]:
    """Cases that pass on the host, spread evenly."""
    expected = table.read()
    cases = [c for c in load_cases() if expected[c.name].status == PASSED]
    return cases[offset :: len(cases) // count][:count]


def run_on(target: Target, case: Case, folder: Path) -> Result:
    """As the sweep does, on the target's own runner."""
    ready = prepare(case, target, "one")
    if isinstance(ready, Result):
        return ready
    folder.mkdir()
    for name, text in ready.compiled.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    build = build_model(target, folder, "one", folder / "build", opt="-O1")
    samples = [feeds_of(ready, i) for i in range(len(case.samples))]
    return judge(ready, device.run(build, ready.compiled.program, samples).outputs)


def check_emulated(name: str, count: int, offset: int, tmp_path: Path) -> None:
    target = Target.load(name)
    for i, case in enumerate(passing(count, offset)):
        result = run_on(target, case, tmp_path / str(i))
        assert result.status == PASSED, f"{case.name} on {name}: {result}"


@pytest.mark.parametrize(("name", "offset"), [("cortex-m4", 0), ("wasm32", 3)])
def test_a_few_pass_in_emulators(name: str, offset: int, tmp_path: Path) -> None:
    check_emulated(name, FEW, offset, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize(("name", "offset"), [("cortex-m4", 0), ("wasm32", 3)])
def test_many_pass_in_emulators(name: str, offset: int, tmp_path: Path) -> None:
    check_emulated(name, EMULATED, offset, tmp_path)


def test_a_wrong_result_is_found() -> None:
    """The comparison sees one changed element, so a passing table means something."""
    (case,) = [c for c in load_cases(["node"]) if c.name == "test_abs"]
    ready = prepare(case, Target.load("host"), "one")
    assert isinstance(ready, Ready)
    right = case.samples[0][1][0]
    assert judge(ready, [{"y": right}]).status == PASSED
    wrong = right.copy()
    wrong.flat[7] += 0.01
    assert judge(ready, [{"y": wrong}]).status == "wrong"
