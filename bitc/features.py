"""The vocabulary of chip features: what a kernel may ask for, and how C code checks that the compiler agrees.

One row per feature. `checks` maps each instruction set that can have it to the preprocessor condition that is true when
the compiler was told so (an empty text where it always holds).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ISAS = ("aarch64", "arm-a", "arm-m", "riscv", "wasm", "x86")


@dataclass(frozen=True)
class Feature:
    """One feature of a chip."""

    meaning: str
    checks: Mapping[str, str]
    flags: tuple[str, ...] = ()
    """Compiler flags that switch on just this, where there is such a flag; else the target's own flags must."""

    def check(self, isa: str) -> str:
        return self.checks.get(isa, "")


def _arm(condition: str, *isas: str) -> dict[str, str]:
    return dict.fromkeys(isas or ("arm-m", "arm-a", "aarch64"), condition)


def _x86(meaning: str, macro: str) -> Feature:
    return Feature(meaning, {"x86": f"defined(__{macro}__)"}, (f"-m{macro.lower().replace('_', '.')}",))


FEATURES: Mapping[str, Feature] = {
    "fpu": Feature(
        "float32 arithmetic in hardware",
        {
            **_arm("defined(__ARM_FP) && (__ARM_FP & 4)"),
            "x86": "defined(__SSE2__)",
            "wasm": "",
            "riscv": "defined(__riscv_flen)",
        },
    ),
    "fpu64": Feature(
        "float64 arithmetic in hardware",
        {
            **_arm("defined(__ARM_FP) && (__ARM_FP & 8)"),
            "x86": "defined(__SSE2__)",
            "wasm": "",
            "riscv": "defined(__riscv_flen) && (__riscv_flen >= 64)",
        },
    ),
    "hwdiv": Feature(
        "32-bit integer division in hardware",
        {
            **_arm("defined(__ARM_FEATURE_IDIV)", "arm-m", "arm-a"),
            "aarch64": "",
            "x86": "",
            "wasm": "",
            "riscv": "defined(__riscv_div)",
        },
    ),
    "unaligned": Feature(
        "loads and stores of words at any address",
        {**_arm("defined(__ARM_FEATURE_UNALIGNED)"), "x86": "", "wasm": ""},
    ),
    "dsp": Feature("Armv7E-M packed 8- and 16-bit arithmetic", _arm("defined(__ARM_FEATURE_DSP)", "arm-m")),
    "mve": Feature("Helium integer vectors", _arm("defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)", "arm-m")),
    "mvefp": Feature("Helium float vectors", _arm("defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 2)", "arm-m")),
    "neon": Feature("128-bit vectors", _arm("defined(__ARM_NEON)", "arm-a", "aarch64")),
    "dotprod": Feature("UDOT and SDOT", _arm("defined(__ARM_FEATURE_DOTPROD)", "aarch64")),
    "simd128": Feature("128-bit vectors", {"wasm": "defined(__wasm_simd128__)"}, ("-msimd128",)),
    "zbb": Feature("bit manipulation, with cpop", {"riscv": "defined(__riscv_zbb)"}),
    "popcnt": _x86("scalar population count", "POPCNT"),
    "ssse3": _x86("byte shuffles, 128 bits", "SSSE3"),
    "bmi2": _x86("bit manipulation", "BMI2"),
    "avx2": _x86("256-bit integer vectors", "AVX2"),
    "avx512f": _x86("512-bit vectors", "AVX512F"),
    "avx512bw": _x86("512-bit vectors of bytes", "AVX512BW"),
    "avx512vl": _x86("AVX-512 instructions on shorter vectors", "AVX512VL"),
    "avx512vpopcntdq": _x86("population count of vector lanes", "AVX512VPOPCNTDQ"),
    "avx512vnni": _x86("int8 dot products, 512 bits", "AVX512VNNI"),
}
