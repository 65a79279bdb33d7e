"""Parts of tensors are made and read where they lie in the whole: no copies, the same numbers."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bitc import interp
from bitc.codegen import emit
from bitc.ir.dtypes import BIT1, FLOAT32, INT8, TERN, DType
from bitc.ir.graph import Graph, Node, Value
from bitc.ir.rewrite import Builder
from bitc.ir.schedule import Schedule
from bitc.ir.types import Quant, TensorType
from bitc.kernels import Choice, Goal, Selection, assign_layouts, select
from bitc.kernels.step import Variant, View
from bitc.kernels.variants import VARIANTS
from bitc.lower import lower
from bitc.ops.binary import Add
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Concat, Reshape, Slice
from bitc.ops.pool import MaxPool
from bitc.ops.quantize import Dequantize
from bitc.ops.quantized import Lookup
from bitc.ops.unary import Relu
from bitc.ops.window import Window
from bitc.runners import available
from bitc.schedule import plan_memory
from bitc.target import Target
from tests.kernels.harness import (
    Compiled,
    assert_same,
    call,
    check,
    compile_graph,
    merge,
    portable,
    random_array,
    random_feeds,
    run_on_target,
    shared_library,
)
from tests.schedule.drawn import BIT, Case, Net, cases


def part(b: Builder, v: Value, axis: int, start: int, stop: int) -> Value:
    starts, stops = [0] * v.type.rank, list(v.shape)
    starts[axis], stops[axis] = start, stop
    return b.emit(Slice(tuple(starts), tuple(stops), (1,) * v.type.rank), v)


def compiled(b: Builder, x: Value, folder: Path, *outputs: Value) -> Compiled:
    graph = Graph("parts", (x,), outputs, tuple(b.nodes))
    return check(graph, portable(), folder, random_feeds(graph))


def kernels(c: Compiled) -> list[str]:
    return [call.function.kernel for call in c.program.calls]


@pytest.mark.parametrize("dtype", [FLOAT32, INT8], ids=str)
def test_split_and_joined(dtype: DType, tmp_path: Path) -> None:
    b = Builder()
    x = Value("x", TensorType((1, 6, 4, 3), dtype))
    halves = [b.emit(Relu(), part(b, x, 1, i, i + 3)) for i in (0, 3)]
    inner = b.emit(Concat(1), *halves)
    whole = b.emit(Concat(1), b.emit(Relu(), inner), inner)
    c = compiled(b, x, tmp_path, b.emit(Relu(), whole))
    # `inner` is made as the second half of `whole`, its halves as the quarters of it.
    assert kernels(c) == ["relu"] * 4
    assert c.plan.arena_bytes == c.plan.lower_bound == whole.type.nbytes


def test_what_can_not_be_made_in_place_is_copied(tmp_path: Path) -> None:
    b = Builder()
    x = Value("x", TensorType((4, 5), FLOAT32))
    v = b.emit(Relu(), x)
    const = b.const(np.ones((2, 5), np.float32))
    whole = b.emit(Concat(0), v, x, v, const, b.emit(Reshape((1, 5)), part(b, v, 0, 1, 2)))
    across = b.emit(Concat(1), v, v)
    c = compiled(b, x, tmp_path, b.emit(Relu(), whole), across, v)
    assert kernels(c).count("relu") == 2 and kernels(c).count("move") == 7


def test_graph_outputs_and_views(tmp_path: Path) -> None:
    b = Builder()
    x = Value("x", TensorType((2, 8), FLOAT32))
    left, right = (b.emit(Relu(), b.emit(Reshape((4, 2)), part(b, x, 0, i, i + 1))) for i in (0, 1))
    whole = b.emit(Concat(0), b.emit(Reshape((2, 4)), left), b.emit(Reshape((2, 4)), right))
    c = compiled(b, x, tmp_path, whole)
    assert kernels(c) == ["relu", "relu"] and c.plan.arena_bytes == 0


def test_parts_die_by_themselves(tmp_path: Path) -> None:
    """While the second half of a tensor is used, the first half's memory is free for something else."""
    b = Builder()
    x = Value("x", TensorType((2, 64), FLOAT32))
    v = b.emit(Relu(), x)
    first = b.emit(Add(), part(b, v, 0, 0, 1), part(b, x, 0, 0, 1))
    wide = b.emit(Relu(), b.emit(Concat(1), first, first))
    c = compiled(b, x, tmp_path, b.emit(Add(), part(b, v, 0, 1, 2), part(b, wide, 1, 64, 128)))
    assert c.plan.arena_bytes == c.plan.lower_bound == 256 + 512


@pytest.mark.parametrize("dtype", [FLOAT32, INT8], ids=str)
@pytest.mark.parametrize("target", ["portable", "cortex-m4"])
def test_channels_are_made_among_each_other(dtype: DType, target: str, tmp_path: Path) -> None:
    """What several convolutions make of one image is joined by channels, as in SqueezeNet: without copies."""
    chip = portable() if target == "portable" else Target.load(target)
    if reason := available(chip):
        pytest.skip(reason)
    net, same = Net(4), Window((3, 3), pads=(1, 1, 1, 1))
    x = Value("x", TensorType((1, 7, 5, 3), dtype))
    v = net.conv(x, same, dtype, 8, 1)
    branches = [net.conv(v, Window(), dtype, 5, 1), net.conv(v, same, dtype, 8, 1), net.emit(MaxPool(same), v)]
    branches += [branches[0], net.conv(v, same, dtype, 8, 8)]
    joined = net.emit(Concat(3), *branches[:3], branches[4])
    twice = net.emit(Concat(3), branches[0], branches[0])
    y = net.conv(joined, same, dtype, 4, 1)
    graph = Graph("squeeze", (x,), (y, net.conv(twice, Window(), dtype, 3, 1)), tuple(net.nodes))
    c = compile_graph(graph, chip)
    got, _ = run_on_target(c, tmp_path, feeds := random_feeds(graph))
    for name, expected in interp.run(graph, feeds).items():
        assert_same(got[name], expected, name)
    copied = [call.args[1].buffer.name for call in c.program.calls if call.function.kernel == "move"]
    assert branches[1].name not in copied and copied.count(branches[0].name) == 2


@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck),
          phases=[Phase.generate])  # fmt: skip
@given(st.lists(cases(), min_size=6, max_size=6))
def test_rows_apart(tmp_path_factory: pytest.TempPathFactory, found: list[Case]) -> None:
    """Every kernel row that bears rows apart, on any layer, twice beside each other."""
    check_rows(found, portable(), tmp_path_factory.mktemp("rows"))


@pytest.mark.full
@pytest.mark.parametrize("name", ["x86-64-v3", "cortex-m4", "cortex-m55", "cortex-m0plus", "wasm32-simd128", "aarch64"])
def test_rows_apart_on_targets(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    target = Target.load(name, ram="64M", flash="64M") if name.startswith("cortex") else Target.load(name)
    if reason := available(target):
        pytest.skip(reason)

    @settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(cases(), min_size=6, max_size=6))
    def many(found: list[Case]) -> None:
        check_rows(found, target, tmp_path_factory.mktemp("rows"))

    many()


def sliced(v: Value) -> Node:
    """What gives a value as the middle, or the end, of the rows of a wider one."""
    word, t = v.type.layout.word, v.type
    before, after = (word, 0 if t.channels % word else word) if word else (3, 2)
    wide = Value(f"{v.name}.wide", t.with_shape((*t.shape[:-1], before + t.channels + after)))
    zeros, ones = (0,) * (t.rank - 1), (1,) * t.rank
    cut = Slice((*zeros, before), (*t.shape[:-1], before + t.channels), ones)
    return Node(cut, (wide,), (Value(f"{v.name}.part", t),))


def joined(*values: Value) -> Node:
    t = values[0].type
    shape = (*t.shape[:-1], sum(v.type.channels for v in values))
    return Node(Concat(t.rank - 1), values, (Value("joined", t.with_shape(shape)),))


def check_rows(found: list[Case], target: Target, folder: Path) -> None:
    """Each kernel row on operands that are parts of wider ones, if it bears that, and giving a part of one."""
    parts: list[Graph] = []
    choices: list[tuple[Node, Variant]] = []
    for node in (n for case in found for n in assign_layouts(case.graph, target).nodes):
        for row in VARIANTS:
            if row.refuses(node, target) or not row.apart or isinstance(row.build(node, target), View):
                continue
            if node.output.type.channels == 1:
                continue  # such rows lie as well along another axis, which elementwise rows do not know
            y, planes = node.output.type, node.output.type.dtype.planes
            computed = [v for v in dict.fromkeys(node.inputs) if v is not None and not v.is_const]
            cuts = {v: sliced(v) for v in computed if "x" in row.apart and v.type.rank and v.type.dtype.planes < 2}
            new = {v: cuts[v].output if v in cuts else Value(v.name, v.type) for v in computed}
            inputs = tuple(v if v is None else new.get(v, v) for v in node.inputs)
            twice = "y" in row.apart and planes < 2 and not (y.layout.word and y.channels % y.layout.word)
            twins = [replace(node, inputs=inputs, outputs=(Value(f"y{i}", y),)) for i in range(1 + twice)]
            last = [joined(*(n.output for n in twins))] if twice else []
            given = [cuts[v].input(0) if v in cuts else new[v] for v in computed]
            out = (last or twins)[0].output
            parts.append(Graph("part", tuple(given), (out,), (*cuts.values(), *twins, *last)))
            choices += [(n, row) for n in twins]
    if not parts:
        return
    graph = merge(parts, "rows")
    chosen = select(graph, target, Goal.SPEED).choices | {n: Choice(row, ()) for n, row in choices}
    program = lower(Schedule(graph), Selection(chosen), target)
    moved = {call.args[1].buffer.name for call in program.calls if call.function.kernel.startswith("move")}
    assert not moved, moved
    plan = plan_memory(program)
    made = Compiled(graph, program, plan, emit(program, plan, target, graph.name), target)
    feeds = random_feeds(graph)
    if target.features == portable().features and target.isa == portable().isa:
        got = call(made, ctypes.CDLL(str(shared_library(made, folder))), feeds)
    else:
        got, _ = run_on_target(made, folder, feeds, "-O2")
    for name, expected in interp.run(graph, feeds).items():
        assert_same(got[name], expected, name)


@pytest.mark.parametrize("target", ["portable", "cortex-m4", "x86-64-v3", "aarch64", "wasm32-simd128"])
def test_rows_apart_of_other_operators(target: str, tmp_path: Path) -> None:
    """Rows that nets of `cases` have no layers for: weights of few bits, look-ups, what codes mean."""
    chip = portable() if target == "portable" else Target.load(target)
    if reason := available(chip):
        pytest.skip(reason)
    net = Net(3)
    codes = Value("codes", TensorType((1, 4, 3, 16), INT8))
    signs = Value("signs", TensorType((1, 4, 3, 64), BIT1, quant=Quant.two_valued(-1, 1)))
    inputs = [codes, signs]
    outputs = [net.emit(Lookup(), codes, net.const(np.arange(-128, 128).astype(np.int8)[::-1].copy()))]
    outputs.append(net.emit(Dequantize(Quant((0.5,))), codes))
    outputs.append(net.emit(Dequantize(Quant.two_valued(-2, 3)), signs))
    for kind in (BIT1, TERN):
        for window in (Window(), Window((2, 3), pads=(1, 1, 0, 1))):
            t = TensorType((7, *window.kernel, 16), kind)
            w = Value(net.unique("w"), t, random_array(t, net.rng))
            outputs.append(net.emit(Conv2D(window), codes, w))
            outputs += [net.conv(signs, window, gives, 64, 1) for gives in (BIT1, FLOAT32)]
            t = TensorType((64, *window.kernel, 64), kind)
            w, around = Value(net.unique("w"), t, random_array(t, net.rng)), net.const(np.zeros(64, np.int32))
            outputs.append(net.emit(Conv2D(window, epilogue=BIT), signs, w, around))
    check_rows([Case(Graph("net", tuple(inputs), tuple(outputs), tuple(net.nodes)), 0, 0, 1, 0, 0)], chip, tmp_path)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Cuts, joins, sums and changes of shape of each other's results."""
    b = Builder()
    dtype = draw(st.sampled_from([FLOAT32, FLOAT32, INT8, BIT1]))
    x = Value(
        "x", TensorType((draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.sampled_from([8, 5, 32]))), dtype)
    )
    values = [x]
    for _ in range(draw(st.integers(2, 9))):
        v = draw(st.sampled_from(values))
        kind = draw(st.sampled_from(["cut", "cut", "join", "join", "shape", "compute"]))
        axis = draw(st.integers(0, 2))
        if kind == "cut":
            start = draw(st.integers(0, v.shape[axis] - 1))
            v = part(b, v, axis, start, draw(st.integers(start + 1, v.shape[axis])))
        elif kind == "join":
            rest = [u for u in values if u.shape[:axis] + u.shape[axis + 1 :] == v.shape[:axis] + v.shape[axis + 1 :]]
            v = b.emit(Concat(axis), *draw(st.lists(st.sampled_from(rest), min_size=1, max_size=3)))
        elif kind == "shape":
            v = b.emit(Reshape((1, v.shape[0] * v.shape[1], v.shape[2])), v)
        elif not dtype.is_packed:
            v = b.emit(Relu(), v)
        if v.type.size < 4000:
            values.append(v)
    outputs = draw(st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True))
    return Graph("g", (x,), tuple(outputs), tuple(b.nodes))


def check_graphs(found: list[Graph], folder: Path) -> None:
    graph = merge(found)
    check(graph, portable(), folder, random_feeds(graph))


@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(graphs(), min_size=12, max_size=12))
def test_any_graph(tmp_path_factory: pytest.TempPathFactory, found: list[Graph]) -> None:
    check_graphs(found, tmp_path_factory.mktemp("parts"))


@pytest.mark.full
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(graphs(), min_size=12, max_size=12))
def test_many_graphs(tmp_path_factory: pytest.TempPathFactory, found: list[Graph]) -> None:
    check_graphs(found, tmp_path_factory.mktemp("parts"))
