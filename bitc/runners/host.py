"""Run in this process, through a shared library. Measures time; a fault of the model is a fault of this process."""

from __future__ import annotations

import ctypes
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from bitc import hostcpu
from bitc.errors import TargetError
from bitc.runners.base import HookRecord, Runner, RunRequest, RunResult, check_request
from bitc.target import HostSpec, Target
from bitc.toolchain import Runnable, elf

_HOOK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong)
_TIMINGS = 5
_STEADY_NS, _LONG_NS = 2_000_000, 50_000_000
"""A timing should take as long as the first; where one call takes the second, timing it once more is enough."""


def unusable(target: Target) -> str:
    """Why this computer can not run the target's code, or an empty text."""
    spec = target.runner.host or HostSpec()
    if sys.platform != "linux":
        return "code runs in process on Linux only"
    if spec.machines and platform.machine() not in spec.machines:
        return f"this computer is a {platform.machine()}, the target needs {' or '.join(spec.machines)}"
    missing = [flag for flag in spec.cpu_flags if flag not in hostcpu.flags()]
    return f"this CPU lacks {', '.join(missing)}" if missing else ""


class _Model:
    """A loaded library and its buffers."""

    def __init__(self, build: Runnable) -> None:
        self.library = _load(build.path)
        symbols = elf.read(build.path)
        self.input_bytes = symbols.symbol("bitc_in").size
        self.output_bytes = symbols.symbol("bitc_out").size
        self.arena, self.input, self.output = (self._address(n) for n in ("bitc_arena", "bitc_in", "bitc_out"))
        clock = ctypes.cast(ctypes.CDLL(None).clock_gettime, ctypes.c_void_p)
        ctypes.c_void_p.in_dll(self.library, "bitc_clock").value = clock.value
        self.library.bitc_repeat.restype = ctypes.c_int64
        self.buffers = [ctypes.c_void_p(p) for p in (self.arena, self.input, self.output)]

    def _address(self, name: str) -> int:
        return ctypes.addressof(ctypes.c_char.in_dll(self.library, name))


def _load(path: Path) -> ctypes.CDLL:
    """Load a library under a name of its own: for a name that it knows, the loader would give back an older build."""
    with tempfile.TemporaryDirectory(prefix="bitc-host-") as scratch:
        return ctypes.CDLL(shutil.copy(path, scratch))


class HostRunner(Runner):
    """In process, for the host itself and for x86-64 levels that it supports."""

    metric = "nanoseconds"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        if reason := unusable(target):
            raise TargetError(
                f"{target.name} can not run here: {reason}", hint="choose host, or a target in an emulator"
            )
        self._build: Runnable | None = None
        self._model: _Model | None = None

    def run(self, request: RunRequest) -> RunResult:
        if self._model is None or self._build is not request.build:
            self._model, self._build = _Model(request.build), request.build
        model = self._model
        check_request(request, model.input_bytes)
        outputs, codes, layers = [], [], []
        for data in request.inputs:
            ctypes.memmove(model.input, data, len(data))
            records: list[HookRecord] = []
            codes.append(_hooked(model, request, records) if request.hooks else _plain(model, request))
            outputs.append(ctypes.string_at(model.output, model.output_bytes))
            layers.append(records)
        best = None
        if request.inputs:
            ctypes.memmove(model.input, request.inputs[0], model.input_bytes)
            if request.hooks:
                layers[0], best = _time_hooks(model, layers[0], request.repeat)
            else:
                best = _time_calls(model, request.repeat)
        return RunResult(outputs, codes, self.metric, nanoseconds=best, layers=layers if request.hooks else [])


def _plain(model: _Model, request: RunRequest) -> int:
    return int(model.library[f"{request.build.name}_run"](*model.buffers))


def _hooked(model: _Model, request: RunRequest, records: list[HookRecord]) -> int:
    def hook(_user: int | None, layer: int, data: int, size: int) -> None:
        records.append(HookRecord(layer, ctypes.string_at(data, size)))

    callback = _HOOK(hook)
    return int(model.library[f"{request.build.name}_run_hooked"](*model.buffers, callback, None))


def _repeat(once: int, wanted: int) -> tuple[int, int]:
    """(timings, calls per timing) for a call that took `once` nanoseconds."""
    return (1 if once > _LONG_NS else _TIMINGS), wanted or max(1, min(10_000, _STEADY_NS // max(once, 1)))


def _time_calls(model: _Model, wanted: int) -> int:
    """Nanoseconds of a call, the best of several timings."""
    timings, repeat = _repeat(int(model.library.bitc_repeat(1)), wanted)
    return int(min(model.library.bitc_repeat(repeat) for _ in range(timings)) // repeat)


def _time_hooks(model: _Model, records: list[HookRecord], wanted: int) -> tuple[list[HookRecord], int | None]:
    """The records of one sample with the time of each hook, from the fastest run; timed in C, without a callback."""
    count = min(model.library.bitc_time_hooks(), len(records))
    if count == 0:
        return records, None
    times = (ctypes.c_int64 * count).in_dll(model.library, "bitc_hook_times")
    best = list(times)
    timings, repeat = _repeat(best[-1], wanted)
    for _ in range(timings * repeat):
        model.library.bitc_time_hooks()
        if times[-1] < best[-1]:
            best = list(times)
    timed = [HookRecord(r.layer, r.data, nanoseconds=t) for r, t in zip(records, best, strict=False)]
    return timed + records[count:], best[-1]
