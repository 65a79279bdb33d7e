"""Channels that no result depends on: removed wherever they are tied together, and nowhere else."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bitc.interp import run
from bitc.ir import INT8, Graph, Value
from bitc.ir.verify import verify
from bitc.ops import binary as b
from bitc.ops import unary as u
from bitc.ops.epilogue import Affine, Requant
from bitc.ops.linear import Conv2D, MatMul
from bitc.ops.movement import Concat, Gather, Reshape, Slice, Transpose
from bitc.ops.pool import AveragePool, MaxPool
from bitc.ops.quantized import Lookup
from bitc.ops.reduce import ReduceMean
from bitc.ops.window import Window
from bitc.passes.context import Context
from bitc.passes.dead_channels import DeadChannels
from tests.passes.test_passes import G

SAME, POINT = Window((3, 3), (1, 1), (1, 1, 1, 1)), Window((1, 1))


def conv(
    g: G, x: Value, outputs: int, window: Window = SAME, *, dead: tuple[int, ...] = (), bias: float = 0.0
) -> Value:
    """A convolution with Relu, whose channels `dead` have no weights."""
    w = g.rng.normal(size=(outputs, *window.kernel, x.type.channels)).astype(np.float32)
    w[list(dead)] = 0
    shift = np.full(outputs, bias, np.float32)
    return g.do(Conv2D(window, epilogue=Affine(lo=0.0)), x, g.c(w), g.c(np.ones(outputs)), g.c(shift))


def removed(graph: Graph, rounding: float = 0) -> Graph:
    """The graph after the pass, which must give the same bits, or reals up to `rounding`."""
    out = verify(DeadChannels().run(verify(graph), Context()))
    x = np.random.default_rng(1).normal(0, 30, graph.inputs[0].shape).astype(graph.inputs[0].type.dtype.carrier)
    before, after = run(graph, {"x": x}), run(out, {"x": x})
    for name, y in before.items():
        np.testing.assert_allclose(after[name], y, rtol=rounding, atol=rounding * np.abs(y).max())
    return out


def channels(graph: Graph) -> list[int]:
    return [n.output.type.channels for n in graph.nodes]


def test_a_chain_loses_channels_on_both_sides() -> None:
    g = G(1, 6, 6, 3)
    y = conv(g, conv(g, g.x, 8, dead=(0, 5)), 4, POINT)
    assert channels(removed(g.graph(y))) == [6, 4]


def test_channels_that_nobody_multiplies_go() -> None:
    g = G(1, 6, 6, 3)
    x = conv(g, g.x, 8)
    w = g.rng.normal(size=(4, 1, 1, 8)).astype(np.float32)
    w[..., [2, 3]] = 0
    assert channels(removed(g.graph(g.do(Conv2D(POINT), x, g.c(w))))) == [6, 4]


def test_a_residual_keeps_what_either_side_has() -> None:
    g = G(1, 6, 6, 3)
    x = conv(g, g.x, 8, dead=(1, 2))
    y = g.do(b.Add(), conv(g, x, 8, dead=(2, 3)), x)
    assert channels(removed(g.graph(conv(g, y, 4)))) == [7, 7, 7, 4]


def test_ties_through_depthwise_pools_concat_and_flatten() -> None:
    g = G(1, 8, 8, 3)
    x = conv(g, g.x, 6, dead=(0,))
    d = g.do(Conv2D(SAME, group=6), x, g.reals(6, 3, 3, 1))
    p = g.do(MaxPool(Window((2, 2), (2, 2))), d)
    q = g.do(AveragePool(Window((2, 2), (2, 2))), conv(g, g.x, 5, dead=(4,)))
    c = g.do(Concat(3), p, q)
    f = g.do(Reshape((1, 1, 1, 4 * 4 * 11)), g.do(u.Relu(), c))
    y = g.do(Conv2D(POINT), f, g.reals(7, 1, 1, 4 * 4 * 11))
    assert channels(removed(g.graph(y))) == [5, 5, 5, 4, 4, 9, 9, 16 * 9, 7]


def test_groups_lose_the_same_places() -> None:
    g = G(1, 6, 6, 4)
    x = conv(g, g.x, 12, dead=(1, 5, 9, 10))  # 10 lives in no other group: it stays
    w = g.reals(6, 3, 3, 4).array.copy()
    w[[1, 3, 5, 4]] = 0
    y = g.do(Conv2D(SAME, group=3), x, g.c(w))
    graph = removed(g.graph(conv(g, y, 4)))
    assert channels(graph) == [9, 3, 4] and graph.nodes[1].input(1).shape == (3, 3, 3, 3)


def test_depthwise_with_several_outputs_per_channel() -> None:
    g = G(1, 6, 6, 3)
    x = conv(g, g.x, 4, dead=(2,))
    y = g.do(Conv2D(SAME, group=4), x, g.reals(8, 3, 3, 1))
    graph = removed(g.graph(conv(g, y, 5)))
    assert channels(graph) == [3, 6, 5] and graph.nodes[1].op == Conv2D(SAME, group=3)


def test_a_constant_that_is_not_zero_stays() -> None:
    g = G(1, 6, 6, 3)
    graph = g.graph(conv(g, conv(g, g.x, 8, dead=(0,), bias=1.0), 4))
    assert removed(graph) is graph


def test_constants_go_into_the_bias_where_nothing_is_padded() -> None:
    g = G(1, 6, 6, 3)
    x = g.do(MaxPool(SAME), conv(g, g.x, 8, dead=(0, 3), bias=2.0))
    graph = g.graph(conv(g, x, 4, POINT))
    assert channels(removed(graph, 1e-5)) == [6, 6, 4]


def test_a_scale_of_zero_makes_a_constant() -> None:
    g = G(1, 6, 6, 3)
    scale = np.array([1, 0, 1, 0], np.float32)
    affine = Conv2D(SAME, epilogue=Affine(lo=0.0))
    x = g.do(affine, g.x, g.reals(4, 3, 3, 3), g.c(scale), g.c(np.array([0.5, -1, 1, 0], np.float32)))
    assert channels(removed(g.graph(conv(g, x, 5)))) == [2, 5]


def test_constant_codes_fold_exactly() -> None:
    g = G(1, 6, 6, 3, dtype=INT8)

    def layer(x: Value, outputs: int, window: Window, dead: tuple[int, ...] = ()) -> Value:
        w = g.rng.integers(-127, 128, (outputs, *window.kernel, x.type.channels)).astype(np.int8)
        w[list(dead)] = 0
        bias = g.rng.integers(-90, 90, outputs).astype(np.int32)
        params = [g.const(bias), *(g.const(np.full(outputs, v, np.int32)) for v in (1 << 22, 32))]
        return g.do(Conv2D(window, epilogue=Requant(INT8, 3, -128, 127), x_zero=3), x, g.const(w), *params)

    x = layer(g.x, 6, SAME, dead=(1, 4))
    assert channels(removed(g.graph(layer(x, 5, POINT)))) == [4, 5]


def test_outputs_and_inputs_keep_their_shape() -> None:
    g = G(1, 6, 6, 3)
    graph = g.graph(conv(g, g.x, 8, dead=(0, 1)))
    assert removed(graph) is graph


def test_a_layer_without_any_weights_keeps_one_channel() -> None:
    g = G(1, 6, 6, 3)
    x = conv(g, g.x, 4, dead=(0, 1, 2, 3))
    f = g.do(Reshape((1, 1, 1, 36 * 4)), x)
    assert channels(removed(g.graph(g.do(Conv2D(POINT), f, g.reals(3, 1, 1, 36 * 4))))) == [1, 36, 3]


def test_codes_whose_zero_is_not_0() -> None:
    def net(zero: int) -> Graph:
        g = G(1, 6, 6, 3, dtype=INT8)

        def layer(x: Value, outputs: int, x_zero: int, dead: tuple[int, ...] = ()) -> Value:
            w = g.rng.integers(-127, 128, (outputs, 3, 3, x.type.channels)).astype(np.int8)
            w[list(dead)] = 0
            params = [g.const(np.full(outputs, v, np.int32)) for v in (0, 1 << 22, 32)]
            return g.do(Conv2D(SAME, epilogue=requant, x_zero=x_zero), x, g.const(w), *params)

        x = g.do(MaxPool(SAME), layer(g.x, 5, 3, dead=(1,)))
        x = g.do(Lookup(), x, g.const(np.arange(-128, 128).astype(np.int8)))
        return g.graph(layer(x, 4, zero))

    requant = Requant(INT8, -128, -128, 127)
    assert channels(removed(net(-128))) == [4, 4, 4, 4]
    assert channels(removed(net(0))) == [5, 5, 5, 4]


def shuffled(g: G, x: Value, groups: int, between: bool = False) -> Value:
    c = x.type.channels
    y = g.do(Transpose((0, 1, 2, 4, 3)), g.do(Reshape((1, 6, 6, groups, c // groups)), x))
    return g.do(Reshape(x.shape), g.do(u.Relu(), y) if between else y)


def test_an_operator_within_a_shuffle_keeps_its_shape() -> None:
    g = G(1, 6, 6, 3)
    x = shuffled(g, conv(g, g.x, 12, dead=(1, 4)), 3, between=True)
    graph = g.graph(conv(g, x, 4))
    assert removed(graph) is graph
    g = G(1, 6, 6, 3)
    x = shuffled(g, conv(g, g.x, 12, dead=(1, 5, 9)), 3, between=True)
    assert channels(removed(g.graph(conv(g, x, 4)))) == [9, 3, 3, 3, 9, 4]


PARTS = ["conv", "wise", "pool", "add", "fork", "mean", "groups", "shuffle", "between", "halves", "gather", "heads"]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.sampled_from(PARTS), max_size=7))
def test_any_network_keeps_its_values(seed: int, parts: list[str]) -> None:
    g = G(1, 6, 6, 3)
    g.rng = np.random.default_rng(seed)

    def dead(n: int) -> tuple[int, ...]:
        return tuple(int(i) for i in np.flatnonzero(g.rng.random(n) < 0.4))

    x = conv(g, g.x, 6, dead=dead(6))
    for part in parts:
        c = x.type.channels
        if part == "conv":
            x = conv(g, x, 5, dead=dead(5), bias=float(g.rng.integers(-1, 2)))
        elif part == "wise":
            x = g.do(Conv2D(SAME, group=c), x, g.reals(c, 3, 3, 1))
        elif part == "groups" and c % 2 == 0:
            w = g.reals(6, 3, 3, c // 2).array.copy()
            w[list(dead(6))] = 0
            x = g.do(Conv2D(SAME, group=2), x, g.c(w))
        elif part == "pool":
            x = g.do(MaxPool(SAME), x)
        elif part in ("shuffle", "between"):
            x = shuffled(g, x, next(n for n in (3, 2, 5, 1) if c % n == 0), part == "between")
        elif part == "halves" and c > 1:
            cuts = [((0, c // 2, 1), (c // 2, c, 1)), ((0, c, 2), (c - 1, -1, -2))][int(g.rng.integers(2))]
            halves = [g.do(Slice((0, 0, 0, a), (1, 6, 6, b), (1, 1, 1, s)), x) for a, b, s in cuts]
            x = g.do(Concat(3), *halves[:: int(g.rng.choice([-1, 1]))])
        elif part == "gather":
            x = g.do(Gather(3), x, g.const(g.rng.integers(0, c, 6)))
        elif part == "heads" and c % 2 == 0:  # attention of 36 pixels
            apart = [g.do(Reshape((36, 2, c // 2)), conv(g, x, c, POINT, dead=dead(c))) for _ in range(3)]
            q, k, v = (g.do(Transpose(p), a) for p, a in zip(((1, 0, 2), (1, 2, 0), (1, 0, 2)), apart, strict=True))
            y = g.do(Transpose((1, 0, 2)), g.do(MatMul(), g.do(u.Sigmoid(), g.do(MatMul(), q, k)), v))
            x = g.do(Reshape(x.shape), y)
        elif part == "add":
            x = g.do(b.Add(), conv(g, x, c, dead=dead(c)), x)
        elif part == "fork":
            x = g.do(Concat(3), conv(g, x, 3, POINT, dead=dead(3)), g.do(u.Sigmoid(), x))
        else:
            x = g.do(b.Mul(), x, g.do(u.Sigmoid(), g.do(ReduceMean((1, 2)), x)))  # does not overflow
    removed(g.graph(conv(g, x, 4)), 1e-4)  # constants go into biases
