"""The sparse row against the reference, bit for bit, on awkward sizes and patterns of zeros."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitc.ir.dtypes import FLOAT32, INT8, UINT8, DType
from bitc.ir.graph import Graph
from bitc.ir.types import TensorType
from bitc.kernels import (
    conv_pairs,
    conv_sparse,
    conv_sparse_blocks,
    conv_sparse_codes,
    conv_sparse_dsp,
    conv_sparse_fpu,
    conv_sparse_lanes,
    conv_sparse_mve,
    select,
)
from bitc.kernels.conv_sparse import stream
from bitc.kernels.variants import ZEROS_SKIPPED
from bitc.ops.epilogue import Affine, Epilogue, Requant
from bitc.ops.linear import Conv2D
from bitc.ops.window import Window
from bitc.target import Target
from tests.kernels.harness import check_row, merge, single

TARGETS = ("x86-64-v4", "aarch64", "wasm32-simd128", "cortex-m4", "cortex-m0plus")
WINDOWS = {
    "1x1": Window(),
    "3x3": Window((3, 3), pads=(1, 1, 1, 1)),
    "3x3s2": Window((3, 3), (2, 2), (0, 1, 1, 2)),
    "2x3d2": Window((2, 3), (1, 2), (1, 0, 1, 2), (2, 1)),
}


def weights(rng: np.random.Generator, shape: tuple[int, ...], dtype: DType, zeros: float, rows: int = 1) -> np.ndarray:
    w = rng.integers(-128, 128, shape).astype(np.int8) if dtype is INT8 else rng.normal(size=shape).astype(np.float32)
    groups = rng.random((-(-shape[0] // rows), *shape[1:])) < zeros
    w[np.repeat(groups, rows, axis=0)[: shape[0]]] = 0
    w[:rows] = 0  # outputs without any weights
    if rows > 1:  # some zeros inside of blocks
        w[rng.random(shape) < 0.05] = 0
    return w


def graph(
    rng: np.random.Generator,
    x: DType,
    window: Window,
    channels: int,
    outputs: int,
    zeros: float,
    clamped: bool = True,
    most: int = 4,
    rows: int = 1,
) -> Graph:
    """A layer; `most`: weights of each four that are not zero; `rows`: outputs in which zeros lie together."""
    is_float = x is FLOAT32
    w = weights(rng, (outputs, *window.kernel, channels), FLOAT32 if is_float else INT8, zeros, rows)
    for group in w.reshape(-1, 4) if most < 4 else ():
        group[rng.permutation(4)[most:]] = 0
    epilogue: Epilogue
    if is_float:
        epilogue = Affine(-1.0, 4.0) if clamped else Affine()
        params = [rng.normal(size=outputs).astype(np.float32) for _ in range(2)]
    else:
        epilogue = Requant(INT8, 7, -100, 127)
        params = [rng.integers(-999, 999, outputs), rng.integers(1 << 20, 1 << 24, outputs), np.full(outputs, 34)]
        params = [p.astype(np.int32) for p in params]
    x_zero = 0 if is_float else -5 if x is INT8 else 200
    return single(Conv2D(window, epilogue=epilogue, x_zero=x_zero), TensorType((1, 5, 7, channels), x), w, *params)


CASES = [(x, t) for x in (INT8, UINT8) for t in TARGETS] + [(FLOAT32, "cortex-m4")]


@pytest.mark.parametrize(("x", "target"), CASES, ids=str)
def test_reference(x: DType, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    graphs = [
        graph(rng, x, window, c, o, zeros)
        for window in WINDOWS.values()
        for c, o, zeros in ((1, 4, 0.5), (3, 1, 0.9), (31, 5, 0.7), (64, 9, 0.95))
    ]
    merged = merge(graphs)
    monkeypatch.setattr(conv_sparse, "LEAST", 0.0)
    check_row(conv_sparse.VARIANT, merged, Target.load(target), tmp_path, monkeypatch)


@pytest.mark.parametrize("target", ["x86-64", "x86-64-v3", "x86-64-v4", "aarch64", "wasm32-simd128"])
@pytest.mark.parametrize("clamped", [False, True], ids=["plain", "clamped"])
def test_lanes(target: str, clamped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    graphs = [
        graph(rng, FLOAT32, window, c, o, zeros, clamped)
        for window in WINDOWS.values()
        for c, o, zeros in ((1, 4, 0.5), (3, 1, 0.9), (31, 5, 0.7), (64, 9, 0.95))
    ]
    monkeypatch.setattr(conv_sparse, "LEAST", 0.0)
    check_row(conv_sparse_lanes.VARIANT, merge(graphs), Target.load(target), tmp_path, monkeypatch)


@pytest.mark.parametrize("x", [INT8, UINT8], ids=str)
@pytest.mark.parametrize("target", ["aarch64", "wasm32-simd128"])
def test_codes(x: DType, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    graphs = [
        graph(rng, x, window, c, o, zeros)
        for window in WINDOWS.values()
        for c, o, zeros in ((1, 4, 0.5), (3, 1, 0.9), (31, 5, 0.7), (64, 9, 0.95), (300, 3, 0.99))
    ]
    monkeypatch.setattr(conv_sparse, "LEAST", 0.0)
    check_row(conv_sparse_codes.VARIANT, merge(graphs), Target.load(target), tmp_path, monkeypatch)


@pytest.mark.parametrize("x", [INT8, UINT8], ids=str)
def test_dsp(x: DType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    graphs = [
        graph(rng, x, window, c, o, zeros)
        for window in WINDOWS.values()
        for c, o, zeros in ((1, 4, 0.5), (3, 1, 0.9), (31, 5, 0.7), (64, 19, 0.95), (32, 17, 0.5))
    ]
    monkeypatch.setattr(conv_sparse, "LEAST", 0.0)
    check_row(conv_sparse_dsp.VARIANT, merge(graphs), Target.load("cortex-m4"), tmp_path, monkeypatch)


@pytest.mark.parametrize(("chip", "tile"), [("cortex-m4", 16), ("cortex-m4", 8), ("cortex-m33", 4), ("cortex-m7", 16)])
def test_fpu(chip: str, tile: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, target = np.random.default_rng(0), Target.load(chip, ram="8M")
    graphs = [
        graph(rng, FLOAT32, window, c, o, zeros, clamped=o % 2 == 1)
        for window in WINDOWS.values()
        for c, o, zeros in ((1, 4, 0.5), (3, 1, 0.9), (31, 5, 0.7), (64, 19, 0.95), (300, 3, 0.995))
    ]
    graphs = [g for g in graphs if g.nodes[0].output.type.rows >= tile]
    monkeypatch.setattr(conv_sparse, "LEAST", 0.0)
    monkeypatch.setattr(conv_sparse_fpu, "TILES", (tile,))
    check_row(conv_sparse_fpu.VARIANT, merge(graphs), target, tmp_path, monkeypatch)


@pytest.mark.parametrize(("x", "tile"), [(INT8, 16), (UINT8, 8), (UINT8, 4)], ids=str)
def test_mve(x: DType, tile: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    graphs = [
        graph(rng, x, window, c, o, zeros)
        for window in WINDOWS.values()
        for c, o, zeros in ((1, 4, 0.5), (3, 1, 0.9), (31, 5, 0.7), (64, 19, 0.95), (300, 3, 0.995))
    ]
    graphs = [g for g in graphs if g.nodes[0].output.type.rows >= tile]
    codes = graphs[-1].nodes[0]
    graphs.append(single(replace(codes.op, epilogue=None), codes.input(0).type, codes.input(1).array))
    monkeypatch.setattr(conv_sparse, "LEAST", 0.0)
    monkeypatch.setattr(conv_sparse_mve, "TILES", (tile,))
    check_row(conv_sparse_mve.VARIANT, merge(graphs), Target.load("cortex-m55"), tmp_path, monkeypatch)


@pytest.mark.parametrize("x", [INT8, UINT8], ids=str)
def test_pairs(x: DType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    graphs = [
        graph(rng, x, window, c, o, 0.2, most=2)
        for window in WINDOWS.values()
        for c, o in ((4, 1), (8, 5), (16, 19), (36, 3))
    ]
    check_row(conv_pairs.VARIANT, merge(graphs), Target.load("cortex-m4"), tmp_path, monkeypatch)


BLOCKS = [(FLOAT32, t) for t in ("x86-64-v3", "aarch64", "wasm32-simd128", "cortex-m4")]
BLOCKS += [(x, t) for x in (INT8, UINT8) for t in ("aarch64", "wasm32-simd128")]


@pytest.mark.parametrize(("x", "target"), BLOCKS, ids=str)
def test_blocks(x: DType, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    sizes = ((1, 9, 0.5, 2), (31, 12, 0.9, 4), (64, 17, 0.7, 8), (300, 13, 0.99, 4), (8, 16, 0.6, 4))
    graphs = [
        graph(rng, x, window, c, o, zeros, clamped=o % 2 == 0, rows=rows)
        for window in WINDOWS.values()
        for c, o, zeros, rows in sizes
    ]
    monkeypatch.setattr(conv_sparse, "LEAST", 0.0)
    monkeypatch.setattr(conv_sparse_blocks, "FULL", 0.0)
    row = conv_sparse_blocks.FLOATS if x is FLOAT32 else conv_sparse_blocks.CODES
    check_row(row, merge(graphs), Target.load(target), tmp_path, monkeypatch)


def test_scattered_zeros_are_no_blocks() -> None:
    rng = np.random.default_rng(0)
    for x, row in ((FLOAT32, conv_sparse_blocks.FLOATS), (INT8, conv_sparse_blocks.CODES)):
        for rows, reason in ((1, "zeros do not lie in blocks of outputs"), (4, "")):
            g = graph(rng, x, Window(), 64, 64, 0.8, rows=rows)
            assert row.refuses(g.nodes[0], Target.load("aarch64")) == reason


def test_long_ways_get_a_zero_in_between() -> None:
    w = np.zeros((2, 1000), np.int8)
    w[0, [3, 900]], w[1, 256] = 5, 6
    found = stream(w)
    assert found.counts.tolist() == [5, 2]
    at = 0
    for count, row in zip(found.counts, w, strict=True):
        columns = np.cumsum(found.steps[at : at + count].astype(int))
        back = np.zeros(1000, np.int8)
        np.add.at(back, columns, found.values[at : at + count])
        np.testing.assert_array_equal(back, row)
        at += int(count)


@pytest.mark.parametrize(
    ("x", "zeros", "most", "target", "row"),
    [
        (INT8, 0.95, 4, "cortex-m4", "conv_sparse_dsp"),
        (INT8, 0.0, 2, "cortex-m4", "conv_pairs"),
        (INT8, 0.95, 4, "cortex-m0plus", "conv_sparse"),
        (FLOAT32, 0.9, 4, "cortex-m4", "conv_sparse_fpu"),
        (FLOAT32, 0.9, 4, "aarch64", "conv_sparse_lanes"),
        (INT8, 0.1, 4, "cortex-m4", "conv_smlad"),
    ],
)
def test_chosen_where_it_wins(x: DType, zeros: float, most: int, target: str, row: str) -> None:
    g = graph(np.random.default_rng(0), x, Window(), 64, 64, zeros, most=most)
    assert select(g, Target.load(target))[g.nodes[0]].name == row


def test_working_memory_is_bounded_where_ram_is() -> None:
    small = Target.load("cortex-m4", ram="64k")
    g = graph(np.random.default_rng(0), FLOAT32, WINDOWS["3x3"], 64, 8, 0.9)
    assert conv_sparse.plan(g.nodes[0], small).tile == 1
    assert conv_sparse.plan(g.nodes[0], Target.load("cortex-m4")).tile == 4
    wide = graph(np.random.default_rng(0), FLOAT32, WINDOWS["3x3"], 128, 8, 0.9)
    assert "long columns" in conv_sparse.accepts(wide.nodes[0], small)
    codes = graph(np.random.default_rng(0), INT8, WINDOWS["3x3"], 64, 8, 0.9)
    assert "columns take 9216 bytes" in conv_sparse_dsp.accepts(codes.nodes[0], small)


def test_sums_at_24_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_limit, beyond = (np.zeros((2, 1, 1, 400), np.int8) for _ in range(2))
    at_limit[0, 0, 0, :259], at_limit[0, 0, 0, 259], at_limit[1] = 127, 3, -1
    beyond[...] = at_limit
    beyond[0, 0, 0, 259] = 4
    assert 255 * at_limit[0].sum(dtype=int) < conv_sparse_dsp.LARGEST <= 255 * beyond[0].sum(dtype=int)
    target = Target.load("cortex-m4")
    for w, reason in ((at_limit, ""), (beyond, "sums of 24 bits")):
        w[1, 0, 0, ::2] = 0
        g = single(Conv2D(Window(), x_zero=-128), TensorType((1, 5, 7, 400), INT8), w)
        assert conv_sparse_dsp.accepts(g.nodes[0], target) == reason
        if not reason:
            x = np.where(np.arange(5 * 7 * 400).reshape(1, 5, 7, 400) // 400 % 3, 127, -128)
            check_row(conv_sparse_dsp.VARIANT, g, target, tmp_path, monkeypatch, {"x0": x})


def test_they_can_be_turned_off() -> None:
    g = graph(np.random.default_rng(0), INT8, Window(), 64, 64, 0.95)
    choice = select(g, Target.load("cortex-m4"), without=ZEROS_SKIPPED).choices[g.nodes[0]]
    assert choice.variant.name not in ZEROS_SKIPPED
    assert {name for name, why in choice.rejected if why == "not wanted"} == set(ZEROS_SKIPPED)
