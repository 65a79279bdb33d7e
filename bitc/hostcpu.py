"""What the CPU of this computer is and has, from the operating system; nothing is executed to find out."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from bitc.errors import TargetError

_ISA = {"x86_64": "x86", "amd64": "x86", "aarch64": "aarch64", "arm64": "aarch64"}
_ALWAYS = {"x86": ("fpu", "fpu64", "hwdiv", "unaligned"), "aarch64": ("fpu", "fpu64", "hwdiv", "unaligned", "neon")}
_FROM_FLAG = {
    "x86": {
        "popcnt": "popcnt",
        "ssse3": "ssse3",
        "bmi2": "bmi2",
        "avx2": "avx2",
        "avx512f": "avx512f",
        "avx512bw": "avx512bw",
        "avx512vl": "avx512vl",
        "avx512_vpopcntdq": "avx512vpopcntdq",
        "avx512_vnni": "avx512vnni",
    },
    "aarch64": {"asimddp": "dotprod"},
}
_VECTOR_BYTES = {"avx512f": 64, "avx2": 32, "ssse3": 16, "neon": 16}


def isa() -> str:
    """The instruction set in bitc's terms. Raises TargetError on a computer that bitc can not run code on."""
    machine = platform.machine()
    if machine.lower() not in _ISA:
        raise TargetError(
            f"this computer is a {machine}: bitc runs code in process on x86-64 and AArch64 only",
            hint="choose a target that runs in an emulator, for example cortex-m4 or wasm32",
        )
    return _ISA[machine.lower()]


@cache
def flags() -> frozenset[str]:
    """CPU flags in the names of Linux; empty elsewhere, where only the architecture's baseline is used."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return frozenset()
    for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def features() -> frozenset[str]:
    """The features of this CPU that bitc knows, by bitc's names."""
    known = _FROM_FLAG[isa()]
    return frozenset(_ALWAYS[isa()]) | {known[flag] for flag in flags() if flag in known}


def word_bits() -> int:
    """Both supported instruction sets have 64-bit registers."""
    return 64


def vector_bytes(have: Iterable[str]) -> int:
    """Bytes of the widest vector register among these features."""
    return max((_VECTOR_BYTES.get(name, 0) for name in have), default=0)
