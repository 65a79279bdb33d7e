"""Run in wasmtime. The metric is fuel: about one unit per operator, deterministic, and not proportional to time."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Any

import wasmtime

from bitc.errors import ToolchainError
from bitc.runners.base import HookRecord, Runner, RunRequest, RunResult, check_request
from bitc.target import Target
from bitc.toolchain import Runnable

_TRAP = re.compile(r"wasm trap: (.+)")
_FRAME = re.compile(r"0: +(0x[0-9a-f]+)")
_FUEL_PER_SECOND = 2_000_000_000
"""More than any computer burns, so that a time limit can be given as fuel."""


class _Instance:
    """A module with its memory."""

    def __init__(self, build: Runnable) -> None:
        config = wasmtime.Config()
        config.consume_fuel = True
        self.store = wasmtime.Store(wasmtime.Engine(config))
        self.start = 0
        self.records: list[HookRecord] = []
        self.build = build
        linker = wasmtime.Linker(self.store.engine)
        i32 = wasmtime.ValType.i32()
        kind = wasmtime.FuncType([i32, i32, i32, i32], [])
        linker.define_func("bitc", "hook", kind, self._on_hook)
        try:
            module = wasmtime.Module(self.store.engine, build.path.read_bytes())
            self.store.set_fuel(_FUEL_PER_SECOND)
            exports = linker.instantiate(self.store, module).exports(self.store)
        except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
            raise ToolchainError(f"wasmtime refuses the module: {error}", where=build.name) from error
        self.exports: Mapping[str, Any] = dict(exports)  # each is a function, a memory or a global; its name says which
        self.memory: wasmtime.Memory = self.exports["memory"]
        self.arena, self.input, self.output = (self._address(n) for n in ("bitc_arena", "bitc_in", "bitc_out"))
        self.input_bytes, self.output_bytes = struct.unpack("<II", self._read(self._address("bitc_sizes"), 8))

    def _read(self, address: int, size: int) -> bytes:
        return bytes(self.memory.read(self.store, address, address + size))

    def _address(self, name: str) -> int:
        return int(self.exports[name].value(self.store))

    def _on_hook(self, _user: int, layer: int, data: int, size: int) -> None:
        data, size = data & 0xFFFFFFFF, size & 0xFFFFFFFF
        self.records.append(HookRecord(layer, self._read(data, size), self.start - self.store.get_fuel()))

    def call(self, data: bytes, seconds: float, hooks: bool) -> tuple[int, bytes, int]:
        """What the model returned, its output, and the fuel that it burnt."""
        self.memory.write(self.store, data, self.input)
        self.start = int(seconds * _FUEL_PER_SECOND)
        self.store.set_fuel(self.start)
        self.records = []
        try:
            if hooks:
                code = self.exports["bitc_run_hooked"](self.store)
            else:
                code = self.exports[f"{self.build.name}_run"](self.store, self.arena, self.input, self.output)
        except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
            said = str(error)
            if "all fuel consumed" in said:
                what, hint = f"no end after the fuel of {seconds:g} s", "allow more seconds"
            else:
                trap, frame = _TRAP.findall(said), _FRAME.search(said)
                at = f" at pc={frame[1]}" if frame else ""
                what, hint = f"trapped ({trap[-1] if trap else 'unknown'}){at}", "please report this with the model"
            raise ToolchainError(
                what, where=f"{self.build.name} on {self.build.target.name}", hint=hint, detail=said
            ) from error
        burnt = self.start - self.store.get_fuel()
        return code, self._read(self.output, self.output_bytes), burnt


class WasmRunner(Runner):
    """wasmtime, in process."""

    metric = "fuel"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._instance: _Instance | None = None
        self._build: Runnable | None = None

    def run(self, request: RunRequest) -> RunResult:
        if self._instance is None or self._build is not request.build:
            self._instance, self._build = _Instance(request.build), request.build
        instance, self._instance = self._instance, None  # one that trapped is not used again
        check_request(request, instance.input_bytes)
        outputs, codes, layers = [], [], []
        first = None
        for data in request.inputs:
            code, output, fuel = instance.call(data, request.seconds, request.hooks)
            codes.append(code)
            outputs.append(output)
            layers.append(instance.records)
            first = fuel if first is None else first
        self._instance = instance
        return RunResult(outputs, codes, self.metric, first, layers=layers if request.hooks else [])
