"""Each pass alone: graph in, text out; values before and after; and what it must leave alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitc.interp import run
from bitc.ir import BIT1, FLOAT32, INT8, INT32, DType, Graph, Op, Quant, TensorType, Value
from bitc.ir.rewrite import Builder
from bitc.ir.text import to_text
from bitc.ir.types import DENSE
from bitc.ir.verify import verify
from bitc.ops import binary as b
from bitc.ops import unary as u
from bitc.ops.epilogue import Affine, Threshold
from bitc.ops.linear import Conv2D, MatMul
from bitc.ops.movement import Concat, Gather, Pad, Reshape, Slice, Transpose
from bitc.ops.quantize import Dequantize, Requantize
from bitc.ops.reduce import ReduceMean, Softmax
from bitc.ops.window import Window
from bitc.passes.binarize import Binarize
from bitc.passes.channels_last import ChannelsLast
from bitc.passes.context import Context, Pass
from bitc.passes.crops import FoldCrops
from bitc.passes.dense import DenseAsConv
from bitc.passes.fuse import FuseEpilogues
from bitc.passes.pads import FoldPads
from bitc.passes.planar import PlanarImages
from bitc.passes.scales import LiftScales
from bitc.passes.sign_zero import SignOfZero
from bitc.passes.simplify import Simplify
from bitc.passes.straight_through import StraightThrough
from bitc.passes.value_sets import EVERYTHING, ValueSets
from bitc.passes.weights import BinaryWeights, two_valued

TO_NHWC, TO_NCHW = Transpose((0, 2, 3, 1)), Transpose((0, 3, 1, 2))


class G(Builder):
    """A graph under construction from one input x."""

    def __init__(self, *shape: int, dtype: Any = FLOAT32) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)
        self.x = Value(self.unique("x"), TensorType(shape, dtype))

    def c(self, array: Any) -> Value:
        return self.const(np.asarray(array, np.float32), "c")

    def reals(self, *shape: int) -> Value:
        return self.c(self.rng.normal(size=shape))

    def signs(self, *shape: int) -> Value:
        return self.c(np.where(self.rng.random(shape) < 0.5, -1, 1))

    def do(self, op: Op, *inputs: Value, at: str = "") -> Value:
        return self.emit(op, *inputs, at=at)

    def graph(self, *outputs: Value) -> Graph:
        return Graph("g", (self.x,), outputs, tuple(self.nodes))


def apply(p: Pass, graph: Graph, ctx: Context | None = None) -> Graph:
    """Run a pass; verify, and compare values if it is lossless."""
    verify(graph)
    out = verify(p.run(graph, ctx or Context()))
    if p.lossless:
        x = np.random.default_rng(1).normal(size=graph.inputs[0].shape) * 3
        feeds = {"x": x.astype(graph.inputs[0].type.dtype.carrier)}
        before = [run(Graph("g", graph.inputs, (v,), graph.nodes), feeds)[v.name] for v in graph.outputs]
        after = [run(Graph("g", out.inputs, (v,), out.nodes), feeds)[v.name] for v in out.outputs]
        for x, y in zip(before, after, strict=True):
            np.testing.assert_allclose(y, x, rtol=1e-5, atol=1e-5)
    return out


def lines(graph: Graph) -> list[str]:
    return [line.strip() for line in to_text(graph).splitlines() if "=" in line]


def unchanged(p: Pass, graph: Graph) -> bool:
    return [n.op for n in apply(p, graph).nodes] == [n.op for n in graph.nodes]


# StraightThrough


@pytest.mark.parametrize("swapped", [False, True])
def test_straight_through(swapped: bool) -> None:
    g = G(1, 4)
    s, t = g.do(u.Sign(), g.x), g.do(u.Clip(-1, 1), g.x)
    d = g.do(b.Sub(), s, t)
    out = apply(StraightThrough(), g.graph(g.do(b.Add(), *((t, d) if swapped else (d, t)))))
    assert lines(out) == ["%sign: float32[1x4] = Sign()(%x)"]


def test_straight_through_needs_the_same_value() -> None:
    g = G(1, 4)
    d = g.do(b.Sub(), g.do(u.Sign(), g.x), g.do(u.Clip(-1, 1), g.x))
    assert unchanged(StraightThrough(), g.graph(g.do(b.Add(), d, g.do(u.Clip(-2, 1), g.x))))
    g = G(1, 4)
    d = g.do(b.Sub(), g.do(u.Clip(-1, 1), g.x), g.x)  # b - a, not a - b
    assert unchanged(StraightThrough(), g.graph(g.do(b.Sub(), d, g.x)))


# Simplify


def test_simplify() -> None:
    g = G(1, 4)
    y = g.do(b.Mul(), g.c(1.0), g.do(b.Add(), g.x, g.c([[-0.0, 0, 0, 0]])))
    a, z = g.do(b.Mul(), y, g.c([2.0, 2, 2, 2])), g.do(b.Mul(), y, g.c(2.0))
    out = apply(Simplify(), g.graph(g.do(b.Sub(), a, z)))
    assert lines(out)[-1] == "%sub: float32[1x4] = Sub()(%mul.1, %mul.2)"
    assert len(out.nodes) == 3, "constants [2, 2, 2, 2] and 2 broadcast alike but have different ranks"
    g = G(1, 4)
    out = apply(Simplify(), g.graph(g.do(b.Sub(), g.do(u.Tanh(), g.x), g.do(u.Tanh(), g.x))))
    assert lines(out) == ["%tanh: float32[1x4] = Tanh()(%x)", "%sub: float32[1x4] = Sub()(%tanh, %tanh)"]


def test_simplify_keeps_what_computes() -> None:
    g = G(1, 1)
    assert unchanged(Simplify(), g.graph(g.do(b.Add(), g.x, g.c(np.zeros((1, 4)))))), "it broadcasts"
    g = G(1, 4)
    assert unchanged(Simplify(), g.graph(g.do(b.Sub(), g.c(0.0), g.x)))
    g = G(1, 4)
    assert unchanged(Simplify(), g.graph(g.do(b.Div(), g.c(1.0), g.x)))


# ChannelsLast


def test_channels_last() -> None:
    g = G(1, 5, 5, 4)
    y = g.do(TO_NCHW, g.x)
    y = g.do(b.Add(), g.do(b.Mul(), y, g.reals(4, 1, 1)), g.reals(1, 4, 1, 1))
    y = g.do(u.Relu(), y)
    out = apply(ChannelsLast(), g.graph(g.do(TO_NHWC, y)))
    assert lines(out) == [
        "%mul: float32[1x5x5x4] = Mul()(%x, c:float32[1x1x1x4])",
        "%add: float32[1x5x5x4] = Add()(%mul, c.1:float32[1x1x1x4])",
        "%relu: float32[1x5x5x4] = Relu()(%add)",
    ]


@st.composite
def movements(draw: st.DrawFn) -> Graph:
    """A random tree of movement and pointwise operators."""
    g = G(2, 3, 4, 2)
    y = g.x
    for _ in range(draw(st.integers(1, 8))):
        match draw(st.integers(0, 8)):
            case 0 | 1:
                y = g.do(Transpose(tuple(draw(st.permutations(range(y.type.rank))))), y)
            case 2:
                y = g.do(
                    Reshape(
                        draw(st.sampled_from([(2, 3, 4, 2), (6, 8), (2, 12, 1, 2), (2, 3, 2, 2, 2), (48,), (1, 48)]))
                    ),
                    y,
                )
            case 3:
                dims = [d if draw(st.booleans()) else 1 for d in y.shape]
                y = g.do(b.Mul(), y, g.reals(*dims[draw(st.integers(0, len(dims))) :]))
            case 4:
                y = g.do(b.Add(), y, g.do(u.Tanh(), y))
            case 5:
                axis = draw(st.integers(0, y.type.rank - 1))
                y = g.do(Softmax(axis), y)
            case 6:
                axis = draw(st.integers(0, y.type.rank - 1))
                y = g.do(b.Sub(), y, g.do(ReduceMean((axis,), keepdims=True), y))
            case 7:
                axis = draw(st.integers(0, y.type.rank - 1))
                order = np.arange(y.shape[axis])[::-1].copy()
                y = g.do(Gather(axis), y, g.const(order))
            case _:
                rank = y.type.rank
                padded = g.do(Pad((1,) * rank, (0,) * rank, 0.5), y)
                y = g.do(Slice((1,) * rank, padded.shape, (1,) * rank), padded)
    return g.graph(y)


@given(movements())
@settings(max_examples=150, deadline=None)
def test_channels_last_keeps_values(graph: Graph) -> None:
    apply(ChannelsLast(), graph)


# DenseAsConv


def test_dense_takes_the_flattening_into_its_weights() -> None:
    g = G(1, 3, 4, 2)
    flat = g.do(Reshape((1, 24)), g.do(TO_NCHW, g.x))
    out = apply(DenseAsConv(), g.graph(g.do(MatMul(), flat, g.reals(24, 5))))
    assert [n.op.name for n in out.nodes] == ["Conv2D", "Reshape"]
    assert out.nodes[0].input(1).shape == (5, 3, 4, 2)


@pytest.mark.parametrize("shape", [(6,), (1, 6), (4, 6), (2, 4, 6)])
def test_dense_rows_become_pixels(shape: tuple[int, ...]) -> None:
    g = G(*shape)
    out = apply(DenseAsConv(), g.graph(g.do(MatMul(), g.x, g.reals(6, 5))))
    assert sum(isinstance(n.op, Conv2D) for n in out.nodes) == 1


def test_dense_of_two_computed_operands_stays() -> None:
    g = G(6, 6)
    assert unchanged(DenseAsConv(), g.graph(g.do(MatMul(), g.x, g.do(u.Tanh(), g.x))))
    g = G(2, 3, 6)
    assert unchanged(DenseAsConv(), g.graph(g.do(MatMul(), g.x, g.reals(2, 6, 5))))


# FoldPads


def padded_conv(before: tuple[int, ...], after: tuple[int, ...], value: float = 0.0, mode: str = "constant") -> Graph:
    g = G(1, 4, 4, 2)
    y = g.do(Pad(before, after, value, mode), g.x)
    return g.graph(g.do(Conv2D(Window((3, 3), pads=(0, 1, 0, 0))), y, g.reals(3, 3, 3, y.shape[3])))


def test_fold_pads() -> None:
    out = apply(FoldPads(), padded_conv((0, 1, 2, 0), (0, 0, 1, 0)))
    (conv,) = out.nodes
    assert isinstance(conv.op, Conv2D) and conv.op.window.pads == (1, 3, 0, 1)


def test_fold_pads_of_planes() -> None:
    g = G(1, 3, 4, 5)
    pixels = g.do(TO_NHWC, g.do(Pad((0, 0, 1, 2), (0, 0, 0, 1)), g.x))
    out = apply(FoldPads(), g.graph(g.do(Conv2D(Window((3, 3), pads=(0, 1, 0, 0))), pixels, g.reals(3, 3, 3, 3))))
    transpose, conv = out.nodes
    assert transpose.op == TO_NHWC and isinstance(conv.op, Conv2D) and conv.op.window.pads == (1, 3, 0, 1)


@pytest.mark.parametrize(
    "arguments",
    [((0, 1, 1, 0), (0, 1, 1, 0), 1.0), ((0, 0, 0, 1), (0, 0, 0, 0)), ((0, 1, 1, 0), (0, 1, 1, 0), 0.0, "edge")],
)
def test_other_pads_stay(arguments: Any) -> None:
    assert unchanged(FoldPads(), padded_conv(*arguments))


# FoldCrops


@pytest.mark.parametrize(
    ("pads", "stride", "cut", "left"),
    [
        ((0, 4, 0, 4), 1, (0, 9), (0, 4, 0, 0)),
        ((0, 4, 0, 4), 2, (1, 5), (0, 2, 0, 0)),
        ((0, 1, 0, 3), 1, (0, 6), (0, 1, 0, 0)),
        ((0, 4, 0, 4), 1, (5, 12), None),
        ((0, 0, 0, 0), 1, (0, 2), None),
    ],
)
def test_fold_crops(
    pads: tuple[int, int, int, int], stride: int, cut: tuple[int, int], left: tuple[int, int, int, int] | None
) -> None:
    """Cut behind a bias, a Relu and a Reshape: in the padding it was, or not possible."""
    g = G(1, 1, 9, 3)
    y = g.do(Conv2D(Window((1, 3), (1, stride), pads, (1, 2))), g.x, g.reals(4, 1, 3, 3))
    y = g.do(u.Relu(), g.do(b.Add(), g.do(Reshape((1, y.shape[2], 4)), y), g.reals(4)))
    graph = g.graph(g.do(Slice((0, cut[0], 0), (1, cut[1], 4), (1, 1, 1)), y))
    out = apply(FoldCrops(), graph)
    (conv,) = (n.op for n in out.nodes if isinstance(n.op, Conv2D))
    assert conv.window.pads == (left or pads)
    assert any(isinstance(n.op, Slice) for n in out.nodes) == (left is None)


def test_a_convolution_that_others_read_is_not_cut() -> None:
    g = G(1, 1, 9, 3)
    y = g.do(Conv2D(Window((1, 3), pads=(0, 2, 0, 2))), g.x, g.reals(4, 1, 3, 3))
    cut = g.do(Slice((0, 0, 0, 0), (1, 1, 9, 4), (1, 1, 1, 1)), y)
    assert unchanged(FoldCrops(), g.graph(g.do(u.Relu(), cut), g.do(u.Relu(), y)))


# LiftScales


@pytest.mark.parametrize(("axes", "moves"), [((1, 2, 3), True), ((1, 2), False), ((3,), False)])
def test_lift_scales(axes: tuple[int, ...], moves: bool) -> None:
    g = G(2, 4, 4, 8)
    s = g.do(ReduceMean(axes), g.do(u.Abs(), g.x))
    y = g.do(Conv2D(Window((3, 3))), g.do(b.Mul(), g.do(u.Sign(), g.x), s), g.reals(3, 3, 3, 8))
    out = apply(LiftScales(), g.graph(y))
    assert isinstance(out.nodes[-1].op, b.Mul if moves else Conv2D)


# SignOfZero


@pytest.mark.parametrize("value", [-1, 1])
def test_sign_of_zero(value: int) -> None:
    g, ctx = G(1, 4), Context()
    out = apply(SignOfZero(value), g.graph(g.do(u.Sign(), g.x, at="s")), ctx)
    np.testing.assert_array_equal(
        run(out, {"x": np.array([[0.0, -0.0, 2, -2]])})[out.outputs[0].name], [[value, value, 1, -1]]
    )
    assert ctx.notices == [f"--sign0: Sign(0) is {value:+d} at s"]


def test_sign_of_zero_leaves_meant_zeros() -> None:
    g = G(1, 4)
    step = g.do(u.Sign(), g.do(u.Relu(), g.x))
    tern = g.do(u.Sign(), g.do(b.Add(), g.do(u.Round(), g.do(u.Clip(-1, 1), g.x)), step))
    assert unchanged(SignOfZero(1), g.graph(tern))
    assert unchanged(SignOfZero(0), g.graph(g.do(u.Sign(), g.x)))


# Binarize


def test_binarize_and_fuse() -> None:
    g, ctx = G(1, 4, 4, 8), Context()
    bits = g.do(b.Where(), g.do(b.Less(), g.x, g.c(0.5)), g.c(-2.0), g.c(2.0))
    y = g.do(Conv2D(Window((3, 3))), bits, g.signs(5, 3, 3, 8), at="conv")
    y = g.do(b.Add(), y, g.c(np.arange(5)))
    out = apply(FuseEpilogues(), apply(Binarize(), g.graph(g.do(u.Relu(), y)), ctx))
    assert [n.op.name for n in out.nodes] == ["Requantize", "Conv2D"]
    conv = out.nodes[1].op
    assert isinstance(conv, Conv2D) and conv.epilogue == Affine(lo=0.0)
    assert [(f.node, f.form) for f in ctx.binary] == [("conv", "input ±2 x weights ±1")]


def test_binarize_says_why_not() -> None:
    def why(x: Value, w: Value, pads: int = 0) -> str:
        ctx = Context()
        y = g.do(Conv2D(Window((3, 3), pads=(pads,) * 4)), x, w, at="conv")
        apply(Binarize(), g.graph(y), ctx)
        declined = ctx.not_binary[-1]  # the convolutions before are in the graph too
        assert declined.node == "conv"
        return declined.why

    g = G(1, 4, 4, 8)
    bits = g.do(u.Sign(), g.x)
    assert "not two-valued (output channel 0 has" in why(bits, g.reals(5, 3, 3, 8))
    three = np.eye(9)[:, :, None, None].reshape(9, 3, 3, 1).repeat(8, 3)
    assert "three-valued, stored as trits, but its input is a graph input" in why(g.x, g.c(three))
    assert "which pays against codes, but its input is a graph input" in why(g.x, g.c(three + np.arange(8) % 2))
    residual = g.signs(5, 3, 3, 8).array + 0.3 * g.signs(5, 3, 3, 8).array
    assert "±a ± b per channel, which pays against codes, but" in why(g.x, g.c(residual))
    assert "NaN" in why(bits, g.c(np.full((5, 3, 3, 8), np.nan)))
    assert "all weights are zero" in why(bits, g.c(np.zeros((5, 3, 3, 8))))
    assert "graph input" in why(g.x, g.signs(5, 3, 3, 8))
    assert "[0, inf]" in why(g.do(u.Relu(), g.x), g.signs(5, 3, 3, 8))
    assert "all equal" in why(g.x, g.c(np.ones((5, 3, 3, 8))))
    steps = [g.do(b.Where(), g.do(b.Less(), g.x, g.c(t)), g.c(-1.0), g.c(1.0)) for t in (0.0, 1.0)]
    wave = g.do(b.Mul(), *steps)
    assert "not monotone" in why(wave, g.signs(5, 3, 3, 8))
    two = g.do(b.Mul(), g.do(u.Sign(), g.x), g.do(u.Sign(), g.do(ReduceMean((3,)), g.x)))
    assert "no function of one tensor" in why(two, g.signs(5, 3, 3, 8))
    uneven = g.do(b.Where(), g.do(b.Less(), g.x, g.c(0.5)), g.c(-2.0), g.c(1.0))
    assert "padding adds a third, 0" in why(uneven, g.signs(5, 3, 3, 8), pads=1)


def test_pad_of_another_value_declines() -> None:
    g, ctx = G(1, 4, 4, 8), Context()
    bits = g.do(b.Where(), g.do(b.Less(), g.x, g.c(0.5)), g.c(-1.0), g.c(1.0))
    y = g.do(Pad((0, 1, 1, 0), (0, 1, 1, 0), 0.5), bits)
    apply(Binarize(), g.graph(g.do(Conv2D(Window((3, 3))), y, g.signs(5, 3, 3, 8))), ctx)
    assert "padded with 0.5" in ctx.not_binary[0].why


def test_bits_are_joined_with_a_constant() -> None:
    g = G(1, 4, 4, 8)
    bits = g.do(b.Where(), g.do(b.Less(), g.x, g.c(0.5)), g.c(-1.0), g.c(1.0))
    y = g.do(Concat(1), bits, g.c(np.ones((1, 1, 4, 8))))
    out = apply(Binarize(), g.graph(g.do(Conv2D(Window((3, 3))), y, g.signs(5, 3, 3, 8))))
    assert all(n.input(0).type.dtype is BIT1 for n in out.nodes if isinstance(n.op, Conv2D | Concat))


# FuseEpilogues


def affine_conv(shared: bool) -> Graph:
    g = G(1, 4, 4, 2)
    acc = g.do(Conv2D(Window((3, 3))), g.x, g.reals(3, 3, 3, 2))
    y = g.do(b.Mul(), acc, g.reals(3))
    y = g.do(b.Div(), g.do(b.Sub(), g.c(1.5), y), g.reals(3))
    y = g.do(u.Clip(-1, 1), y)
    return g.graph(y, acc) if shared else g.graph(y)


@pytest.mark.parametrize("to, rest", [(INT32, []), (INT8, ["Cast"])])
def test_fuse_cast_of_sums(to: DType, rest: list[str]) -> None:
    """Sums of bits are integers: no detour through floats."""
    g = G(1, 4, 4, 8)
    bits = g.do(b.Where(), g.do(b.Less(), g.x, g.c(0.5)), g.c(-1.0), g.c(1.0))
    y = g.do(u.Cast(to), g.do(Conv2D(Window((3, 3))), bits, g.signs(5, 3, 3, 8)))
    out = apply(FuseEpilogues(), apply(Binarize(), g.graph(y)))
    assert [n.op.name for n in out.nodes] == ["Requantize", "Conv2D", *rest]


def test_fuse_affine() -> None:
    (conv,) = apply(FuseEpilogues(), affine_conv(False)).nodes
    assert isinstance(conv.op, Conv2D) and conv.op.epilogue == Affine(-1, 1)
    assert len(apply(FuseEpilogues(), affine_conv(True)).nodes) == 5, "the accumulator has another reader"


@pytest.mark.parametrize("c", [np.full(3, 1e38), [np.nan, 1, 1], np.arange(16).reshape(4, 4, 1)])
def test_fuse_leaves_what_does_not_fit(c: Any) -> None:
    g = G(1, 6, 6, 2)
    y = g.do(Conv2D(Window((3, 3))), g.x, g.reals(3, 3, 3, 2))
    y = g.do(b.Mul(), g.do(b.Mul(), y, g.c(1e3)), g.c(c))
    assert isinstance(FuseEpilogues().run(g.graph(y), Context()).nodes[-1].op, b.Mul)


@pytest.mark.parametrize("dtype", [BIT1, INT8])
def test_fuse_threshold_flips_weights(dtype: Any) -> None:
    g = G(1, 4, 4, 9, dtype=INT8)
    codes = (
        g.rng.random((4, 3, 3, 9)) < 0.5 if dtype is BIT1 else g.rng.integers(-127, 128, (4, 3, 3, 9)).astype(np.int8)
    )
    acc = g.do(Conv2D(Window((3, 3))), g.x, g.const(codes, "w", TensorType(codes.shape, dtype)))
    t, flip = g.const(np.array([0, 3, -3, 7], np.int32)), g.const(np.array([False, True, True, False]))
    y = g.do(Requantize(Threshold(Quant.two_valued(-1, 1))), acc, t, flip)
    (conv,) = apply(FuseEpilogues(), g.graph(y)).nodes
    assert len(conv.inputs) == 3
    codes[1] = True if dtype is BIT1 else -128
    if dtype is INT8:
        g = G(1, 4, 4, 9, dtype=INT8)
        acc = g.do(Conv2D(Window((3, 3))), g.x, g.const(codes))
        y = g.do(Requantize(Threshold(Quant.two_valued(-1, 1))), acc, t, flip)
        assert len(apply(FuseEpilogues(), g.graph(y)).nodes) == 2, "-128 has no negative"


# Weights


def test_two_valued() -> None:
    w = np.array([[1, -1, 1], [0.5, 0.5, 0.5], [-0.0, 0.0, 0.0], [2, -2.00001, 2]], np.float32)
    found = two_valued(w, 1e-4)
    assert isinstance(found, BinaryWeights)
    np.testing.assert_array_equal(found.bits, [[0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(found.alpha, [1, 0.5, 0, 2], rtol=1e-5)
    assert found.alpha[1] == np.float32(0.5)


@pytest.mark.parametrize(
    ("row", "why"),
    [([1, -1, 0], "three-valued"), ([1, 2, -1], "not two-valued"), ([1, -1, np.inf], "infinity"), ([0, 0, 0], "zero")],
)
def test_not_two_valued(row: list[float], why: str) -> None:
    assert why in str(two_valued(np.array([row], np.float32), 1e-4))


# Value sets


@st.composite
def expressions(draw: st.DrawFn) -> tuple[G, Value]:
    g = G(1, 16)
    pool = [g.x]
    for _ in range(draw(st.integers(1, 8))):
        a, c = draw(st.sampled_from(pool)), draw(st.sampled_from(pool))
        number = g.c(draw(st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.0, 3.0])))
        op = draw(
            st.sampled_from([u.Sign(), u.Relu(), u.Round(), u.Neg(), u.Abs(), u.Clip(-1, 1), u.Clip(0, 3), u.Tanh()])
        )
        pair = draw(st.sampled_from([b.Add(), b.Sub(), b.Mul(), b.Min(), b.Max()]))
        match draw(st.integers(0, 4)):
            case 0 | 1:
                pool.append(g.do(op, a))
            case 2:
                pool.append(g.do(pair, a, number))
            case 3:
                pool.append(g.do(pair, a, c))
            case _:
                pool.append(g.do(b.Where(), g.do(b.Less(), a, number), number, c))
    return g, pool[-1]


@given(expressions(), st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_value_sets_are_sound(built: tuple[G, Value], seed: int) -> None:
    g, y = built
    rng = np.random.default_rng(seed)
    x = rng.choice([*rng.normal(size=8) * 3, 0.0, 1.0, -1.0, 0.5, 100.0], (1, 16)).astype(np.float32)
    values = run(g.graph(y), {"x": x})[y.name]
    found = ValueSets(g)[y]
    assert found.lo <= values.min() and values.max() <= found.hi
    if found.points is not None:
        assert set(values.ravel().tolist()) <= set(found.points)
    if found.integer:
        assert (values == np.round(values)).all()


def test_value_sets() -> None:
    g = G(1, 4)
    sets = ValueSets(g)
    sign = g.do(u.Sign(), g.x)
    assert sets[g.x] == EVERYTHING
    assert str(sets[sign]) == "{-1, 0, 1}"
    assert str(sets[g.do(b.Mul(), sign, g.c(0.5))]) == "{-0.5, 0, 0.5}"
    assert str(sets[g.do(u.Sign(), g.do(b.Add(), sign, g.c(0.1)))]) == "{-1, 1}"
    assert str(sets[g.do(u.Clip(0, 1), g.do(u.Round(), g.x))]) == "{0, 1}"
    assert str(sets[g.do(u.Relu(), g.x)]) == "[0, inf]"
    assert str(sets[g.do(Pad((0, 1), (0, 0), 7.0), sign)]) == "{-1, 0, 1, 7}"
    deep = g.x
    for _ in range(5000):
        deep = g.do(u.Neg(), deep)
    assert sets[deep] == EVERYTHING
    bits = Value("bits", TensorType((1, 4), BIT1, DENSE, Quant.two_valued(-1, 1)))
    assert str(sets[g.do(Dequantize(Quant.two_valued(-1, 1)), bits)]) == "{-1, 1}"


def test_planar_images_need_no_transpose() -> None:
    g = G(1, 3, 5, 4)
    image = g.do(TO_NHWC, g.x)
    y = g.do(Conv2D(Window((3, 3))), image, g.reals(6, 3, 3, 3))
    graph = Graph("g", (g.x,), (y,), tuple(g.nodes))
    planar = verify(PlanarImages().run(graph, Context()))
    assert [type(n.op) for n in planar.nodes] == [Conv2D]
    x = g.rng.normal(size=g.x.shape).astype(np.float32)
    np.testing.assert_array_equal(*(next(iter(run(h, {"x": x}).values())) for h in (graph, planar)))


def test_packed_images_stay_pixels() -> None:
    g = G(1, 3, 5, 4, dtype=BIT1)
    y = g.do(Conv2D(Window((3, 3))), g.do(TO_NHWC, g.x), g.reals(6, 3, 3, 3))
    graph = Graph("g", (g.x,), (y,), tuple(g.nodes))
    assert [type(n.op) for n in PlanarImages().run(graph, Context()).nodes] == [Transpose, Conv2D]
