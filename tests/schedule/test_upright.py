"""Signals run step by step: time down the rows, the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitc import interp
from bitc.ir.dtypes import FLOAT32, INT8, DType
from bitc.ir.graph import Graph, Value
from bitc.ir.types import TensorType
from bitc.kernels import assign_layouts
from bitc.ops.binary import Add
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Reshape
from bitc.ops.pool import MaxPool
from bitc.ops.quantized import AddRequant
from bitc.ops.reduce import ReduceMean
from bitc.ops.window import Window
from bitc.planning import Planner
from bitc.schedule import best_order
from bitc.schedule.rows_first import rows_first
from bitc.schedule.streaming import by_rows
from bitc.target import Target
from tests.kernels.harness import assert_same, compile_schedule, portable, random_feeds
from tests.schedule.drawn import CODES, Net
from tests.schedule.test_streaming import Pushed, pixels_of, staged

CAUSAL = Window((1, 3), (1, 1), (0, 4, 0, 0), (1, 2))


def signal(dtype: DType, channels: int = 6) -> Graph:
    """A temporal network: strides, dilations, a pool and a residual sum; of reals a mean over time, too."""
    net = Net(4)
    x = Value("x", TensorType((1, 1, 60, 3), dtype))
    y = net.conv(x, Window((1, 9), (1, 2), (0, 4, 0, 4)), dtype, channels, 1)
    y = net.emit(MaxPool(Window((1, 3), (1, 2), (0, 1, 0, 1))), y)
    inner = net.conv(net.conv(y, CAUSAL, dtype, channels, channels), CAUSAL, dtype, channels, 1)
    if dtype is INT8:
        y = net.emit(AddRequant(3, 1 << 20, 3, 1 << 20, 21, CODES), inner, y)
    else:
        steps = net.emit(Reshape((1, y.shape[2], channels)), net.emit(Add(), inner, y))
        y = net.emit(ReduceMean((1,), True), steps)
    return Graph("net", (x,), (y,), tuple(net.nodes))


@pytest.mark.parametrize("dtype", [FLOAT32, INT8], ids=str)
def test_a_signal_comes_step_by_step(dtype: DType, tmp_path: Path) -> None:
    whole = signal(dtype)
    graph = best_order(assign_layouts(by_rows(whole), portable())).graph
    assert all(n.op.window.kernel[1] == 1 for n in graph.nodes if isinstance(n.op, Conv2D | MaxPool))
    compiled = compile_schedule(staged(graph, 9), portable())
    assert compiled.program.given_bytes == 3 * dtype.bits // 8
    model = Pushed(compiled, tmp_path)
    model.start()
    for seed in (0, 1):
        feeds = random_feeds(whole, seed)
        (expected,) = interp.run(whole, feeds).values()
        assert_same(model.image(pixels_of(graph, feeds))[whole.outputs[0].name], expected)


def test_a_signal_needs_a_few_steps() -> None:
    planner = Planner(signal(FLOAT32), Target.load("cortex-m4"))
    least = planner.front()[-1]
    assert least.mac_factor == 1 and least.plan.arena_bytes < planner.by_layers.plan.arena_bytes / 2


def test_images_stay_as_they_are() -> None:
    net = Net(4)
    x = Value("x", TensorType((1, 4, 20, 3), FLOAT32))
    y = net.conv(net.conv(x, Window((4, 3)), FLOAT32, 4, 1), Window((1, 3)), FLOAT32, 4, 1)
    graph = Graph("net", (x,), (y,), tuple(net.nodes))
    assert [n.op for n in rows_first(graph).nodes] == [n.op for n in graph.nodes]
