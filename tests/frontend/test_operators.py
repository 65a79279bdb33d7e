"""Every importer on single-node models: the imported graph computes what onnxruntime does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from bitc.frontend.fold import FOLDABLE
from bitc.frontend.table import TABLE
from tests.frontend.cases import CASES, FOLDED, Case, F, case
from tests.frontend.models import Array, compare, model

CONFORMANCE_ONLY = {
    "BitCast",
    "CumProd",
    "DeformConv",
    "Det",
    "Col2Im",
    "MelWeightMatrix",
    "TensorScatter",
    "NonMaxSuppression",
    "NonZero",
    "Unique",
}
"""Importers of operators that onnxruntime does not have, or whose results have no fixed shape; the onnx project's own
tests cover them (tests/conformance)."""


def build(c: Case, opset: int, fold: bool = False) -> tuple[Any, dict[str, Array]]:
    feeds = {f"x{i}": np.asarray(a) for i, a in enumerate(c.feeds)}
    constants = {f"c{i}": a for i, a in enumerate(c.constants) if a is not None}
    names = [*feeds, *(f"c{i}" if a is not None else "" for i, a in enumerate(c.constants))]
    outputs = [f"y{i}" for i in range(c.outputs)]
    node = helper.make_node(c.op, names, outputs, domain=c.domain, **c.attributes)
    if fold:
        return model([node], {}, outputs, {**feeds, **constants}, opset), {}
    return model([node], feeds, outputs, constants, opset, {c.domain: 1} if c.domain else {}), feeds


@pytest.mark.parametrize("c", CASES, ids=str)
def test_operator_matches_onnxruntime(c: Case) -> None:
    for opset in c.opsets:
        m, feeds = build(c, opset)
        compare(m, feeds, c.tolerance)


@pytest.mark.parametrize("c", [c for c in CASES if not c.domain], ids=str)
def test_operator_of_constants_folds(c: Case) -> None:
    m, _ = build(c, c.opsets[-1], fold=True)
    imported = compare(m, {}, c.tolerance)
    assert not imported.graph.nodes


def test_batch_normalization_is_bit_exact() -> None:
    parameters = (*tuple(F(512, seed=i) for i in range(3)), np.abs(F(512, seed=4)) + np.float32(0.01))
    compare(*build(case("BatchNormalization", F(3, 512), c=parameters), 13), tolerance=0)


def test_every_importer_has_a_case() -> None:
    tested = {(c.domain, c.op) for c in CASES}
    elsewhere = {key for key in TABLE if key[0] == "qonnx"} | {("", op) for op in CONFORMANCE_ONLY}
    assert set(TABLE) - tested - elsewhere == set()


@pytest.mark.parametrize("c", FOLDED, ids=str)
def test_constant_nodes_without_importer_fold(c: Case) -> None:
    assert c.op in FOLDABLE
    imported = compare(build(c, c.opsets[-1])[0], {})
    assert not imported.graph.nodes
