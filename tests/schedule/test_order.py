"""A better order of operators is found where the given one keeps too much alive."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bitc.ir.dtypes import FLOAT32
from bitc.ir.graph import Graph, Node, Value
from bitc.ir.rewrite import Builder, dead_code
from bitc.ir.types import TensorType
from bitc.ir.verify import verify
from bitc.ops.binary import Add
from bitc.ops.movement import Concat, Expand, Slice, Tile
from bitc.ops.reduce import ReduceSum
from bitc.ops.unary import Relu
from bitc.schedule import best_order
from bitc.schedule.ordering import peak
from tests.codegen.nets import residual


def branches() -> Graph:
    """Four branches that grow and shrink; the given order computes all the large values first."""
    b = Builder()
    x = Value("x", TensorType((1, 4), FLOAT32))
    wide = [b.emit(Expand((100, 4)), x) for _ in range(4)]
    sums = [b.emit(ReduceSum((0,)), v) for v in wide]
    v = sums[0]
    for s in sums[1:]:
        v = b.emit(Add(), v, s)
    return Graph("branches", (x,), (v,), tuple(b.nodes))


def test_branches_one_after_the_other() -> None:
    graph = branches()
    better = verify(best_order(graph).graph)
    assert sorted(map(id, better.nodes)) == sorted(map(id, graph.nodes))
    assert peak(graph, graph.nodes) > 6400 and peak(graph, better.nodes) <= 1600 + 4 * 16


def test_a_good_order_stays() -> None:
    graph = residual()
    assert best_order(graph).graph.nodes == graph.nodes


@st.composite
def small_graphs(draw: st.DrawFn) -> Graph:
    """Up to eight nodes that grow, shrink, add, cut and join what is there."""
    b = Builder()
    x = Value("x", TensorType((4, 2), FLOAT32))
    values = [x]
    for _ in range(draw(st.integers(2, 8))):
        v = draw(st.sampled_from(values))
        kind = draw(st.sampled_from(["grow", "shrink", "add", "relu", "cut", "join"]))
        if kind == "grow":
            v = b.emit(Tile((draw(st.integers(2, 4)), 1)), v)
        elif kind == "shrink":
            v = b.emit(ReduceSum((0,)), v)
        elif kind == "add":
            v = b.emit(Add(), v, draw(st.sampled_from([u for u in values if u.shape == v.shape])))
        elif kind == "relu":
            v = b.emit(Relu(), v)
        elif kind == "cut":
            v = b.emit(Slice((0, 0), (max(1, v.shape[0] // 2), 2), (1, 1)), v)
        else:
            v = b.emit(Concat(0), v, draw(st.sampled_from(values)))
        if v.shape[0] < 64:
            values.append(v)
    return dead_code(Graph("small", (x,), (values[-1],), tuple(b.nodes)))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(small_graphs())
def test_no_order_is_better(graph: Graph) -> None:
    found = best_order(graph)
    verify(found.graph)
    assert found.is_optimal and found.peak == peak(graph, found.graph.nodes)
    assert found.peak == min((peak(graph, nodes) for nodes in orders(graph)), default=0)


def orders(graph: Graph, done: tuple[Node, ...] = ()) -> Iterator[tuple[Node, ...]]:
    """All topological orders."""
    if len(done) == len(graph.nodes):
        yield done
    for n in graph.nodes:
        if n not in done and all(graph.producers.get(v) in (None, *done) for v in n.inputs if v is not None):
            yield from orders(graph, (*done, n))


def test_a_short_search_gives_a_bound() -> None:
    b = Builder()
    x = Value("x", TensorType((1, 4), FLOAT32))
    rng = np.random.default_rng(0)
    wide = [b.emit(Expand((int(n), 4)), x) for n in rng.integers(2, 90, 12)]
    sums = [b.emit(ReduceSum((0,)), b.emit(Concat(0), *(wide[i] for i in rng.choice(12, 3)))) for _ in range(9)]
    graph = Graph("tangle", (x,), (b.emit(Concat(0), *sums),), tuple(b.nodes))
    short, long = best_order(graph, most=20), best_order(graph)
    assert short.bound <= long.bound <= long.peak <= short.peak
    assert not short.is_optimal
