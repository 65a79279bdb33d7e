"""Convolution rows against the reference, bit for bit, on awkward sizes."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from bitc.ir.dtypes import BIT1, FLOAT32, INT8, TERN, UINT8
from bitc.ir.graph import Graph, Value
from bitc.ir.types import Quant, TensorType
from bitc.ops.epilogue import Affine, Epilogue, TernThreshold, Threshold
from bitc.ops.linear import Conv2D
from bitc.ops.window import Window
from bitc.target import Target
from tests.kernels.harness import bits, check, merge, portable, random_array, random_feeds, single, trits

TARGETS = {"host": lambda: Target.load("host"), "portable": portable}
PM = Quant.two_valued(-1, 1)
WINDOWS = {
    "1x1": Window(),
    "3x3": Window((3, 3), pads=(1, 1, 1, 1)),
    "3x3s2": Window((3, 3), (2, 2), (0, 1, 1, 2)),
    "3x3d2": Window((3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    "5x5": Window((5, 5), pads=(2, 2, 2, 2)),
    "2x3": Window((2, 3), (1, 2)),
    "far": Window((2, 2), (3, 3), (2, 2, 2, 2)),
}
CHANNELS = (1, 3, 8, 31, 32, 33, 63, 64, 65)


def epilogues(rng: np.random.Generator, outputs: int, k: int, is_float: bool) -> list[tuple[Epilogue | None, list]]:
    reals = [rng.normal(size=outputs).astype(np.float32), rng.normal(size=outputs).astype(np.float32)]
    t = rng.normal(size=outputs).astype(np.float32) * 2
    if not is_float:
        t = np.rint(t * np.sqrt(k)).astype(np.int32)
    return [
        (None, []),
        (Affine(), [reals[0][:1], reals[1]]),
        (Affine(-1.0, 2.5), reals),
        (Threshold(PM), [t]),
        (Threshold(PM, nan_low=True), [t[:1]]),
        (TernThreshold(Quant()), [t, t + 2]),
    ]


def case(rng: np.random.Generator, x: TensorType, w: Value, window: Window, which: int, group: int = 1) -> Graph:
    is_float = x.dtype is FLOAT32 or w.type.dtype is FLOAT32
    epilogue, params = epilogues(rng, w.shape[0], w.type.size // w.shape[0], is_float)[which]
    return single(Conv2D(window, group, epilogue), x, w, *params)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("dtype", [BIT1, TERN], ids=str)
def test_packed(target: str, window: str, dtype: object, tmp_path: Path) -> None:
    rng = np.random.default_rng(len(window))
    geometry, graphs = WINDOWS[window], []
    for i, c in enumerate(CHANNELS):
        x = TensorType((1 + i % 2, 6, 7, c), dtype)  # type: ignore[arg-type]
        w = bits(rng, CHANNELS[-1 - i], *geometry.kernel, c)
        graphs.append(case(rng, x, w, geometry, i % 6))
    graph = merge(graphs)
    check(graph, TARGETS[target](), tmp_path, random_feeds(graph))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("dtype", [BIT1, TERN], ids=str)
def test_packed_times_trits(target: str, window: str, dtype: object, tmp_path: Path) -> None:
    rng = np.random.default_rng(len(window))
    geometry, graphs = WINDOWS[window], []
    for i, c in enumerate(CHANNELS):
        x = TensorType((1 + i % 2, 6, 7, c), dtype)  # type: ignore[arg-type]
        w = trits(rng, CHANNELS[-1 - i], *geometry.kernel, c)
        graphs.append(case(rng, x, w, geometry, i % 6))
    graph = merge(graphs)
    check(graph, TARGETS[target](), tmp_path, random_feeds(graph))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [BIT1, TERN], ids=str)
def test_packed_times_small_integers(target: str, dtype: object, tmp_path: Path) -> None:
    """Two and three planes, of signs or of trits."""
    rng = np.random.default_rng(8)
    levels = ([-3, -1, 1, 3], [-7, -5, 1, 7], [-2, -1, 0, 1, 2], [-7, -4, 0, 3, 6], [0], [2, 4])
    graphs = []
    for i, (window, c) in enumerate(itertools.product(("1x1", "3x3", "2x3", "far"), (3, 32, 65))):
        for values in levels:
            shape = (CHANNELS[i % 9], *WINDOWS[window].kernel, c)
            w = Value("w", TensorType(shape, INT8), rng.choice(values, shape).astype(np.int8))
            x = TensorType((1, 5, 6, c), dtype)  # type: ignore[arg-type]
            graphs.append(case(rng, x, w, WINDOWS[window], i % 6))
    for c in (6, 64):
        w = Value("w", TensorType((10, 3, 3, c // 2), INT8), rng.integers(-7, 8, (10, 3, 3, c // 2)).astype(np.int8))
        graphs.append(single(Conv2D(WINDOWS["3x3"], 2), TensorType((1, 5, 6, c), dtype), w))  # type: ignore[arg-type]
    graph = merge(graphs)
    compiled = check(graph, TARGETS[target](), tmp_path, random_feeds(graph))
    assert sum(layer.kernel == "conv_bits" for layer in compiled.program.layers) > len(graphs) // 3


@pytest.mark.parametrize("target", TARGETS)
def test_extremes(target: str, tmp_path: Path) -> None:
    """All products +1 and all -1, in long dense layers: the counters must not overflow."""
    graphs = []
    for k, low in itertools.product((31, 1023, 1024, 1025, 70_001), (False, True)):
        w = Value("w", TensorType((9, 1, 1, k), BIT1), np.full((9, 1, 1, k), low))
        graphs.append(single(Conv2D(Window()), TensorType((1, 1, 1, k), BIT1), w))
    graph = merge(graphs)
    for value in (False, True):
        feeds = {v.name: np.full(v.shape, value) for v in graph.inputs}
        check(graph, TARGETS[target](), tmp_path / str(value), feeds)


@pytest.mark.parametrize("target", TARGETS)
def test_groups(target: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    graphs = []
    window = Window((3, 2), pads=(1, 1, 0, 0))
    for i, (group, c, o) in enumerate(
        [(2, 64, 32), (3, 9, 9), (4, 32, 12), (2, 6, 70), (2, 66, 66), (5, 5, 5), (33, 33, 33), (64, 64, 64), (4, 4, 8)]
    ):
        for dtype in (BIT1, TERN, FLOAT32, UINT8, INT8):
            x = TensorType((1, 5, 6, c), dtype)
            for wt in (BIT1, TERN, FLOAT32, INT8):
                if wt.is_packed or not dtype.is_packed:
                    shape = (o, 3, 2, c // group)
                    w = Value("w", TensorType(shape, wt), random_array(TensorType(shape, wt), rng))
                    graphs.append(case(rng, x, w, window, i % 6, group))
    graph = merge(graphs)
    check(graph, TARGETS[target](), tmp_path, random_feeds(graph))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [FLOAT32, UINT8, INT8, BIT1, TERN], ids=str)
def test_dense(target: str, dtype: object, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    graphs = []
    for wt in (FLOAT32, INT8, BIT1, TERN):
        for i, (c, o) in enumerate([(1, 1), (3, 8), (3, 17), (9, 33), (64, 10), (5, 64)]):
            for window in ("3x3", "1x1", "3x3s2") if c < 9 else ("1x1",):
                shape = (o, *WINDOWS[window].kernel, c)
                w = Value("w", TensorType(shape, wt), random_array(TensorType(shape, wt), rng))
                x = TensorType((1 + i % 2, 5, 6, c), dtype)  # type: ignore[arg-type]
                graphs.append(case(rng, x, w, WINDOWS[window], i % 6))
    graph = merge(graphs)
    check(graph, TARGETS[target](), tmp_path, random_feeds(graph))


def test_float_specials(tmp_path: Path) -> None:
    """Infinities, NaN and signed zeros pass through float layers as in the reference."""
    rng = np.random.default_rng(2)
    graphs = [
        case(rng, TensorType((1, 4, 4, 3), FLOAT32), bits(rng, 9, 3, 3, 3), WINDOWS["3x3"], which)
        for which in (0, 2, 3, 4, 5)
    ]
    graphs += [case(rng, g.inputs[0].type, trits(rng, 9, 3, 3, 3), WINDOWS["3x3"], 0) for g in graphs[:2]]
    graph = merge(graphs)
    feeds = random_feeds(graph)
    for array in feeds.values():
        array.reshape(-1)[[0, 13, 20, 21, 47]] = [np.nan, np.inf, -np.inf, -0.0, 0.0]
    check(graph, Target.load("host"), tmp_path, feeds)


@pytest.mark.full
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("dtype", [BIT1, TERN], ids=str)
def test_packed_sweep(target: str, window: str, dtype: object, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for c in CHANNELS:
        graphs = []
        for o in (1, 2, 7, 8, 9, 16, 31, 32, 33, 64, 65):
            for which in range(6):
                w = bits(rng, o, *WINDOWS[window].kernel, c)
                graphs.append(case(rng, TensorType((1, 5, 8, c), dtype), w, WINDOWS[window], which))  # type: ignore[arg-type]
        graph = merge(graphs)
        check(graph, TARGETS[target](), tmp_path / str(c), random_feeds(graph, c))


@pytest.mark.parametrize("target", TARGETS)
def test_planar_images(target: str, tmp_path: Path) -> None:
    """Images in ONNX's order, read without a copy: every kind of input and weights, strided, padded and grouped."""
    rng = np.random.default_rng(5)
    graphs = []
    kinds = itertools.product((UINT8, INT8, FLOAT32), (BIT1, TERN, INT8, FLOAT32), (1, 3), ("1x1", "3x3s2", "2x3"))
    for dtype, weights, group, window in kinds:
        shape = (6, *WINDOWS[window].kernel, 3 // group)
        kind = TensorType(shape, weights)
        w = bits(rng, *shape) if weights is BIT1 else Value("w", kind, random_array(kind, rng))
        graphs.append(single(Conv2D(WINDOWS[window], group, planar=True), TensorType((2, 3, 7, 6), dtype), w))
    graph = merge(graphs)
    check(graph, TARGETS[target](), tmp_path, random_feeds(graph))
