"""Worst-case stack of a call, from the compiler's frame sizes and the references between sections.

Objects are compiled with one section per function and per constant, so relocations are the call graph: a section
refers to those it calls, and to tables of function pointers, which refer to functions in turn. That counts every
function whose address is taken as called, which errs on the safe side.

What inline assembly pushes is in no frame that the compiler knows of: it says so itself, by an absolute symbol
`FUNCTION.pushed` whose value are the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bitc.toolchain.elf import Elf

HELPER_BYTES = 192
"""Allowance for a function that is not ours. The deepest helpers (soft floats on Armv6-M) were seen to use 112."""

_ABSOLUTE = 0xFFF1
"""Section index of a symbol that is a number (SHN_ABS)."""
_PUSHED = ".pushed"
_FRAME = re.compile(r":(?P<name>[^:\t]+)\t(?P<bytes>\d+)\t")
_Node = tuple[int, int]


@dataclass(frozen=True)
class Frames:
    """One object file: its structure and the bytes of each function's frame."""

    elf: Elf
    bytes: dict[str, int]


def read_su(path: Path) -> dict[str, int]:
    """Frame bytes by function, from a file that -fstack-usage wrote."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return {m["name"]: int(m["bytes"]) for line in lines if (m := _FRAME.search(line))}


def deepest(objects: Iterable[Frames], entry: str) -> int | None:
    """Bytes of the deepest call chain that starts at `entry`; None if no object defines it.

    Recursion counts once: generated code has none.
    """
    files = list(objects)
    frame: dict[_Node, int] = {}
    globals_: dict[str, _Node] = {}
    for number, file in enumerate(files):
        pushed = {s.name.removesuffix(_PUSHED): s.value for s in file.elf.symbols
                  if s.section == _ABSOLUTE and s.name.endswith(_PUSHED)}  # fmt: skip
        for symbol in file.elf.symbols:
            node = (number, symbol.section)
            if not symbol.section or not symbol.name:
                continue
            if symbol.is_function:
                function = symbol.name.partition(".")[0]  # gcc names clones after a dot
                own = file.bytes.get(symbol.name, 0) + pushed.get(function, 0)
                frame[node] = max(frame.get(node, 0), own)
            if not symbol.is_local:
                globals_[symbol.name] = node
    calls: dict[_Node, set[_Node | None]] = {}
    for number, file in enumerate(files):
        for section, index in file.elf.references:
            symbol = file.elf.symbols[index]
            known = (number, symbol.section) if symbol.section else globals_.get(symbol.name)
            calls.setdefault((number, section), set()).add(known)
    depth: dict[_Node, int] = {}

    def visit(node: _Node) -> int:
        if node not in depth:
            depth[node] = 0  # cuts cycles
            below = [HELPER_BYTES if callee is None else visit(callee) for callee in calls.get(node, ())]
            depth[node] = frame.get(node, 0) + max(below, default=0)
        return depth[node]

    return visit(globals_[entry]) if entry in globals_ else None
