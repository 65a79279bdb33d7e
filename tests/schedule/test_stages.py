"""Stages give the same bits as layers one after the other, whatever the network and the schedule."""

from __future__ import annotations

import ctypes
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitc import interp
from bitc.ir.dtypes import BIT1, FLOAT32, INT8, TERN, DType
from bitc.ir.graph import Graph, Value
from bitc.ir.schedule import Schedule, Stage
from bitc.ir.types import TensorType
from bitc.kernels import assign_layouts, select
from bitc.ops.binary import Add, Mul
from bitc.ops.pool import AveragePool
from bitc.ops.quantized import AddRequant
from bitc.ops.reduce import ReduceMean
from bitc.ops.window import Window
from bitc.runners import available
from bitc.schedule.overlay import overwritten
from bitc.schedule.row_costs import RowCosts
from bitc.schedule.search import Point, Search
from bitc.target import Target
from tests.kernels.harness import (
    Compiled,
    assert_same,
    call,
    compile_schedule,
    portable,
    random_feeds,
    run_on_target,
    shared_library,
)
from tests.schedule.drawn import CODES, Case, Layer, Net, cases, schedule, together

BATCH = st.lists(cases(), min_size=12, max_size=12)


def check_batch(found: list[Case], target: Target, on_target: bool = False) -> int:
    """Compile all cases in one go and compare every output with the oracle; returns the number of stages."""
    graph, starts = together(found)
    planned = schedule(assign_layouts(graph, target), starts)
    compiled = compile_schedule(planned, target)
    feeds = random_feeds(graph)
    want = interp.run(graph, feeds)
    with tempfile.TemporaryDirectory() as folder:
        if on_target:
            got, _ = run_on_target(compiled, Path(folder), feeds, "-O1")
        else:
            got = call(compiled, ctypes.CDLL(str(shared_library(compiled, Path(folder), "-O1"))), feeds)
    for name, expected in want.items():
        assert_same(got[name], expected, name)
    return len(planned.stages)


@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(BATCH)
def test_any_schedule(found: list[Case]) -> None:
    check_batch(found, portable())


@pytest.mark.parametrize("name", ["cortex-m4", "wasm32-simd128", "aarch64"])
@settings(max_examples=1, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(BATCH)
def test_any_schedule_on_targets(name: str, found: list[Case]) -> None:
    target = Target.load(name)
    if reason := available(target):
        pytest.skip(reason)
    check_batch(found, target, on_target=True)


@pytest.mark.full
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(BATCH)
def test_many_schedules(found: list[Case]) -> None:
    check_batch(found, portable())


@pytest.mark.parametrize("strips", [1, 3, 7])
@pytest.mark.parametrize("dtype", [FLOAT32, INT8], ids=str)
def test_a_sum_takes_over_the_memory_of_its_operand(dtype: DType, strips: int, tmp_path: Path) -> None:
    """Rows of the operand are read by a 1x1 convolution before the 3x3 one lets the sum reach them; the columns that
    the next strip needs too are kept."""
    net, same = Net(5), Window((3, 3), pads=(1, 1, 1, 1))
    x = Value("x", TensorType((1, 9, 7, 8), dtype))
    v = net.conv(x, same, dtype, 8, 1)
    before = len(net.nodes)
    t = net.conv(net.conv(v, Window(), dtype, 8, 1), same, dtype, 8, 8)
    total = net.emit(AddRequant(1, 2**20, -3, 2**19 + 1, 20, CODES) if dtype is INT8 else Add(), t, v)
    stage_nodes = net.nodes[before:]
    y = net.conv(total, Window((3, 3)), dtype, 4, 1)
    graph = Graph("net", (x,), (y,), tuple(net.nodes))
    stage = Stage(tuple(stage_nodes), strips, frozenset({v}))
    assert overwritten(graph, stage) is v
    assert strips == 1 or overwritten(graph, replace(stage, keep=frozenset())) is None
    compiled = compile_schedule(Schedule(graph, (stage,)), portable())
    assert compiled.program.values[total].root is compiled.program.values[v]
    assert compiled.plan.arena_bytes < 2 * v.type.nbytes
    feeds = random_feeds(graph)
    got = call(compiled, ctypes.CDLL(str(shared_library(compiled, tmp_path))), feeds)
    assert_same(got[y.name], interp.run(graph, feeds)[y.name])


def test_an_operand_that_is_read_again_keeps_its_memory() -> None:
    net = Net(5)
    x = Value("x", TensorType((1, 9, 7, 8), FLOAT32))
    v = net.conv(x, Window(), FLOAT32, 8, 1)
    total = net.residual(v, Layer("residual", Window((3, 3)), FLOAT32, 8, 0))
    assert total is not None
    y = net.conv(total, Window(), FLOAT32, 4, 1)
    graph = Graph("net", (x,), (y,), tuple(net.nodes))
    assert overwritten(graph, Stage(graph.nodes[1:3])) is None


def bottleneck(dtype: DType, window: Window) -> tuple[Graph, Stage]:
    """Expand, depthwise, project, between two other layers; the stage is of the three."""
    net = Net(5)
    x = Value("x", TensorType((1, 13, 12, 4), dtype))
    v = net.conv(x, Window(), dtype, 4, 1)
    wide = net.conv(v, Window(), dtype, 40, 1)
    v = net.conv(net.conv(wide, window, dtype, 40, 40), Window(), dtype, 3, 1)
    y = net.conv(v, Window((3, 3)), dtype, 4, 1)
    return Graph("net", (x,), (y,), tuple(net.nodes)), Stage(tuple(net.nodes[1:4]))


def checked(graph: Graph, stage: Stage, folder: Path) -> Compiled:
    """The graph compiled with one stage, its outputs compared with the oracle."""
    compiled = compile_schedule(Schedule(graph, (stage,)), portable())
    feeds = random_feeds(graph)
    got = call(compiled, ctypes.CDLL(str(shared_library(compiled, folder))), feeds)
    for name, expected in interp.run(graph, feeds).items():
        assert_same(got[name], expected, name)
    return compiled


@pytest.mark.parametrize("pool", [False, True], ids=["mean", "pool"])
def test_a_mean_adds_up_rows(pool: bool, tmp_path: Path) -> None:
    """The map in front of it is never whole: one row of it and the total. Behind it the stage goes on."""
    net = Net(5)
    x = Value("x", TensorType((1, 13, 12, 3), FLOAT32))
    v = net.conv(x, Window((3, 3), pads=(1, 1, 1, 1)), FLOAT32, 33, 1)
    m = net.emit(AveragePool(Window((13, 12))) if pool else ReduceMean((1, 2)), v)
    y = net.conv(m, Window(), FLOAT32, 4, 1)
    graph = Graph("net", (x,), (y,), tuple(net.nodes))
    for stop in (2, 3):
        compiled = checked(graph, Stage(graph.nodes[:stop]), tmp_path / str(stop))
        assert compiled.plan.arena_bytes <= (12 + 1 + 1) * 33 * 4
        assert not any(layer.recomputed for layer in compiled.program.layers)


def searched(graph: Graph) -> list[Point]:
    target = portable()
    return Search(graph, RowCosts(target, select(graph, target))).front()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [FLOAT32, INT8, BIT1], ids=str)
def test_a_pool_goes_over_rows(dtype: DType, seed: int, tmp_path: Path) -> None:
    """Means, sums and extremes of reals, codes and bits: one row, and a pixel."""
    net = Net(seed)
    x = Value("x", TensorType((1, 13, 12, 3), FLOAT32 if dtype is FLOAT32 else INT8))
    v = net.conv(x, Window((3, 3), pads=(1, 1, 1, 1)), dtype, 33, 1)
    pooled = net.whole(v, seed)
    assert pooled is not None
    y = net.conv(pooled, Window(), FLOAT32, 4, 1)
    graph = assign_layouts(Graph("net", (x,), (y,), tuple(net.nodes)), portable())
    row = graph.nodes[0].output.type.nbytes // 13
    for stop in (2, 3):
        compiled = checked(graph, Stage(graph.nodes[:stop]), tmp_path / str(stop))
        assert compiled.plan.arena_bytes <= row + 33 * 4 + 33 * dtype.bits // 8 + 8
    assert min(p.bytes for p in searched(graph)) <= row + 33 * 8 + 192


@pytest.mark.parametrize(
    ("dtype", "gives"),
    [(FLOAT32, FLOAT32), (FLOAT32, None), (INT8, INT8), (INT8, None), (BIT1, BIT1), (BIT1, FLOAT32), (TERN, BIT1)],
)
def test_a_dense_layer_adds_up_rows(dtype: DType, gives: DType | None, tmp_path: Path) -> None:
    """Of the map in front of it there is one row, and one array of weights; the steady state is one loop. Whatever
    the epilogue, which comes last; without one (None) the result itself is the total."""
    net = Net(5)
    x = Value("x", TensorType((1, 13, 12, 3), FLOAT32 if dtype is FLOAT32 else INT8))
    v = net.conv(x, Window((3, 3), pads=(1, 1, 1, 1)), dtype, 33, 1)
    y = net.conv(v, Window((13, 12)), gives or FLOAT32, 10, 1)
    if gives is None:
        node = net.nodes.pop()
        y = net.emit(replace(node.op, epilogue=None), *node.inputs[:2])
    graph = Graph("net", (x,), (net.conv(y, Window(), FLOAT32, 4, 1) if gives else y,), tuple(net.nodes))
    graph = assign_layouts(graph, portable())
    row = graph.nodes[0].output.type.nbytes // 13
    whole = checked(graph, Stage(graph.nodes[:1]), tmp_path / "whole").program
    for stop in range(2, len(graph.nodes) + 1):
        compiled = checked(graph, Stage(graph.nodes[:stop]), tmp_path / str(stop))
        assert compiled.plan.arena_bytes <= row + (13 + 10 + 10) * 4 + 192
        assert compiled.program.weights_bytes == whole.weights_bytes
        assert len(compiled.program.calls) < 16
        assert not any(layer.recomputed for layer in compiled.program.layers)
        point = min(searched(graph), key=lambda p: p.bytes)
        assert point.bytes <= row + 2 * 4 * 10 + 192


def test_what_is_spread_over_the_image_it_was_made_of_is_no_part_of_its_stage() -> None:
    net = Net(5)
    x = Value("x", TensorType((1, 13, 12, 3), FLOAT32))
    v = net.conv(net.conv(x, Window((3, 3)), FLOAT32, 8, 1), Window((3, 3)), FLOAT32, 8, 1)
    y = net.emit(Mul(), v, net.emit(ReduceMean((1, 2)), v))
    graph = assign_layouts(Graph("net", (x,), (y,), tuple(net.nodes)), portable())
    found = [p.stages for p in searched(graph)]
    assert any(found)
    assert not any(n.output is y for stages in found for stage in stages for n in stage.nodes)


@pytest.mark.parametrize("dtype", [FLOAT32, INT8], ids=str)
def test_kept_columns_are_not_computed_again(dtype: DType, tmp_path: Path) -> None:
    graph, stage = bottleneck(dtype, Window((3, 3), pads=(1, 1, 1, 1)))
    wide = stage.nodes[0].output
    rows = checked(graph, stage, tmp_path / "rows")
    again = checked(graph, replace(stage, strips=6), tmp_path / "again")
    keeping = checked(graph, replace(stage, strips=6, keep=frozenset({wide})), tmp_path / "keeping")
    assert again.plan.arena_bytes < keeping.plan.arena_bytes < rows.plan.arena_bytes
    recomputed = [sum(layer.recomputed for layer in c.program.layers) for c in (rows, again, keeping)]
    assert recomputed[0] == recomputed[2] == 0 < recomputed[1]


@pytest.mark.parametrize("dtype", [FLOAT32, INT8], ids=str)
def test_a_bottleneck_by_blocks_of_channels(dtype: DType, tmp_path: Path) -> None:
    """Blocks of 16, 16 and 8 channels; every layer is reported once."""
    graph, stage = bottleneck(dtype, Window((7, 7), (2, 2), (3, 3, 3, 3)))
    strips = checked(graph, replace(stage, strips=3), tmp_path / "strips")
    blocks = checked(graph, replace(stage, strips=3, block=16), tmp_path / "blocks")
    assert blocks.plan.arena_bytes < strips.plan.arena_bytes
    layers = [[(la.name, la.macs, la.recomputed) for la in c.program.layers] for c in (strips, blocks)]
    assert layers[0] == layers[1]
