"""All rows but convolution against the reference, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bitc.ir.dtypes import BIT1, BOOL, FLOAT32, INT8, INT16, INT32, INT64, TERN, UINT8, DType
from bitc.ir.graph import Graph
from bitc.ir.types import Quant, TensorType
from bitc.ops import binary as b2
from bitc.ops import unary as u1
from bitc.ops.epilogue import Affine, TernThreshold, Threshold
from bitc.ops.linear import MatMul
from bitc.ops.movement import Concat, Crop, Expand, Gather, Pad, Reshape, Slice, Tile, Transpose
from bitc.ops.pool import ArgMaxPool, AveragePool, MaxPool
from bitc.ops.quantize import Dequantize, Requantize
from bitc.ops.reduce import (
    AddPixels,
    ArgMax,
    ArgMin,
    LogSoftmax,
    MaxPixels,
    ReduceMax,
    ReduceMean,
    ReduceMin,
    ReduceProd,
    ReduceSum,
    Softmax,
)
from bitc.ops.window import Window
from bitc.target import Target
from tests.kernels.harness import check, merge, portable, random_array, random_feeds, single

TARGETS = {"host": lambda: Target.load("host"), "portable": portable}
NUMBERS = (FLOAT32, INT8, UINT8, INT16, INT32, INT64)


def t(*shape: int, dtype: DType = FLOAT32) -> TensorType:
    return TensorType(shape, dtype)


def unary() -> list[Graph]:
    floats = (
        u1.Neg, u1.Abs, u1.Sign, u1.Relu, u1.LeakyRelu, u1.Elu, u1.Selu, u1.HardSigmoid, u1.HardSwish, u1.Exp, u1.Log,
        u1.Tanh, u1.Sigmoid, u1.Erf, u1.Softplus, u1.Softsign, u1.Sqrt, u1.Reciprocal, u1.Floor, u1.Ceil, u1.Trunc,
        u1.Round, u1.IsNaN,
    )  # fmt: skip
    graphs = [single(c(), t(3, 5, 7)) for c in floats]
    graphs += [single(c(), t(3, 5, dtype=d)) for d in NUMBERS for c in (u1.Relu, u1.Neg, u1.Abs) if d.is_signed]
    graphs += [single(u1.Clip(lo, 3.0), t(3, 5, dtype=d)) for lo in (1.0, 0.0) for d in NUMBERS]
    graphs += [
        single(u1.Narrow(*n), t(3, 50)) for n in ((10, -14, 3.0, "inf"), (7, -126, 2.5, "top"), (2, 1, 1.75, "nan"))
    ]
    graphs += [single(u1.Clip(-1.0), t(3, 5)), single(u1.Not(), t(7, dtype=BOOL)), single(u1.Relu(), t(4, dtype=UINT8))]
    return graphs + [single(u1.Cast(dtype=b), t(33, dtype=a)) for a in (*NUMBERS, BOOL) for b in (*NUMBERS, BOOL)]


def binary() -> list[Graph]:
    rng = np.random.default_rng(0)
    classes = (
        b2.Add, b2.Sub, b2.Mul, b2.Div, b2.Min, b2.Max, b2.Less, b2.LessOrEqual, b2.Greater, b2.GreaterOrEqual,
        b2.Equal,
    )  # fmt: skip
    graphs = []
    for c in classes:
        for d in NUMBERS:
            graphs.append(single(c(), t(3, 1, 7, dtype=d), t(5, 1, dtype=d)))
            graphs.append(single(c(), t(3, 5, 7, dtype=d), random_array(t(7, dtype=d), rng)))
    graphs += [single(b2.Mod(f), t(3, 5, 7, dtype=d), t(7, dtype=d)) for f in (False, True) for d in NUMBERS]
    graphs += [single(c(), t(3, 5, dtype=BOOL), t(5, dtype=BOOL)) for c in (b2.And, b2.Or, b2.Xor)]
    steps = np.sort(rng.normal(size=(3, 7)), 1).astype(np.float32)
    return [
        *graphs,
        single(b2.Pow(), t(3, 5, 7), t(7)),
        single(b2.PRelu(), t(3, 5, 7), t(7)),
        single(b2.Where(), t(3, 1, dtype=BOOL), t(3, 5), t(1, 5)),
        single(b2.MultiThreshold(0.5, -1.0, -1), t(2, 5, 3), steps),
        single(b2.MultiThreshold(0.5, -1.0, -2), t(2, 5, 3), steps[:1]),
    ]


def movement() -> list[Graph]:
    graphs = []
    for d in (FLOAT32, INT8, BIT1, TERN):
        for c in (5, 24, 64, 40):
            x = t(2, 3, 4, c, dtype=d)
            graphs += [
                single(Transpose((0, 3, 1, 2)), x),
                single(Transpose((0, 2, 1, 3)), x),
                *(single(Reshape(s), x) for s in ((2, 3, 4 * c), (2, c * 3, 4), (8, 3 * c), (6, 4, 1, c))),
                single(Slice((1, 0, 3, c - 1), (2, 3, -1, -1), (1, 2, -2, -1)), x),
                single(Slice((1, 0, 0, 1), (2, 3, 4, 4), (1, 1, 1, 1)), x),
                single(Concat(3), x, t(2, 3, 4, 8, dtype=d), t(2, 3, 4, 3, dtype=d)),
                single(Concat(3), x, t(2, 3, 4, 64, dtype=d), t(2, 3, 4, 8, dtype=d)),
                single(Concat(1), x, t(2, 1, 4, c, dtype=d)),
                single(Pad((0, 1, 2, 0), (0, 0, 1, 0)), x),
                single(Pad((0, 1, 2, 3), (0, 0, 1, 2)), x),
                *(single(Pad((0, 1, 2, p), (0, 0, 1, 2 * p), 1), x) for p in (0, 3)),
                *(single(Pad((0, 1, 2, 0), (0, 0, 1, 2), 0.0, m), x) for m in ("edge", "reflect", "wrap")),
                single(Tile((1, 2, 1, 2)), x),
                single(Expand((5, 2, 3, c)), t(2, 1, c, dtype=d)),
                single(Crop((2, 3)), x),
                single(Gather(1), x, np.array([[0, 2, 2], [1, 1, 0]])),
                single(Gather(3), x, np.array([0, 2, 4, 1])),
            ]
    graphs += [single(Crop((3, 2), planar=True), t(2, 5, 4, 3, dtype=d)) for d in (FLOAT32, INT8)]
    return [*graphs, single(Pad((1, 1), (0, 2), 7.5), t(3, 4)), single(Pad((1, 1), (0, 2), -3), t(3, 4, dtype=INT8))]


def reductions() -> list[Graph]:
    graphs = [
        single(c(axes, keep), t(3, 4, 5, dtype=d))
        for c in (ReduceSum, ReduceMean, ReduceProd, ReduceMax, ReduceMin)
        for d in (FLOAT32, INT32, INT8)
        for axes, keep in (((1,), True), ((0, 2), False), ((2,), True), ((0, 1, 2), False))
    ]
    graphs += [
        single(c(axis, True, last), t(3, 4, 5, dtype=d))
        for c in (ArgMax, ArgMin)
        for d in (FLOAT32, INT8)
        for axis in (0, 1, 2)
        for last in (False, True)
    ]
    for c, h in ((1, 1), (3, 4), (8, 1), (65, 2)):
        graphs += [single(AddPixels(), t(1, 1, 1, c), t(1, h, 5, c))]
        graphs += [single(AddPixels(), t(1, 1, 1, c, dtype=INT32), t(1, h, 5, c, dtype=d)) for d in (INT8, UINT8)]
        graphs += [
            single(MaxPixels(least), t(1, 1, 1, c, dtype=d), t(1, h, 5, c, dtype=d))
            for d in (FLOAT32, INT8, UINT8, INT32, BIT1)
            for least in (False, True)
        ]
    graphs += [single(c(axis), t(3, 4, 5)) for c in (Softmax, LogSoftmax) for axis in (0, 1, 2)]
    shapes = (
        ((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 1, 3, 4), (6, 4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)),
        ((7, 33), (33, 37)), ((2, 1, 9, 5), (3, 5, 70)), ((1, 64), (64, 50)), ((13, 20), (20,)), ((5, 1), (1, 130)),
    )  # fmt: skip
    return graphs + [single(MatMul(), t(*a), t(*b)) for a, b in shapes]


def pools() -> list[Graph]:
    rng = np.random.default_rng(0)
    graphs = []
    outside = Window((2, 2), (1, 2), (2, 2, 2, 0))  # some windows hold only padding
    for window in (Window((3, 2), (2, 2), (1, 0, 1, 1)), Window((2, 2), (2, 2)), outside):
        for dtype, c in (
            (BIT1, 33),
            (BIT1, 64),
            (TERN, 3),
            (TERN, 33),
            (TERN, 64),
            (TERN, 65),
            (FLOAT32, 5),
            (INT8, 5),
            (UINT8, 7),
            (INT32, 3),
        ):
            if window is outside and dtype is TERN:
                continue  # refused
            x = t(2, 7, 6, c, dtype=dtype)
            graphs += [single(MaxPool(window), x)]
            graphs += [single(MaxPool(window), x, m) for m in (np.ones(c, np.bool_), rng.random(c) < 0.5)]
        graphs += [single(ArgMaxPool(window), t(2, 7, 6, 5, dtype=d)) for d in (FLOAT32, INT8, INT64)]
        graphs += [single(AveragePool(window, pad), t(2, 7, 6, 5)) for pad in (False, True)]
    return graphs


def quantization() -> list[Graph]:
    rng = np.random.default_rng(0)
    pm, graphs = Quant.two_valued(-1, 1), []
    for d in (FLOAT32, INT32, INT8):
        for shape in ((33,), (1,), (4, 33), (4, 1), (2, 1, 1)):
            low = np.rint(rng.normal(size=shape) * 9).astype(d.carrier)
            flip = rng.random(shape) < 0.5
            high = np.where(flip, low - 2, low + 2).astype(d.carrier)
            x = t(2, 4, 33, dtype=d)
            graphs += [
                single(Requantize(Threshold(pm)), x, low),
                single(Requantize(Threshold(pm, True)), x, low, flip),
                single(Requantize(TernThreshold(Quant())), x, low, low + low.dtype.type(2)),
                single(Requantize(TernThreshold(Quant())), x, low, high, flip),
                single(Requantize(Affine(-1, 1)), x, low.astype(np.float32), high.astype(np.float32)),
            ]
    several = Quant(tuple(rng.normal(size=33).tolist()), tuple(rng.normal(size=33).tolist()))
    for d in (BIT1, TERN, INT8, INT32):
        graphs += [
            single(Dequantize(q), t(2, 4, 33, dtype=d)) for q in (Quant((-2.0,), (1.0,)), Quant((-2.0,)), several)
        ]
    return graphs


GROUPS: dict[str, Callable[[], list[Graph]]] = {
    "unary": unary,
    "binary": binary,
    "movement": movement,
    "reductions": reductions,
    "pools": pools,
    "quantization": quantization,
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("group", GROUPS)
def test_group(target: str, group: str, tmp_path: Path) -> None:
    graph = merge(GROUPS[group]())
    feeds = random_feeds(graph)
    for array in feeds.values():
        if array.dtype.kind == "f" and array.size > 20:
            array.reshape(-1)[[1, 3, 5, 7, 9]] = [0.0, -0.0, np.inf, -np.inf, np.nan]
    check(graph, TARGETS[target](), tmp_path, feeds)
