"""Read what bitc needs of object files: sections, symbols and relocations of ELF; code and data sizes of WebAssembly.

Little-endian only, which all targets are. Layouts: System V ABI, chapter 4; the WebAssembly binary format, chapter 5.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from bitc.errors import ToolchainError

_ALLOC, _EXEC, _WRITE = 0x2, 0x4, 0x1
_SYMTAB, _RELA, _NOBITS, _REL = 2, 4, 8, 9
_PT_LOAD = 1


@dataclass(frozen=True)
class Section:
    """`size` in bytes; the flags in words."""

    name: str
    kind: int
    size: int
    alloc: bool
    code: bool
    write: bool
    zero: bool


@dataclass(frozen=True)
class Symbol:
    """`section` is the index of its section, 0 if it is undefined; `value` keeps Arm's Thumb bit."""

    name: str
    value: int
    size: int
    section: int
    is_local: bool
    is_function: bool


@dataclass(frozen=True)
class Segment:
    """A piece to load: its bytes, and its size in memory, where the rest is zero."""

    address: int
    data: bytes
    size: int


@dataclass(frozen=True)
class Elf:
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    references: tuple[tuple[int, int], ...]
    """(index of the section that refers, index of the symbol referred to), from the relocations."""
    segments: tuple[Segment, ...]
    entry: int

    def symbol(self, name: str) -> Symbol:
        """A defined symbol. Raises ToolchainError."""
        for symbol in self.symbols:
            if symbol.name == name and symbol.section:
                return symbol
        raise ToolchainError(f"the program has no symbol {name}", hint="was it built from another model?")

    def function_at(self, address: int) -> str:
        """Name of the function that holds an address, or an empty text."""
        for symbol in self.symbols:
            start = symbol.value & ~1
            if symbol.is_function and start <= address < start + symbol.size:
                return symbol.name
        return ""

    def bytes_where(self, *, code: bool, write: bool, zero: bool) -> int:
        """Bytes of the loaded sections of a kind. Arm's unwind tables are left out: the linker drops them."""
        return sum(
            s.size
            for s in self.sections
            if s.alloc and (s.code, s.write, s.zero) == (code, write, zero) and not s.name.startswith(".ARM.ex")
        )


def _text(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode("utf-8", errors="replace")


def read(path: Path) -> Elf:
    """Parse an object file, library or program. Raises ToolchainError if it is not a little-endian ELF."""
    raw = path.read_bytes()
    if raw[:4] != b"\x7fELF" or raw[5] != 1:
        raise ToolchainError("not a little-endian ELF file", where=path.name, hint="bitc runs host code on Linux only")
    wide = raw[4] == 2
    if wide:
        entry, phoff, shoff = struct.unpack_from("<QQQ", raw, 24)
        phsize, phnum, shsize, shnum, shstr = struct.unpack_from("<HHHHH", raw, 54)
    else:
        entry, phoff, shoff = struct.unpack_from("<III", raw, 24)
        phsize, phnum, shsize, shnum, shstr = struct.unpack_from("<HHHHH", raw, 42)
    layout = struct.Struct("<IIQQQQIIQQ" if wide else "<IIIIIIIIII")
    heads = [layout.unpack_from(raw, shoff + i * shsize) for i in range(shnum)]

    def body(index: int) -> bytes:
        return raw[heads[index][4] : heads[index][4] + heads[index][5]]

    names = body(shstr)
    sections = tuple(
        Section(
            name=_text(names, head[0]),
            kind=head[1],
            size=head[5],
            alloc=bool(head[2] & _ALLOC),
            code=bool(head[2] & _EXEC),
            write=bool(head[2] & _WRITE),
            zero=head[1] == _NOBITS,
        )
        for head in heads
    )
    symbols: list[Symbol] = []
    references: list[tuple[int, int]] = []
    for index, head in enumerate(heads):
        if head[1] == _SYMTAB:
            strings = body(head[6])
            symbols += [_symbol(entry_, strings, wide) for entry_ in struct.iter_unpack(_SYMBOL[wide], body(index))]
        elif head[1] in (_REL, _RELA):
            form, shift = _RELOCATION[wide, head[1] == _RELA], 32 if wide else 8
            references += [(head[7], item[1] >> shift) for item in struct.iter_unpack(form, body(index))]
    segments = tuple(_segments(raw, phoff, phsize, phnum, wide))
    return Elf(sections, tuple(symbols), tuple(references), segments, entry)


_SYMBOL = {True: "<IBBHQQ", False: "<IIIBBH"}
_RELOCATION = {(True, True): "<QQq", (True, False): "<QQ", (False, True): "<IIi", (False, False): "<II"}


def _symbol(fields: tuple[int, ...], strings: bytes, wide: bool) -> Symbol:
    if wide:
        name, info, _, section, value, size = fields
    else:
        name, value, size, info, _, section = fields
    return Symbol(_text(strings, name), value, size, section, is_local=info >> 4 == 0, is_function=info & 15 == 2)


def _segments(raw: bytes, offset: int, size: int, count: int, wide: bool) -> list[Segment]:
    found = []
    for i in range(count):
        at = offset + i * size
        if wide:
            kind, _, start, _, address, in_file, in_memory = struct.unpack_from("<IIQQQQQ", raw, at)
        else:
            kind, start, _, address, in_file, in_memory = struct.unpack_from("<IIIIII", raw, at)
        if kind == _PT_LOAD and in_memory:
            found.append(Segment(address, raw[start : start + in_file], in_memory))
    return found


def wasm_sizes(path: Path) -> tuple[int, int]:
    """(bytes of code, bytes of data) of a WebAssembly object or module."""
    raw = path.read_bytes()
    if raw[:4] != b"\0asm":
        raise ToolchainError("not a WebAssembly file", where=path.name)
    sizes = {10: 0, 11: 0}
    at = 8
    while at < len(raw):
        kind = raw[at]
        size, at = _leb128(raw, at + 1)
        sizes[kind] = sizes.get(kind, 0) + size
        at += size
    return sizes[10], sizes[11]


def _leb128(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
