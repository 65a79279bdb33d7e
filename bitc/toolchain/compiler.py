"""Compile C for a target, and read the sizes of the result.

The default compiler is clang inside the pinned `ziglang` wheel, called by its own spelling: no system package, no
hidden cache. Floats must give the same bits everywhere, hence no contraction into fused multiply-adds and no fast-math.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bitc import resources
from bitc.errors import TargetError
from bitc.target import Target
from bitc.toolchain import elf, process, stack

BASE_FLAGS = (
    "-std=c99",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-stack-protector",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
)
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")


@dataclass(frozen=True)
class Toolchain:
    """Which C compiler: "zig" for the one that comes with bitc, else a program such as "arm-none-eabi-gcc"."""

    cc: str = "zig"

    @property
    def is_zig(self) -> bool:
        return self.cc == "zig"

    @property
    def is_gnu(self) -> bool:
        """GNU spelling of CPU flags; such a compiler also links, with its own libgcc."""
        return "gcc" in Path(self.cc).name

    def command(self, target: Target) -> list[str]:
        """The compiler with all flags that say what the chip is. Raises TargetError, ToolchainError."""
        if self.is_gnu:
            if not target.toolchain.gcc_flags:
                raise TargetError(
                    f"{target.name} has no flags for GNU compilers",
                    hint="set toolchain.gcc_flags in a target file, or leave out --cc",
                )
            return [self._program(), *target.toolchain.gcc_flags, *target.feature_flags]
        start = [str(process.zig()), "clang"] if self.is_zig else [self._program()]
        triple = [f"--target={target.toolchain.triple}"] if target.toolchain.triple else []
        return [*start, *triple, *target.toolchain.flags, *target.feature_flags]

    def _program(self) -> str:
        return process.program(self.cc, hint="install it, give a full path, or leave out --cc to use the bundled zig")

    def headers(self) -> list[str]:
        """Where standard headers are. clang gets ours: for most targets it comes with no C library."""
        if self.is_gnu:
            return []
        own = ["-isystem", str(resources.runtime_c() / "harness" / "include")]
        if self.is_zig:
            return ["-nostdinc", *own, "-isystem", str(process.zig().parent / "lib" / "include")]
        return ["-nostdlibinc", *own]


ZIG = Toolchain()


@dataclass(frozen=True)
class ObjectFile:
    """One compiled file; sizes in bytes."""

    path: Path
    source: Path
    code_bytes: int
    """Instructions."""
    rodata_bytes: int
    """Constants: with the code, this is what goes to flash."""
    data_bytes: int
    """Initialised variables, in flash and RAM; 0 in generated code."""
    bss_bytes: int
    """Zeroed variables, in RAM; 0 in generated code."""


@dataclass(frozen=True)
class Objects:
    """What one call of the compiler made."""

    target: Target
    toolchain: Toolchain
    files: tuple[ObjectFile, ...]

    @property
    def code_bytes(self) -> int:
        return sum(f.code_bytes for f in self.files)

    @property
    def rodata_bytes(self) -> int:
        return sum(f.rodata_bytes for f in self.files)

    @property
    def data_bytes(self) -> int:
        return sum(f.data_bytes for f in self.files)

    @property
    def bss_bytes(self) -> int:
        return sum(f.bss_bytes for f in self.files)

    def stack_bytes(self, entry: str) -> int | None:
        """Upper estimate of the stack that a call of `entry` needs, in bytes.

        None where frames are unknown: in WebAssembly, or if no file defines `entry`.
        """
        return stack.deepest(self._frames, entry) if self.target.toolchain.link != "wasm" else None

    @cached_property
    def _frames(self) -> list[stack.Frames]:
        return [stack.Frames(elf.read(f.path), stack.read_su(f.path.with_suffix(".su"))) for f in self.files]


def compile_sources(
    target: Target,
    sources: Sequence[Path],
    include: Sequence[Path],
    out_dir: Path,
    opt: str = "-O3",
    defines: Sequence[str] = (),
    warnings: bool = True,
    toolchain: Toolchain = ZIG,
    flags: Sequence[str] = (),
) -> Objects:
    """Compile each source to an object in `out_dir`, which is created.

    `defines` are "NAME" or "NAME=value"; `flags` come last. Raises ToolchainError with the compiler's output.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    command = [
        *toolchain.command(target),
        *BASE_FLAGS,
        opt,
        *(WARNINGS if warnings else ("-w",)),
        *(() if target.toolchain.link == "wasm" else ("-fstack-usage",)),
        *toolchain.headers(),
        *(flag for folder in include for flag in ("-I", str(folder))),
        *(f"-D{define}" for define in defines),
        *flags,
    ]

    def one(job: tuple[int, Path]) -> ObjectFile:
        number, source = job
        made = out_dir / f"{number}-{source.stem}.o"
        process.run(
            [*command, "-c", str(source), "-o", str(made)],
            f"compiling {source.name} for {target.name} with {toolchain.cc}",
        )
        return _measure(made, source, target)

    with ThreadPoolExecutor(max_workers=4) as pool:  # threads only wait for compilers
        return Objects(target, toolchain, tuple(pool.map(one, enumerate(sources))))


def _measure(made: Path, source: Path, target: Target) -> ObjectFile:
    if target.toolchain.link == "wasm":
        code, data = elf.wasm_sizes(made)
        return ObjectFile(made, source, code, data, 0, 0)
    parsed = elf.read(made)
    return ObjectFile(
        made,
        source,
        code_bytes=parsed.bytes_where(code=True, write=False, zero=False),
        rodata_bytes=parsed.bytes_where(code=False, write=False, zero=False),
        data_bytes=parsed.bytes_where(code=False, write=True, zero=False),
        bss_bytes=parsed.bytes_where(code=False, write=True, zero=True),
    )
