"""Convolution on bit slices: bit for bit the reference, whatever the lanes, the padding and the limits of counters."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitc import interp
from bitc.ir.dtypes import BIT1, TERN
from bitc.ir.graph import Graph, Value
from bitc.ir.types import Quant, TensorType
from bitc.kernels import conv_sliced
from bitc.kernels.adders import accumulate
from bitc.kernels.conv_sliced import BODY, VARIANT, edges, limit_bits, limits
from bitc.kernels.geometry import geometry
from bitc.kernels.lanes import LANES, plan_lanes
from bitc.kernels.pack import unpack_bits
from bitc.kernels.triples import Triples, fetches, pack_patterns
from bitc.ops.epilogue import Affine, Epilogue, TernThreshold, Threshold
from bitc.ops.linear import Conv2D
from bitc.ops.window import Window
from bitc.runners import RunRequest, open_runner
from bitc.target import Target
from bitc.toolchain import build_model
from tests.kernels import harness
from tests.kernels.harness import (
    bits,
    check,
    compile_graph,
    merge,
    portable,
    random_feeds,
    run_on_target,
    single,
    trits,
)

WINDOWS = {
    "1x1": Window(),
    "3x3": Window((3, 3), pads=(1, 1, 1, 1)),
    "valid": Window((3, 3)),
    "3x3s2": Window((3, 3), (2, 2), (1, 1, 1, 1)),
    "uneven": Window((3, 3), (2, 2), (0, 1, 1, 2)),
    "3x3d2": Window((3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    "5x5": Window((5, 5), pads=(2, 2, 2, 2)),
    "2x3": Window((2, 3), (1, 2)),
    "far": Window((2, 2), (3, 3), (2, 2, 2, 2)),
    "wide": Window((1, 7), pads=(0, 6, 0, 6)),
}
SIZES = ((6, 7), (9, 16), (3, 31), (4, 33), (2, 70), (1, 1), (13, 2))
CHANNELS = (1, 3, 8, 16, 24, 31, 32, 33, 48, 63, 64, 65)
PM = Quant.two_valued(-1, 1)
EPILOGUES = ("threshold", "flips", "accumulator", "affine")


@pytest.fixture(autouse=True)
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the row under test may take convolutions."""
    module = importlib.import_module("bitc.kernels.select")
    others = [v for v in module.VARIANTS if Conv2D not in v.ops]
    monkeypatch.setattr(module, "VARIANTS", (*others, VARIANT))
    monkeypatch.setattr(conv_sliced, "PRODUCTS", 0)


def case(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    outputs: int,
    window: Window,
    epilogue: str = "threshold",
    group: int = 1,
    make: Callable[..., Value] = bits,
) -> Graph:
    k = shape[3] // group * window.kernel[0] * window.kernel[1]
    t = np.rint(rng.normal(size=outputs) * np.sqrt(k)).astype(np.int32)
    reals = [rng.normal(size=outputs).astype(np.float32), rng.normal(size=outputs).astype(np.float32)]
    kinds: dict[str, tuple[Epilogue | None, list[np.ndarray]]] = {
        "threshold": (Threshold(PM), [t]),
        "flips": (Threshold(PM), [t, rng.random(outputs) < 0.5]),
        "accumulator": (None, []),
        "affine": (Affine(-2.5, 3.5), reals),
        "ternary": (TernThreshold(Quant()), [t, t + 3]),
    }
    op, params = kinds[epilogue]
    w = make(rng, outputs, *window.kernel, shape[3] // group)
    return single(Conv2D(window, group, op), TensorType(shape, BIT1), w, *params)


@pytest.mark.parametrize("window", WINDOWS)
def test_sizes(window: str, tmp_path: Path) -> None:
    rng, graphs, w = np.random.default_rng(len(window)), [], WINDOWS[window]
    for i, (h, c) in enumerate(itertools.product(SIZES, (0, 1))):
        if min(w.out_size(h)) > 0:
            channels, outputs = CHANNELS[(5 * i + c) % 12], CHANNELS[(7 * i + 3 * c) % 12]
            graphs.append(case(rng, (1 + i % 2, *h, channels), outputs, w, EPILOGUES[i % 4]))
    graph = merge(graphs)
    check(graph, portable(), tmp_path, random_feeds(graph))


@pytest.mark.parametrize("group", [2, 3, 8, 33])
def test_groups(group: int, tmp_path: Path) -> None:
    """Groups of one channel up to more than a word, of as many outputs or more."""
    rng, graphs = np.random.default_rng(group), []
    for i, (window, each) in enumerate(itertools.product(WINDOWS, (1, 2, 3, 16, 17))):
        if each * group <= 70:
            shape, outputs = (1 + i % 2, 5, 6 + 7 * (i % 4), each * group), (1 + i % 3) * group
            graphs.append(case(rng, shape, outputs, WINDOWS[window], EPILOGUES[i % 4], group))
    graph = merge(graphs)
    check(graph, portable(), tmp_path, random_feeds(graph))


@pytest.mark.parametrize("window", WINDOWS)
def test_trits(window: str, tmp_path: Path) -> None:
    rng, graphs, w = np.random.default_rng(len(window)), [], WINDOWS[window]
    for i, h in enumerate(SIZES):
        if min(w.out_size(h)) > 0:
            channels, outputs = CHANNELS[5 * i % 12], CHANNELS[(7 * i + 3) % 12]
            graphs.append(case(rng, (1 + i % 2, *h, channels), outputs, w, EPILOGUES[i % 4], make=trits))
    graphs.append(case(rng, (1, 5, 7, 34), 34, w, "flips", 2, make=trits))
    graph = merge(graphs)
    check(graph, portable(), tmp_path, random_feeds(graph))


@pytest.mark.parametrize("channels", [1, 31, 63, 127, 128, 254, 255, 256])
def test_extremes_of_trits(channels: int, tmp_path: Path) -> None:
    """All products of one sign, or none: 2 * K + 1 around powers of two."""
    graphs = []
    for window, code in itertools.product((Window(), WINDOWS["3x3"]), (-1, 0, 1)):
        k = channels * window.kernel[0] * window.kernel[1]
        t = np.array([*range(-k - 3, -k + 4), *range(-4, 5), *range(k - 3, k + 4), -(2**31), 2**31 - 1], np.int32)
        weights = np.full((len(t), *window.kernel, channels), code, np.int8)
        w = Value("w", TensorType(weights.shape, TERN), weights)
        graphs.append(single(Conv2D(window, 1, Threshold(PM)), TensorType((1, 4, 5, channels), BIT1), w, t))
    graph = merge(graphs)
    for value in (False, True):
        feeds = {v.name: np.full(v.shape, value) for v in graph.inputs}
        check(graph, portable(), tmp_path / str(value), feeds)


@pytest.mark.parametrize("channels", [1, 9, 10, 20, 21, 29, 30, 61, 62, 63, 180, 181, 253, 254, 255])
def test_extremes(channels: int, tmp_path: Path) -> None:
    """All products +1 and all -1, thresholds at, beside and far beyond every sum: K + 2 around powers of two and the
    steps of the inner loop."""
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
        ("3x3", (1, 16, 16, 64), 64, "threshold"),
        ("3x3", (1, 6, 7, 35), 10, "accumulator"),
        ("3x3s2", (1, 9, 9, 33), 65, "flips"),
        ("5x5", (1, 6, 34, 20), 9, "threshold"),
        ("1x1", (2, 5, 7, 96), 33, "affine"),
    ]
    graphs = [case(rng, shape, outputs, WINDOWS[window], last) for window, shape, outputs, last in layers]
    graphs += [case(rng, (1, 7, 9, 40), 40, WINDOWS["3x3"], "flips", group) for group in (2, 40)]
    graphs += [case(rng, shape, outputs, WINDOWS[window], last, make=trits) for window, shape, outputs, last in layers]
    graph = merge(graphs)
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


@pytest.mark.parametrize("target, most", [("cortex-m0plus", 9.9), ("cortex-m3", 5.9), ("cortex-m4", 5.9)])
def test_budget(target: str, most: float, tmp_path: Path) -> None:
    """Instructions of a whole 3x3 layer, 64 to 64 channels, per 32 products, and what the cost model thinks of them."""
    graph = case(np.random.default_rng(0), (1, 16, 16, 64), 64, WINDOWS["3x3"])
    compiled = compile_graph(graph, Target.load(target))
    _, result = run_on_target(compiled, tmp_path, random_feeds(graph))
    assert result.instructions is not None
    assert result.instructions * 32 / (16 * 16 * 64 * 64 * 9) <= most
    guess = VARIANT.cost(compiled.graph.nodes[0], compiled.target)
    assert abs(guess / result.instructions - 1) < 0.15, (guess, result.instructions)


@given(st.integers(1, 40), st.integers(1, 70), st.sampled_from(sorted(WINDOWS)))
def test_lanes(height: int, width: int, name: str) -> None:
    """Every output has one lane, every lane at most one, and taps stay inside a strip."""
    window = WINDOWS[name]
    if min(window.out_size((height, width))) < 1:
        return
    g = geometry(TensorType((1, height, width, 8), BIT1), window)
    lanes = plan_lanes(g)
    assert lanes is not None
    assert lanes.strips * lanes.width <= LANES and lanes.strips * lanes.strip_rows >= g.oh
    assert lanes.segments * lanes.outputs >= g.ow and 0 < lanes.used <= 1
    for column in lanes.columns:
        first, last = lanes.before + column.shift, lanes.before + lanes.outputs - 1 + column.shift
        if lanes.segments > 1:
            assert first >= 0 and last < lanes.width
        used = [x * g.sx + column.phase for x in range(column.shift, g.ow + column.shift)]
        assert used == [x * g.sx - g.pl + column.kx * g.dx for x in range(g.ow)]
    outside = lanes.outside()
    assert outside.sum() == g.taps * g.oh * g.ow - _valid(g.oh, g.sy, g.pt, g.dy, g.kh, g.h) * _valid(
        g.ow, g.sx, g.pl, g.dx, g.kw, g.w
    )


def _valid(out: int, stride: int, pad: int, dilation: int, kernel: int, size: int) -> int:
    return sum(0 <= o * stride - pad + k * dilation < size for o in range(out) for k in range(kernel))


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(1, 70))
def test_patterns_round_trip(outputs: int, kh: int, kw: int, channels: int) -> None:
    w = np.random.default_rng(channels).random((outputs, kh, kw, channels)) < 0.5
    lanes = plan_lanes(geometry(TensorType((1, 9, 9, channels), BIT1), Window((kh, kw))))
    assert lanes is not None
    run = Triples(kh, channels)
    words, stream = pack_patterns([w], lanes.columns)
    assert words.shape == (outputs, kw, run.words)
    ends = unpack_bits(stream[:, None], 32).reshape(-1)[: outputs * kw * run.bits].reshape(outputs, kw, run.bits)
    flat = np.concatenate([unpack_bits(words[..., None], 32).reshape(outputs, kw, -1), ends], axis=2)
    assert flat.shape[2] == 3 * run.lookups and not flat[..., kh * channels :].any()
    whole = 3 * run.triples
    back = np.zeros((outputs, kw, kh, channels), np.bool_)
    back[..., :whole] = flat[..., : kh * whole].reshape(outputs, kw, kh, whole)
    back[..., whole:] = flat[..., kh * whole : kh * channels].reshape(outputs, kw, kh, channels - whole)
    order = [c.kx for c in lanes.columns]
    assert (back.transpose(0, 2, 1, 3) == w[:, :, order]).all()


@given(st.integers(1, 32))
def test_fetches(count: int) -> None:
    """The patterns are consecutive bits, the tables consecutive, and offsets are those that instructions can hold."""
    loads, pointer = 0, 0
    found = fetches(count, 3 * count // 32)
    for i, f in enumerate(found):
        loads += bool(f.load)
        pointer += f.move
        assert pointer + f.table == i and 64 * f.table + 4 < 1024
        assert 32 * (loads - 1) + (f.bit - 32 if f.have else f.bit) == 3 * i
        assert (f.load == "bits") == bool(f.load and 32 * loads > 3 * count)


@given(st.integers(1, BODY), st.integers(1, 3), st.integers(0, 2**32))
def test_adders(groups: int, words: int, seed: int) -> None:
    """The straight-line code adds, up to the largest sum that its planes can hold."""
    rng = np.random.default_rng(seed)
    most = (1 << words) - 1
    planes = (2 * groups * most).bit_length()
    numbers = rng.integers(0, most + 1, (groups, 64)) if seed % 2 else np.full((groups, 64), most)
    start = rng.integers(0, (1 << planes) - groups * most, 64)
    counter = [start >> p & 1 for p in range(planes)]
    values = {f"s{i}_{p}": numbers[i] >> p & 1 for i in range(groups) for p in range(words)}
    for o in accumulate(groups, words, planes):
        if o.kind == "fetch":
            continue
        total = counter[o.plane] + values[o.a] + (values[o.b] if o.kind == "full" else 0)
        counter[o.plane] = total & 1
        if o.carry:
            values[o.carry] = total >> 1
        else:
            assert (total < 2).all()
    assert (sum(c << p for p, c in enumerate(counter)) == start + numbers.sum(axis=0)).all()


@given(st.integers(1, 300), st.integers(-400, 400), st.integers(0, 9))
def test_threshold_equation(k: int, t: int, missing: int) -> None:
    """The docstring's derivation, on every count."""
    planes = (k + 2).bit_length()
    word = int(limits(np.array([t]), k, planes)[0])
    limit, odd = ~word & ((1 << planes) - 1), word >> (limit_bits(planes) - 1)
    padding = min(missing * 7, k)
    for pop in range(k - padding + 1):
        low = k - padding - 2 * pop < t
        assert (pop + padding // 2 + 1 + (padding & odd) > limit) == low


def test_padding_planes() -> None:
    lanes = plan_lanes(geometry(TensorType((1, 5, 5, 3), BIT1), WINDOWS["3x3"]))
    assert lanes is not None
    rows, which = edges(lanes, 3, 5)
    assert which.shape == (lanes.segments, lanes.strip_rows) and rows.shape[1] == 2 * 5 + 1


def test_too_large_for_ram() -> None:
    rng = np.random.default_rng(0)
    node = case(rng, (1, 14, 14, 256), 64, WINDOWS["3x3"]).nodes[0]
    target = Target.load("cortex-m0plus", ram="16k")
    assert "bytes" in conv_sliced.accepts(node, target)
    assert not conv_sliced.accepts(node, replace(target, memory=replace(target.memory, ram=None)))
