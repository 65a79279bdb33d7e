"""Activations of one to four bits in planes: the same codes as the oracle, on every target."""

from __future__ import annotations

import importlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from bitc import interp
from bitc.ir.dtypes import BIT1, FLOAT32, INT8, INT32, TERN, UINT1, UINT2, UINT3, UINT4, UINT8, DType
from bitc.ir.graph import Graph, Value, constant
from bitc.ir.types import Quant, TensorType
from bitc.kernels import conv_planes
from bitc.ops.epilogue import Affine, Epilogue, Levels, TernThreshold, Threshold
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Pad, Reshape, Slice
from bitc.ops.pool import MaxPool
from bitc.ops.quantize import Dequantize, Requantize
from bitc.ops.window import Window
from bitc.runners import available
from bitc.target import Target
from tests.kernels.harness import (
    assert_same,
    check,
    compile_graph,
    merge,
    portable,
    random_feeds,
    run_on_target,
    single,
)

TARGETS = ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m33", "cortex-m7", "cortex-m55", "aarch64", "armv7-neon",
           "riscv32", "wasm32", "wasm32-simd128", "x86-64-v3")  # fmt: skip
PADDED = Window((3, 3), (2, 1), (1, 1, 1, 1))
DIGITS = (UINT1, UINT2, UINT3, UINT4)


def weights(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Value:
    values, dtype = {
        "bits": ([True, False], BIT1),
        "trits": ([-1, 0, 1], TERN),
        "odd": ([-3, -1, 1, 3], INT8),
        "few": (list(range(-8, 8)), INT8),
    }[kind]
    return Value("w", TensorType(shape, dtype), rng.choice(np.array(values, dtype.carrier), shape))


def levels(rng: np.random.Generator, op: Conv2D, x: TensorType, w: Value, dtype: DType, even: bool) -> Graph:
    """The layer with a threshold per step: evenly spaced but for rounding, or anywhere."""
    largest = int(min(dtype.max, 15))
    low, high = op.span(x, w.array)
    middle, width = (low + high) / 2, (high - low + 1) * rng.uniform(0.1, 0.6, len(low))
    if even:
        t = [np.ceil(middle + width * (i / largest - 0.5)).astype(np.int32) for i in range(largest)]
    else:
        t = list(np.sort(rng.integers(low.min(), high.max() + 2, (largest, len(low))), axis=0).astype(np.int32))
    epilogue = Levels(Quant((0.5,)), dtype, largest)
    return single(Conv2D(op.window, op.group, epilogue, x_zero=op.x_zero), x, w, *(constant("t", a) for a in t))


def layers(seed: int = 0) -> list[Graph]:
    """Awkward numbers of channels and outputs, every kind of weights, zeros and output."""
    rng = np.random.default_rng(seed)
    graphs = []
    for i, (c, o, window) in enumerate(
        ((1, 9, PADDED), (31, 8, PADDED), (32, 17, PADDED), (33, 33, PADDED), (63, 10, PADDED), (65, 16, PADDED),
         (3, 5, PADDED), (64, 40, Window()), (300, 8, Window()), (128, 9, Window((1, 1), (2, 2))))
    ):  # fmt: skip
        for j, kind in enumerate(("bits", "trits", "odd", "few")):
            dtype = DIGITS[(i + j) % 4]
            x, w = TensorType((1, 5, 6, c), dtype), weights(rng, kind, (o, *window.kernel, c))
            op = Conv2D(window, x_zero=int(rng.integers(0, dtype.max + 1)))
            made = (
                single(op, x, w),
                levels(rng, op, x, w, DIGITS[j], even=True),
                levels(rng, op, x, w, DIGITS[3 - j], even=False),
                levels(rng, op, x, w, UINT8, even=True),
            )
            graphs.append(made[(i + j) % 4])
    for group, c, o in ((2, 64, 8), (4, 24, 12), (3, 9, 6), (8, 8, 8)):
        for dtype in (UINT2, UINT4):
            w = weights(rng, "trits", (o, 3, 3, c // group))
            graphs.append(single(Conv2D(PADDED, group, x_zero=2), TensorType((2, 5, 6, c), dtype), w))
    return graphs


def around() -> list[Graph]:
    """What stands between convolutions."""
    rng = np.random.default_rng(1)
    graphs = []
    for dtype in DIGITS:
        for c in (5, 32, 65):
            x = TensorType((1, 7, 6, c), dtype)
            graphs.append(single(Dequantize(Quant((0.25,), (-1.0,))), x))
            minimum = rng.random(c) < 0.5
            graphs += [single(MaxPool(PADDED), x, *m) for m in ((), (minimum,), (np.ones(c, np.bool_),))]
            graphs.append(single(Pad((0, 1, 0, 0), (0, 0, 2, 0), value=float(dtype.max)), x))
            graphs.append(single(Slice((0, 1, 0, 1), (1, 3, 3, c - 1), (1, 2, 1, 1)), x))
            graphs.append(single(Reshape((1, 1, 6, 7 * c)), x))
        for root in (FLOAT32, INT32):
            n = int(dtype.max)
            t = np.sort(rng.normal(0, 2, (n, 9)), axis=0).astype(root.carrier)
            flip = rng.random(9) < 0.5
            falling = [*(constant("t", a) for a in np.where(flip, t[::-1], t)), constant("flip", flip)]
            x = TensorType((1, 3, 4, 9), root)
            graphs.append(single(Requantize(Levels(Quant((1.0,)), dtype, n)), x, *falling))
            graphs.append(single(Requantize(Levels(Quant((1.0,)), UINT8, n)), x, *(constant("t", a) for a in t)))
    return graphs


def dense_weights() -> list[Graph]:
    """Against weights of eight bits and reals."""
    rng = np.random.default_rng(2)
    graphs = []
    for dtype, group in ((UINT2, 1), (UINT4, 2)):
        w = rng.integers(-127, 128, (6, 3, 3, 10 // group)).astype(np.int8)
        x = TensorType((1, 5, 6, 10), dtype)
        graphs += [single(Conv2D(PADDED, group, x_zero=3), x, w), single(Conv2D(PADDED, group), x, w / np.float32(7))]
    return graphs


@pytest.mark.parametrize("target", ["host", "portable"])
def test_on_this_machine(target: str, tmp_path: Path) -> None:
    chip = portable() if target == "portable" else Target.load(target)
    graph = merge([*layers(), *around(), *dense_weights()])
    check(graph, chip, tmp_path, random_feeds(graph))


@pytest.mark.parametrize("name", TARGETS)
def test_same_bits_everywhere(name: str, tmp_path: Path) -> None:
    target = Target.load(name)
    if reason := available(target):
        pytest.skip(reason)
    graph = merge([*layers(3), *around()[::5], *dense_weights()])
    feeds = random_feeds(graph)
    got, _ = run_on_target(compile_graph(graph, target), tmp_path, feeds, opt="-O1")
    for output, array in interp.run(graph, feeds).items():
        assert_same(got[output], array, output)


@pytest.mark.parametrize("target", ["host", "portable"])
def test_extremes(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All products of one sign and the largest size, at and around limits of the counters."""
    monkeypatch.setattr(importlib.import_module("bitc.kernels.select"), "VARIANTS", (conv_planes.VARIANT,))
    graphs, feeds = [], {}
    for dtype, k, sign in product((UINT1, UINT4), (31, 256, 1983, 1985, 32_769), (-1, 1)):
        for w in (np.full((9, 1, 1, k), sign < 0), np.full((9, 1, 1, k), 8 * sign, np.int8)):
            kind = TensorType(w.shape, BIT1 if w.dtype.kind == "b" else INT8)
            zero = int(dtype.max) if sign < 0 else 0
            graphs.append(single(Conv2D(Window(), x_zero=zero), TensorType((1, 1, 2, k), dtype), Value("w", kind, w)))
    graph = merge(graphs)
    for v in graph.inputs:
        feeds[v.name] = np.full(v.shape, int(v.type.dtype.max), np.uint8)
        feeds[v.name][:, :, 1] = 0
    check(graph, portable() if target == "portable" else Target.load(target), tmp_path, feeds)


@pytest.mark.parametrize(
    "epilogue", [Affine(), Threshold(Quant.two_valued(-1, 1)), TernThreshold(Quant())], ids=lambda e: type(e).__name__
)
def test_other_outputs(epilogue: Epilogue, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    w = weights(rng, "few", (33, 3, 3, 33))
    count = 1 if isinstance(epilogue, Threshold) else 2
    values = np.sort(rng.normal(0, 20, (count, 33)), axis=0)
    params = [constant("p", p.astype(np.float32 if isinstance(epilogue, Affine) else np.int32)) for p in values]
    graph = single(Conv2D(PADDED, epilogue=epilogue, x_zero=1), TensorType((1, 5, 6, 33), UINT2), w, *params)
    check(graph, portable(), tmp_path, random_feeds(graph))
