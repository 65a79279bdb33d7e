"""Passes stay quick on large models."""

from __future__ import annotations

import time

import numpy as np

from bitc.ir import FLOAT32, Graph, TensorType, Value
from bitc.ir.rewrite import Builder
from bitc.ops import binary as b
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Transpose
from bitc.ops.window import Window
from bitc.passes.context import Context
from bitc.pipeline import Options, passes


def deep_net(layers: int, channels: int, kernel: int) -> Graph:
    """Convolution, batch norm in four nodes and a sign in two, between Transposes, over and over."""
    rng, r = np.random.default_rng(0), Builder()
    x = Value("x", TensorType((1, channels, 8, 8), FLOAT32))
    signs = np.where(rng.random((channels, kernel, kernel, channels)) < 0.5, -1, 1).astype(np.float32)
    weights = r.const(signs)

    def param() -> Value:
        return r.const(rng.normal(size=(channels, 1, 1)).astype(np.float32))

    def number(v: float) -> Value:
        return r.const(np.array(v, np.float32))

    y = x
    window = Window((kernel, kernel), (1, 1), (kernel // 2,) * 4)
    for i in range(layers):
        y = r.emit(b.Where(), r.emit(b.Less(), y, number(0)), number(-1), number(1), at=f"sign{i}")
        y = r.emit(Conv2D(window), r.emit(Transpose((0, 2, 3, 1)), y), weights, at=f"conv{i}")
        y = r.emit(Transpose((0, 3, 1, 2)), y)
        y = r.emit(b.Div(), r.emit(b.Sub(), y, param()), param())
        y = r.emit(b.Add(), r.emit(b.Mul(), y, param()), param())
    return Graph("deep", (x,), (y,), tuple(r.nodes))


def run_passes(graph: Graph) -> tuple[Graph, Context, float]:
    ctx = Context()
    start = time.perf_counter()
    for p in passes(Options()):
        graph = p.run(graph, ctx)
    return graph, ctx, time.perf_counter() - start


def test_many_nodes_and_long_accumulators() -> None:
    graph = deep_net(layers=112, channels=512, kernel=3)
    assert len(graph.nodes) > 1000
    _, ctx, seconds = run_passes(graph)
    assert len(ctx.binary) == 112
    assert seconds < 40, "about 5 s alone on one core"


def test_a_pointwise_chain_of_thousands_of_nodes() -> None:
    """An unrolled recurrent net without any layer on bits."""
    r = Builder()
    x = y = Value("x", TensorType((1, 8), FLOAT32))
    for i in range(3000):
        y = r.emit(b.Mul(), y, r.const(np.array(1 + i / 1e4, np.float32)))
    y = r.emit(
        b.Where(),
        r.emit(b.Less(), y, r.const(np.array(0, np.float32))),
        *(r.const(np.array(v, np.float32)) for v in (-1, 1)),
    )
    _, _, seconds = run_passes(Graph("long", (x,), (y,), tuple(r.nodes)))
    assert seconds < 10
