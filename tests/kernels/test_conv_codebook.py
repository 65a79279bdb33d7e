"""Shared weights: the indices decode to the weights, and the row gives the bits of the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitc.ir.dtypes import FLOAT32, INT8
from bitc.ir.graph import Graph
from bitc.ir.types import TensorType
from bitc.kernels import Goal, conv_codebook, select
from bitc.kernels.conv_codebook import indices, width
from bitc.ops.epilogue import Affine, Requant
from bitc.ops.linear import Conv2D
from bitc.ops.window import Window
from bitc.target import Target
from tests.kernels.harness import check_row, merge, single

POINT = Window()


def layer(entries: int, channels: int, outputs: int, window: Window = POINT, group: int = 1) -> Graph:
    rng = np.random.default_rng(entries + channels)
    book = rng.normal(size=entries).astype(np.float32)
    w = rng.choice(book, (outputs, *window.kernel, channels // group))
    params = [rng.normal(size=outputs).astype(np.float32) for _ in range(2)]
    x = TensorType((1, 5, 6, channels), FLOAT32)
    return single(Conv2D(window, group, Affine(lo=0.0)), x, w.astype(np.float32), *params)


@pytest.mark.parametrize("entries", [1, 2, 4, 5, 16, 17, 256])
def test_indices_decode(entries: int) -> None:
    rng = np.random.default_rng(0)
    w = rng.choice(np.arange(entries, dtype=np.float32), 1001)
    book = np.unique(w)
    bits, packed = width(book), indices(w, book)
    per = 8 // bits
    k = np.arange(1001)
    decoded = book[(packed[k // per] >> (k % per * bits)) & ((1 << bits) - 1)]
    np.testing.assert_array_equal(decoded, w)
    assert packed.nbytes == -(-1001 // per)


@pytest.mark.parametrize("target", ["x86-64-v4", "aarch64", "wasm32-simd128", "cortex-m4"])
def test_reference(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = Window((3, 3), pads=(1, 1, 1, 1))
    cases = [(4, 3, 5, same), (16, 33, 31, Window()), (200, 17, 65, same), (3, 64, 2, Window((2, 3), (1, 2)))]
    graphs = [layer(*case) for case in cases] + [layer(16, 12, 20, same, 2)]
    graph = merge(graphs)
    monkeypatch.setattr(conv_codebook, "WORTH", 100.0)
    check_row(conv_codebook.VARIANT, graph, Target.load(target), tmp_path, monkeypatch)


def codes(entries: int, channels: int, outputs: int, window: Window = POINT, group: int = 1) -> Graph:
    rng = np.random.default_rng(entries + channels)
    book = rng.choice(np.arange(-100, 101), entries, replace=False).astype(np.int8)
    w = rng.choice(book, (outputs, *window.kernel, channels // group))
    params = [rng.integers(-999, 999, outputs), rng.integers(1 << 20, 1 << 24, outputs), np.full(outputs, 34)]
    x = TensorType((1, 5, 6, channels), INT8)
    op = Conv2D(window, group, Requant(INT8, 7, -100, 127), x_zero=-5)
    return single(op, x, w, *(p.astype(np.int32) for p in params))


def test_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = Window((3, 3), pads=(1, 1, 1, 1))
    cases = [(4, 3, 5, same), (16, 33, 31, Window()), (9, 17, 65, same), (2, 64, 2, Window((2, 3), (1, 2))), (1, 8, 8)]
    graph = merge([codes(*case) for case in cases] + [codes(16, 12, 20, same, 2)])
    monkeypatch.setattr(conv_codebook, "WORTH", 100.0)
    check_row(conv_codebook.PAIRS, graph, Target.load("cortex-m4"), tmp_path, monkeypatch)


def dense(entries: int, inputs: int, outputs: int) -> Graph:
    g = codes(entries, inputs, outputs)
    rng, node = np.random.default_rng(entries), g.nodes[0]
    x = TensorType((1, 1, 1, inputs), INT8)
    params = [rng.integers(-999, 999, outputs).astype(np.int32), *(v.array for v in node.inputs[3:] if v)]
    return single(node.op, x, node.input(1).array, *params)


def test_dense_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of all sizes, indices of 2, 4 and 8 bits, and inputs that are no whole words."""
    cases = [(16, 64, 24), (16, 33, 31), (4, 100, 13), (2, 40, 7), (1, 12, 1), (9, 5, 9), (2, 3, 2), (3, 8, 1)]
    graph = merge([dense(*case) for case in cases])
    monkeypatch.setattr(conv_codebook, "WORTH", 1000.0)
    check_row(conv_codebook.PAIRS, graph, Target.load("cortex-m4"), tmp_path, monkeypatch)


def test_dense_layers_take_half_the_flash() -> None:
    g, chip = dense(16, 256, 128), Target.load("cortex-m4")
    assert select(g, chip)[g.nodes[0]].name == "codebook_smlad"
    assert select(g, chip, Goal.SPEED)[g.nodes[0]].name == "conv_smlad"
    packed = {a.name: a.operand for a in conv_codebook.build_pairs(g.nodes[0], chip)[0].args}
    assert packed["codes"].data.nbytes == 256 * 128 // 2


def test_pairs_chosen_where_flash_counts() -> None:
    g, many = codes(16, 64, 64), codes(40, 64, 64)
    chip = Target.load("cortex-m4")
    assert select(g, chip)[g.nodes[0]].name == "codebook_smlad"
    assert select(g, chip, Goal.SPEED)[g.nodes[0]].name == "conv_smlad"
    assert "different pairs" in conv_codebook.accepts_pairs(many.nodes[0], chip)
    assert "decoded weights" in conv_codebook.accepts_pairs(g.nodes[0], Target.load("cortex-m4", ram="8k"))
    packed = {a.name: a.operand for a in conv_codebook.build_pairs(g.nodes[0], chip)[0].args}
    assert packed["codes"].data.nbytes == 64 * 64 // 2


def test_chosen_where_flash_counts() -> None:
    g, many = layer(16, 64, 64), layer(5000, 64, 64)
    chip = Target.load("cortex-m4")
    assert select(g, chip)[g.nodes[0]].name == "conv_codebook"
    assert select(g, chip, Goal.SPEED)[g.nodes[0]].name == "conv_products"
    assert "different weights" in conv_codebook.accepts(many.nodes[0], chip)
    packed = {a.name: a.operand for a in conv_codebook.build(g.nodes[0], chip)[0].args}
    assert packed["codes"].data.nbytes == 64 * 64 // 2
