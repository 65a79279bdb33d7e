"""Sparse int8 weights against packed activations: the codes of the oracle."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from bitc import interp
from bitc.ir.dtypes import BIT1, INT8, TERN, UINT1, UINT2, UINT4
from bitc.ir.graph import Graph, Value
from bitc.ir.types import Quant, TensorType
from bitc.kernels import conv_sparse_bits
from bitc.kernels.conv_sparse_bits import VARIANT, lists
from bitc.ops.epilogue import Affine, Threshold
from bitc.ops.linear import Conv2D
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

PADDED = Window((3, 3), (2, 1), (1, 1, 1, 1))


@pytest.fixture(autouse=True)
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("bitc.kernels.select"), "VARIANTS", (VARIANT,))
    monkeypatch.setattr(conv_sparse_bits, "MOST", 1.0)


def sparse(rng: np.random.Generator, share: float, *shape: int) -> Value:
    w = np.where(rng.random(shape) < share, rng.integers(-128, 128, shape), 0).astype(np.int8)
    return Value("w", TensorType(shape, INT8), w)


def net() -> Graph:
    rng, graphs = np.random.default_rng(0), []
    for i, dtype in enumerate((BIT1, TERN, UINT1, UINT2, UINT4)):
        for c, window, share in ((1, PADDED, 0.3), (31, PADDED, 0.1), (33, Window(), 0.0), (65, PADDED, 1.0)):
            x, w = TensorType((1 + i % 2, 5, 6, c), dtype), sparse(rng, share, 9, *window.kernel, c)
            op = Conv2D(window, x_zero=int(dtype.max) if dtype.digits else 0)
            scale, bias = (rng.normal(size=9).astype(np.float32) for _ in range(2))
            epilogue = Threshold(Quant.two_valued(-1, 1))
            graphs += [single(op, x, w), single(Conv2D(window, epilogue=Affine(), x_zero=op.x_zero), x, w, scale, bias),
                       single(Conv2D(window, epilogue=epilogue), x, w, np.arange(9, dtype=np.int32))]  # fmt: skip
    return merge(graphs)


@pytest.mark.parametrize("target", ["host", "portable"])
def test_on_this_machine(target: str, tmp_path: Path) -> None:
    graph = net()
    check(graph, portable() if target == "portable" else Target.load(target), tmp_path, random_feeds(graph))


@pytest.mark.parametrize("name", ["cortex-m0plus", "cortex-m4", "cortex-m55", "aarch64", "wasm32"])
def test_same_bits_everywhere(name: str, tmp_path: Path) -> None:
    target = Target.load(name)
    if reason := available(target):
        pytest.skip(reason)
    graph = net()
    feeds = random_feeds(graph)
    got, _ = run_on_target(compile_graph(graph, target), tmp_path, feeds, opt="-O1")
    for output, array in interp.run(graph, feeds).items():
        assert_same(got[output], array, output)


def test_lists() -> None:
    w = sparse(np.random.default_rng(0), 0.1, 5, 3, 3, 70).array
    counts, places, values = lists(w)
    found, at = np.zeros((5, 630), np.int8), 0
    for row, count in zip(found, counts.tolist(), strict=True):
        row[places[at : at + count]] = values[at : at + count]
        at += count
    assert at == len(values) and places.dtype == np.uint16
    np.testing.assert_array_equal(found.reshape(w.shape), w)
