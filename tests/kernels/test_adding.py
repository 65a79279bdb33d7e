"""Products that are added to a total, bit for bit with the reference, on awkward sizes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bitc import interp
from bitc.ir.dtypes import BIT1, FLOAT32, INT8, INT16, INT32, TERN, UINT2, UINT8, DType
from bitc.ir.graph import Graph, Value
from bitc.ir.types import TensorType
from bitc.ops.linear import AddProducts, Conv2D
from bitc.ops.window import Window
from bitc.runners import available
from bitc.target import Target
from tests.kernels.harness import (
    assert_same,
    check,
    compile_graph,
    merge,
    portable,
    random_array,
    random_feeds,
    run_on_target,
    single,
)

TARGETS: dict[str, Callable[[], Target]] = {"host": lambda: Target.load("host"), "portable": portable}
PAIRS = (
    *itertools.product((BIT1, TERN, FLOAT32, INT8), (BIT1, TERN)),
    *((x, INT8) for x in (BIT1, UINT2, INT8, UINT8, INT16)),
    (FLOAT32, FLOAT32),
)
SIZES = ((1, 1, 7, 1), (2, 3, 33, 10), (1, 5, 8, 33), (1, 2, 64, 8), (3, 1, 65, 3))
"""Rows, columns and channels, outputs."""


def case(x: DType, w: DType, size: tuple[int, int, int, int], rng: np.random.Generator, small: bool = False) -> Graph:
    h, columns, c, outputs = size
    image, weights = TensorType((1, h, columns, c), x), TensorType((outputs, h, columns, c), w)
    values = rng.integers(-2, 3, weights.shape).astype(np.int8) if small else random_array(weights, rng)
    zero = int(rng.integers(1, 4)) if x in (INT8, UINT8, UINT2) and w is INT8 else 0
    total = TensorType((1, 1, 1, outputs), FLOAT32 if FLOAT32 in (x, w) else INT32)
    return single(AddProducts(Window((h, columns)), zero), total, image, Value("w", weights, values))


def cases() -> Graph:
    rng = np.random.default_rng(3)
    graphs = [case(x, w, size, rng, small=w is INT8 and x in (BIT1, UINT2)) for x, w in PAIRS for size in SIZES]
    return merge([*graphs, case(INT8, INT8, (2, 2, 16, 12), rng, small=True)])


@pytest.mark.parametrize("target", TARGETS)
def test_sums_go_on_from_a_total(target: str, tmp_path: Path) -> None:
    graph = cases()
    check(graph, TARGETS[target](), tmp_path, random_feeds(graph))


@pytest.mark.parametrize("name", ["cortex-m0plus", "cortex-m4", "cortex-m55", "aarch64", "wasm32-simd128"])
def test_on_targets(name: str, tmp_path: Path) -> None:
    target = Target.load(name, ram="64M", flash="64M")
    if reason := available(target):
        pytest.skip(reason)
    graph = cases()
    feeds, compiled = random_feeds(graph), compile_graph(graph, target)
    got, _ = run_on_target(compiled, tmp_path, feeds, "-O1")
    for output, expected in interp.run(graph, feeds).items():
        assert_same(got[output], expected, output)


def test_rows_add_up_to_the_whole() -> None:
    """In float32 too, to the last bit."""
    rng = np.random.default_rng(4)
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((1, 5, 3, 7), (4, 5, 3, 7)))
    (whole,) = Conv2D(Window((5, 3))).reference(x, w)
    total = np.zeros_like(whole)
    for row in range(5):
        (total,) = AddProducts(Window((1, 3))).reference(total, x[:, row : row + 1], w[:, row : row + 1])
    assert_same(total, whole)
