"""The chip: a frozen :class:`Target`, read from a TOML file in ``targets/`` or from one that the user wrote.

A target file says what a chip *has* (instruction set, features, memories), how C is compiled for it and what runs the
result. Code asks for a feature or a number, never for a target's name. The dataclasses below are the file format: one
table per class, one key per field, and every other key is an error.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from bitc import hostcpu, resources
from bitc.errors import TargetError
from bitc.features import FEATURES, ISAS

_T = TypeVar("_T")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIZE = re.compile(r"(\d+)\s*([kmg]?)(?:i?b)?", re.IGNORECASE)


@dataclass(frozen=True)
class Memory:
    """One memory: its address, and its size in bytes, `None` where there is no limit worth checking."""

    base: int = 0
    bytes: int | None = None


@dataclass(frozen=True)
class Memories:
    """`[memory]`: what the part offers to the model. The emulated machine may be larger (see :class:`Machine`)."""

    ram: int | None = None
    """Bytes of RAM; in TOML an integer or a string such as "512k" or "2M" (KiB and MiB)."""
    flash: int | None = None
    """Bytes of flash, in the same way."""
    ram_base: int = 0
    flash_base: int = 0


@dataclass(frozen=True)
class Compiling:
    """`[toolchain]`: how C becomes something that runs."""

    triple: str = ""
    """clang's `--target`; empty for the compiler's own default."""
    flags: tuple[str, ...] = ()
    """CPU and ABI flags of clang."""
    gcc_flags: tuple[str, ...] = ()
    """The same in the spelling of GNU compilers; used with `--cc …gcc`."""
    link: str = "bare"
    """`bare` (ELF at fixed addresses), `shared` (library for this process) or `wasm`."""
    startup: str = ""
    """One more file of runtime_c/harness/: the reset code of an emulated board, or timing in process."""
    entry: str = ""
    """Symbol at which a bare program starts; empty if a runner calls the model itself."""
    runtime_target: str = ""
    """zig's target name, for the helper library (64-bit division, soft floats)."""
    runtime_cpu: str = "baseline"
    """zig's CPU name for the helper library."""


@dataclass(frozen=True)
class Machine:
    """`[machine]`: the emulated memory map, in which only tests and measurements run."""

    vector_base: int = 0
    """Where an emulated Cortex-M looks for its vector table."""
    code_base: int = 0
    """Where code and constants go; may be equal to vector_base."""
    code_bytes: int = 0
    ram_base: int = 0
    ram_bytes: int = 0
    stack_bytes: int = 1 << 16
    """Bytes kept for the stack at the end of RAM; painted to measure its use."""


@dataclass(frozen=True)
class UnicornSpec:
    """`[runner.unicorn]`: constants of the unicorn engine, without their prefix."""

    arch: str = ""
    """UC_ARCH_…"""
    mode: str = ""
    """UC_MODE_…"""
    cpu: str = ""
    """UC_CPU_<ARCH>_…"""


@dataclass(frozen=True)
class QemuSpec:
    """`[runner.qemu]`: a board of qemu-system-*, with a counter that counts instructions under -icount."""

    system: str = ""
    """The program, e.g. qemu-system-arm."""
    machine: str = ""
    counter: int = 0
    """Address of a 32-bit counter that runs freely (the COUNTER register of the boards' FPGAIO block)."""
    counter_hz: int = 25_000_000


@dataclass(frozen=True)
class HostSpec:
    """`[runner.host]`: what the CPU of this machine must have, in the names of /proc/cpuinfo."""

    machines: tuple[str, ...] = ()
    """Values of platform.machine() on which the code runs; empty: any."""
    cpu_flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Running:
    """`[runner]`: what runs the built model: `host`, `unicorn`, `qemu` or `wasmtime`, and their parameters."""

    kind: str = ""
    host: HostSpec | None = None
    unicorn: UnicornSpec | None = None
    qemu: QemuSpec | None = None


@dataclass(frozen=True)
class Target:
    """A chip, as far as the compiler cares."""

    name: str
    description: str = ""
    extends: str = ""
    isa: str = ""
    """One of :data:`bitc.features.ISAS`."""
    features: frozenset[str] = frozenset()
    """Names from :data:`bitc.features.FEATURES`."""
    word_bits: int = 32
    """Bits of the word into which ±1 values are packed: 32 or 64."""
    vector_bytes: int = 0
    """Bytes of a vector register; 0: no vector unit."""
    memory: Memories = field(default_factory=Memories)
    toolchain: Compiling = field(default_factory=Compiling)
    machine: Machine = field(default_factory=Machine)
    runner: Running = field(default_factory=Running)

    @property
    def ram(self) -> Memory:
        """RAM of the part."""
        return Memory(self.memory.ram_base, self.memory.ram)

    @property
    def flash(self) -> Memory:
        """Flash of the part."""
        return Memory(self.memory.flash_base, self.memory.flash)

    @property
    def has_long_multiply(self) -> bool:
        """Whether an instruction multiplies 32 by 32 bits into 64, or adds a product: not on Armv6-M."""
        return self.isa != "arm-m" or "unaligned" in self.features

    @property
    def c_checks(self) -> tuple[str, ...]:
        """Preprocessor conditions that hold if the compiler was told about every feature: generated C asserts them."""
        checks = {FEATURES[name].check(self.isa) for name in self.features}
        return tuple(sorted(checks - {""}))

    @property
    def feature_flags(self) -> tuple[str, ...]:
        """Compiler flags of those features that a flag of their own switches on."""
        return tuple(flag for name in sorted(self.features) for flag in FEATURES[name].flags)

    @staticmethod
    def available() -> list[str]:
        """Names of the targets that come with bitc. A file whose name starts with "_" is only a base for others."""
        return sorted(p.stem for p in resources.targets().glob("*.toml") if not p.stem.startswith("_"))

    @staticmethod
    def load(
        name_or_path: str | Path,
        ram: int | str | None = None,
        flash: int | str | None = None,
        features: Iterable[str] = (),
    ) -> Target:
        """Read a target by name, or from the path of a TOML file (anything that ends in .toml).

        `ram` and `flash` (bytes, or "256k", "1M") replace the file's; `features` adds names, "-name" removes one.
        Raises TargetError: unknown target, feature or key, malformed file, cyclic `extends`.
        """
        path = _locate(str(name_or_path), where="")
        table = _resolve(path, seen=())
        for key, value in (("ram", ram), ("flash", flash)):
            if value is not None:
                table.setdefault("memory", {})[key] = value
        return _finish(table, list(features), path)


def parse_size(value: object, where: str) -> int:
    """Bytes of 262144, "262144", "256k", "256 KiB" or "1M". Raises TargetError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        return int(match[1]) * _UNITS[match[2].lower()]
    raise TargetError(f"{value!r} is not a size", where=where, hint='write bytes, or a text such as "256k" or "1M"')


def _locate(name: str, where: str, beside: Path | None = None) -> Path:
    """The file of a target: by name in targets/, else a path, relative to the file that extends it."""
    builtin = resources.targets() / f"{name}.toml"
    if re.fullmatch(r"\w[\w.-]*", name) and builtin.is_file():
        return builtin
    if name.endswith(".toml"):
        path = (beside.parent / name) if beside else Path(name)
        if path.is_file():
            return path
        raise TargetError(f"no target file {name}", where=where, hint="check the path")
    names = Target.available()
    close = difflib.get_close_matches(name, names, n=3)
    did_you_mean = f"did you mean {' or '.join(close)}? " if close else ""
    raise TargetError(
        f"unknown target {name!r}", where=where, hint=f"{did_you_mean}known: {', '.join(names)}; or a path to a .toml"
    )


def _resolve(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The file's table laid over the tables that it extends."""
    path = path.resolve()
    if path in seen:
        chain = " → ".join(p.stem for p in (*seen[seen.index(path) :], path))
        raise TargetError(f"cyclic extends: {chain}", where=str(seen[0]), hint="let one of them extend nothing")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise TargetError(f"not a target file: {error}", where=str(path), hint="it must be TOML") from error
    base = table.get("extends")
    if base is None:
        return table
    if not isinstance(base, str):
        raise TargetError("extends must be a text", where=str(path), hint='for example extends = "cortex-m7"')
    return _overlay(_resolve(_locate(base, str(path), beside=path), (*seen, path)), table)


def _overlay(base: dict[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        old = merged.get(key)
        if key == "features" and isinstance(old, list) and isinstance(value, list):
            merged[key] = [*old, *value]  # so that a file can add or "-remove" single features
        elif isinstance(old, dict) and isinstance(value, dict):
            merged[key] = _overlay(old, value)
        else:
            merged[key] = value
    return merged


def _finish(table: dict[str, Any], more: list[str], path: Path) -> Target:
    """Checks and builds; the target of this very computer gets its instruction set and features here."""
    where = str(path)
    features = table.get("features", [])
    if not isinstance(features, list) or not all(isinstance(name, str) for name in features):
        raise TargetError("features must be a list of names", where=where, hint='for example ["fpu", "dsp"]')
    features = [*features, *more]
    if table.get("isa") == "host":
        table["isa"], found = hostcpu.isa(), hostcpu.features()
        features = [*sorted(found), *features]
        table.setdefault("word_bits", hostcpu.word_bits())
        table.setdefault("vector_bytes", hostcpu.vector_bytes(found))
    isa = table.get("isa")
    if isa not in ISAS:
        raise TargetError(f"unknown isa {isa!r}", where=where, hint=f"one of {', '.join(ISAS)}")
    table["features"] = _features(features, isa, where)
    for key in ("ram", "flash"):
        if isinstance(table.get("memory"), dict) and key in table["memory"]:
            table["memory"][key] = parse_size(table["memory"][key], f"{where}: memory.{key}")
    target = _build(Target, {**table, "name": path.stem}, where, "")
    if target.word_bits not in (32, 64):
        raise TargetError(f"word_bits is {target.word_bits}", where=where, hint="32 or 64")
    return target


def _features(names: list[str], isa: str, where: str) -> frozenset[str]:
    known = sorted(name for name, feature in FEATURES.items() if isa in feature.checks)
    result: set[str] = set()
    for name in names:
        plain = name.lstrip("+-")
        if plain not in known:
            close = difflib.get_close_matches(plain, known, n=1)
            hint = (f"did you mean {close[0]}? " if close else "") + f"features of {isa}: {', '.join(known)}"
            raise TargetError(f"unknown feature {plain!r}", where=where, hint=hint)
        (result.discard if name.startswith("-") else result.add)(plain)
    return frozenset(result)


def _build(cls: type[_T], table: Mapping[str, Any], where: str, prefix: str) -> _T:
    """A dataclass from a TOML table: unknown keys and wrong types are errors that name the key."""
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in hints:
            close = difflib.get_close_matches(key, hints, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(sorted(hints))}"
            raise TargetError(f"unknown key {prefix}{key}", where=where, hint=hint)
        values[key] = _convert(hints[key], value, where, prefix + key)
    return cls(**values)


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    if isinstance(hint, types.UnionType):  # only "X | None" occurs; TOML has no null
        hint = next(arg for arg in hint.__args__ if arg is not type(None))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, dict):
            return _build(hint, value, where, f"{key}.")
    elif hint in (int, str):
        if isinstance(value, hint) and not isinstance(value, bool):
            return value
    elif hint == tuple[str, ...] and isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            return tuple(value)
    elif isinstance(value, frozenset):
        return value
    wanted = {int: "an integer", str: "a text", tuple[str, ...]: "a list of texts"}.get(hint, "a table")
    raise TargetError(f"{key} is {value!r}", where=where, hint=f"it must be {wanted}")
