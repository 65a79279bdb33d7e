"""Register tiles of products against the reference, bit for bit."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from bitc import interp
from bitc.ir.dtypes import FLOAT32
from bitc.ir.graph import Graph
from bitc.ir.types import Quant, TensorType
from bitc.kernels import conv_products
from bitc.kernels.step import Variant
from bitc.ops.epilogue import Affine, Epilogue, TernThreshold, Threshold
from bitc.ops.linear import Conv2D
from bitc.ops.window import Window
from bitc.runners import available
from bitc.target import Target
from tests.kernels.harness import assert_same, compile_graph, merge, random_feeds, run_on_target, single

TARGETS = ("x86-64", "x86-64-v3", "x86-64-v4", "aarch64", "armv7-neon", "wasm32", "wasm32-simd128", "cortex-m4")
PM = Quant.two_valued(-1, 1)
WINDOWS = {
    "1x1": Window(),
    "3x3": Window((3, 3), pads=(1, 1, 1, 1)),
    "3x3s2": Window((3, 3), (2, 2), (0, 1, 1, 2)),
    "3x3d2": Window((3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    "2x5 valid": Window((2, 5), (1, 2)),
    "far": Window((2, 2), (3, 3), (2, 2, 2, 2)),
}
SIZES = ((1, 2), (2, 9), (3, 17), (4, 31), (5, 7), (7, 33), (17, 16), (31, 5), (33, 40))


def pick(rng: np.random.Generator, outputs: int, which: int) -> tuple[Epilogue | None, list[np.ndarray]]:
    reals = [rng.normal(size=outputs).astype(np.float32) for _ in range(2)]
    low, high = np.sort(rng.normal(size=(2, outputs)).astype(np.float32), axis=0)
    choices: list[tuple[Epilogue | None, list[np.ndarray]]] = [
        (None, []),
        (Affine(-1.0, 2.5), reals),
        (Threshold(PM), [reals[0], rng.random(outputs) < 0.5]),
        (TernThreshold(Quant()), [low, high]),
        (Affine(), [reals[0][:1], reals[1]]),
        (Threshold(PM, nan_low=True), [reals[0]]),
    ]
    return choices[which % len(choices)]


def case(window: Window, c: int, o: int, which: int, group: int = 1) -> Graph:
    rng = np.random.default_rng(which)
    shape = (1 + which % 2, 6 + which % 3, 5 + which % 5, c)
    planar = which % 3 == 1
    x = TensorType((shape[0], shape[3], *shape[1:3]) if planar else shape, FLOAT32)
    w = rng.normal(size=(o, *window.kernel, c // group)).astype(np.float32)
    epilogue, params = pick(rng, o, which)
    return single(Conv2D(window, group, epilogue, planar), x, w, *params)


def check(
    row: Variant, graph: Graph, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, feeds: dict[str, np.ndarray]
) -> None:
    """Run on a target, with no other row to choose from."""
    target = Target.load(name)
    if reason := available(target):
        pytest.skip(reason)
    monkeypatch.setattr(importlib.import_module("bitc.kernels.select"), "VARIANTS", (row,))
    got, _ = run_on_target(compile_graph(graph, target), folder, feeds, opt="-O2")
    for output, expected in interp.run(graph, feeds).items():
        assert_same(got[output], expected, output)


@pytest.mark.parametrize("target", TARGETS)
def test_float_convolutions(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = [case(w, c, o, i + j) for i, w in enumerate(WINDOWS.values()) for j, (c, o) in enumerate(SIZES)]
    graphs += [case(WINDOWS["3x3"], c, o, i, g) for i, (c, o, g) in enumerate(((6, 48, 3), (8, 16, 2), (10, 32, 2)))]
    graph = merge(graphs)
    feeds = random_feeds(graph)
    first = feeds["g0_x0"].reshape(-1)
    first[:6] = np.inf, -np.inf, np.nan, -0.0, 1e-42, 3e38
    check(conv_products.VARIANT, graph, target, tmp_path, monkeypatch, feeds)
