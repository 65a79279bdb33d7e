"""The memory plan: byte offsets of all buffers in one arena.

Two buffers may share bytes if their lifetimes, counted in calls, do not overlap. What a call writes and what it reads
live at the same time, except where the kernel works in place: then the output takes over the memory of an input that
dies there. The peak over time of the live bytes is a lower bound of any plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bitc.ir.plan import Block, MemoryPlan
from bitc.ir.program import Buffer, Call, Kind, Program
from bitc.schedule.place import place


def plan_memory(program: Program) -> MemoryPlan:
    """Place every arena buffer of the program."""
    spans = _lifetimes(program)
    owner = _inplace(program.calls, spans)
    blocks = _blocks(program, spans, owner)
    keys = list(blocks)
    offsets, size, bound = place([blocks[k] for k in keys])
    at = dict(zip(keys, offsets, strict=True))
    table = {b: at[_find(owner, b)] for b in spans}
    align = max([b.align for b in blocks.values()], default=1)
    return _after_states(MemoryPlan(table, size, align, bound, tuple((blocks[k], at[k]) for k in keys)), program)


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
    return MemoryPlan(table, plan.arena_bytes + base, align, plan.lower_bound + base, kept + moved, end)


def _arena_roots(buffers: Iterable[Buffer]) -> list[Buffer]:
    return list(dict.fromkeys(b.root for b in buffers if b.root.kind is Kind.ARENA))


def _lifetimes(program: Program) -> dict[Buffer, tuple[int, int]]:
    """First and last call that touches each arena buffer, views included. What lives on after a loop, or lived before
    it, lives throughout; what only its body touches is new in each iteration."""
    spans: dict[Buffer, tuple[int, int]] = {}
    for i, call in enumerate(program.calls):
        for b in _arena_roots(p.buffer for p in call.args):
            spans[b] = (spans[b][0] if b in spans else i, i)
    for first, last in program.loops():
        for b, (start, stop) in spans.items():
            inside = first <= start and stop <= last
            if start <= last and first <= stop and not inside:  # the loop comes back to it
                spans[b] = (min(start, first), max(stop, last))
    return spans


def _find(owner: dict[Buffer, Buffer], b: Buffer) -> Buffer:
    while b in owner:
        b = owner[b]
    return b


def _inplace(calls: Sequence[Call], spans: dict[Buffer, tuple[int, int]]) -> dict[Buffer, Buffer]:
    """Outputs that take over the memory of an input: {output root: input root}."""
    owner: dict[Buffer, Buffer] = {}
    end = {b: stop for b, (_, stop) in spans.items()}
    for i, call in enumerate(calls):
        for written, read in call.inplace:
            to, source = call.args[written], call.args[read]
            y, x = to.buffer.root, source.buffer.root
            both = y.kind is Kind.ARENA and x.kind is Kind.ARENA and y is not x and to.is_start and source.is_start
            if not both or spans[y][0] != i:
                continue
            # An element must not be written before it is read, however large the block that x itself took over.
            fits = y.type.nbytes <= x.type.nbytes
            x = _find(owner, x)
            others = [p.buffer.root for j, p in enumerate(call.args) if j not in (written, read)]
            if fits and end[x] == i and all(_find(owner, b) is not x for b in others):
                owner[y] = x
                end[x] = end[y]
    return owner


def _blocks(program: Program, spans: dict[Buffer, tuple[int, int]], owner: dict[Buffer, Buffer]) -> dict[Buffer, Block]:
    align: dict[Buffer, int] = {}
    for b in program.buffers():
        if b.root.kind is Kind.ARENA:
            key = _find(owner, b.root)
            align[key] = max(align.get(key, 1), b.alignment)
    blocks: dict[Buffer, Block] = {}
    for b, (start, stop) in spans.items():
        key = _find(owner, b)
        old = blocks.get(key)
        name = b.name if old is None else f"{old.name}, {b.name}"
        first, last = (start, stop) if old is None else (min(old.start, start), max(old.stop, stop))
        blocks[key] = Block(name, key.type.nbytes, align[key], first, last)
    return blocks
