"""Recurrent layers in C against the reference, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitc.interp import run
from bitc.ir.dtypes import FLOAT32, INT32
from bitc.ir.graph import Graph
from bitc.ir.types import TensorType
from bitc.ops import unary as u
from bitc.ops.recurrent import Activation, Gru, Lstm, Recurrent, Rnn
from bitc.target import Target
from tests.kernels.harness import (
    assert_same,
    check,
    compile_graph,
    merge,
    portable,
    random_feeds,
    run_on_target,
    single,
)

F, G, E = (u.Sigmoid(),), (u.Tanh(),), (u.Line(0.5), u.Elu(), u.Line(2.0, 0.25))


def t(*shape: int) -> TensorType:
    return TensorType(shape, FLOAT32)


def cell(op: Recurrent, steps: int, batch: int, hidden: int, computed: bool = False, **given: bool) -> Graph:
    """A layer; the states, lengths and so on that are `given` are graph inputs, as are the weights if `computed`."""
    rng = np.random.default_rng(hidden)
    inputs = hidden // 2 + 1
    rows = op.gates * hidden
    w, r = (rng.normal(size=(rows, n)).astype(np.float32) for n in (inputs, hidden))
    state = t(batch, hidden)
    more: list[TensorType | None] = [
        t(rows) if hidden != 4 else None,
        state if given.get("h") else None,
        TensorType((batch,), INT32) if given.get("lengths") else None,
    ]
    if isinstance(op, Lstm):
        more += [state if given.get("c") else None, t(3 * hidden) if given.get("p") else None]
    if isinstance(op, Gru):
        more += [t(hidden) if given.get("bias") else None]
    weights = [t(*m.shape) if computed else m for m in (w, r)]
    return single(op, t(steps, batch, inputs), *weights, *more)


def graphs() -> list[Graph]:
    kinds: list[tuple[type[Recurrent], tuple[Activation, ...]]] = [(Rnn, (G,)), (Gru, (F, G)), (Lstm, (F, G, G))]
    made = [
        cell(kind(acts, reverse=n % 2 == 1, sequence=n != 5, clip=0.75 if n == 3 else float("inf")), 3, 2, n, h=n > 3)
        for kind, acts in kinds
        for n in (1, 3, 4, 5, 8)
    ]
    made += [cell(kind(acts), 3, 2, 6, computed=True, h=True, lengths=True) for kind, acts in kinds]
    made += [cell(Gru((F, G), reset_after=True), 2, 1, n, bias=n > 4) for n in (3, 4, 5, 8)]
    made += [cell(Gru((F, E), reverse=True), 4, 3, 5, lengths=True)]
    made += [cell(Lstm((F, G, E), coupled=n > 3), 2, 1, n, p=True, c=True, h=True) for n in (3, 4)]
    return made


@pytest.mark.parametrize("target", [lambda: Target.load("host"), portable], ids=["host", "portable"])
def test_layers(target: object, tmp_path: Path) -> None:
    graph = merge(graphs())
    feeds = random_feeds(graph)
    for v in graph.inputs:
        if v.type.dtype is INT32:
            feeds[v.name] = np.array([2, 5, 0][: v.shape[0]], np.int32)
    check(graph, target(), tmp_path, feeds)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["cortex-m4", "wasm32"])
def test_same_bits_on_targets(name: str, tmp_path: Path) -> None:
    graph = merge(graphs()[:16:3])
    feeds = random_feeds(graph)
    got, _ = run_on_target(compile_graph(graph, Target.load(name)), tmp_path, feeds)
    for output, want in run(graph, feeds).items():
        assert_same(got[output], want, output)
