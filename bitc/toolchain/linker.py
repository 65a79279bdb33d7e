"""Link a model with the harness into what a runner runs: an ELF program, a shared library or a WebAssembly module."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bitc import resources
from bitc.errors import ToolchainError
from bitc.target import Compiling, Target
from bitc.toolchain import cache, process
from bitc.toolchain.compiler import ZIG, Objects, Toolchain, compile_sources

_ARENA = re.compile(r"^\s*#\s*define\s+(\w+)_ARENA_BYTES\b", re.MULTILINE)


@dataclass(frozen=True)
class Runnable:
    """A linked model. `name` is the prefix of its functions; `hooks` says that NAME_run_hooked is in it."""

    target: Target
    path: Path
    name: str
    hooks: bool
    model: Objects
    """The model's own objects, without the harness: sizes and stack."""


def build_model(
    target: Target,
    folder: Path,
    name: str,
    out_dir: Path,
    *,
    hooks: bool = False,
    opt: str = "-O3",
    toolchain: Toolchain = ZIG,
    defines: Sequence[str] = (),
) -> Runnable:
    """Compile every .c file of a generated folder and link it with the harness, all in `out_dir`.

    Raises ToolchainError with the tool's output, TargetError if the toolchain can not serve the target.
    """
    macros = [*defines, *([f"{_macro_prefix(folder, name)}_HOOKS"] if hooks else [])]
    model = compile_sources(
        target, sorted(folder.glob("*.c")), [folder], out_dir / "model", opt, macros, toolchain=toolchain
    )
    harness = build_harness(target, folder, name, out_dir / "harness", hooks=hooks, toolchain=toolchain)
    return link_runnable(target, model, harness, out_dir / f"{name}{_SUFFIX[target.toolchain.link]}", name, hooks)


def build_harness(
    target: Target, folder: Path, name: str, out_dir: Path, *, hooks: bool = False, toolchain: Toolchain = ZIG
) -> Objects:
    """Compile the harness around the model whose header NAME.h is in `folder`."""
    home = resources.runtime_c() / "harness"
    prefix = _macro_prefix(folder, name)
    board = target.runner.qemu
    defines = [
        f'BITC_HEADER="{name}.h"',
        f"BITC_PREFIX={name}",
        f"BITC_ARENA_BYTES={prefix}_ARENA_BYTES",
        f"BITC_ARENA_ALIGN={prefix}_ARENA_ALIGN",
        f"BITC_HOOKS={int(hooks)}",
        f"BITC_STACK_BYTES={target.machine.stack_bytes}u",
        *([f"{prefix}_HOOKS"] if hooks else []),
        *([f"BITC_COUNTER={board.counter:#x}u"] if board else []),
    ]
    sources = [home / "harness.c", home / "mem.c"]
    if target.toolchain.startup:
        sources.append(home / target.toolchain.startup)
    return compile_sources(
        target, sources, [home, folder], out_dir, "-O2", defines, toolchain=toolchain, flags=["-fno-builtin"]
    )


def _macro_prefix(folder: Path, name: str) -> str:
    """The prefix of the header's macros, in the header's own capitals."""
    header = folder / f"{name}.h"
    match = _ARENA.search(header.read_text(encoding="utf-8")) if header.is_file() else None
    if match is None:
        raise ToolchainError(f"{name}.h does not define …_ARENA_BYTES", where=str(folder), hint="compile a model first")
    return match[1]


def link_runnable(
    target: Target, model: Objects, harness: Objects, out: Path, name: str, hooks: bool = False
) -> Runnable:
    """Link into the file `out`. The compiler's helper library joins only if something needs it.

    Raises ToolchainError with the linker's output.
    """
    files = [str(f.path) for f in (*model.files, *harness.files)]
    roots = [f"{name}_run", "bitc_arena", "bitc_in", "bitc_out", "bitc_sizes"]
    roots += [f"{name}_run_hooked"] if hooks else []
    command = _LINK[target.toolchain.link](target, model.toolchain, roots, hooks)
    what = f"linking {name} for {target.name}"
    if model.toolchain.is_gnu:
        process.run([*command, *files, "-o", str(out), "-lgcc"], what)
        return Runnable(target, out, name, hooks, model)
    try:
        process.run([*command, *files, "-o", str(out)], what)
    except ToolchainError as error:
        if "undefined symbol" not in error.detail:
            raise
        process.run([*command, *files, str(helpers(target.toolchain)), "-o", str(out)], what)
    return Runnable(target, out, name, hooks, model)


def link_library(objects: Objects, out: Path) -> Path:
    """Link objects of an in-process target into a shared library that needs no other. Raises ToolchainError."""
    command = _shared(objects.target, objects.toolchain, (), False)
    process.run([*command, *(str(f.path) for f in objects.files), "-o", str(out)], f"linking {out.name}")
    return out


def archive(objects: Objects, out: Path) -> Path:
    """Collect objects in a static library. Raises ToolchainError with the tool's output."""
    out.unlink(missing_ok=True)
    files = [str(f.path) for f in objects.files]
    process.run([str(process.zig()), "ar", "rcs", str(out), *files], f"collecting {out.name}")
    return out


def _bare(target: Target, toolchain: Toolchain, roots: Sequence[str], hooks: bool) -> list[str]:
    script = resources.runtime_c() / "harness" / "bare.ld"
    entry = target.toolchain.entry or roots[0]
    where = target.machine
    options = [
        "--gc-sections",
        f"--entry={entry}",
        f"--defsym=BITC_VECTOR_BASE={where.vector_base:#x}",
        f"--defsym=BITC_CODE_BASE={where.code_base:#x}",
        f"--defsym=BITC_RAM_BASE={where.ram_base:#x}",
        f"--defsym=BITC_STACK_BYTES={where.stack_bytes:#x}",
        *(f"--undefined={root}" for root in (*roots, "bitc_mark", "bitc_stop")),
    ]
    if toolchain.is_gnu:
        return [
            *toolchain.command(target),
            "-nostartfiles",
            "-nostdlib",
            "-static",
            f"-T{script}",
            *(f"-Wl,{option}" for option in options),
        ]
    return [str(process.zig()), "ld.lld", f"-T{script}", "-z", "max-page-size=4096", *options]


def _shared(target: Target, toolchain: Toolchain, roots: Sequence[str], hooks: bool) -> list[str]:
    if toolchain.is_gnu:
        return [*toolchain.command(target), "-shared", "-nostdlib", "-Wl,-z,defs", "-Wl,-Bsymbolic"]
    return [str(process.zig()), "ld.lld", "-shared", "-z", "defs", "-Bsymbolic"]


def _wasm(target: Target, toolchain: Toolchain, roots: Sequence[str], hooks: bool) -> list[str]:
    exports = [*roots, *(["bitc_run_hooked"] if hooks else [])]
    return [
        str(process.zig()),
        "wasm-ld",
        "--no-entry",
        "--stack-first",  # so that an overflow traps
        "-z",
        f"stack-size={target.machine.stack_bytes}",
        *(f"--export={name}" for name in exports),
    ]


_LINK = {"bare": _bare, "shared": _shared, "wasm": _wasm}
_SUFFIX = {"bare": ".elf", "shared": ".so", "wasm": ".wasm"}


def helpers(spec: Compiling) -> Path:
    """The compiler's helper library (64-bit division, soft floats, mem*), built by zig on first use: 3 to 7 s."""
    identity = f"{process.zig_version()} {spec.runtime_target} {spec.runtime_cpu}"
    name = f"helpers-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.a"

    def make(path: Path) -> None:
        scratch = path.parent / "zig"
        command = [str(process.zig()), "build-lib", str(process.zig().parent / "lib" / "compiler_rt.zig")]
        command += [
            f"-femit-bin={path}",
            "-O",
            "ReleaseFast",
            "-fstrip",
            "-ffunction-sections",
            "-target",
            spec.runtime_target,
        ]
        command += [f"-mcpu={spec.runtime_cpu}", "-fPIC" if spec.link == "shared" else "-fno-PIC"]
        command += ["--cache-dir", str(scratch), "--global-cache-dir", str(scratch)]
        process.run(command, f"building the helper library for {spec.runtime_target} {spec.runtime_cpu}")

    return cache.file(name, make)
