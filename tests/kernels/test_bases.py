"""Sums of several binary convolutions in one pass, against the reference, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitc.ir.dtypes import BIT1, TERN, UINT1, UINT2
from bitc.ir.graph import Graph
from bitc.ir.types import Quant, TensorType
from bitc.kernels import conv_bits, conv_listed, conv_planes, conv_sliced, conv_tiles
from bitc.kernels.bases import few_bits
from bitc.kernels.step import Variant
from bitc.ops.epilogue import Affine, Bases, TernThreshold, Threshold
from bitc.ops.linear import Conv2D
from bitc.ops.window import Window
from bitc.target import Target
from tests.kernels.harness import bits, check_row, merge, single

PM = Quant.two_valued(-1, 1)
SAME = Window((3, 3), pads=(1, 1, 1, 1))
Rng = np.random.Generator


def case(rng: Rng, x: TensorType, outputs: int, window: Window, kind: str, count: int = 2, group: int = 1) -> Graph:
    """One layer; `kind` is what becomes of the sums. Bits are decided in 32 bits where `kind` says so and it is
    possible, else in 64."""
    w = bits(rng, outputs * count, *window.kernel, x.channels // group)
    alphas = np.sort(rng.random((count, outputs)) + 0.05, axis=0)[::-1].astype(np.float32)
    alphas[1:, : outputs // 4] = 0
    k = window.kernel[0] * window.kernel[1] * x.channels // group
    if kind in ("reals", "clipped"):
        then = Affine(-1.0, 2.5) if kind == "clipped" else Affine()
        return single(
            Conv2D(window, group, Bases(count, then)), x, w, alphas, np.ones(1, np.float32),
            rng.normal(size=outputs).astype(np.float32),
        )  # fmt: skip
    unit = 2**30 if kind != "few" else 4
    factor = np.rint(alphas / alphas.max(axis=0) * unit).astype(np.int32)
    t = np.sort(np.rint(rng.normal(size=(2, outputs)) * k**0.5 * unit).astype(np.int64), axis=0)
    t[:, -1] = (1, -1)[outputs % 2] * (np.int64(k) * factor.sum(axis=0)[-1] + 1)
    then = TernThreshold(Quant()) if kind == "trits" else Threshold(PM)
    return single(Conv2D(window, group, Bases(count, then)), x, w, factor, *t[: 2 if kind == "trits" else 1])


def layers(rng: Rng, kinds: tuple[str, ...]) -> Graph:
    sizes = ((33, 5, 7, 6), (64, 33, 5, 9), (17, 8, 6, 34), (31, 2, 3, 3), (96, 40, 4, 5), (65, 64, 1, 7))
    windows = (SAME, Window(), Window((3, 3), (2, 2), (0, 1, 1, 2)), Window((2, 3), (1, 1), (1, 1, 0, 2), (1, 2)))
    graphs = []
    for i, (channels, outputs, h, w) in enumerate(sizes):
        window = windows[i % len(windows)] if h > 1 else SAME
        x = TensorType((1 + i % 2, h, w, channels), BIT1)
        graphs.append(case(rng, x, outputs, window, kinds[i % len(kinds)]))
    return merge(graphs)


@pytest.mark.parametrize("target", ["cortex-m0plus", "cortex-m4"])
@pytest.mark.parametrize("row", [conv_bits.VARIANT, conv_listed.VARIANT, conv_sliced.VARIANT], ids=lambda r: r.name)
def test_small_words(row: Variant, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (conv_listed, conv_sliced):
        monkeypatch.setattr(module, "PRODUCTS", 0)  # small layers, too
    kinds = ("bits", "reals", "bits", "few", "clipped") + (() if row is conv_sliced.VARIANT else ("trits",))
    check_row(row, layers(np.random.default_rng(0), kinds), Target.load(target), tmp_path, monkeypatch)


@pytest.mark.parametrize("target", ["aarch64", "armv7-neon", "x86-64-v3", "x86-64-v4", "wasm32-simd128"])
def test_tiles(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two and four bases, tiles of whole bytes, of half ones and of what is left, groups."""
    rng, kinds = np.random.default_rng(3), ("bits", "clipped", "few", "reals")
    graphs = [layers(rng, kinds)]
    for i, outputs in enumerate((4, 12, 20, 27, 34, 72)):
        x = TensorType((1, 5, 4, (64, 33)[i % 2]), BIT1)
        graphs += [case(rng, x, outputs, SAME, kind, 2 + 2 * (i % 3 == 2)) for kind in kinds[:2]]
    for outputs in (16, 48):
        graphs.append(case(rng, TensorType((1, 3, 5, 128), BIT1), outputs, SAME, "bits", 2, 2))
    graphs.append(case(rng, TensorType((1, 3, 5, 128), BIT1), 24, SAME, "reals", 4))
    check_row(conv_tiles.VARIANT, merge(graphs), Target.load(target), tmp_path, monkeypatch)


@pytest.mark.parametrize("target", ["aarch64", "x86-64", "wasm32-simd128", "cortex-m4"])
def test_any_number_of_bases(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three and four, groups, and activations that are trits."""
    rng = np.random.default_rng(1)
    graphs = [
        case(rng, TensorType((1, 5, 6, 64), BIT1), 12, SAME, "bits", 3, 2),
        case(rng, TensorType((1, 5, 6, 40), TERN), 9, SAME, "reals", 4),
        case(rng, TensorType((2, 4, 3, 33), TERN), 35, Window(), "bits", 2),
        case(rng, TensorType((1, 4, 4, 10), BIT1), 6, SAME, "trits", 3, 2),
    ]
    check_row(conv_bits.VARIANT, merge(graphs), Target.load(target), tmp_path, monkeypatch)


@pytest.mark.parametrize("target", ["aarch64", "cortex-m4"])
def test_activations_of_a_few_bits(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    graphs = [
        case(rng, TensorType((1, 5, 6, channels), dtype), 9, window, kind, count, group)
        for channels, dtype, window, kind, count, group in (
            (40, UINT1, SAME, "bits", 2, 1),
            (33, UINT2, SAME, "reals", 2, 1),
            (64, UINT2, Window(), "trits", 3, 1),
            (66, UINT1, SAME, "bits", 2, 3),
        )
    ]
    check_row(conv_planes.VARIANT, merge(graphs), Target.load(target), tmp_path, monkeypatch)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1),
       st.sampled_from([1, 2]), st.data())  # fmt: skip
@settings(deadline=None, max_examples=200)
def test_few_bits_decide_the_same(j: int, k: int, m: int, n: int, step: int, data: st.DataObject) -> None:
    most, factor = np.array([[j], [k]]), np.array([[m], [n]], np.int32)
    reach = j * m + k * n + 1
    t = data.draw(st.integers(-reach, reach))
    found = few_bits(factor, [np.array([t])], most, step)
    if found is None:
        return
    a, b = np.meshgrid(np.arange(-j, j + 1, step), np.arange(-k, k + 1, step))
    sums = a * int(found.factor[0, 0]) + b * int(found.factor[1, 0])
    assert abs(sums).max() < 2**30 and abs(int(found.limits[0][0])) < 2**30
    assert ((a * m + b * n >= t) == (sums >= int(found.limits[0][0]))).all()


@pytest.mark.parametrize("k", [9, 576, 2304])
def test_16_bits_are_enough_for_usual_layers(k: int) -> None:
    rng = np.random.default_rng(2)
    factor = np.rint(np.array([[1.0], [0.4]]) * (1 + 0.2 * rng.random((2, 64))) * 2**30).astype(np.int32)
    t = np.rint(rng.normal(size=64) * k**0.5 * 2**30).astype(np.int64)
    found = few_bits(factor, [t], np.full((2, 64), k), 2)
    assert found is not None and found.factor.dtype == np.int16
