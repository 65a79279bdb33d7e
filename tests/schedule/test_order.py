"""A better order of operators is found where the given one keeps too much alive."""

from __future__ import annotations

from bitc.ir.dtypes import FLOAT32
from bitc.ir.graph import Graph, Value
from bitc.ir.rewrite import Builder
from bitc.ir.types import TensorType
from bitc.ir.verify import verify
from bitc.ops.binary import Add
from bitc.ops.movement import Expand
from bitc.ops.reduce import ReduceSum
from bitc.schedule import order
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
    better = verify(order(graph))
    assert sorted(map(id, better.nodes)) == sorted(map(id, graph.nodes))
    assert peak(graph, graph.nodes) > 6400 and peak(graph, better.nodes) <= 1600 + 4 * 16


def test_a_good_order_stays() -> None:
    graph = residual()
    assert order(graph).nodes == graph.nodes
