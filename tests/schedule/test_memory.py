"""The memory plan meets its lower bound and never lets live blocks overlap."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bitc.ir.dtypes import FLOAT32, INT8
from bitc.ir.graph import Graph, Value
from bitc.ir.plan import Block
from bitc.ir.rewrite import Builder
from bitc.ir.types import TensorType
from bitc.ops.binary import Add
from bitc.ops.movement import Reshape
from bitc.ops.reduce import Softmax
from bitc.ops.unary import Cast, Relu
from bitc.schedule.place import lower_bound, place
from bitc.target import Target
from tests.codegen.nets import residual
from tests.kernels.harness import compile_graph

X86 = Target.load("x86-64")


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 50), st.sampled_from([1, 2, 4, 8]), st.integers(0, 9), st.integers(0, 4)), max_size=12
    )
)
def test_placement_is_valid(rows: list[tuple[int, int, int, int]]) -> None:
    blocks = [
        Block(str(i), size * align, align, start, start + more) for i, (size, align, start, more) in enumerate(rows)
    ]
    offsets, size, bound = place(blocks)
    assert bound == lower_bound(blocks) <= size <= sum(b.size for b in blocks) + 8 * len(blocks)
    for i, a in enumerate(blocks):
        assert offsets[i] % a.align == 0 and offsets[i] + a.size <= size
        for j, b in enumerate(blocks[:i]):
            apart = offsets[i] + a.size <= offsets[j] or offsets[j] + b.size <= offsets[i]
            assert apart or not a.meets(b)


def chain(sizes: list[int]) -> Graph:
    b = Builder()
    x = v = Value("x", TensorType((1, sizes[0]), FLOAT32))
    for size in sizes[1:]:
        w = b.const(np.ones((v.shape[1], size), np.float32))
        from bitc.ops.linear import MatMul

        v = b.emit(MatMul(), v, w)
    return Graph("chain", (x,), (v,), tuple(b.nodes))


def test_chain_is_optimal() -> None:
    plan = compile_graph(chain([4, 40, 8, 100, 3, 77, 5]), X86).plan
    assert plan.arena_bytes == plan.lower_bound == 4 * (100 + 8)


def test_residual_is_optimal() -> None:
    plan = compile_graph(residual(), X86).plan
    assert plan.arena_bytes == plan.lower_bound
    assert f"arena {plan.arena_bytes} bytes" in plan.memory_map()
    assert plan.memory_map().count(" calls ") == len(plan.slots)
    assert plan.memory_map(0).count(" calls ") == sum(block.start == 0 for block, _ in plan.slots)


def test_in_place_and_views() -> None:
    b = Builder()
    x = Value("x", TensorType((8, 8), FLOAT32))
    v = b.emit(Relu(), b.emit(Softmax(1), x))
    v = b.emit(Reshape((64,)), v)
    v = b.emit(Relu(), b.emit(Relu(), v))
    v = b.emit(Cast(dtype=INT8), v)
    v = b.emit(Relu(), v)
    plan = compile_graph(Graph("g", (x,), (v,), tuple(b.nodes)), X86).plan
    assert plan.arena_bytes == 64 * 4


def test_a_value_still_needed_is_not_overwritten() -> None:
    b = Builder()
    x = Value("x", TensorType((8,), FLOAT32))
    a = b.emit(Softmax(0), x)
    c = b.emit(Relu(), a)
    d = b.emit(Relu(), b.emit(Add(), a, c))
    plan = compile_graph(Graph("g", (x,), (d,), tuple(b.nodes)), X86).plan
    assert plan.arena_bytes == 64


def test_outputs_that_are_inputs_constants_or_twice() -> None:
    b = Builder()
    x = Value("x", TensorType((8,), FLOAT32))
    a = b.emit(Relu(), x)
    v = b.emit(Reshape((2, 4)), a)
    const = b.const(np.arange(3, dtype=np.float32))
    compiled = compile_graph(Graph("g", (x,), (a, v, x, const), tuple(b.nodes)), X86)
    assert compiled.plan.arena_bytes == 0
    assert [c.function.kernel for c in compiled.program.calls] == ["relu", "copy", "copy", "copy"]
