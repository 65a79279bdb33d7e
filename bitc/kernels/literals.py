"""C literals and identifiers."""

from __future__ import annotations

import math
import re

import numpy as np

from bitc.ir.dtypes import DType
from bitc.ir.graph import Array

# fmt: off
_KEYWORDS = frozenset((
    "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern",
    "float", "for", "goto", "if", "inline", "int", "long", "register", "restrict", "return", "short", "signed",
    "sizeof", "static", "struct", "switch", "typedef", "union", "unsigned", "void", "volatile", "while", "bool",
    "true", "false", "class", "new", "delete", "this", "template", "typename", "namespace", "private", "public",
    "protected", "virtual", "operator", "try", "catch", "throw", "using", "and", "or", "not", "xor", "asm", "export",
    "friend", "mutable", "explicit", "int8_t", "uint8_t", "int16_t", "uint16_t", "int32_t", "uint32_t",
))
# fmt: on
_DIGITS = {1: 2, 2: 4, 4: 8, 8: 16}
_PER_LINE = {1: 16, 2: 12, 4: 8, 8: 4}


def identifier(name: str) -> str:
    """A C (and C++) identifier that resembles `name`."""
    text = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_") or "v"
    text = re.sub(r"__+", "_", text)
    return f"v{text}" if text[0].isdigit() else f"{text}_" if text in _KEYWORDS else text


class Names:
    """Hands out unique identifiers."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def unique(self, wanted: str) -> str:
        base, i, name = identifier(wanted), 1, identifier(wanted)
        while name.lower() in self._taken:
            name, i = f"{base}_{i}", i + 1
        self._taken.add(name.lower())
        return name


def c_float(value: float) -> str:
    """A float32 literal that reads back to the same bits (NaNs lose their payload)."""
    if math.isnan(value):
        return "BITC_NAN_CONST"
    if math.isinf(value):
        return "BITC_INF_CONST" if value > 0 else "-BITC_INF_CONST"
    return f"{np.float32(value)!s}f"


def c_double(value: float) -> str:
    """A float64 literal."""
    if math.isfinite(value):
        return repr(float(value))
    return f"(double){c_float(value)}"


def c_int(value: float, c_type: str = "int32_t") -> str:
    """An integer literal of a C type."""
    n = int(value)
    if c_type == "int64_t":
        n = min(max(n, -(2**63)), 2**63 - 1)
        return f"(-INT64_C({2**63 - 1}) - 1)" if n == -(2**63) else f"INT64_C({n})"
    if c_type == "uint64_t":
        return f"UINT64_C({min(n, 2**64 - 1)})"
    if n == -(2**31):
        return "(-2147483647 - 1)"
    return f"{n}u" if n >= 2**31 or c_type.startswith("u") else str(n)


def initializer(array: Array) -> str:
    """The lines between the braces of a constant array."""
    flat = array.reshape(-1)
    kind, size = flat.dtype.kind, flat.dtype.itemsize
    if kind == "f":
        texts = [c_float(v) if size == 4 else c_double(v) for v in flat.tolist()]
        per_line = 8
    elif kind in "ub":
        suffix = {8: "u"}.get(size, "u")
        digits = _DIGITS[size]
        texts = [f"0x{int(v):0{digits}X}{suffix}" for v in flat.tolist()]
        if size == 8:
            texts = [f"UINT64_C({t[:-1]})" for t in texts]
        per_line = _PER_LINE[size]
    else:
        texts = [c_int(v, f"int{size * 8}_t") for v in flat.tolist()]
        per_line = 16
    lines = [", ".join(texts[i : i + per_line]) for i in range(0, len(texts), per_line)]
    return ",\n".join(f"    {line}" for line in lines)


def words(data: bytes) -> str:
    """The lines between the braces of an array of uint64_t that holds these bytes, little-endian, zeros at the end."""
    digits = np.frombuffer(data + bytes(-len(data) % 8), "<u8").astype(">u8").tobytes().hex().encode()
    text = np.empty((len(digits) // 16, 21), np.uint8)
    text[:, :2] = np.frombuffer(b"0x", np.uint8)
    text[:, 2:18] = np.frombuffer(digits, np.uint8).reshape(-1, 16)
    text[:, 18:] = np.frombuffer(b"u, ", np.uint8)
    flat, width = text.tobytes().decode(), 5 * 21
    return ",\n".join(f"    {flat[i : i + width].rstrip(', ')}" for i in range(0, len(flat), width))


def c_number(value: float, dtype: DType) -> str:
    """A literal of a dense dtype."""
    if not dtype.is_float:
        return c_int(value, dtype.c_type)
    return c_float(value) if dtype.bits == 32 else c_double(value)
