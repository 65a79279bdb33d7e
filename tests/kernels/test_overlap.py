"""What kernels say of outputs that lie over inputs is true: with y as far over x as they allow, the same bits come out,
and nothing else in the arena changes."""

from __future__ import annotations

import ctypes
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitc import interp
from bitc.codegen import emit
from bitc.ir.dtypes import FLOAT32, INT8, UINT8
from bitc.ir.graph import Array, Graph, Node, Value
from bitc.ir.plan import MemoryPlan
from bitc.ir.program import Buffer, Call, Kind, Layer, Overlap, Place, Program
from bitc.ir.types import TensorType, type_of
from bitc.kernels import assign_layouts
from bitc.kernels.copy import copy_step
from bitc.kernels.geometry import geometry
from bitc.kernels.overlap import by_pixels, singly
from bitc.kernels.pack import pack_tensor
from bitc.kernels.step import Operand, Packed, Scratch, Step, View
from bitc.kernels.variants import VARIANTS
from bitc.ops.window import Window
from bitc.runners import available
from bitc.target import Target
from tests.kernels.harness import Compiled, call, portable, random_array, run_on_target, shared_library
from tests.schedule.drawn import Case, Net, cases

BATCH = st.lists(cases(), min_size=6, max_size=6)
GUARD = 64
SWEPT = ("host", "x86-64", "x86-64-v3", "cortex-m4", "cortex-m55", "cortex-m0plus", "aarch64", "wasm32-simd128")


@dataclass(frozen=True)
class Over:
    """A kernel with its output over one of its inputs."""

    node: Node
    step: Step
    name: str
    how: Overlap
    row: str


def overs(graph: Graph, target: Target) -> list[Over]:
    """All rows for all nodes that allow it."""
    found = []
    for node in graph.nodes:
        for row in VARIANTS:
            if row.refuses(node, target):
                continue
            built = row.build(node, target)
            if isinstance(built, View) or len(built) != 1:
                continue
            found += [Over(node, built[0], name, how, row.name) for name, how in built[0].overlaps]
    return found


class Arena:
    """One case in an arena of its own, filled with noise around what lies in it."""

    def __init__(self, over: Over, index: int, slack: int = 0) -> None:
        rng = np.random.default_rng(index)
        self.over, node = over, over.node
        self.feeds = {v: random_array(v.type, rng) for v in node.inputs if v is not None and not v.is_const}
        graph = Graph("one", tuple(self.feeds), node.outputs, (node,))
        self.want = interp.run(graph, {v.name: a for v, a in self.feeds.items()})[node.output.name]
        under = next(a.operand for a in over.step.args if a.name == over.name)
        assert isinstance(under, Value)
        y = node.output.type
        lead, step = over.how.lead + slack, over.how.step
        while lead % y.alignment:
            lead -= step
        end = GUARD + max(0, -lead)
        end += -end % 16
        self.at: dict[Operand, int] = {under: end, node.output: end + lead}
        end += max(under.type.nbytes, lead + y.nbytes) + GUARD
        others = [a.operand for a in over.step.args if a.operand in self.feeds or isinstance(a.operand, Scratch)]
        for operand in others:
            if operand not in self.at:
                end += -end % 16
                self.at[operand] = end
                end += operand.type.nbytes + GUARD  # type: ignore[union-attr]
        self.image = rng.integers(0, 256, end).astype(np.uint8)
        for v, array in self.feeds.items():
            raw = np.ascontiguousarray(pack_tensor(array, v.type) if v.type.layout.word else array)
            self.image[self.at[v] : self.at[v] + v.type.nbytes] = raw.reshape(-1).view(np.uint8)
        self.value = Value(f"arena{index}", TensorType((end,), UINT8))
        self.input = Buffer(f"before{index}", self.value.type, Kind.INPUT)
        self.output = Buffer(f"after{index}", self.value.type, Kind.OUTPUT)
        self.memory = Buffer(f"arena{index}", self.value.type, Kind.ARENA, min_alignment=16)

    def calls(self, index: int) -> list[Call]:
        copy = copy_step(self.value, self.value)
        args = []
        for a in self.over.step.args:
            if a.operand in self.at:
                assert isinstance(a.operand, Value | Scratch)
                args.append(Buffer(a.name, a.operand.type, Kind.ARENA, self.memory, offset=self.at[a.operand]))
            elif isinstance(a.operand, Packed):
                args.append(Buffer(a.name, type_of(a.operand.data), Kind.CONST, data=a.operand.data))
            else:
                assert isinstance(a.operand, Value)
                args.append(Buffer(a.name, a.operand.type, Kind.CONST, data=a.operand.array))
        kernel = self.over.step.call(self.over.step.function, tuple(map(Place, args)), index)
        return [
            copy.call(copy.function, (Place(self.memory), Place(self.input)), index),
            kernel,
            copy.call(copy.function, (Place(self.output), Place(self.memory)), index),
        ]

    def differs(self, after: Array) -> str:
        """What is wrong with the arena after the run; empty if nothing is."""
        y = self.over.node.output.type
        start = self.at[self.over.node.output]
        raw = np.ascontiguousarray(pack_tensor(self.want, y) if y.layout.word else self.want.astype(y.dtype.carrier))
        got = after[start : start + y.nbytes]
        if y.dtype.is_float:
            same = np.array_equal(got.view(np.float32), raw.reshape(-1), equal_nan=True)
        else:
            same = bool((got == raw.reshape(-1).view(np.uint8)).all())
        if not same:
            return "y is wrong"
        kept = np.ones(len(after), np.bool_)
        for operand, at in self.at.items():
            if operand is self.over.node.output or isinstance(operand, Scratch):
                kept[at : at + operand.type.nbytes] = False  # type: ignore[union-attr]
        return "" if (after[kept] == self.image[kept]).all() else "something else was written"


def run(arenas: list[Arena], target: Target, on_target: bool = False) -> list[str]:
    """What is wrong with each."""
    calls = [c for i, a in enumerate(arenas) for c in a.calls(i)]
    plan = MemoryPlan({}, 0, 16, 0, 0, ())
    end = 0
    for a in arenas:
        plan.offsets[a.memory] = end
        end += -(-len(a.image) // 16) * 16
    layers = tuple(Layer(a.over.row, "", "", "", 0, 0, "") for a in arenas)
    program = Program("over", tuple(a.input for a in arenas), tuple(a.output for a in arenas), tuple(calls), layers, {})
    plan = replace(plan, arena_bytes=end)
    inputs, outputs = (tuple(Value(b.name, b.type) for b in side) for side in (program.inputs, program.outputs))
    compiled = Compiled(Graph("over", inputs, outputs, ()), program, plan, emit(program, plan, target, "over"), target)
    feeds = {a.input.name: a.image for a in arenas}
    with tempfile.TemporaryDirectory() as folder:
        if on_target:
            got, _ = run_on_target(compiled, Path(folder), feeds, "-O2")
        else:
            got = call(compiled, ctypes.CDLL(str(shared_library(compiled, Path(folder)))), feeds)
    return [a.differs(got[a.output.name]) for a in arenas]


def check(found: list[Case], target: Target, on_target: bool = False) -> set[str]:
    """All rows for all nodes; returns the names of the rows."""
    all_of_them = [o for case in found for o in overs(assign_layouts(case.graph, target), target)]
    arenas = [Arena(o, i) for i, o in enumerate(all_of_them)]
    wrong = run(arenas, target, on_target) if arenas else []
    for over, why in zip(all_of_them, wrong, strict=True):
        assert not why, f"{over.row} {over.how}: {why}: {over.node}"
    return {o.row for o in all_of_them}


@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(BATCH)
def test_any_layer(found: list[Case]) -> None:
    check(found, portable())


@pytest.mark.parametrize("name", ["cortex-m4", "cortex-m0plus", "cortex-m55"])
def test_any_layer_on_a_microcontroller(name: str) -> None:
    target = Target.load(name)
    if reason := available(target):
        pytest.skip(reason)

    @settings(max_examples=1, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(BATCH)
    def one(found: list[Case]) -> None:
        check(found, target, on_target=True)

    one()


@pytest.mark.full
@pytest.mark.parametrize(
    "name", ["portable", "host", "x86-64", "x86-64-v3", "cortex-m4", "cortex-m55", "cortex-m0plus"]
)
def test_many_layers(name: str) -> None:
    target = portable() if name == "portable" else Target.load(name)
    if reason := available(target):
        pytest.skip(reason)

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(BATCH)
    def many(found: list[Case]) -> None:
        check(found, target, on_target=name != "portable")

    many()


def test_a_little_further_is_wrong() -> None:
    """Two pixels more, and something is read after it was overwritten. (The outputs of one pixel are one block.)"""
    net, same = Net(3), Window((3, 3), pads=(1, 1, 1, 1))
    x = Value("x", TensorType((1, 9, 7, 8), FLOAT32))
    v = net.conv(x, same, FLOAT32, 8, 1)
    target = portable()
    graph = assign_layouts(Graph("net", (x,), (v,), tuple(net.nodes)), target)
    found = [o for o in overs(graph, target) if o.row == "conv_dense"]
    assert [o.how.lead for o in found] == [-(7 + 2) * 8 * 4]
    assert run([Arena(found[0], 0), Arena(found[0], 1, slack=2 * 8 * 4)], target) == ["", "y is wrong"]


def test_distances() -> None:
    """By hand: k rows behind for same padding, nothing for a pixel gathered before it is put, growing images ahead."""
    x = TensorType((1, 10, 10, 4), INT8)

    def lead(window: Window, outputs: int, reads_first: bool = True) -> int:
        geo = geometry(x, window)
        y = TensorType((1, geo.oh, geo.ow, outputs), INT8)
        return by_pixels(geo, x, y, singly(geo), reads_first)[0].lead

    assert lead(Window((3, 3), pads=(1, 1, 1, 1)), 4) == -4 * (10 + 1)
    assert lead(Window((3, 3)), 4) == 0 and lead(Window((3, 3)), 8) == 4 * 77 - 8 * 63
    assert lead(Window(), 4) == 0 and lead(Window(), 4, reads_first=False) == -4
    assert lead(Window(), 8) == -4 * 99 and lead(Window(), 2) == 2
    assert lead(Window((2, 2), (2, 2)), 4) == 4
