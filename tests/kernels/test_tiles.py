"""Register tiles on vector units against the reference, bit for bit."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitc import interp
from bitc.ir.dtypes import BIT1
from bitc.ir.graph import Graph, Value
from bitc.ir.types import Quant, TensorType
from bitc.kernels import assign_layouts, conv_tiles
from bitc.kernels.geometry import geometry
from bitc.kernels.tiles import TILE_ISAS, pack_tiles, regions, tile_isas, unpack_tiles
from bitc.ops.epilogue import Affine, Epilogue, TernThreshold, Threshold
from bitc.ops.linear import Conv2D
from bitc.ops.window import Window
from bitc.runners import available
from bitc.target import Target
from tests.kernels.harness import assert_same, bits, compile_graph, merge, random_feeds, run_on_target, single, trits

TARGETS = ("x86-64-v4", "x86-64-v3", "aarch64", "armv7-neon", "wasm32-simd128")
PM = Quant.two_valued(-1, 1)
WINDOWS = {
    "1x1": Window(),
    "3x3": Window((3, 3), pads=(1, 1, 1, 1)),
    "3x3s2": Window((3, 3), (2, 2), (0, 1, 1, 2)),
    "3x3d2": Window((3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    "5x5": Window((5, 5), pads=(2, 2, 2, 2)),
    "2x3": Window((2, 3), (1, 2)),
    "far": Window((2, 2), (3, 3), (2, 2, 2, 2)),
    "wide dilation": Window((3, 3), (1, 1), (9, 9, 9, 9), (9, 9)),
}
SIZES = ((17, 1), (32, 33), (33, 8), (63, 65), (64, 64), (65, 24), (96, 31), (127, 16), (128, 40), (129, 7), (250, 9))


def pick(rng: np.random.Generator, outputs: int, k: int, which: int) -> tuple[Epilogue | None, list[np.ndarray]]:
    reals = [rng.normal(size=outputs).astype(np.float32) for _ in range(2)]
    t = np.rint(rng.normal(size=(2, outputs)) * np.sqrt(k)).astype(np.int32)
    low, high, flip = t.min(axis=0), t.max(axis=0), rng.random(outputs) < 0.5
    ternary = [np.where(flip, high, low), np.where(flip, low, high), flip]
    extreme = np.resize(np.array([-k - 1, -k, k, k + 1, -(2**31), 2**31 - 1], np.int32), outputs)
    choices: list[tuple[Epilogue | None, list[np.ndarray]]] = [
        (Threshold(PM), [t[0]]),
        (Threshold(PM), [t[0], flip]),
        (TernThreshold(Quant()), [low, high]),
        (TernThreshold(Quant()), ternary),
        (None, []),
        (Affine(-1.0, 2.5), reals),
        (Threshold(PM), [t[0][:1]]),
        (Threshold(PM), [extreme]),
    ]
    return choices[which % len(choices)]


def case(x: TensorType, w: Value, window: Window, which: int, group: int = 1) -> Graph:
    rng = np.random.default_rng(which)
    epilogue, params = pick(rng, w.shape[0], w.type.size // w.shape[0], which)
    return single(Conv2D(window, group, epilogue), x, w, *params)


def check(graph: Graph, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, feeds: dict[str, np.ndarray]) -> None:
    """Run on a target, with no other row to choose from."""
    target = Target.load(name)
    if reason := available(target):
        pytest.skip(reason)
    monkeypatch.setattr(importlib.import_module("bitc.kernels.select"), "VARIANTS", (conv_tiles.VARIANT,))
    compiled = compile_graph(graph, target)
    got, _ = run_on_target(compiled, folder, feeds, opt="-O2")
    for output, expected in interp.run(graph, feeds).items():
        assert_same(got[output], expected, output)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("window", WINDOWS)
def test_awkward_sizes(target: str, window: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(len(window))
    graphs = []
    for i, (c, o) in enumerate(SIZES):
        x = TensorType((1 + i % 2, 6 + i % 3, 5 + i, c), BIT1)
        graphs.append(case(x, bits(rng, o, *WINDOWS[window].kernel, c), WINDOWS[window], i + len(window)))
    graph = merge(graphs)
    check(graph, target, tmp_path, monkeypatch, random_feeds(graph))


@pytest.mark.parametrize("target", [t for t in TARGETS if t != "x86-64-v3"])
def test_trits(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights -1, 0, 1; some outputs have none but zeros."""
    rng, graphs = np.random.default_rng(6), []
    for i, (c, o) in enumerate(SIZES):
        window = list(WINDOWS.values())[i % len(WINDOWS)]
        w = trits(rng, o, *window.kernel, c)
        w.array[i % o] = 0
        graphs.append(case(TensorType((1 + i % 2, 6 + i % 3, 5 + i, c), BIT1), w, window, i))
    for which in (1, 3, 5):
        x, w = TensorType((2, 5, 6, 192), BIT1), trits(rng, 24, 3, 3, 64)
        graphs.append(case(x, w, WINDOWS["3x3"], which, 3))
    graph = merge(graphs)
    check(graph, target, tmp_path, monkeypatch, random_feeds(graph))


@pytest.mark.parametrize("target", [t for t in TARGETS if t != "x86-64-v3"])
def test_a_few_channels_beyond_a_word_are_gathered(target: str) -> None:
    w = bits(np.random.default_rng(7), 65, 3, 3, 33)
    chip = Target.load(target)
    graph = assign_layouts(case(TensorType((1, 16, 16, 33), BIT1), w, WINDOWS["3x3"], 0), chip)
    assert all(plan.tail == plan.tail_steps == 1 for plan in conv_tiles.tilings(graph.nodes[0], chip))


@pytest.mark.parametrize("target", TARGETS)
def test_groups(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, graphs = np.random.default_rng(5), []
    for i, (c, o, group) in enumerate(((128, 32, 2), (192, 24, 3), (256, 320, 4), (128, 16, 2), (64, 48, 2))):
        w = bits(rng, o, 3, 3, c // group)
        graphs.append(case(TensorType((2, 5, 6, c), BIT1), w, WINDOWS["3x3"], i, group))
    graph = merge(graphs)
    check(graph, target, tmp_path, monkeypatch, random_feeds(graph))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("value", [False, True])
def test_counters_hold_extremes(target: str, value: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All products +1 and all -1: bytes are emptied every 31 steps of 8 (AVX2) or 64 channels (WebAssembly), in runs
    longer and shorter than that; sums are of 16 bits."""
    graphs = []
    for i, k in enumerate((240, 248, 256, 504, 1920, 1984, 2048, 4032, 32766, 32767)):
        for low in (False, True):
            w = Value("w", TensorType((9, 1, 1, k), BIT1), np.full((9, 1, 1, k), low))
            graphs.append(case(TensorType((1, 1, 5, k), BIT1), w, Window(), 4 * (1 + i % 2)))
    bytewise = (24, 40, 72) if any(i.expanded for i in tile_isas(Target.load(target))) else ()
    for c in (*bytewise, 32, 33, 64, 68, 192, 256):  # 3x3: 9 runs of a tap, or 3 of three times as many steps
        for window in (WINDOWS["3x3"], WINDOWS["3x3d2"]):
            w = Value("w", TensorType((32, 3, 3, c), BIT1), np.full((32, 3, 3, c), True))
            graphs.append(case(TensorType((1, 4, 5, c), BIT1), w, window, 4))
    graph = merge(graphs)
    check(graph, target, tmp_path, monkeypatch, {v.name: np.full(v.shape, value) for v in graph.inputs})


def test_refuses_more_products_than_counts_hold() -> None:
    node = single(
        Conv2D(Window()), TensorType((1, 1, 1, 32768), BIT1), bits(np.random.default_rng(0), 8, 1, 1, 32768)
    ).nodes[0]
    assert "32767 products" in conv_tiles.VARIANT.accepts(node, Target.load("aarch64"))


@given(st.integers(1, 70), st.integers(1, 3), st.integers(1, 150), st.sampled_from([8, 32, 64]),
       st.sampled_from([8, 16, 32]), st.integers(1, 4))  # fmt: skip
@settings(deadline=None, max_examples=50)
def test_weights_round_trip(o: int, k: int, c: int, word: int, lanes: int, blocks: int) -> None:
    w = np.random.default_rng(o * c).random((o, k, k, c)) < 0.5
    assert (unpack_tiles(pack_tiles(w, word, lanes, blocks), w.shape, word, lanes, blocks) == w).all()


@pytest.mark.parametrize("window", WINDOWS)
def test_regions_cover_the_output_once(window: str) -> None:
    x = TensorType((1, 7, 9, 8), BIT1)
    geo = geometry(x, WINDOWS[window])
    seen = np.zeros((geo.oh, geo.ow), int)
    for r in regions(geo):
        seen[r.oy : r.oy + r.rows, r.ox : r.ox + r.cols] += 1
    assert (seen == 1).all()


def test_every_isa_has_a_target() -> None:
    tested = [isa for name in TARGETS for isa in tile_isas(Target.load(name))]
    assert all(isa in tested for isa in TILE_ISAS)
