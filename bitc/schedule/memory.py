"""The memory plan: byte offsets of all buffers in one arena.

Two buffers may share bytes if their lifetimes, counted in calls, do not overlap. What a call writes and what it reads
live at the same time, but the kernel may say how far what it writes may lie over what it reads for the last time. A
buffer with views lives in parts, each as long as something touches it. The peak over time of the live bytes is a lower
bound of any plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from bitc.ir.plan import Block, MemoryPlan
from bitc.ir.program import Buffer, Call, Kind, Overlap, Program
from bitc.schedule.place import Group, alive, lower_bound, place


def plan_memory(program: Program) -> MemoryPlan:
    """Place every arena buffer of the program. Kernels that are slower where their output lies over their input do so
    only if that makes the arena smaller."""
    parts = _parts(program)
    free, all_of_them = _overlaps(program.calls, parts, True), _overlaps(program.calls, parts, False)
    best = place(parts.blocks, parts.groups, free)
    if len(all_of_them) > len(free):
        found = place(parts.blocks, parts.groups, all_of_them)
        best = min(best, found, key=lambda r: r[1])
    offsets, size, _ = best
    at = {root: offsets[numbers[0]] - parts.blocks_start[numbers[0]] for root, numbers in parts.of.items()}
    align = max([b.align for b in parts.blocks], default=1)
    slots = tuple(zip(parts.blocks, offsets, strict=True))
    used = tuple(alive(parts.blocks, all_of_them))
    bound = max((size for _, size in used), default=0)
    plan = MemoryPlan(at, size, align, bound, lower_bound(parts.blocks), slots, used)
    return _after_states(plan, program)


def _after_states(plan: MemoryPlan, program: Program) -> MemoryPlan:
    """The plan moved up in the arena by what the program keeps between runs."""
    if not program.kept:
        return plan
    align = max(plan.arena_align, *(b.type.alignment for b in program.kept))
    offsets: dict[Buffer, int] = {}
    end = 0
    for b in program.kept:
        offsets[b] = -(-end // b.type.alignment) * b.type.alignment
        end = offsets[b] + b.type.nbytes
    base = -(-end // align) * align
    last = max(len(program.calls) - 1, 0)
    kept = tuple((Block(f"state {b.name}", b.type.nbytes, b.type.alignment, 0, last), at) for b, at in offsets.items())
    moved = tuple((block, at + base) for block, at in plan.slots)
    table = offsets | {b: at + base for b, at in plan.offsets.items()}
    used = tuple((call, size + base) for call, size in plan.alive)
    sizes = (plan.lower_bound + base, plan.liveness + base)
    return MemoryPlan(table, plan.arena_bytes + base, align, *sizes, kept + moved, used, end)


@dataclass(frozen=True, eq=False)
class _Parts:
    """The buffers of the arena in parts of one lifetime."""

    blocks: list[Block] = field(default_factory=list)
    blocks_start: list[int] = field(default_factory=list)
    """Per block where it starts in its buffer."""
    of: dict[Buffer, list[int]] = field(default_factory=dict)
    """The blocks of each buffer that owns its memory."""

    @property
    def groups(self) -> list[Group]:
        return [tuple((i, self.blocks_start[i]) for i in numbers) for numbers in self.of.values()]

    def within(self, buffer: Buffer) -> list[int]:
        """The blocks that a buffer or view lies in."""
        first, last = _range(buffer)
        return [i for i in self.of[buffer.root]
                if self.blocks_start[i] < last and first < self.blocks_start[i] + self.blocks[i].size]  # fmt: skip


Span = tuple[int, int]


def _range(b: Buffer) -> Span:
    return b.start, b.start + b.type.nbytes


def _parts(program: Program) -> _Parts:
    touched: dict[Buffer, dict[Span, Span]] = {}
    names: dict[Buffer, dict[str, None]] = {}
    align: dict[Buffer, int] = {}
    if program.input:
        touched[program.input] = {_range(program.input): (0, 0)}
        names[program.input] = {program.input.name: None}
        align[program.input] = program.input.alignment
    for i, call in enumerate(program.calls):
        for p in dict.fromkeys(p for p in call.args if p.buffer.root.kind is Kind.ARENA):
            b = p.within
            spans = touched.setdefault(b.root, {})
            spans[_range(b)] = (spans.get(_range(b), (i, i))[0], i)
            names.setdefault(b.root, {})[p.buffer.name] = None
            align[b.root] = max(align.get(b.root, 1), b.root.alignment, p.buffer.alignment)
    loops = list(program.loops())
    parts = _Parts()
    for root, ranges in touched.items():
        cuts = sorted({at for r in ranges for at in r})
        numbers = parts.of.setdefault(root, [])
        for first, last in pairwise(cuts):
            spans_here = [span for (a, b), span in ranges.items() if a < last and first < b]
            if not spans_here:
                continue
            start, stop = _throughout(loops, min(s for s, _ in spans_here), max(s for _, s in spans_here))
            name = ", ".join(names[root])
            _add(parts, numbers, Block(name, last - first, align[root], start, stop, root.is_scratch), first)
        if not numbers:  # no bytes
            start, stop = min(s for s, _ in ranges.values()), max(s for _, s in ranges.values())
            _add(parts, numbers, Block(root.name, 0, align[root], start, stop), 0)
    return parts


def _add(parts: _Parts, numbers: list[int], block: Block, first: int) -> None:
    """Another part of a buffer; one with the part before if they live equally long."""
    if numbers:
        before = parts.blocks[numbers[-1]]
        adjacent = parts.blocks_start[numbers[-1]] + before.size == first
        if adjacent and (before.start, before.stop) == (block.start, block.stop):
            parts.blocks[numbers[-1]] = Block(block.name, before.size + block.size, block.align, *before.lifetime)
            return
    numbers.append(len(parts.blocks))
    parts.blocks.append(block)
    parts.blocks_start.append(first)


def _throughout(loops: Sequence[Span], start: int, stop: int) -> Span:
    """What lives on after a loop, or lived before it, lives throughout; what only its body touches is new in each
    iteration."""
    for first, last in loops:
        inside = first <= start and stop <= last
        if start <= last and first <= stop and not inside:  # the loop comes back to it
            start, stop = min(start, first), max(stop, last)
    return start, stop


def _overlaps(calls: Sequence[Call], parts: _Parts, free: bool) -> dict[tuple[int, int], Overlap]:
    """Which block may overlap which, and how. `free`: only where the kernel is the same in any case."""
    found: dict[tuple[int, int], Overlap] = {}
    for i, call in enumerate(calls):
        if free and any(call.function.params[w].restrict for w, _, _ in call.overlaps):
            continue
        how = {(w, r): over for w, r, over in call.overlaps}
        for (w, r), over in how.items():
            y, x = call.args[w], call.args[r]
            both = y.buffer.root.kind is x.buffer.root.kind is Kind.ARENA and y.buffer.root is not x.buffer.root
            if not both or not (y.is_start and x.is_start):
                continue
            # An element must not be written before it is read, through whatever argument.
            same = [j for j, p in enumerate(call.args) if p.buffer.root is x.buffer.root and j != r]
            if any(call.args[j].buffer is not x.buffer or how.get((w, j)) != over for j in same):
                continue
            new, old = parts.within(y.buffer), parts.within(x.buffer)
            if any(parts.blocks[k].start != i for k in new) or any(parts.blocks[k].stop != i for k in old):
                continue
            for a in new:
                for b in old:
                    moved = parts.blocks_start[a] - y.buffer.start - (parts.blocks_start[b] - x.buffer.start)
                    found[a, b] = Overlap(over.lead + moved, over.step)
    return found
