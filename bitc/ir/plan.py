"""Where every buffer of a program lies: what planning makes and code generation prints."""

from __future__ import annotations

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

    def meets(self, other: Block) -> bool:
        return self.start <= other.stop and other.start <= self.stop


@dataclass(frozen=True, eq=False)
class MemoryPlan:
    """Where everything is. All numbers are bytes."""

    offsets: dict[Buffer, int] = field(repr=False)
    arena_bytes: int
    arena_align: int
    lower_bound: int
    """Peak of the live bytes: no plan of this order of calls is smaller."""
    slots: tuple[tuple[Block, int], ...] = field(repr=False)
    """Placed blocks with their offsets."""
    state_bytes: int = 0
    """Bytes at the start of the arena that keep their contents between runs."""

    def offset(self, buffer: Buffer) -> int:
        """Offset of an arena buffer, views included."""
        return self.offsets[buffer.root]

    def memory_map(self) -> str:
        """A table of the arena: bytes, offset, lifetime and owner of each block."""
        lines = [f"arena {self.arena_bytes} bytes, align {self.arena_align}, lower bound {self.lower_bound}"]
        for block, offset in sorted(self.slots, key=lambda s: (s[0].start, s[1])):
            span = f"{block.start}..{block.stop}" if block.stop > block.start else f"{block.start}"
            lines.append(f"  {offset:>8} +{block.size:<8} calls {span:<9} {block.name}")
        return "\n".join(lines)
