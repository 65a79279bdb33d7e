"""Inputs that come row by row: the same bits as from the whole image, and rows are not needed after they were given."""

from __future__ import annotations

import ctypes
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from bitc import interp
from bitc.errors import UsageError
from bitc.ir.dtypes import FLOAT32, INT8, UINT8, DType
from bitc.ir.graph import Graph, Value
from bitc.ir.schedule import Schedule, Stage
from bitc.ir.types import TensorType
from bitc.kernels import assign_layouts
from bitc.ops.movement import Reshape, Transpose
from bitc.ops.pool import MaxPool
from bitc.ops.unary import Relu
from bitc.ops.window import Window
from bitc.schedule import best_order
from bitc.schedule.rows import why_not
from bitc.schedule.streaming import by_rows, downstream, rows_node, upstream
from tests.kernels.harness import (
    Compiled,
    assert_same,
    compile_schedule,
    output_arrays,
    portable,
    random_feeds,
    shared_library,
)
from tests.schedule.drawn import Case, Net, cases


class Pushed:
    """A compiled model in this process, fed row by row. What it is given is spoilt after each call."""

    def __init__(self, compiled: Compiled, folder: Path) -> None:
        self.compiled = compiled
        library = ctypes.CDLL(str(shared_library(compiled, folder, "-O1")))
        self.push, self.reset = (getattr(library, f"{compiled.graph.name}_{n}") for n in ("push_row", "reset"))
        memory = np.full(compiled.plan.arena_bytes + 64, 0xA5, np.uint8)
        start = -memory.ctypes.data % 64
        self.arena = memory[start : start + compiled.plan.arena_bytes]
        size = sum(v.type.nbytes + 8 for v in compiled.graph.outputs)
        self.result = np.zeros(-(-size // 8) * 8, np.uint8)

    def row(self, data: np.ndarray) -> int:
        given = np.ascontiguousarray(data).copy()
        pointers = (self.arena.ctypes.data, given.ctypes.data, self.result.ctypes.data)
        return int(self.push(*(ctypes.c_void_p(p) for p in pointers)))

    def start(self) -> None:
        self.reset(ctypes.c_void_p(self.arena.ctypes.data))

    def image(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """All rows of an image ``[1, H, W, C]``."""
        status = [self.row(row) for row in pixels[0]]
        assert status == [1] * (len(status) - 1) + [0]
        return output_arrays(self.compiled, self.result)


def pixels_of(graph: Graph, feeds: dict[str, np.ndarray]) -> np.ndarray:
    node = rows_node(graph)
    assert node is not None
    return interp.evaluate(graph, feeds)[node.input(0)]


def staged(graph: Graph, last: int) -> Schedule:
    """The nodes from the rows to the last that can run by rows, `last` at most, as one stage."""
    nodes = downstream(graph).nodes
    able = next((i for i, n in enumerate(nodes) if why_not(n)), len(nodes))
    return Schedule(graph, (Stage(nodes[: max(1, min(last + 2, able))]),))


def check(case: Case) -> None:
    try:
        graph = best_order(assign_layouts(by_rows(case.graph), portable())).graph
    except UsageError as error:
        assert "not read as an image by rows" in error.what
        return
    compiled = compile_schedule(staged(graph, case.last), portable())
    with tempfile.TemporaryDirectory() as folder:
        model = Pushed(compiled, Path(folder))
        model.start()
        for seed in (0, 1):
            feeds = random_feeds(case.graph, seed)
            got = model.image(pixels_of(graph, feeds))
            for name, expected in interp.run(case.graph, feeds).items():
                assert_same(got[name], expected, name)


@settings(
    max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)
@given(cases())
def test_rows_give_the_same_bits(case: Case) -> None:
    check(case)


@pytest.mark.full
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(cases())
def test_many_rows_give_the_same_bits(case: Case) -> None:
    check(case)


def strided(dtype: DType = UINT8) -> Graph:
    """A net that reads every third row of 11, from the second on: rows are left at the end."""
    net = Net(3)
    x = Value("x", TensorType((1, 11, 6, 3), dtype))
    y = net.emit(MaxPool(Window((1, 2), (3, 1), (0, 0, -1, 0))), x)
    return Graph("net", (x,), (y,), tuple(net.nodes))


def test_rows_that_nobody_reads_are_taken_too(tmp_path: Path) -> None:
    graph = by_rows(strided())
    compiled = compile_schedule(staged(graph, 9), portable())
    model = Pushed(compiled, tmp_path)
    model.start()
    feeds = random_feeds(graph)
    assert_same(model.image(feeds["x"])[graph.outputs[0].name], interp.run(graph, feeds)[graph.outputs[0].name])


@pytest.mark.parametrize("dtype", [FLOAT32, INT8, UINT8], ids=str)
def test_an_image_can_be_given_up(dtype: DType, tmp_path: Path) -> None:
    graph = by_rows(strided(dtype))
    model = Pushed(compile_schedule(staged(graph, 9), portable()), tmp_path)
    first, second = random_feeds(graph, 1), random_feeds(graph, 2)
    assert model.row(first["x"][0][0]) == -3  # the arena holds anything
    model.start()
    for row in first["x"][0][:5]:
        assert model.row(row) == 1
    model.start()
    y = graph.outputs[0].name
    assert_same(model.image(second["x"])[y], interp.run(graph, second)[y])


def test_the_arena_holds_a_few_rows_of_the_image() -> None:
    net = Net(5)
    x = Value("x", TensorType((1, 40, 20, 3), INT8))
    y = net.conv(net.conv(x, Window((3, 3), pads=(1, 1, 1, 1)), INT8, 8, 1), Window((1, 1), (4, 4)), INT8, 4, 1)
    graph = by_rows(Graph("net", (x,), (y,), tuple(net.nodes)))
    compiled = compile_schedule(staged(graph, 9), portable())
    row = compiled.program.row
    assert row is not None and row.type.nbytes == compiled.program.given_bytes == 60
    assert {block.size for block, _ in compiled.plan.slots if block.name == "x.rows.rows"} == {3 * 60}


def test_a_row_that_is_read_once_is_not_copied() -> None:
    net = Net(5)
    x = Value("x", TensorType((1, 9, 20, 3), FLOAT32))
    graph = by_rows(Graph("net", (x,), (net.emit(Relu(), x),), tuple(net.nodes)))
    compiled = compile_schedule(staged(graph, 9), portable())
    assert compiled.plan.arena_bytes == compiled.plan.state_bytes <= 12


def test_what_only_moves_the_image_is_left_to_the_caller() -> None:
    net = Net(5)
    x = Value("x", TensorType((1, 3 * 9 * 5), INT8))
    image = net.emit(Transpose((0, 2, 3, 1)), net.emit(Reshape((1, 3, 9, 5)), x))
    y = net.conv(image, Window((3, 3)), INT8, 4, 1)
    graph = by_rows(Graph("net", (x,), (y,), tuple(net.nodes)))
    assert [n.op.name for n in graph.nodes if n in upstream(graph)] == ["Reshape", "Transpose"]
    (given,) = compile_schedule(staged(graph, 9), portable()).program.inputs
    assert (given.name, given.type.shape) == ("x", (1, 9, 5, 3))


def test_a_flat_input_is_shaped_before_it_is_computed(tmp_path: Path) -> None:
    net = Net(5)
    x = Value("x", TensorType((1, 135), FLOAT32))
    image = net.emit(Reshape((1, 9, 5, 3)), net.emit(Reshape((1, 5, 27)), net.emit(Relu(), net.emit(Relu(), x))))
    whole = Graph("net", (x,), (net.conv(image, Window((3, 3)), FLOAT32, 4, 1),), tuple(net.nodes))
    graph = by_rows(whole)
    assert [n.op.name for n in graph.nodes] == ["Reshape", "Reshape", "Rows", "Relu", "Relu", "Conv2D"]
    model = Pushed(compile_schedule(staged(graph, 9), portable()), tmp_path)
    model.start()
    feeds = random_feeds(whole)
    assert_same(
        model.image(pixels_of(graph, feeds))[whole.outputs[0].name], next(iter(interp.run(whole, feeds).values()))
    )


def test_a_node_that_needs_the_whole_input_is_named() -> None:
    net = Net(5)
    x = Value("x", TensorType((1, 9, 5, 3), INT8))
    net.emit(Transpose((0, 1, 3, 2)), net.emit(Relu(), x), at="swap")
    flat = net.emit(Reshape((1, 1, 1, 135)), x, at="flat")
    y = net.conv(flat, Window(), INT8, 4, 1)
    node = replace(net.nodes[-1], origin="dense")
    graph = Graph("net", (x,), (y,), (net.nodes[-2], node))
    with pytest.raises(UsageError, match=r"dense \(Conv2D\) reads int8\[1x1x1x135\]"):
        by_rows(graph)
    two = Graph("net", (x, Value("z", x.type)), (y,), (net.nodes[-2], node))
    with pytest.raises(UsageError, match="only a single input can come by rows, the model has x, z"):
        by_rows(two)
