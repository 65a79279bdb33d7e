"""The choice among schedules: less memory for more work, the same bits, pictures that stand alone."""

from __future__ import annotations

import ctypes
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitc import chart, interp
from bitc.codegen import emit
from bitc.errors import UsageError
from bitc.ir.dtypes import FLOAT32
from bitc.ir.graph import Graph, Value
from bitc.ir.types import TensorType
from bitc.kernels import assign_layouts, select
from bitc.ops.epilogue import Affine
from bitc.ops.linear import Conv2D
from bitc.ops.pool import MaxPool
from bitc.ops.quantize import Requantize
from bitc.ops.window import Window
from bitc.planning import Planned, Planner
from bitc.schedule.row_costs import RowCosts
from bitc.schedule.rows_first import rows_first
from bitc.schedule.search import Point, Search, by_work
from tests.codegen.nets import SAME
from tests.kernels.harness import Compiled, assert_same, call, portable, random_feeds, shared_library
from tests.schedule.drawn import Net

TARGET = portable()


def pyramid() -> Graph:
    """A planar image, quantized, then layers that shrink it."""
    b = Net(3)
    x = Value("image", TensorType((1, 3, 32, 32), FLOAT32))
    v = b.emit(Requantize(Affine(-9.0, 9.0)), x, b.const(np.ones(1, np.float32)), b.const(np.zeros(1, np.float32)))
    w = b.const(b.rng.normal(size=(8, 3, 3, 3)).astype(np.float32))
    ones = [b.const(np.full(8, value, np.float32)) for value in (1, 0)]
    v = b.emit(Conv2D(Window((3, 3), (2, 2), (1, 1, 1, 1)), 1, Affine(0.0), planar=True), v, w, *ones)
    for _ in range(3):
        v = b.conv(v, SAME, FLOAT32, 8, 1)
        v = b.emit(MaxPool(Window((2, 2), (2, 2))), v)
    v = b.conv(v, Window((2, 2)), FLOAT32, 4, 1)
    return Graph("pyramid", (x,), (v,), tuple(b.nodes))


@pytest.fixture(scope="module")
def planner() -> Planner:
    return Planner(pyramid(), TARGET)


def run(planned: Planned, folder: Path) -> dict[str, np.ndarray]:
    graph = planned.schedule.graph
    files = emit(planned.program, planned.plan, TARGET, graph.name)
    compiled = Compiled(graph, planned.program, planned.plan, files, TARGET)
    return call(compiled, ctypes.CDLL(str(shared_library(compiled, folder))), random_feeds(graph))


def test_rows_first_means_the_same() -> None:
    graph = pyramid()
    feeds = random_feeds(graph)
    got, want = interp.run(rows_first(graph), feeds), interp.run(graph, feeds)
    assert [n.op.name for n in rows_first(graph).nodes[:2]] == ["Crop", "Requantize"]
    for name, expected in want.items():
        assert_same(got[name], expected, name)


def test_every_point_of_the_front_gives_the_same_bits(planner: Planner, tmp_path: Path) -> None:
    front = planner.front()
    assert len(front) > 2
    feeds = random_feeds(planner.graph)
    want = interp.run(planner.graph, feeds)
    for i, planned in enumerate(front):
        got = run(planned, tmp_path / str(i))
        for name, expected in want.items():
            assert_same(got[name], expected, name)


def test_the_front_trades_memory_for_work(planner: Planner) -> None:
    front = planner.front()
    assert front[0] is planner.by_layers and front[0].mac_factor == 1
    assert [p.plan.arena_bytes for p in front] == sorted({p.plan.arena_bytes for p in front}, reverse=True)
    assert [p.mac_factor for p in front] == sorted(p.mac_factor for p in front)
    assert front[-1].plan.arena_bytes < front[0].plan.arena_bytes / 4


def test_what_fits_is_chosen(planner: Planner) -> None:
    front = planner.front()
    for wanted in (front[0], front[1], front[-1]):
        memory = replace(TARGET.memory, ram=wanted.ram_bytes)
        chosen = replace(planner, target=replace(TARGET, memory=memory)).choose()
        assert chosen.ram_bytes <= wanted.ram_bytes
        assert chosen.work <= wanted.work


def searched(planner: Planner) -> Search:
    graph = assign_layouts(rows_first(planner.graph), TARGET)
    return Search(graph, RowCosts(TARGET, select(graph, TARGET)))


def test_calls_and_copies_count_where_memory_is_given(planner: Planner) -> None:
    """Strips that keep columns multiply nothing twice; they are not free."""
    front = searched(planner).front(by_work)
    assert [p.work for p in front] == sorted(p.work for p in front)
    simple = [p for p in front if p.macs == front[0].macs]
    assert len(simple) > 2 and simple[-1].bytes < simple[0].bytes and simple[-1].work > simple[0].work


def test_the_cheapest_that_fits_is_on_the_front(planner: Planner) -> None:
    search = searched(planner)
    for p in search.front(by_work):
        found = search.cheapest(p.bytes, by_work)
        assert found is not None and found.work == p.work
        less = search.cheapest(p.bytes - 1, by_work)
        assert less is None or less.work > p.work


def test_what_is_lowered_needs_what_was_estimated(planner: Planner) -> None:
    """Working memory, alignment and what outputs lie over included; gaps aside."""
    points = [p for p in planner._search.front() if p.stages]
    assert len(points) > 2
    for p in points:
        before = p.bytes
        plan = planner._at(p, planner._lean).plan
        assert plan.lower_bound == pytest.approx(before, rel=0.03)


def test_what_parts_really_need_takes_the_place_of_estimates(planner: Planner) -> None:
    search = searched(planner)
    point = search.front()[-1]
    search.learn(point, {n.outputs[0].name: 10**6 for n in search.graph.nodes})
    assert all(part.bytes == 10**6 for part in point.parts)
    assert search.front()[-1].bytes < 10**6  # in another way
    other = search.cheapest(10**6)
    assert isinstance(other, Point)
    search.avoid(other, 2 * 10**6)
    again = search.cheapest(10**6)
    assert again is None or again.parts != other.parts


def test_the_least_memory_within_an_overhead(planner: Planner) -> None:
    bytes_at = {}
    for factor in (1.0, 1.1, 2.0):
        chosen = planner.choose(factor)
        assert chosen.mac_factor <= factor
        bytes_at[factor] = chosen.plan.arena_bytes
    assert bytes_at[1.0] >= bytes_at[1.1] >= bytes_at[2.0]
    assert bytes_at[2.0] <= min(p.plan.arena_bytes for p in planner.front() if p.mac_factor <= 2)
    with pytest.raises(UsageError):
        planner.choose(0.5)


def test_pictures_stand_alone(planner: Planner) -> None:
    front = planner.front()
    picture = ET.fromstring(chart.svg(chart.memory(front[1].plan, "<pyramid>")))
    blocks = [e for e in picture.iter() if e.tag.endswith("rect")]
    assert len(blocks) == len(front[1].plan.slots)
    page = chart.page("pyramid", TARGET.name, front, front[1])
    assert page.count("<svg") == 2 and f"{front[-1].plan.arena_bytes:,}" in page
    assert "src=" not in page and "href=" not in page
