"""A chain by blocks of channels gives the same bits in less memory."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from bitc import interp
from bitc.ir.dtypes import FLOAT32, INT8, DType
from bitc.ir.graph import Graph, Value
from bitc.ir.schedule import Blocks, Schedule
from bitc.ir.types import TensorType
from bitc.kernels import assign_layouts
from bitc.ops.epilogue import Requant
from bitc.ops.movement import Reshape
from bitc.ops.pool import AveragePool
from bitc.ops.reduce import ReduceMean
from bitc.ops.unary import Relu
from bitc.ops.window import Window
from bitc.schedule.blocks import SIZE, chains
from tests.kernels.harness import assert_same, call, compile_schedule, portable, random_feeds, shared_library
from tests.schedule.drawn import Net


def head(dtype: DType, channels: int) -> Graph:
    """A convolution, its global pool, and a dense layer on that."""
    b = Net(1)
    x = Value("x", TensorType((1, 5, 5, 12), dtype))
    v = b.emit(Relu(), x)
    v = b.conv(v, Window((3, 3), pads=(1, 1, 1, 1)), dtype, channels, 1)
    if dtype is INT8:
        v = b.emit(Reshape((1, 1, 25, channels)), v)
        params = [b.const(np.array(p, np.int32)) for p in ([7], [2**20], [24])]
        v = b.emit(AveragePool(Window((1, 25)), x_zero=3, requant=Requant(INT8, -5, -128, 127)), v, *params)
    else:
        v = b.emit(ReduceMean((1, 2)), b.emit(Relu(), v))
    v = b.conv(v, Window(), dtype, 7, 1)
    return Graph("head", (x,), (v,), tuple(b.nodes))


@pytest.mark.parametrize("dtype", [FLOAT32, INT8], ids=str)
def test_blocks(dtype: DType, tmp_path: Path) -> None:
    graph, target = assign_layouts(head(dtype, 3 * SIZE), portable()), portable()
    (nodes,) = chains(graph)
    assert nodes[0].op.name == "Conv2D" and nodes[-1].output.type.rows == 1
    whole = compile_schedule(Schedule(graph), target)
    parts = compile_schedule(Schedule(graph, (Blocks(nodes, SIZE),)), target)
    assert parts.plan.arena_bytes < whole.plan.arena_bytes
    assert parts.program.weights_bytes <= whole.program.weights_bytes + 64
    assert sum(layer.recomputed for layer in parts.program.layers) == 0
    feeds = random_feeds(graph)
    got = call(parts, ctypes.CDLL(str(shared_library(parts, tmp_path))), feeds)
    for name, expected in interp.run(graph, feeds).items():
        assert_same(got[name], expected, name)


@pytest.mark.parametrize("dtype", [FLOAT32, INT8], ids=str)
def test_depthwise_layers_are_in_a_chain_and_others_are_not(dtype: DType, tmp_path: Path) -> None:
    """Two 1x1 convolutions, each with a depthwise one, before the pool: the chain starts at the second."""
    net, same, wide = Net(1), Window((3, 3), pads=(1, 1, 1, 1)), 2 * SIZE
    x = Value("x", TensorType((1, 5, 5, 12), dtype))
    v = net.conv(net.conv(x, Window(), dtype, wide, 1), same, dtype, wide, wide)
    v = net.conv(net.conv(v, Window(), dtype, wide, 1), same, dtype, wide, wide)
    v = net.conv(v, Window((5, 5)), dtype, wide, wide)
    graph = Graph("net", (x,), (v,), tuple(net.nodes))
    graph, target = assign_layouts(graph, portable()), portable()
    assert chains(graph) == [graph.nodes[2:]]
    compiled = compile_schedule(Schedule(graph, (Blocks(graph.nodes[2:], SIZE),)), target)
    feeds = random_feeds(graph)
    got = call(compiled, ctypes.CDLL(str(shared_library(compiled, tmp_path))), feeds)
    assert_same(got[v.name], interp.run(graph, feeds)[v.name])


def test_only_whole_blocks() -> None:
    assert chains(head(FLOAT32, SIZE + 1)) == []
