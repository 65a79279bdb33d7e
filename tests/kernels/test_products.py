"""Register tiles of products against the reference, bit for bit."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitc import interp
from bitc.ir.dtypes import FLOAT32, INT8, UINT2, UINT8
from bitc.ir.graph import Graph
from bitc.ir.types import Quant, TensorType
from bitc.kernels import conv_products, depthwise_floats, depthwise_products, matmul
from bitc.kernels.step import Variant
from bitc.ops.epilogue import Affine, Epilogue, Levels, Requant, TernThreshold, Threshold
from bitc.ops.linear import Conv2D, MatMul
from bitc.ops.window import Window
from bitc.runners import available
from bitc.target import Target
from bitc.toolchain import compile_sources
from tests.kernels.harness import (
    assert_same,
    bits,
    check_row,
    compile_graph,
    merge,
    random_feeds,
    run_on_target,
    single,
    trits,
    write,
)
from tests.kernels.test_quantized import KINDS, OUTS, params

FLOAT_TARGETS = (
    "x86-64-v3",
    "x86-64-v4",
    "aarch64",
    "wasm32-simd128",
    "cortex-m4",
    "cortex-m55",
    "x86-64",
    "armv7-neon",
    "wasm32",
)
CODE_TARGETS = ("x86-64-v3", "x86-64-v4", "aarch64", "aarch64-dotprod", "armv7-neon", "wasm32-simd128")
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


def some(names: tuple[str, ...], ordinary: int) -> list[Any]:
    """Targets with a third of the cases by default, and with all of them in the full tier."""
    few = [pytest.param(n, 3, id=n) for n in names[:ordinary]]
    return few + [pytest.param(n, 1, id=f"{n}-all", marks=pytest.mark.full) for n in names]


def cases(step: int) -> list[tuple[int, Window, int, int]]:
    """(number, window, channels, outputs): every so many."""
    found = [(w, c, o) for w in WINDOWS.values() for c, o in SIZES]
    return [(i, w, c, o) for i, (w, c, o) in enumerate(found) if i // len(SIZES) % step == i % step]


def pick(rng: np.random.Generator, outputs: int, which: int) -> tuple[Epilogue | None, list[np.ndarray]]:
    reals = [rng.normal(size=outputs).astype(np.float32) for _ in range(2)]
    low, high = np.sort(rng.normal(size=(2, outputs)).astype(np.float32), axis=0)
    choices: list[tuple[Epilogue | None, list[np.ndarray]]] = [
        (None, []),
        (Affine(-1.0, 2.5), reals),
        (Threshold(PM), [reals[0], rng.random(outputs) < 0.5]),
        (TernThreshold(Quant()), [low, high]),
        (Affine(), [reals[0][:1], reals[1]]),
        (Affine(0.0), [np.ones(1, np.float32), reals[1]]),
        (Affine(-1.0), [reals[0], np.zeros(1, np.float32)]),
        (Threshold(PM, nan_low=True), [reals[0]]),
    ]
    return choices[which % len(choices)]


def case(window: Window, c: int, o: int, which: int, group: int = 1) -> Graph:
    rng = np.random.default_rng(which)
    shape = (1 + which % 2, 6 + which % 3, 5 + which % 5, c)
    planar = which % 3 == 1 and group != c
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


@pytest.mark.parametrize(("target", "step"), some(FLOAT_TARGETS, 5))
def test_float_convolutions(target: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = [case(w, c, o, i // len(SIZES) + i) for i, w, c, o in cases(step)]
    graphs += [case(WINDOWS["3x3"], c, o, i, g) for i, (c, o, g) in enumerate(((6, 48, 3), (8, 16, 2), (10, 32, 2)))]
    graph = merge(graphs)
    feeds = random_feeds(graph)
    first = feeds["g0_x0"].reshape(-1)
    denormal = 0 if "mvefp" in Target.load(target).features else 1e-42  # Helium takes them for zero
    first[:6] = np.inf, -np.inf, np.nan, -0.0, denormal, 3e38
    check(conv_products.VARIANT, graph, target, tmp_path, monkeypatch, feeds)


def codes_case(window: Window, c: int, o: int, which: int, group: int = 1) -> Graph:
    rng = np.random.default_rng(which)
    dtype = (INT8, UINT8)[which % 2]
    shape = (1 + which % 2, 6 + which % 3, 5 + which % 5, c)
    planar = which % 5 == 1 and group != c
    x = TensorType((shape[0], shape[3], *shape[1:3]) if planar else shape, dtype)
    least = -128 if which % 3 == 0 else -127
    w = rng.choice((least, 127, 1, *rng.integers(-100, 100, 9)), (o, *window.kernel, c // group)).astype(np.int8)
    zero = (0, int(rng.integers(dtype.min, dtype.max)), int(dtype.min), int(dtype.max))[which % 4]
    epilogue, parameters = pick(rng, o, which)
    if which % 2 and which % 8 != 3:
        epilogue = OUTS[which % len(OUTS)]
    op = Conv2D(window, group, epilogue, planar, zero)
    reach = float(op.reach(x, w).max())
    if isinstance(epilogue, Requant):
        parameters = params(rng, KINDS[which // 2 % 5], o, reach)
    elif parameters and not isinstance(epilogue, Affine):  # thresholds
        parameters = [p if p.dtype == bool else (p * np.sqrt(reach) * 10).astype(np.int32) for p in parameters]
    return single(op, x, w, *parameters)


@pytest.mark.parametrize(("target", "step"), some(CODE_TARGETS, 6))
def test_codes(target: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = [codes_case(w, c, o, i) for i, w, c, o in cases(step)]
    groups = ((6, 48, 3), (8, 16, 2), (10, 32, 2), (24, 48, 2))
    graphs += [codes_case(WINDOWS["3x3"], c, o, i, g) for i, (c, o, g) in enumerate(groups)]
    graph = merge(graphs)
    feeds = random_feeds(graph)
    for name in list(feeds)[::3]:  # extremes only
        kind = np.iinfo(feeds[name].dtype)
        feeds[name] = np.where(feeds[name] > (kind.min + kind.max) // 2, kind.max, kind.min).astype(feeds[name].dtype)
    check(conv_products.VARIANT, graph, target, tmp_path, monkeypatch, feeds)


def depthwise(make: Callable[[Window, int, int, int, int], Graph], lanes: tuple[int, ...], target: str) -> Graph:
    """Of every window, with channels around the lanes; bits only where the row takes them."""
    graphs = []
    for i, window in enumerate(WINDOWS.values()):
        graphs += [make(window, c, c, 10 * i + j, c) for j, c in enumerate(lanes)]
    return merge([g for g in graphs if not depthwise_products.accepts(g.nodes[0], Target.load(target))])


@pytest.mark.parametrize("target", FLOAT_TARGETS[:6])
def test_float_depthwise(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = depthwise(case, (2, 7, 16, 35), target)
    check(depthwise_products.VARIANT, graph, target, tmp_path, monkeypatch, random_feeds(graph))


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m7", "wasm32"])
def test_float_depthwise_in_registers(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of up to 3x3 with any stride and padding, several outputs per channel, infinities."""
    rng, graphs = np.random.default_rng(4), list[Graph]()
    for i in range(40):
        kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
        pads = (*rng.integers(0, 3, 2).tolist(), *rng.integers(0, 3, 2).tolist())
        window = Window(kernel, (int(rng.integers(1, 4)), int(rng.integers(1, 4))), pads, (1 + i % 2, 1))
        c, times = int(rng.integers(1, 6)), 1 + i % 3 // 2
        x = TensorType((1 + i % 2, int(rng.integers(4, 9)), int(rng.integers(4, 20)), c), FLOAT32)
        w = rng.normal(size=(c * times, *kernel, 1)).astype(np.float32)
        some = [rng.normal(size=c * times).astype(np.float32) for _ in range(2)]
        op = Conv2D(window, c, (None, Affine(), Affine(0.0, 6.0))[i % 3])
        graphs.append(single(op, x, w, *(some if i % 3 else [])))
    chip = Target.load(target, ram="1M") if target != "wasm32" else Target.load(target)
    graph = merge([g for g in graphs if not depthwise_floats.accepts(g.nodes[0], chip)])
    assert len(graph.nodes) > 20
    feeds = random_feeds(graph)
    for x in list(feeds.values())[::3]:
        x.reshape(-1)[:: x.size // 3] = np.inf
    check(depthwise_floats.VARIANT, graph, target, tmp_path, monkeypatch, feeds)


@pytest.mark.parametrize("target", CODE_TARGETS)
def test_depthwise_codes(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = depthwise(codes_case, (8, 16, 19, 33, 64), target)
    feeds = random_feeds(graph)
    for name in list(feeds)[::3]:  # extremes only
        feeds[name] = np.where(feeds[name] > 0, 127, -128 if feeds[name].dtype == np.int8 else 0).astype(
            feeds[name].dtype
        )
    check(depthwise_products.VARIANT, graph, target, tmp_path, monkeypatch, feeds)


@pytest.mark.parametrize("target", ["cortex-m4", "x86-64-v3", "aarch64-dotprod", "wasm32-simd128"])
def test_bits_and_trits_as_numbers(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of few values, multiplied as what they stand for; products of 0 with infinity and NaN as in IEEE. One
    output is numbers in planes."""
    rng, graphs = np.random.default_rng(0), []
    for dtype in (FLOAT32, UINT8):
        for i, w in enumerate((bits(rng, 17, 3, 3, 33), trits(rng, 17, 3, 3, 33), trits(rng, 40, 1, 1, 64))):
            kernel = w.shape[1:3]
            pads = (1, 1, 1, 1) if kernel == (3, 3) else (0, 0, 0, 0)
            x = TensorType((1, 5, 6, w.shape[3]), dtype)
            t = np.sort(rng.normal(0, 3, (3, w.shape[0])), axis=0).astype(np.float32 if dtype is FLOAT32 else np.int32)
            levels = Levels(Quant(), UINT2, 3) if i else None
            op = Conv2D(Window(kernel, pads=pads), epilogue=levels, x_zero=0 if dtype is FLOAT32 else 3)
            graph = single(op, x, w, *(t if levels else ()))
            if not conv_products.accepts(graph.nodes[0], Target.load(target)):
                graphs.append(graph)
    graph = merge(graphs)
    feeds = random_feeds(graph)
    feeds["g0_x0"].reshape(-1)[:3] = feeds["g1_x0"].reshape(-1)[:3] = np.inf, np.nan, -0.0
    check(conv_products.VARIANT, graph, target, tmp_path, monkeypatch, feeds)


@pytest.mark.parametrize("target", CODE_TARGETS)
def test_primitives_are_defined_once(target: str, tmp_path: Path) -> None:
    """All rows of products in one file, with any weights and such as narrow sums allow."""
    graphs = [make(WINDOWS["3x3"], 16, 16, i, g) for make in (case, codes_case) for g in (1, 16) for i in (0, 2, 4, 6)]
    compiled = compile_graph(merge(graphs), Target.load(target))
    write(compiled, tmp_path)
    sources = [tmp_path / name for name in compiled.files if name.endswith(".c")]
    compile_sources(compiled.target, sources, [tmp_path], tmp_path / "out", "-O0")


@pytest.mark.parametrize(
    "target", [pytest.param(n, marks=[pytest.mark.full] * (i > 4)) for i, n in enumerate(FLOAT_TARGETS)]
)
def test_matrices(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles that end within a tile, of one row, of one column, and of many matrices."""
    shapes = (
        ((3, 4), (4, 9)), ((7, 33), (33, 37)), ((2, 1, 9, 5), (3, 5, 70)), ((1, 64), (64, 50)), ((5, 1), (1, 130)),
        ((20, 6), (6, 64)),
    )  # fmt: skip
    types = [(TensorType(a, FLOAT32), TensorType(b, FLOAT32)) for a, b in shapes]
    graphs = [single(MatMul(), *pair) for pair in types]
    check_row(matmul.VARIANT, merge(graphs), Target.load(target), tmp_path, monkeypatch)
