"""Compiling: flags, sizes, stack, errors, and other compilers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bitc.errors import TargetError, ToolchainError
from bitc.target import Target
from bitc.toolchain import Toolchain, compile_sources
from bitc.toolchain.stack import HELPER_BYTES

CHAIN = """
#include <stdint.h>
int unused(int x);
int entry(int x);
typedef int (*step_t)(int);
static __attribute__((noinline)) int leaf(int x) { volatile int a[100]; a[x & 63] = x; return a[1]; }
static __attribute__((noinline)) int middle(int x) { volatile int a[50]; a[x & 31] = x; return leaf(a[1]) + 1; }
static const step_t steps[2] = {leaf, middle};
int unused(int x) { volatile int a[1000]; a[x & 63] = x; return a[2]; }
int entry(int x) { return steps[x & 1](x) + 2; }
"""


def source(folder: Path, text: str) -> Path:
    path = folder / "unit.c"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["cortex-m0plus", "cortex-m4", "aarch64", "riscv32", "x86-64"])
def test_stack_is_that_of_the_deepest_chain(name: str, tmp_path: Path) -> None:
    objects = compile_sources(Target.load(name), [source(tmp_path, CHAIN)], [], tmp_path / "out", "-O2")
    stack = objects.stack_bytes("entry")
    below_sp = 128 if name == "x86-64" else 0  # a leaf's red zone is no frame
    assert stack is not None
    assert 600 - below_sp <= stack <= 600 + 100, "both arrays on the way through the pointer table, and little else"
    assert objects.stack_bytes("nothing") is None


def test_stack_counts_what_assembly_pushes(tmp_path: Path) -> None:
    text = """
int f(int x);
__attribute__((noinline)) static int g(int x) {
    __asm__ volatile(".set g.pushed, 32\\n push {r0-r7}\\n add sp, #32" ::: "memory");
    return x + 1;
}
int f(int x) { return g(x) + 2; }
"""
    both = (text, text.replace(".set g.pushed, 32\\n", ""))
    with_it, without = (
        compile_sources(Target.load("cortex-m4"), [source(tmp_path, t)], [], tmp_path / "out").stack_bytes("f")
        for t in both
    )
    assert with_it is not None and without is not None and with_it == without + 32


def test_stack_of_a_helper_is_an_allowance(tmp_path: Path) -> None:
    text = "double f(double a, double b);\ndouble f(double a, double b) { return a / b + 1.0; }\n"
    objects = compile_sources(Target.load("cortex-m0plus"), [source(tmp_path, text)], [], tmp_path / "out")
    stack = objects.stack_bytes("f")
    assert stack is not None and HELPER_BYTES <= stack <= HELPER_BYTES + 32


@pytest.mark.parametrize("name", ["cortex-m4", "x86-64", "wasm32"])
def test_sizes(name: str, tmp_path: Path) -> None:
    text = "#include <stdint.h>\nextern const uint32_t table[1000];\nconst uint32_t table[1000] = {1, 2, 3};\n"
    objects = compile_sources(Target.load(name), [source(tmp_path, text)], [], tmp_path / "out")
    assert objects.code_bytes <= 4
    assert 4000 <= objects.rodata_bytes <= 4016
    assert (objects.data_bytes, objects.bss_bytes) == (0, 0)


def test_floats_are_not_contracted(tmp_path: Path) -> None:
    text = "float f(float a, float b, float c);\nfloat f(float a, float b, float c) { return a * b + c; }\n"
    target = Target.load("cortex-m7")
    unit = source(tmp_path, text)

    def code(folder: str, *flags: str) -> bytes:
        return compile_sources(target, [unit], [], tmp_path / folder, flags=flags).files[0].path.read_bytes()

    assert code("plain") == code("off", "-ffp-contract=off") != code("fused", "-ffp-contract=fast")


@pytest.mark.parametrize("name", Target.available())
def test_every_feature_check_holds(name: str, tmp_path: Path) -> None:
    target = Target.load(name)
    lines = [f"#if !({check})\n#error {check}\n#endif" for check in target.c_checks]
    text = "\n".join([*lines, "int f(void);\nint f(void) { return 0; }\n"])
    compile_sources(target, [source(tmp_path, text)], [], tmp_path / "out")


def test_a_missing_feature_is_seen(tmp_path: Path) -> None:
    target = Target.load("cortex-m4", features=["fpu64"])
    text = "\n".join(f"#if !({check})\n#error no {check}\n#endif" for check in target.c_checks)
    with pytest.raises(ToolchainError) as caught:
        compile_sources(target, [source(tmp_path, text + "\n")], [], tmp_path / "out")
    assert "__ARM_FP & 8" in caught.value.detail


@pytest.mark.parametrize("text", ["int f(", "int f(void);\nint f(void) { return 1.5; }\n"])
def test_an_error_shows_what_the_compiler_said(text: str, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"compiling unit\.c for cortex-m4") as caught:
        compile_sources(Target.load("cortex-m4"), [source(tmp_path, text)], [], tmp_path / "out")
    assert "unit.c:" in caught.value.detail


def test_warnings_can_be_off(tmp_path: Path) -> None:
    unit = source(tmp_path, "int f(void) { return 1.5; }\n")
    assert compile_sources(Target.load("cortex-m4"), [unit], [], tmp_path / "out", warnings=False).code_bytes


def test_a_compiler_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="no-such-cc is not installed") as caught:
        compile_sources(Target.load("host"), [], [], tmp_path, toolchain=Toolchain("no-such-cc"))
    assert "leave out --cc" in caught.value.hint


def test_gnu_flags_are_needed_for_gnu_compilers(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    with pytest.raises(TargetError, match="no flags for GNU compilers"):
        compile_sources(Target.load("wasm32"), [], [], tmp_path, toolchain=Toolchain("gcc"))
