"""From a graph to C, to a shared library, to arrays: what kernel and codegen tests share."""

from __future__ import annotations

import ctypes
import importlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from bitc import interp, resources
from bitc.codegen import emit
from bitc.ir.dtypes import BIT1, TERN
from bitc.ir.graph import Graph, Node, Op, Value, constant
from bitc.ir.plan import MemoryPlan
from bitc.ir.program import Program, c_size
from bitc.ir.schedule import Schedule
from bitc.ir.types import TensorType
from bitc.kernels import Goal, assign_layouts, select
from bitc.kernels.pack import pack_tensor, unpack_tensor
from bitc.kernels.step import Variant
from bitc.lower import lower
from bitc.runners import RunRequest, RunResult, available, open_runner
from bitc.schedule import plan_memory
from bitc.target import Target
from bitc.toolchain import ZIG, Toolchain, build_model, compile_sources, link_library

OPTIMIZE = "-O2"
WARNINGS = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]


@dataclass(frozen=True)
class Compiled:
    graph: Graph
    program: Program
    plan: MemoryPlan
    files: dict[str, str]
    target: Target


def portable() -> Target:
    """Plain C on 32-bit words, as for a small microcontroller, but run on this machine."""
    return replace(Target.load("x86-64"), word_bits=32, features=frozenset())


def single(op: Op, *inputs: TensorType | np.ndarray | Value | None, name: str = "one") -> Graph:
    """A graph of one node; arrays are constants, types are graph inputs x0, x1, …"""
    values: list[Value | None] = []
    for i, v in enumerate(inputs):
        if isinstance(v, TensorType):
            values.append(Value(f"x{i}", v))
        else:
            values.append(constant(f"c{i}", v) if isinstance(v, np.ndarray) else v)
    types = op.infer(*(None if v is None else v.type for v in values))
    outputs = tuple(Value(f"y{i}", t) for i, t in enumerate(types))
    node = Node(op, tuple(values), outputs, "node")
    return Graph(name, tuple(v for v in values if v is not None and not v.is_const), outputs, (node,))


def compile_graph(graph: Graph, target: Target) -> Compiled:
    return compile_schedule(Schedule(assign_layouts(graph, target)), target)


def compile_schedule(schedule: Schedule, target: Target, overwrite_input: bool = False) -> Compiled:
    graph = schedule.graph
    program = lower(schedule, select(graph, target, Goal.SPEED), target, overwrite_input=overwrite_input)
    plan = plan_memory(program)
    return Compiled(graph, program, plan, emit(program, plan, target, graph.name), target)


def write(compiled: Compiled, folder: Path) -> list[str]:
    """Write the files; returns the C files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in compiled.files.items():
        (folder / name).write_text(text)
    return [str(folder / n) for n in compiled.files if n.endswith(".c")]


def host_compiler() -> Toolchain:
    """gcc where it is installed, since the runners' tests use the bundled clang; else that one too."""
    return Toolchain("gcc") if shutil.which("gcc") else ZIG


def shared_library(compiled: Compiled, folder: Path, opt: str = OPTIMIZE) -> Path:
    sources = [Path(s) for s in write(compiled, folder)]
    return library_of(compiled.target, sources, folder, folder, opt)


def library_of(target: Target, sources: list[Path], include: Path, folder: Path, opt: str = OPTIMIZE) -> Path:
    """C files and the harness's memcpy and memset as a shared library for this process."""
    toolchain, mem = host_compiler(), resources.runtime_c() / "harness" / "mem.c"
    objects = compile_sources(target, sources, [include], folder / "objects", opt, toolchain=toolchain)
    rest = compile_sources(target, [mem], [], folder / "mem", toolchain=toolchain, flags=["-fno-builtin"])
    return link_library(replace(objects, files=objects.files + rest.files), folder / "model.so")


def input_image(compiled: Compiled, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """NAME_input_t as bytes."""
    types = [v.type for v in compiled.graph.inputs]
    source = _struct(types)
    for v, at in zip(compiled.graph.inputs, _offsets(types), strict=True):
        x = np.asarray(feeds[v.name]).astype(v.type.dtype.carrier).reshape(v.shape)
        raw = pack_tensor(x, v.type) if v.type.layout.word else np.ascontiguousarray(x)
        source[at : at + v.type.nbytes] = raw.reshape(-1).view(np.uint8)
    return source


def output_arrays(compiled: Compiled, image: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays in the bytes of NAME_output_t."""
    outputs = {}
    for v, at in zip(compiled.graph.outputs, _offsets([v.type for v in compiled.graph.outputs]), strict=True):
        raw = image[at : at + v.type.nbytes].copy()
        if v.type.layout.word:
            words = raw.view(f"u{v.type.layout.word // 8}")
            outputs[v.name] = unpack_tensor(words, v.type)
            assert (pack_tensor(outputs[v.name], v.type) == words).all(), "dirty tail bits"
        else:
            outputs[v.name] = raw.view(v.type.dtype.carrier).reshape(v.shape)
    return outputs


def call(compiled: Compiled, library: ctypes.CDLL, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run NAME_run in this process."""
    source = input_image(compiled, feeds)
    before = source.copy()
    result = _struct([v.type for v in compiled.graph.outputs])
    result[:] = 0xA5
    size = compiled.plan.arena_bytes
    arena = np.full(size + 256, 0xA5, np.uint8)
    base = -arena.ctypes.data % 64 + 64
    run = getattr(library, f"{compiled.graph.name}_run")
    pointers = [ctypes.c_void_p(p) for p in (arena.ctypes.data + base, source.ctypes.data, result.ctypes.data)]
    assert run(*pointers) == 0
    assert (before == source).all(), "the input was modified"
    assert (arena[:base] == 0xA5).all() and (arena[base + size :] == 0xA5).all(), "written outside the arena"
    return output_arrays(compiled, result)


def run_on_target(
    compiled: Compiled, folder: Path, feeds: dict[str, np.ndarray], opt: str = "-O3", cc: Toolchain = ZIG
) -> tuple[dict[str, np.ndarray], RunResult]:
    """Build with the target's toolchain and run on its runner."""
    write(compiled, folder)
    build = build_model(compiled.target, folder, compiled.graph.name, folder / "build", opt=opt, toolchain=cc)
    result = open_runner(compiled.target).run(RunRequest(build, [input_image(compiled, feeds).tobytes()]))
    assert result.codes == [0]
    return output_arrays(compiled, np.frombuffer(result.outputs[0], np.uint8)), result


def check_row(
    row: Variant,
    graph: Graph,
    target: Target,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    feeds: dict[str, np.ndarray] | None = None,
) -> None:
    """Run on a target's runner with no other row to choose from, and compare with the oracle, bit for bit. Skips where
    the runner is missing."""
    if reason := available(target):
        pytest.skip(reason)
    feeds = feeds or random_feeds(graph)
    monkeypatch.setattr(importlib.import_module("bitc.kernels.select"), "VARIANTS", (row,))
    got, _ = run_on_target(compile_graph(graph, target), folder, feeds, opt="-O2")
    for output, expected in interp.run(graph, feeds).items():
        assert_same(got[output], expected, output)


def _offsets(types: list[TensorType]) -> list[int]:
    offsets, at = [], 0
    for t in types:
        at = -(-at // t.alignment) * t.alignment
        offsets.append(at)
        at += max(c_size(t), 1) * t.alignment
    return offsets


def _struct(types: list[TensorType]) -> np.ndarray:
    """Memory for a struct of arrays of these types."""
    size = 1
    if types:
        align = max(t.alignment for t in types)
        size = -(-(_offsets(types)[-1] + max(c_size(types[-1]), 1) * types[-1].alignment) // align) * align
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


def check(graph: Graph, target: Target, folder: Path, feeds: dict[str, np.ndarray]) -> Compiled:
    """Compile, run, and compare every output with the oracle, bit for bit (any NaN equals any NaN)."""
    compiled = compile_graph(graph, target)
    library = ctypes.CDLL(str(shared_library(compiled, folder)))
    got, want = call(compiled, library, feeds), interp.run(graph, feeds)
    for name, expected in want.items():
        assert_same(got[name], expected, name)
    return compiled


def assert_same(got: np.ndarray, want: np.ndarray, name: str = "") -> None:
    assert got.shape == want.shape, (name, got.shape, want.shape)
    if want.dtype.kind == "f":
        bits = f"u{want.dtype.itemsize}"
        same = (np.ascontiguousarray(got).view(bits) == np.ascontiguousarray(want).view(bits)) | (
            np.isnan(got) & np.isnan(want)
        )
    else:
        same = got == want
    assert same.all(), f"{name}: {(~same).sum()} of {same.size} differ, first {got[~same][:4]} for {want[~same][:4]}"


def random_array(t: TensorType, rng: np.random.Generator) -> np.ndarray:
    """Plausible codes or reals of a type."""
    if t.dtype.carrier.kind == "b":
        return rng.random(t.shape) < 0.5
    if t.dtype.is_packed:
        return rng.integers(int(t.dtype.min), int(t.dtype.max) + 1, t.shape).astype(t.dtype.carrier)
    if t.dtype.is_float:
        return rng.normal(0, 2, t.shape).astype(t.dtype.carrier)
    low, high = max(t.dtype.min, -(2**20)), min(t.dtype.max, 2**20)
    return rng.integers(int(low), int(high) + 1, t.shape).astype(t.dtype.carrier)


def random_feeds(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {v.name: random_array(v.type, rng) for v in graph.inputs}


def merge(graphs: list[Graph], name: str = "many") -> Graph:
    """One graph of many, so that they compile in one go."""
    inputs: list[Value] = []
    outputs: list[Value] = []
    nodes: list[Node] = []
    for i, g in enumerate(graphs):
        for v in (*g.inputs, *g.outputs):
            v.name = f"g{i}_{v.name}"
        inputs += g.inputs
        outputs += g.outputs
        nodes += g.nodes
    return Graph(name, tuple(inputs), tuple(outputs), tuple(nodes))


def bits(rng: np.random.Generator, *shape: int) -> Value:
    """Constant bits."""
    return Value("w", TensorType(shape, BIT1), rng.random(shape) < 0.5)


def trits(rng: np.random.Generator, *shape: int) -> Value:
    """Constant trits."""
    return Value("w", TensorType(shape, TERN), rng.integers(-1, 2, shape).astype(np.int8))
