"""Carry-save adders over bit-sliced counters, as straight-line code.

A counter is a row of words, its planes: plane i holds bit i of 32 counts, one count per lane. Words of weight 2**i are
added to plane i two at a time (a full adder: five operations), which sends one word of weight 2**(i + 1) upwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Operation:
    """One line of code. `fetch`: read the words of group `index`. `full`: add words a and b to plane `plane`, `half`:
    add a; the carry gets the name `carry`, empty where the plane is the last one and no carry can occur."""

    kind: str
    index: int = 0
    plane: int = 0
    a: str = ""
    b: str = ""
    carry: str = ""


@dataclass
class _Adders:
    planes: int
    operations: list[Operation] = field(default_factory=list)
    pending: list[list[str]] = field(default_factory=list)
    names: int = 0

    def push(self, plane: int, word: str) -> None:
        waiting = self.pending[plane]
        waiting.append(word)
        if len(waiting) == 2:
            a, b = waiting
            waiting.clear()
            self.emit("full", plane, a, b)

    def emit(self, kind: str, plane: int, a: str, b: str = "") -> None:
        last = plane == self.planes - 1
        carry = "" if last else f"k{self.names}"
        self.names += 1
        self.operations.append(Operation(kind, 0, plane, a, b, carry))
        if not last:
            self.push(plane + 1, carry)


def accumulate(groups: int, words: int, planes: int) -> list[Operation]:
    """Add `groups` numbers of `words` planes each to a counter of `planes` planes, which must not overflow.

    Words of group i are called ``s<i>_<plane>``. Carries are added as soon as there are two, so that few are alive."""
    state = _Adders(planes, pending=[[] for _ in range(planes)])
    for i in range(groups):
        state.operations.append(Operation("fetch", i))
        for plane in range(words):
            state.push(plane, f"s{i}_{plane}")
    for plane in range(planes):
        for word in state.pending[plane]:
            state.emit("half", plane, word)
        state.pending[plane].clear()
    return state.operations
