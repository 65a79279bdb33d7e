"""The C files as a firmware engineer gets them: text, warnings, sanitizers, several models in one program."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitc import interp, resources
from bitc.runners import available
from bitc.target import Target
from bitc.toolchain import Toolchain, compile_sources
from tests.codegen.nets import NETS
from tests.kernels.harness import (
    WARNINGS,
    assert_same,
    call,
    compile_graph,
    input_image,
    portable,
    random_feeds,
    run_on_target,
    shared_library,
    write,
)

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
GOLDEN_TARGETS = {"cnn": "cortex-m4", "mlp": "cortex-m0plus", "residual": "x86-64"}


@pytest.mark.parametrize("net", NETS)
def test_golden(net: str, update_golden: bool) -> None:
    compiled = compile_graph(NETS[net](), Target.load(GOLDEN_TARGETS[net]))
    text = "".join(compiled.files[f"{net}{end}"] for end in (".h", ".c", "_weights.c"))
    path = GOLDEN / f"{net}.{GOLDEN_TARGETS[net]}.c"
    if update_golden:
        path.write_text(text)
    assert path.read_text() == text, f"{path.name} differs; review, then run with --update-golden"


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("target", ["host", "portable"])
def test_same_as_oracle(net: str, target: str, tmp_path: Path) -> None:
    graph = NETS[net]()
    compiled = compile_graph(graph, portable() if target == "portable" else Target.load(target))
    library = ctypes.CDLL(str(shared_library(compiled, tmp_path)))
    for seed in range(3):
        feeds = random_feeds(graph, seed)
        got, want = call(compiled, library, feeds), interp.run(graph, feeds)
        for name, array in want.items():
            assert_same(got[name], array, name)
    assert compiled.plan.arena_bytes == compiled.plan.lower_bound


TARGETS = ("cortex-m0plus", "cortex-m4", "aarch64", "armv7-neon", "riscv32", "wasm32", "wasm32-simd128", "x86-64-v3")


@pytest.mark.parametrize("target", TARGETS)
def test_same_bits_everywhere(target: str, tmp_path: Path) -> None:
    if reason := available(Target.load(target)):
        pytest.skip(reason)
    graph = NETS["cnn"]()
    feeds = random_feeds(graph)
    got, _ = run_on_target(compile_graph(graph, Target.load(target)), tmp_path, feeds)
    for name, array in interp.run(graph, feeds).items():
        assert_same(got[name], array, name)


COMPILERS = {"gcc": "x86-64", "clang": "x86-64", "zig": "cortex-m4", "arm-none-eabi-gcc": "cortex-m4"}


@pytest.mark.parametrize("cc", COMPILERS)
@pytest.mark.parametrize(
    "opt", ["-O3", pytest.param("-O0", marks=pytest.mark.full), pytest.param("-Os", marks=pytest.mark.full)]
)
def test_warnings(cc: str, opt: str, tmp_path: Path) -> None:
    if cc != "zig" and not shutil.which(cc):
        pytest.skip(f"{cc} is not installed")
    target = Target.load(COMPILERS[cc])
    for net, make in NETS.items():
        compiled = compile_graph(make(), target)
        sources = [Path(f) for f in write(compiled, tmp_path / net)]
        flags = ["-Wshadow", "-Wcast-align", "-Wundef", "-Wmissing-declarations"]
        hooks = [f"{net.upper()}_HOOKS"]
        compile_sources(
            target, sources, [tmp_path / net], tmp_path / f"{net}.o", opt, toolchain=Toolchain(cc), flags=flags
        )
        compile_sources(target, sources, [tmp_path / net], tmp_path / f"{net}.h", opt, hooks, toolchain=Toolchain(cc))


def _main(names: list[str], images: dict[str, bytes]) -> str:
    """A program that runs models and prints the bytes of their outputs."""
    lines = ["#include <stdio.h>", "#include <string.h>", *(f'#include "{n}.h"' for n in names)]
    for n in names:
        values = ", ".join(str(b) for b in images[n])
        lines += [
            f"static const unsigned char image_{n}[] = {{{values}}};",
            f"static {n}_input_t in_{n};",
            f"static {n}_output_t out_{n};",
            f"{n.upper()}_ARENA_ATTR static unsigned char arena_{n}[{n.upper()}_ARENA_SIZE];",
        ]
    lines.append("int main(void) {")
    for n in names:
        lines += [
            f"if ({n}_run(arena_{n}, NULL, &out_{n}) != -1) {{ return 3; }}",
            f"if ({n}_run(arena_{n} + 1, &in_{n}, &out_{n}) != -2 && {n.upper()}_ARENA_ALIGN > 1) {{ return 4; }}",
            f"memcpy(&in_{n}, image_{n}, sizeof in_{n});",
            f"if ({n}_run(arena_{n}, &in_{n}, &out_{n}) != 0) {{ return 1; }}",
            f"fwrite(&out_{n}, sizeof out_{n}, 1, stdout);",
        ]
    return "\n".join([*lines, "return 0;", "}"])


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed: a program needs a C library")
@pytest.mark.parametrize("sanitize", [False, True])
@pytest.mark.parametrize("target", ["portable", "x86-64"])
def test_several_models_in_one_program(sanitize: bool, target: str, tmp_path: Path) -> None:
    """Linked together, with and without AddressSanitizer and UndefinedBehaviorSanitizer; arenas of the exact size."""
    t = portable() if target == "portable" else Target.load(target)
    graphs = {n: make() for n, make in NETS.items()}
    graphs["again"] = replace(NETS["cnn"](), name="again")
    sources, images, want = [], {}, b""
    for n, graph in graphs.items():
        compiled = compile_graph(graph, t)
        sources += write(compiled, tmp_path)
        feeds = random_feeds(graph, 5)
        images[n] = input_image(compiled, feeds).tobytes()
        want += b"".join(np.ascontiguousarray(a).tobytes() for a in interp.run(graph, feeds).values())
    (tmp_path / "main.c").write_text(_main(list(graphs), images))
    program = tmp_path / "program"
    flags = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"] if sanitize else []
    command = [
        "gcc",
        *WARNINGS,
        "-O1",
        *t.feature_flags,
        *flags,
        *sources,
        str(tmp_path / "main.c"),
        "-o",
        str(program),
    ]
    subprocess.run(command, check=True)
    done = subprocess.run([str(program)], capture_output=True, env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == want


@pytest.mark.skipif(not shutil.which("cmake"), reason="cmake is not installed")
def test_cmake(tmp_path: Path) -> None:
    write(compile_graph(NETS["mlp"](), Target.load("x86-64")), tmp_path / "src")
    subprocess.run(["cmake", "-S", str(tmp_path / "src"), "-B", str(tmp_path / "build")], check=True)
    subprocess.run(["cmake", "--build", str(tmp_path / "build")], check=True)


@pytest.mark.skipif(not shutil.which("g++"), reason="g++ is not installed")
def test_header_in_cpp(tmp_path: Path) -> None:
    write(compile_graph(NETS["mlp"](), Target.load("x86-64")), tmp_path)
    text = (
        '#include "mlp.h"\nint main() { return mlp_quantize_x(-1.0f) == 0 && mlp_quantize_x(1e9f) == 255 ? 0 : 1; }\n'
    )
    (tmp_path / "main.cpp").write_text(text)
    command = [
        "g++",
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Werror",
        str(tmp_path / "main.cpp"),
        "-o",
        str(tmp_path / "p"),
    ]
    subprocess.run(command, check=True)
    subprocess.run([str(tmp_path / "p")], check=True)


def test_runtime_is_formatted() -> None:
    clang_format = pytest.importorskip("clang_format")
    tool = Path(clang_format.__file__).parent / "data" / "bin" / "clang-format"
    headers = [str(p) for p in sorted(resources.runtime_c().glob("bitc_*.h"))]
    style = f"--style=file:{Path(__file__).resolve().parents[2] / '.clang-format'}"
    subprocess.run([str(tool), style, "--dry-run", "-Werror", *headers], check=True)
