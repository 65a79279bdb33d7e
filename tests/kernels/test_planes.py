"""Weights and activations in several bit planes: the same codes on every target."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from bitc import interp
from bitc.ir.dtypes import BIT1, FLOAT32, INT8, TERN, UINT8
from bitc.ir.graph import Graph, Value
from bitc.ir.types import TensorType
from bitc.kernels import conv_bits, conv_lut
from bitc.kernels.conv_bits import weight_planes
from bitc.kernels.conv_lut import TRITS, pack_trits
from bitc.ops.linear import Conv2D, units
from bitc.ops.pool import MaxPool
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
    trits,
)

TARGETS = ("cortex-m0plus", "cortex-m4", "aarch64", "armv7-neon", "riscv32", "wasm32", "wasm32-simd128", "x86-64-v3")
PADDED = Window((3, 3), (2, 1), (1, 1, 1, 1))


def net() -> Graph:
    """A layer of every kind."""
    rng = np.random.default_rng(0)
    graphs = []
    for dtype in (BIT1, TERN):
        for c, o, window in ((33, 9, PADDED), (64, 17, PADDED), (300, 8, Window()), (3, 5, PADDED)):
            x = TensorType((1, 5, 6, c), dtype)
            shape = (o, *window.kernel, c)
            few = [rng.integers(-7, 8, shape), rng.choice([-3, -1, 1, 3], shape)]
            graphs.append(single(Conv2D(window), x, trits(rng, *shape)))
            graphs += [single(Conv2D(window), x, Value("w", TensorType(shape, INT8), w.astype(np.int8))) for w in few]
    for dtype in (UINT8, INT8, FLOAT32):
        for group in (1, 2):
            w = trits(rng, 10, 3, 3, 6 // group)
            graphs.append(single(Conv2D(PADDED, group), TensorType((1, 5, 6, 6), dtype), w))
    pooled = TensorType((1, 7, 6, 65), TERN)
    graphs += [single(MaxPool(PADDED), pooled), single(MaxPool(PADDED), pooled, rng.random(65) < 0.5)]
    return merge(graphs)


@pytest.mark.parametrize("name", TARGETS)
def test_same_bits_everywhere(name: str, tmp_path: Path) -> None:
    target = Target.load(name)
    if reason := available(target):
        pytest.skip(reason)
    graph = net()
    feeds = random_feeds(graph)
    got, _ = run_on_target(compile_graph(graph, target), tmp_path, feeds, opt="-O2")
    for output, array in interp.run(graph, feeds).items():
        assert_same(got[output], array, output)


@pytest.mark.parametrize("outputs", [7, 200, 700])
@pytest.mark.parametrize("dtype", [UINT8, INT8], ids=str)
def test_tables_of_trits(dtype: object, outputs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three, four and five trits per byte; one table, a part of one, several chunks."""
    monkeypatch.setattr(importlib.import_module("bitc.kernels.select"), "VARIANTS", (conv_lut.VARIANT,))
    rng = np.random.default_rng(outputs)
    graphs = [
        single(Conv2D(Window()), TensorType((1, 1, 2, k), dtype), trits(rng, outputs, 1, 1, k))  # type: ignore[arg-type]
        for k in (1, 2, 4, 5, 19, 20, 21, 53, 54, 55, 100)
    ]
    graph = merge(graphs)
    for extreme in (False, True):
        feeds = random_feeds(graph)
        if extreme:
            feeds = {n: np.full_like(x, np.iinfo(x.dtype).min or np.iinfo(x.dtype).max) for n, x in feeds.items()}
        check(graph, portable(), tmp_path / str(extreme), feeds)


@pytest.mark.parametrize("dtype", [BIT1, TERN], ids=str)
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("levels", [1, 3, 7, 6])
def test_extremes(dtype: object, sign: int, levels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All products of one sign and the largest size, none of them zero."""
    monkeypatch.setattr(importlib.import_module("bitc.kernels.select"), "VARIANTS", (conv_bits.VARIANT,))
    graphs = []
    for k in (31, 255, 256, 1023, 1025, 32_769):
        w = np.full((9, 1, 1, k), levels, np.int8)
        kind = TensorType(w.shape, TERN if levels == 1 else INT8)
        graphs.append(single(Conv2D(Window()), TensorType((1, 1, 1, k), dtype), Value("w", kind, w)))  # type: ignore[arg-type]
    graph = merge(graphs)
    code = np.bool_(sign < 0) if dtype is BIT1 else np.int8(sign)
    for target in ("host", "portable"):
        chip = portable() if target == "portable" else Target.load(target)
        check(graph, chip, tmp_path / target, {v.name: np.full(v.shape, code) for v in graph.inputs})


@pytest.mark.parametrize("values", [[-1, 0, 1], [-3, -1, 1, 3], [-7, 5, 1], [0, 2, 4], [-7, -6, 0, 3], [0], [1, -1]])
def test_planes_add_up(values: list[int]) -> None:
    w = np.random.default_rng(0).choice(np.array(values, np.int8), (5, 3, 3, 8))
    total = np.zeros(w.shape, np.int64)
    for plane in weight_planes(w):
        total = 2 * total + units(plane)
    np.testing.assert_array_equal(total, w)


@pytest.mark.parametrize("per_byte", TRITS)
def test_trits_round_trip(per_byte: int) -> None:
    chunk = per_byte * TRITS[per_byte]
    codes = np.random.default_rng(0).integers(-1, 2, (3, 1, 1, 2 * chunk + 7)).astype(np.int8)
    packed, at = pack_trits(codes, per_byte, chunk), 0
    for start in range(0, codes.shape[3], chunk):
        part = codes[:, 0, 0, start : start + chunk]
        octets = packed[at : at + 3 * -(-part.shape[1] // per_byte)].reshape(3, -1)
        at += octets.size
        digits = octets[:, :, None] // 3 ** np.arange(per_byte) % 3
        found = np.array([0, 1, -1])[digits].reshape(3, -1)[:, : part.shape[1]]
        np.testing.assert_array_equal(found, part)
    assert at == packed.size
