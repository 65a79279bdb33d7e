"""Cascades of residual sums: one waiting row for each sum, whatever else is shared; max pools across, then down."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from bitc import interp
from bitc.ir.dtypes import BIT1, FLOAT32, INT8, DType
from bitc.ir.graph import Graph, Value
from bitc.ir.rewrite import Builder
from bitc.ir.schedule import Schedule, Stage
from bitc.ir.types import TensorType
from bitc.kernels import assign_layouts
from bitc.ops.pool import MaxPool
from bitc.ops.reduce import ReduceMean
from bitc.ops.window import Window
from bitc.schedule.columns import why_not_strips
from bitc.schedule.parts import parts
from bitc.schedule.pools import across_and_down, is_divided
from tests.kernels.harness import assert_same, call, compile_schedule, portable, random_feeds, shared_library
from tests.schedule.drawn import Layer, Net

UNITS = 4


def sums(dtype: DType, kernel: int, mean: bool = True) -> tuple[Graph, list[str]]:
    """A pool, then sums x + f(g(x)) with g by pixels and f by windows, and their mean; names of pool and sums."""
    net = Net(3)
    x = Value("x", TensorType((1, 47, 23, 5), dtype))
    v = net.conv(x, Window((3, 3), pads=(1, 1, 1, 1)), dtype, 33, 1)
    v = net.emit(MaxPool(Window((3, 3), (2, 2), (1, 1, 1, 1))), v)
    found = [v]
    for _ in range(UNITS):
        total = net.residual(found[-1], Layer("late", Window((kernel, kernel)), dtype, 33, 0), late=True)
        assert total is not None
        found.append(total)
    y = net.emit(ReduceMean((1, 2)), found[-1]) if dtype.is_float and mean else found[-1]
    return Graph("net", (x,), (y,), tuple(net.nodes)), [v.name for v in found]


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("dtype", [FLOAT32, INT8], ids=str)
def test_a_chain_of_sums_keeps_the_rows_that_wait_and_no_more(dtype: DType, kernel: int, tmp_path: Path) -> None:
    graph, names = sums(dtype, kernel)
    graph = assign_layouts(graph, portable())
    found = [n.output for n in graph.nodes if n.output.name in names]
    stage = Stage(tuple(graph.nodes))
    running = parts(graph, stage)
    capacity = running.rows().capacity
    waiting = {n.input(0): n.output for n in running.nodes if n.output in running.waiting}
    assert list(waiting) == found[:-1]
    assert {capacity[v] for v in waiting} == {1} and {capacity[v] for v in waiting.values()} == {kernel // 2}
    compiled = compile_schedule(Schedule(graph, (stage,)), portable())
    row = found[0].type.nbytes // found[0].shape[1]
    others = {v: rows for v, rows in capacity.items() if v not in found and v not in running.waiting}
    rings = sum(rows * (v.type.nbytes // v.shape[1]) for v, rows in others.items() if rows > 1 or v.shape[1] == 1)
    transient = 3 if dtype.is_float else 4  # what a unit makes; the sum lies over an operand
    assert compiled.plan.arena_bytes <= rings + (UNITS * (kernel // 2) + transient) * row
    feeds = random_feeds(graph)
    got = call(compiled, ctypes.CDLL(str(shared_library(compiled, tmp_path))), feeds)
    y = graph.outputs[0].name
    assert_same(got[y], interp.run(graph, feeds)[y])


@pytest.mark.parametrize("keep", [False, True], ids=["again", "kept"])
@pytest.mark.parametrize("dtype", [FLOAT32, INT8], ids=str)
def test_rows_wait_in_strips(dtype: DType, keep: bool, tmp_path: Path) -> None:
    graph, _ = sums(dtype, 3, mean=False)
    graph = assign_layouts(graph, portable())
    nodes = graph.nodes[1:]  # with columns of what is read
    stage = Stage(nodes, 3, frozenset(n.output for n in graph.nodes[:-1]) if keep else frozenset())
    assert not why_not_strips(graph, stage) and len(parts(graph, stage).waiting) == UNITS
    compiled = compile_schedule(Schedule(graph, (stage,)), portable())
    feeds = random_feeds(graph)
    got = call(compiled, ctypes.CDLL(str(shared_library(compiled, tmp_path))), feeds)
    y = graph.outputs[0].name
    assert_same(got[y], interp.run(graph, feeds)[y])


def test_readers_of_the_same_rows_need_no_second_buffer() -> None:
    net = Net(3)
    x = Value("x", TensorType((1, 9, 7, 8), FLOAT32))
    v = net.conv(x, Window((3, 3)), FLOAT32, 8, 1)
    total = net.residual(v, Layer("late", Window(), FLOAT32, 8, 0), late=True)
    assert total is not None
    graph = Graph("net", (x,), (total,), tuple(net.nodes))
    assert not parts(graph, Stage(graph.nodes)).waiting


@pytest.mark.parametrize("dtype", [FLOAT32, INT8, BIT1], ids=str)
def test_a_pool_across_and_down_gives_the_same_bits(dtype: DType) -> None:
    """Zeros of both signs and what is no number included."""
    b = Builder()
    window = Window((3, 4), (2, 3), (1, 1, 1, 2))
    x = Value("x", TensorType((1, 9, 13, 6), dtype))
    b.emit(MaxPool(window), x)
    (pool,) = b.nodes
    assert is_divided(pool)
    feeds = random_feeds(Graph("net", (x,), (pool.output,), (pool,)))
    if dtype.is_float:
        feeds["x"] = np.random.default_rng(5).choice(np.array([0.0, -0.0, np.nan, 1, -1], np.float32), x.shape)
    want, got = (interp.run(Graph("net", (x,), (pool.output,), nodes), feeds)
                 for nodes in ((pool,), across_and_down(pool)))  # fmt: skip
    (name,) = want
    assert want[name].tobytes() == got[name].tobytes()


def test_pools_that_would_need_more_rows_stay_whole() -> None:
    b = Builder()
    x = Value("x", TensorType((1, 8, 8, 4), FLOAT32))
    for window in (Window((2, 2), (2, 2)), Window((3, 3), pads=(1, 1, 1, 1)), Window((1, 3), (1, 2))):
        b.emit(MaxPool(window), x)
    assert not any(is_divided(n) for n in b.nodes)
