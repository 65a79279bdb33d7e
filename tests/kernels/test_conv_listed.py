"""Convolution by lists of activations: bit for bit the reference, whichever value is the rarer one."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitc import interp
from bitc.ir.dtypes import BIT1
from bitc.ir.graph import Value
from bitc.ir.types import TensorType
from bitc.kernels import conv_listed
from bitc.kernels.conv_listed import MAX_PRODUCTS, VARIANT, pack_listed
from bitc.kernels.pack import unpack_bits
from bitc.ops.epilogue import Threshold
from bitc.ops.linear import Conv2D
from bitc.ops.window import Window
from bitc.runners import RunRequest, open_runner
from bitc.target import Target
from bitc.toolchain import build_model
from tests.kernels import harness
from tests.kernels.harness import check, compile_graph, merge, portable, random_feeds, run_on_target, single
from tests.kernels.test_conv_sliced import CHANNELS, EPILOGUES, PM, WINDOWS, case

SIZES = ((6, 7), (3, 9), (1, 1), (9, 2))


@pytest.fixture(autouse=True)
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the row under test may take convolutions."""
    module = importlib.import_module("bitc.kernels.select")
    others = [v for v in module.VARIANTS if Conv2D not in v.ops]
    monkeypatch.setattr(module, "VARIANTS", (*others, VARIANT))
    monkeypatch.setattr(conv_listed, "PRODUCTS", 0)


@pytest.mark.parametrize("window", WINDOWS)
def test_sizes(window: str, tmp_path: Path) -> None:
    rng, graphs, w = np.random.default_rng(len(window)), [], WINDOWS[window]
    for i, (size, c) in enumerate(itertools.product(SIZES, (0, 1, 2))):
        if min(w.out_size(size)) > 0:
            channels, outputs = CHANNELS[(5 * i + c) % 12], CHANNELS[(7 * i + 3 * c) % 12]
            graphs.append(case(rng, (1 + i % 2, *size, channels), outputs, w, (*EPILOGUES, "ternary")[(i + c) % 5]))
    graph = merge(graphs)
    feeds = random_feeds(graph)
    for share in (0.1, 0.5, 0.9):  # of ones
        feeds = {name: np.random.default_rng(i).random(v.shape) < share for i, (name, v) in enumerate(feeds.items())}
        check(graph, portable(), tmp_path / str(share), feeds)


@pytest.mark.parametrize("channels", [1, 9, 31, 32, 62, 63, 65, 253, 254])
def test_extremes(channels: int, tmp_path: Path) -> None:
    """All products +1 and all -1, thresholds at, beside and far beyond every sum."""
    graphs = []
    for window, low in itertools.product((Window(), WINDOWS["3x3"]), (False, True)):
        k = channels * window.kernel[0] * window.kernel[1]
        part = [*range(-4, 5), k // 2, -(k // 2)]
        t = np.array([*range(-k - 3, -k + 4), *part, *range(k - 3, k + 4), -(2**31), 2**31 - 1], np.int32)
        weights = np.full((len(t), *window.kernel, channels), low)
        w = Value("w", TensorType(weights.shape, BIT1), weights)
        graphs.append(single(Conv2D(window, 1, Threshold(PM)), TensorType((1, 4, 5, channels), BIT1), w, t))
    graph = merge(graphs)
    for value in (False, True):
        feeds = {v.name: np.full(v.shape, value) for v in graph.inputs}
        check(graph, portable(), tmp_path / str(value), feeds)


@pytest.mark.parametrize("target", ["cortex-m0plus", "cortex-m3", "cortex-m4", "riscv32"])
def test_on_target(target: str, tmp_path: Path) -> None:
    """Each family of instruction sequences, with dirty bits behind the last channel of every pixel."""
    rng = np.random.default_rng(3)
    layers = [
        ("1x1", (1, 1, 1, 700), 100, "threshold"),
        ("3x3", (1, 5, 6, 64), 64, "threshold"),
        ("3x3", (1, 6, 7, 35), 10, "accumulator"),
        ("3x3s2", (1, 9, 9, 33), 65, "flips"),
        ("1x1", (2, 5, 7, 96), 33, "affine"),
        ("3x3", (1, 4, 4, 20), 40, "ternary"),
    ]
    graph = merge([case(rng, shape, outputs, WINDOWS[window], last) for window, shape, outputs, last in layers])
    feeds = random_feeds(graph)
    compiled = compile_graph(graph, Target.load(target))
    harness.write(compiled, tmp_path)
    build = build_model(compiled.target, tmp_path, graph.name, tmp_path / "build")
    clean = harness.input_image(compiled, feeds)
    ones = harness.input_image(compiled, {name: np.ones_like(v) for name, v in feeds.items()})
    result = open_runner(compiled.target).run(RunRequest(build, [clean.tobytes(), (clean | ~ones).tobytes()]))
    want = interp.run(graph, feeds)
    for image in result.outputs:
        got = harness.output_arrays(compiled, np.frombuffer(image, np.uint8))
        for name, expected in want.items():
            harness.assert_same(got[name], expected, name)


@pytest.mark.parametrize("target, most", [("cortex-m0plus", 9.9), ("cortex-m3", 4.9), ("cortex-m4", 4.9)])
def test_budget(target: str, most: float, tmp_path: Path) -> None:
    """Instructions of a dense layer, 1024 to 256 channels, per 32 products."""
    graph = case(np.random.default_rng(0), (1, 1, 1, 1024), 256, WINDOWS["1x1"])
    _, result = run_on_target(compile_graph(graph, Target.load(target)), tmp_path, random_feeds(graph))
    assert result.instructions is not None
    assert result.instructions * 32 / (1024 * 256) <= most


@given(st.integers(1, 70), st.integers(1, 3), st.integers(1, 40))
def test_weights_round_trip(outputs: int, kernel: int, channels: int) -> None:
    w = np.random.default_rng(channels).random((outputs, kernel, kernel, channels)) < 0.5
    words = pack_listed(w)
    lanes = unpack_bits(words[..., None], 32).transpose(0, 2, 1).reshape(-1, words.shape[1])
    assert not lanes[:, -1].any() and not lanes[outputs:].any()
    assert (lanes[:outputs, :-1].reshape(w.shape) == w).all()


def test_too_many_products() -> None:
    """Offsets of words have 16 bits."""
    target = Target.load("cortex-m4")
    rng = np.random.default_rng(0)
    for channels, reason in ((MAX_PRODUCTS, False), (MAX_PRODUCTS + 1, True)):
        node = case(rng, (1, 1, 1, channels), 32, WINDOWS["1x1"]).nodes[0]
        assert bool(conv_listed.accepts(node, target)) == reason


def test_most_products(tmp_path: Path) -> None:
    graph = case(np.random.default_rng(1), (1, 1, 1, MAX_PRODUCTS), 33, WINDOWS["1x1"], "accumulator")
    check(graph, portable(), tmp_path, random_feeds(graph))
