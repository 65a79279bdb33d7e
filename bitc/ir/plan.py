"""Where every buffer of a program lies: what planning makes and code generation prints."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from bitc.ir.program import Buffer


@dataclass(frozen=True)
class Block:
    """Memory wanted from call `start` to call `stop`, both included."""

    name: str
    size: int
    align: int
    start: int
    stop: int
    is_scratch: bool = False

    @property
    def lifetime(self) -> tuple[int, int]:
        return self.start, self.stop

    def meets(self, other: Block) -> bool:
        return self.start <= other.stop and other.start <= self.stop


@dataclass(frozen=True, eq=False)
class MemoryPlan:
    """Where everything is. All numbers are bytes."""

    offsets: dict[Buffer, int] = field(repr=False)
    arena_bytes: int
    arena_align: int
    lower_bound: int
    """No plan of this order of calls is smaller: the peak of the live bytes, less what outputs may lie over inputs."""
    liveness: int
    """Peak of the live bytes if each buffer had its own."""
    slots: tuple[tuple[Block, int], ...] = field(repr=False)
    """Placed blocks with their offsets."""
    alive: tuple[tuple[int, int], ...] = field(default=(), repr=False)
    """Bytes alive, less what outputs may lie over inputs, by the call from which on there are so many."""
    state_bytes: int = 0
    """Bytes at the start of the arena that keep their contents between runs."""

    def alive_at(self, call: int) -> int:
        """Bytes alive during a call, less what its output may lie over its inputs."""
        at = bisect_right(self.alive, (call, self.liveness))
        return self.alive[at - 1][1] if at else 0

    @property
    def scratch_bytes(self) -> int:
        """The most working memory that one call has, beside what it reads and writes."""
        at: dict[int, int] = {}
        for block, _ in self.slots:
            if block.is_scratch:
                at[block.start] = at.get(block.start, 0) + block.size
        return max(at.values(), default=0)

    @property
    def why_above_bound(self) -> str:
        """Why the arena is more than a hundredth larger than the lower bound; empty if it is not."""
        if self.arena_bytes <= 1.01 * self.lower_bound:
            return ""
        slots = [(b, at, at + b.size) for b, at in self.slots]
        over = any(a is not b and a.meets(b) and start < end and first < stop
                   for a, start, stop in slots for b, first, end in slots)  # fmt: skip
        return "layer by layer a little lower: distances add up" if over else "gaps between blocks"

    def offset(self, buffer: Buffer) -> int:
        """Offset of an arena buffer, views included."""
        return self.offsets[buffer.root] + buffer.start

    def overlap(self, a: Buffer, b: Buffer) -> bool:
        """Whether two buffers of the arena have bytes in common."""
        first, second = self.offset(a), self.offset(b)
        return first < second + b.type.nbytes and second < first + a.type.nbytes

    def memory_map(self, at: int | None = None) -> str:
        """A table of the arena: bytes, offset, lifetime and owner of each block, or of those that are alive during a
        call."""
        lines = [f"arena {self.arena_bytes} bytes, align {self.arena_align}, lower bound {self.lower_bound}"]
        if at is not None:
            lines.append(f"  of {len(self.slots)} blocks those alive in call {at}:")
        for block, offset in sorted(self.slots, key=lambda s: (s[0].start, s[1])):
            if at is not None and not block.start <= at <= block.stop:
                continue
            span = f"{block.start}..{block.stop}" if block.stop > block.start else f"{block.start}"
            lines.append(f"  {offset:>8} +{block.size:<8} calls {span:<9} {block.name}")
        return "\n".join(lines)
