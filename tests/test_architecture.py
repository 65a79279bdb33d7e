"""The layers of the package, and the one home of each third-party library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "bitc"

LEVELS = [
    {"errors"},
    {"resources", "features", "hostcpu"},
    {"ir", "target"},
    {"ops"},
    {"interp", "kernels", "toolchain"},
    {"frontend", "passes", "schedule", "lower", "codegen", "runners"},
    {"planning"},
    {"pipeline", "device", "report", "project"},
    {"verification", "chart"},
    {"quantization"},
    {"actions"},
    {"compression"},
    {"cli"},
]
"""A module may import from lower levels and from its own package; not from its siblings."""

MAY_PAIR = {("lower", "schedule"), ("device", "pipeline"), ("runners", "toolchain"), ("kernels", "interp")}
HOMES = {
    "onnx": {"frontend"},
    "onnxruntime": {"verification", "quantization"},
    "jinja2": {"codegen"},
    "unicorn": {"runners"},
    "wasmtime": {"runners"},
    "click": {"cli"},
    "rich": {"cli"},
    "distributed": {"compression"},
}


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{a.name}" for a in node.names} | {node.module}
    return names


def _part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _level(part: str) -> int:
    return next(i for i, level in enumerate(LEVELS) if part in level)


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    part = _part(path)
    if part == "__init__":
        return
    for name in _imports(path):
        pieces = name.split(".")
        if pieces[0] != "bitc" or len(pieces) == 1:
            continue
        other = pieces[1]
        if other in (part, "__version__") or (part, other) in MAY_PAIR:
            continue
        assert _level(other) < _level(part), f"{path.name} imports {name}"


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_third_party_libraries_stay_at_home(path: Path) -> None:
    for name in _imports(path):
        homes = HOMES.get(name.split(".")[0])
        assert homes is None or _part(path) in homes, f"{path.name} imports {name}, which belongs to bitc/{homes}"


def test_no_module_is_too_long() -> None:
    for path in _modules():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 500, path
