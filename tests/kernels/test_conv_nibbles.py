"""Weights of four bits: packed as nibbles, with the bits of the reference, and taken where flash counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitc.ir.dtypes import INT8, INT16, UINT8, DType
from bitc.ir.graph import Graph
from bitc.ir.types import TensorType
from bitc.kernels import Goal, conv_nibbles, select
from bitc.ops.epilogue import Requant
from bitc.ops.linear import Conv2D
from bitc.ops.window import Window
from bitc.target import Target
from tests.kernels.harness import check_row, merge, single

POINT, SAME = Window(), Window((3, 3), pads=(1, 1, 1, 1))


def layer(x: DType, channels: int, outputs: int, window: Window = POINT, group: int = 1, lo: int = -8) -> Graph:
    rng = np.random.default_rng(channels + outputs)
    w = rng.integers(lo, 8, (outputs, *window.kernel, channels // group)).astype(np.int8)
    params = [rng.integers(-999, 999, outputs), rng.integers(1 << 20, 1 << 24, outputs), np.full(outputs, 34)]
    zero = 0 if x is INT16 else -5 if x is INT8 else 9
    op = Conv2D(window, group, Requant(INT8, 7, -100, 127), x_zero=zero)
    return single(op, TensorType((1, 5, 6, channels), x), w, *(p.astype(np.int32) for p in params))


def test_packing() -> None:
    w = np.arange(-8, 8, dtype=np.int8).reshape(16, 1, 1, 1)
    np.testing.assert_array_equal(conv_nibbles.pack_nibbles(w, 1), np.array([0xFEDCBA98, 0x76543210], np.uint32))


@pytest.mark.parametrize("target", ["x86-64", "cortex-m0plus", "cortex-m4"])
def test_reference(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = Target.load(target)
    counted = replace(loaded, memory=replace(loaded.memory, flash=1 << 20))
    cases = [(INT8, 3, 5, SAME), (UINT8, 33, 31), (INT16, 17, 8), (INT8, 64, 2, Window((2, 3), (1, 2))), (INT8, 1, 1)]
    graph = merge([layer(*case) for case in cases] + [layer(INT8, 12, 20, SAME, 2)])
    monkeypatch.setattr(conv_nibbles.conv_codebook, "accepts_pairs", lambda node, target: "not asked")
    check_row(conv_nibbles.VARIANT, graph, counted, tmp_path, monkeypatch)


def test_chosen_where_flash_counts() -> None:
    g = layer(INT8, 64, 64, SAME)
    assert select(g, Target.load("cortex-m3"))[g.nodes[0]].name == "conv_nibbles"
    assert select(g, Target.load("cortex-m4"))[g.nodes[0]].name == "codebook_smlad"
    assert select(g, Target.load("cortex-m4"), Goal.SPEED)[g.nodes[0]].name != "conv_nibbles"
    assert select(g, Target.load("host"))[g.nodes[0]].name != "conv_nibbles"
    wide = layer(INT8, 64, 64, SAME, lo=-9)
    assert "reach from -9" in conv_nibbles.accepts(wide.nodes[0], Target.load("cortex-m3"))
