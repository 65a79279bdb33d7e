"""Target files: what ships is complete, what users write is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitc import hostcpu
from bitc.errors import TargetError
from bitc.features import FEATURES, ISAS
from bitc.target import Memory, Target, parse_size

REQUIRED = [
    *("host", "x86-64", "x86-64-v3", "x86-64-v4", "aarch64", "aarch64-dotprod", "armv7-neon", "riscv32"),
    *("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "wasm32", "wasm32-simd128"),
]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_all_required_targets_ship() -> None:
    assert set(REQUIRED) <= set(Target.available())


@pytest.mark.parametrize("name", Target.available())
def test_shipped_target_is_complete(name: str) -> None:
    target = Target.load(name)
    assert target.name == name
    assert target.description
    assert target.isa in ISAS
    assert target.word_bits == (64 if target.isa in ("aarch64", "x86") else 32)
    assert target.runner.kind in ("host", "unicorn", "qemu", "wasmtime")
    assert target.toolchain.flags and target.toolchain.runtime_target
    assert all(target.isa in FEATURES[feature].checks for feature in target.features)
    hash(target)


@pytest.mark.parametrize("name", [n for n in Target.available() if n.startswith("cortex-m")])
def test_microcontrollers_have_the_memories_of_a_real_part(name: str) -> None:
    target = Target.load(name)
    assert target.ram.bytes and target.flash.bytes
    assert target.ram.base and target.flash.base


def test_host_like_targets_have_no_limit() -> None:
    assert Target.load("host").ram.bytes is None
    assert Target.load("wasm32").flash.bytes is None


def test_host_takes_this_cpu() -> None:
    target = Target.load("host")
    assert target.isa == hostcpu.isa()
    assert target.features == hostcpu.features()


def test_extends_adds_and_removes_features() -> None:
    assert Target.load("aarch64-dotprod").features == Target.load("aarch64").features | {"dotprod"}
    assert Target.load("cortex-m7", features=["-dsp"]).features == Target.load("cortex-m7").features - {"dsp"}


def test_load_replaces_memories() -> None:
    target = Target.load("cortex-m7", ram="256k", flash=1 << 20)
    assert target.ram == Memory(0x20000000, 256 << 10)
    assert target.flash.bytes == 1 << 20


def test_c_checks_follow_features() -> None:
    checks = Target.load("cortex-m55").c_checks
    assert "defined(__ARM_FEATURE_DSP)" in checks
    assert any("__ARM_FEATURE_MVE & 1" in check for check in checks)
    assert any("__ARM_FP & 8" in check for check in checks)
    assert Target.load("cortex-m0plus").c_checks == ()


def test_user_file(tmp_path: Path) -> None:
    path = write(tmp_path / "board.toml", 'extends = "cortex-m7"\n[memory]\nram = "256k"\nflash = "1M"\n')
    target = Target.load(path)
    assert target.name == "board"
    assert (target.ram.bytes, target.flash.bytes) == (256 << 10, 1 << 20)
    assert target.toolchain == Target.load("cortex-m7").toolchain
    assert Target.load(str(path), ram="64k").ram.bytes == 64 << 10


def test_user_file_extends_a_neighbour(tmp_path: Path) -> None:
    write(tmp_path / "a.toml", 'extends = "cortex-m4"\nfeatures = ["-fpu"]\n')
    path = write(tmp_path / "b.toml", 'extends = "a.toml"\nfeatures = ["fpu64"]\n')
    assert Target.load(path).features == {"hwdiv", "unaligned", "dsp", "fpu64"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(17, 17), ("17", 17), ("2k", 2048), ("2 KiB", 2048), ("1M", 1 << 20), ("3mb", 3 << 20), ("1G", 1 << 30)],
)
def test_sizes(value: object, expected: int) -> None:
    assert parse_size(value, "here") == expected


@pytest.mark.parametrize("value", [-1, "1.5k", "k", "1 T", True, None, ""])
def test_bad_sizes(value: object) -> None:
    with pytest.raises(TargetError, match="is not a size"):
        parse_size(value, "here")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('extends = "cortex-m8"', "unknown target 'cortex-m8'", "did you mean cortex-m"),
        ('extends = "missing.toml"', "no target file", "check the path"),
        ("extends = 4", "extends must be a text", "for example"),
        ("extends = ", "not a target file", "TOML"),
        ('extends = "self.toml"', "cyclic extends", "extend nothing"),
        ('extends = "cortex-m4"\ncolour = 1', "unknown key colour", "known keys"),
        ('extends = "cortex-m4"\n[memory]\nrom = 1', "unknown key memory.rom", "did you mean ram"),
        ('extends = "cortex-m4"\n[runner.qemu]\nmachin = "x"', "unknown key runner.qemu.machin", "machine"),
        ('extends = "cortex-m4"\n[memory]\nram = "lots"', "'lots' is not a size", "256k"),
        ('extends = "cortex-m4"\nfeatures = ["dps"]', "unknown feature 'dps'", "did you mean dsp"),
        ('extends = "cortex-m4"\nfeatures = ["avx2"]', "unknown feature 'avx2'", "features of arm-m"),
        ('extends = "cortex-m4"\nfeatures = "dsp"', "features must be a list", "for example"),
        ('extends = "cortex-m4"\nword_bits = "32"', "word_bits is '32'", "integer"),
        ('extends = "cortex-m4"\nword_bits = 16', "word_bits is 16", "32 or 64"),
        ('extends = "cortex-m4"\nmemory = 3', "memory is 3", "table"),
        ('extends = "cortex-m4"\n[toolchain]\nflags = "-O3"', "toolchain.flags is '-O3'", "list of texts"),
        ('isa = "z80"', "unknown isa 'z80'", "arm-m"),
        ("", "unknown isa None", "arm-m"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str, hint: str) -> None:
    path = write(tmp_path / "self.toml", text + "\n")
    with pytest.raises(TargetError) as caught:
        Target.load(path)
    assert message in caught.value.what
    assert hint in caught.value.hint
    assert caught.value.where


def test_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(TargetError) as caught:
        Target.load("cortexm7")
    assert "did you mean cortex-m7" in caught.value.hint
    assert "wasm32-simd128" in caught.value.hint
