"""Run what was built: in process, in an emulator, or in a WebAssembly engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bitc.errors import TargetError
from bitc.runners import host, qemu
from bitc.runners.base import HookRecord, Runner, RunRequest, RunResult
from bitc.runners.emulator import EmulatorRunner
from bitc.runners.host import HostRunner
from bitc.runners.qemu import QemuRunner
from bitc.runners.wasm import WasmRunner
from bitc.target import Target

__all__ = ["HookRecord", "RunRequest", "RunResult", "Runner", "available", "kinds", "open_runner"]


@dataclass(frozen=True)
class _Kind:
    make: Callable[[Target], Runner]
    links: str
    """What it loads, as in the target's toolchain.link."""
    unusable: Callable[[Target], str]


def _no_unicorn(target: Target) -> str:
    return "" if target.runner.unicorn and target.runner.unicorn.cpu else "unicorn does not have this CPU"


_KINDS = {
    "host": _Kind(HostRunner, "shared", host.unusable),
    "unicorn": _Kind(EmulatorRunner, "bare", _no_unicorn),
    "qemu": _Kind(QemuRunner, "bare", qemu.unusable),
    "wasmtime": _Kind(WasmRunner, "wasm", lambda target: ""),
}


def kinds() -> list[str]:
    """Names for `open_runner`."""
    return sorted(_KINDS)


def _kind(target: Target, kind: str | None) -> _Kind:
    name = kind or target.runner.kind
    if name not in _KINDS:
        raise TargetError(f"unknown runner {name!r}", where=target.name, hint=f"one of {', '.join(kinds())}")
    return _KINDS[name]


def available(target: Target, kind: str | None = None) -> str:
    """Why the runner (the target's own, unless `kind` names one) is not usable here; an empty text if it is."""
    found = _kind(target, kind)
    if found.links != target.toolchain.link:
        return f"a {kind or target.runner.kind} runner can not load what is built for {target.name}"
    return found.unusable(target)


def open_runner(target: Target, kind: str | None = None) -> Runner:
    """A runner for builds of this target: the target's own, or `host`, `unicorn`, `qemu`, `wasmtime`.

    Raises TargetError if the runner can not serve the target or this CPU lacks a feature, ToolchainError if a program
    is missing.
    """
    found = _kind(target, kind)
    if found.links != target.toolchain.link or (found.unusable is _no_unicorn and _no_unicorn(target)):
        raise TargetError(f"{target.name} can not run here: {available(target, kind)}", hint="use another runner")
    return found.make(target)
