"""Exact cost of the nodes of a graph on an emulated target, with a kernel row of choice."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitc.codegen import emit
from bitc.ir.graph import Graph, Node
from bitc.ir.program import struct_layout
from bitc.ir.schedule import Schedule
from bitc.kernels import Goal, Selection, assign_layouts, select
from bitc.kernels.select import Choice, weights_bytes
from bitc.kernels.step import Variant
from bitc.lower import lower
from bitc.runners import RunRequest, open_runner
from bitc.schedule import plan_memory
from bitc.target import Target
from bitc.toolchain import ZIG, build_model, compile_sources, elf

NAME = "suite"


@dataclass(frozen=True)
class Measurement:
    """One node: what it cost with which row. `cost` is in instructions, or in fuel on WebAssembly."""

    node: Node
    row: Variant
    cost: int
    code_bytes: int | None
    """Of the node's functions, kept out of line; None in WebAssembly."""
    weights_bytes: int


def graph_of(nodes: Sequence[Node]) -> Graph:
    """Independent nodes side by side."""
    inputs = tuple(dict.fromkeys(v for n in nodes for v in n.inputs if v is not None and not v.is_const))
    return Graph(NAME, inputs, tuple(v for n in nodes for v in n.outputs), tuple(nodes))


def measure(
    graph: Graph, target: Target, row: Variant | None = None, opt: str = "-O3", without: Collection[str] = ()
) -> list[Measurement]:
    """Run a graph once on zeros-and-noise inputs; with `row` for all nodes, or with the rows that selection takes,
    those named in `without` aside."""
    graph = assign_layouts(graph, target)
    chosen = Selection({n: Choice(row, ()) for n in graph.nodes}) if row else select(graph, target, Goal.SPEED, without)
    program = lower(Schedule(graph), chosen, target)
    with tempfile.TemporaryDirectory(prefix="bitc-") as name:
        folder = Path(name)
        for path, text in emit(program, plan_memory(program), target, NAME).items():
            (folder / path).write_text(text, encoding="utf-8")
        build = build_model(target, folder, NAME, folder / "hooked", hooks=True, opt=opt)
        image = _noise(sum(-(-v.type.nbytes // 8) * 8 for v in graph.inputs))
        size = struct_layout([b.type for b in program.inputs])[1]
        records = open_runner(target).run(RunRequest(build, [image[:size]], hooks=True, seconds=3000)).layers[0]
        code = _code_bytes(folder, target, opt)
    costs, before = {}, 0
    for record in records:
        at = record.instructions or 0
        costs[record.layer], before = at - before, at
    layer_of = {done.buffer: done.layer for done in program.finished}
    pairs = [(n, layer_of.get(program.values[n.output])) for n in graph.nodes]  # views are no layers
    return [
        Measurement(n, chosen[n], costs[i], None if code is None else code.get(i), weights_bytes(chosen[n], n, target))
        for n, i in pairs
        if i is not None
    ]


def _noise(size: int) -> bytes:
    """Bytes that make ordinary floats of both signs, and bits of which half are ones."""

    def octet(i: int) -> int:
        mixed = (i + 1) * 2654435761 % 2**32
        mixed = (mixed ^ mixed >> 15) * 2246822519 % 2**32
        mixed ^= mixed >> 13
        return (mixed & 128) + 0x3E + (mixed >> 8) % 3 if i % 4 == 3 else mixed & 255

    return bytes(map(octet, range(size)))


def _code_bytes(folder: Path, target: Target, opt: str) -> dict[int, int] | None:
    """Bytes of the functions that each layer calls."""
    if target.toolchain.link == "wasm":
        return None
    source = folder / f"{NAME}.c"
    objects = compile_sources(target, [source], [folder], folder / "sizes", opt, toolchain=ZIG)
    symbols = elf.read(objects.files[0].path).symbols
    sizes = {s.name: s.size for s in symbols if s.is_function}
    layer, found = -1, dict[int, int]()
    for line in source.read_text(encoding="utf-8").partition("static void run_layers")[2].splitlines():
        if comment := re.match(r"\s*/\* (\d+): ", line):
            layer = int(comment[1])
        elif call := re.match(r"\s+(\w+)\(", line):
            found[layer] = found.get(layer, 0) + sizes.get(call[1], 0)
    return found
