"""Count the instructions that the unicorn engine executes: exactly, by summing them per block.

The hook is a few lines of C, compiled once into bitc's cache. Where that is not possible the same in Python takes 10 to
100 times as long and counts the same.
"""

from __future__ import annotations

import ctypes
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import unicorn as untyped_unicorn
from unicorn.unicorn_py3.unicorn import uclib

from bitc import resources
from bitc.errors import BitcError
from bitc.target import Target
from bitc.toolchain import cache, compile_sources, link_library, process

unicorn: Any = untyped_unicorn  # it says that it is typed, and is not

FIXED, THUMB, COMPRESSED = 0, 1, 2
"""How long instructions are: always four bytes; two or four, as Thumb says; two or four, as RISC-V C says."""


class _State(ctypes.Structure):
    """bitc_counter_t of runtime_c/harness/count.c."""

    _fields_ = (
        ("instructions", ctypes.c_uint64),
        ("base", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("code", ctypes.c_char_p),
        ("known", ctypes.POINTER(ctypes.c_uint32)),
        ("form", ctypes.c_uint32),
    )


class Counter:
    """Counts from when it is attached; `instructions` can be read at any time and set to 0."""

    def __init__(self, engine: Any, base: int, code: bytes, form: int, native: bool = True) -> None:
        """`code` are the bytes of the program from address `base` on; `native=False` asks for the Python hook."""
        self._code = code + bytes(4)  # a decoder may look one instruction ahead
        self._base = base
        self._form = form
        self._blocks: dict[tuple[int, int], int] = {}
        self._known = (ctypes.c_uint32 * (len(code) // 2 + 2))()
        self._state = _State(0, base, len(code), self._code, self._known, form)
        library = _library() if native else None
        if library is None:
            engine.hook_add(unicorn.UC_HOOK_BLOCK, self._on_block)
        else:
            self._attach(engine, library)

    @property
    def instructions(self) -> int:
        return int(self._state.instructions)

    @instructions.setter
    def instructions(self, value: int) -> None:
        self._state.instructions = value

    def _attach(self, engine: Any, library: ctypes.CDLL) -> None:
        """hook_add of the Python package takes Python callables only, hence the call below it."""
        handle = ctypes.c_size_t()
        status = uclib.uc_hook_add(
            engine._uch,
            ctypes.byref(handle),
            unicorn.UC_HOOK_BLOCK,
            ctypes.cast(library.bitc_count, ctypes.c_void_p),
            ctypes.cast(ctypes.pointer(self._state), ctypes.c_void_p),
            ctypes.c_uint64(1),
            ctypes.c_uint64(0),
        )
        if status != unicorn.UC_ERR_OK:
            raise unicorn.UcError(status)

    def _on_block(self, _engine: Any, address: int, size: int, _data: Any) -> None:
        key = (address, size)
        if key not in self._blocks:
            self._blocks[key] = self._decode(address - self._base, size)
        self._state.instructions += self._blocks[key]

    def _decode(self, at: int, size: int) -> int:
        if self._form == FIXED:
            return size // 4
        count, end = 0, at + size
        while at < min(end, len(self._code) - 1):
            low, high = self._code[at], self._code[at + 1]
            is_long = high >= 0xE8 if self._form == THUMB else low & 3 == 3
            at, count = at + (4 if is_long else 2), count + 1
        return count


_loaded: dict[str, ctypes.CDLL | None] = {}


def _library() -> ctypes.CDLL | None:
    """The C hook, or None on a computer for which it can not be built."""
    if "count" not in _loaded:
        try:
            _loaded["count"] = ctypes.CDLL(str(_build()))
        except (BitcError, OSError):
            _loaded["count"] = None  # then counting is slow, but right
    return _loaded["count"]


def _build() -> Path:
    source = resources.runtime_c() / "harness" / "count.c"
    host = Target.load("host")
    identity = f"{process.zig_version()} {sorted(host.features)} {source.read_text(encoding='utf-8')}"

    def make(path: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            link_library(compile_sources(host, [source], [], Path(scratch), "-O2"), path)

    return cache.file(f"count-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so", make)
