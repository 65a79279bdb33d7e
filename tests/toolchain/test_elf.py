"""Reading objects: bad files are errors, sizes and symbols are right."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitc.errors import ToolchainError
from bitc.target import Target
from bitc.toolchain import cache, compile_sources, elf

CODE = """
extern const unsigned char table[7];
const unsigned char table[7] = {1};
unsigned char one(int i);
unsigned char two(int i);
unsigned char one(int i) { return table[i & 3]; }
unsigned char two(int i) { return one(i + 1); }
"""


@pytest.mark.parametrize("name", ["cortex-m4", "aarch64", "riscv32", "x86-64"])
def test_symbols_and_references(name: str, tmp_path: Path) -> None:
    unit = tmp_path / "unit.c"
    unit.write_text(CODE, encoding="utf-8")
    objects = compile_sources(Target.load(name), [unit], [], tmp_path / "out", "-O1", flags=["-fno-inline"])
    parsed = elf.read(objects.files[0].path)
    assert parsed.symbol("table").size == 7
    one, two = parsed.symbol("one"), parsed.symbol("two")
    assert one.is_function and not one.is_local and one.size > 0
    called = {parsed.symbols[index].section for section, index in parsed.references if section == two.section}
    assert one.section in called
    with pytest.raises(ToolchainError, match="no symbol three"):
        parsed.symbol("three")


def test_not_an_elf(tmp_path: Path) -> None:
    path = tmp_path / "x.o"
    path.write_bytes(b"MZ" + bytes(100))
    with pytest.raises(ToolchainError, match="not a little-endian ELF"):
        elf.read(path)
    with pytest.raises(ToolchainError, match="not a WebAssembly file"):
        elf.wasm_sizes(path)


def test_cached_files_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITC_CACHE", str(tmp_path / "cache"))
    made: list[Path] = []

    def make(path: Path) -> None:
        made.append(path)
        path.write_text("x")

    assert cache.file("a.txt", make) == cache.file("a.txt", make) == tmp_path / "cache" / "a.txt"
    assert len(made) == 1
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["a.lock", "a.txt"], "no scratch is left"


def test_a_failed_make_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITC_CACHE", str(tmp_path / "cache"))

    def fail(path: Path) -> None:
        path.write_text("half")
        raise ToolchainError("no")

    with pytest.raises(ToolchainError):
        cache.file("a.txt", fail)
    assert not (tmp_path / "cache" / "a.txt").exists()


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BITC_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "bitc"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BITC_CACHE", str(tmp_path / "file"))
    with pytest.raises(ToolchainError, match="can not create the cache folder"):
        cache.folder()
