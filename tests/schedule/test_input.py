"""Inputs in the arena: their memory is used again, with the same results, wherever the caller has the input."""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitc import interp
from bitc.ir.dtypes import FLOAT32, INT8
from bitc.ir.graph import Graph, Value
from bitc.ir.rewrite import Builder
from bitc.ir.schedule import Schedule
from bitc.ir.types import TensorType
from bitc.kernels import assign_layouts
from bitc.ops.binary import Add
from bitc.ops.unary import Cast, Relu
from bitc.ops.window import Window
from tests.kernels.harness import (
    assert_same,
    call,
    compile_graph,
    compile_schedule,
    input_image,
    output_arrays,
    portable,
    random_feeds,
    shared_library,
)
from tests.schedule.drawn import Case, Net, cases, schedule, together


@settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(cases(), min_size=8, max_size=8))
def test_any_network(found: list[Case]) -> None:
    graph, starts = together(found)
    compiled = compile_schedule(schedule(assign_layouts(graph, portable()), starts), portable(), overwrite_input=True)
    feeds = random_feeds(graph)
    with tempfile.TemporaryDirectory() as folder:
        got = call(compiled, ctypes.CDLL(str(shared_library(compiled, Path(folder), "-O1"))), feeds)
    for name, expected in interp.run(graph, feeds).items():
        assert_same(got[name], expected, name)


def test_input_where_it_is(tmp_path: Path) -> None:
    """The caller fills the arena itself; inputs of several types lie there as in their struct."""
    b = Builder()
    x, z = Value("x", TensorType((5,), INT8)), Value("z", TensorType((5,), FLOAT32))
    total = b.emit(Relu(), b.emit(Add(), b.emit(Relu(), z), b.emit(Cast(dtype=FLOAT32), x)))
    graph = Graph("two", (x, z), (b.emit(Relu(), total), x), tuple(b.nodes))
    compiled = compile_schedule(Schedule(graph), portable(), overwrite_input=True)
    assert "#define TWO_INPUT(arena)" in compiled.files["two.h"]
    start = compiled.plan.offset(compiled.program.inputs[0])
    arena = np.zeros(compiled.plan.arena_bytes + 64, np.uint8)
    at = -arena.ctypes.data % 64
    feeds = random_feeds(graph)
    image = input_image(compiled, feeds)
    arena[at + start : at + start + len(image)] = image
    result = np.zeros(64, np.uint8)
    library = ctypes.CDLL(str(shared_library(compiled, tmp_path)))
    pointers = (arena.ctypes.data + at, arena.ctypes.data + at + start, result.ctypes.data)
    assert library.two_run(*map(ctypes.c_void_p, pointers)) == 0
    for name, expected in interp.run(graph, feeds).items():
        assert_same(output_arrays(compiled, result)[name], expected, name)


def test_a_chain_lives_in_its_input() -> None:
    """A convolution makes its output right behind what it reads of the input; elementwise layers stay there."""
    net, same = Net(5), Window((3, 3), pads=(1, 1, 1, 1))
    x = Value("x", TensorType((1, 16, 16, 8), INT8))
    v = net.conv(net.conv(x, same, INT8, 8, 1), Window((3, 3), (2, 2), (1, 1, 1, 1)), INT8, 8, 1)
    graph = assign_layouts(Graph("chain", (x,), (net.conv(v, same, INT8, 4, 1),), tuple(net.nodes)), portable())
    kept = compile_graph(graph, portable()).plan.arena_bytes
    overwritten = compile_schedule(Schedule(graph), portable(), overwrite_input=True).plan
    assert overwritten.arena_bytes < kept + x.type.nbytes / 2
    assert overwritten.arena_bytes < 1.2 * x.type.nbytes + 4 * 16 * 9 * 8
