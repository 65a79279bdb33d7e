"""Networks and schedules that hypothesis draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from bitc.ir.dtypes import BIT1, FLOAT32, INT8, TERN, DType
from bitc.ir.graph import Graph, Value
from bitc.ir.rewrite import Builder
from bitc.ir.schedule import Schedule, Stage
from bitc.ir.types import Quant, TensorType
from bitc.ops.binary import Add
from bitc.ops.epilogue import Affine, Epilogue, Requant, TernThreshold, Threshold
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Crop
from bitc.ops.pool import AveragePool, MaxPool
from bitc.ops.quantize import Requantize
from bitc.ops.quantized import AddRequant
from bitc.ops.reduce import ReduceMean, ReduceMin, ReduceSum
from bitc.ops.unary import Relu
from bitc.ops.window import Window
from bitc.schedule.columns import why_not_strips
from bitc.schedule.rows import image_inputs, why_not
from tests.kernels.harness import random_array

BIT = Threshold(Quant.two_valued(-1, 1))
CODES = Requant(INT8, 3, -128, 127)


@dataclass(frozen=True)
class Layer:
    """One layer to add to a net: what it is, how its window lies, what it gives."""

    kind: str
    window: Window
    gives: DType
    channels: int
    seed: int


def axis(kernels: tuple[int, ...]) -> st.SearchStrategy[tuple[int, int, int, int, int]]:
    """Kernel, stride, dilation and pads of one axis; pads stay below the kernel's extent."""

    def padded(k: tuple[int, int, int]) -> st.SearchStrategy[tuple[int, int, int, int, int]]:
        pad = st.integers(0, (k[0] - 1) * k[2])
        return st.tuples(st.just(k[0]), st.just(k[1]), st.just(k[2]), pad, pad)

    return st.tuples(st.sampled_from(kernels), st.integers(1, 3), st.integers(1, 2)).flatmap(padded)


windows = st.tuples(axis((1, 2, 3, 3, 5)), axis((1, 2, 3, 3))).map(
    lambda a: Window((a[0][0], a[1][0]), (a[0][1], a[1][1]), (a[0][3], a[1][3], a[0][4], a[1][4]), (a[0][2], a[1][2]))
)
layers = st.builds(
    Layer,
    st.sampled_from(
        ["conv", "conv", "depthwise", "max", "average", "pointwise", "residual", "late", "whole", "whole", "dense"]
    ),
    windows,
    st.sampled_from([FLOAT32, INT8, BIT1, TERN]),
    st.sampled_from([1, 3, 8, 33]),
    st.integers(0, 99),
)


class Net(Builder):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = np.random.default_rng(seed)

    def epilogue(self, acc: TensorType, gives: DType) -> tuple[Epilogue | None, list[Value]]:
        c = acc.channels
        around = self.const(np.round(self.rng.normal(0, 3, c)).astype(np.float32 if acc.dtype.is_float else np.int32))
        if gives is BIT1:
            return BIT, [around]
        if gives is TERN:
            return TernThreshold(Quant()), [around, self.const(around.array + 2)]
        if gives is INT8 and not acc.dtype.is_float:
            multiplier = self.rng.integers(2**20, 2**24, c).astype(np.int32)
            return CODES, [around, self.const(multiplier), self.const(np.full(c, 27, np.int32))]
        return Affine(lo=-5.0), [self.const(self.rng.normal(0, 0.2, c).astype(np.float32)) for _ in range(2)]

    def conv(self, x: Value, window: Window, gives: DType, outputs: int, group: int) -> Value:
        kind = x.type.dtype if x.type.dtype.is_packed or x.type.dtype is INT8 else FLOAT32
        t = TensorType((outputs, *window.kernel, x.type.channels // group), kind)
        w = Value(self.unique("w"), t, random_array(t, self.rng))
        op = Conv2D(window, group, x_zero=int(self.rng.integers(-9, 9)) if kind is INT8 else 0)
        epilogue, params = self.epilogue(op.accumulator(x.type, t), gives)
        full = Conv2D(window, group, epilogue, x_zero=op.x_zero)
        return self.emit(full, x, w, *params, at=f"conv {len(self.nodes)}")

    def layer(self, v: Value, layer: Layer) -> Value | None:
        oh, ow = layer.window.out_size((v.shape[1], v.shape[2]))
        if layer.kind not in ("pointwise", "residual", "late", "whole", "dense") and min(oh, ow) < 1:
            return None
        if layer.kind == "conv":
            return self.conv(v, layer.window, layer.gives, layer.channels, 1)
        if layer.kind == "dense":
            return self.conv(v, Window((v.shape[1], v.shape[2])), layer.gives, layer.channels, 1)
        if layer.kind == "depthwise":
            return self.conv(v, layer.window, layer.gives, v.type.channels, v.type.channels)
        if layer.kind == "max":
            boxes = layer.window.tap_boxes((v.shape[1], v.shape[2]))
            if any(rows.stop == 0 or columns.stop == 0 for rows, columns in boxes):
                return None  # the maximum of nothing
            return self.emit(MaxPool(layer.window), v)
        if layer.kind == "average" and v.type.dtype.is_float:
            return self.emit(AveragePool(layer.window, layer.seed % 2 == 0), v)
        if layer.kind == "whole":
            return self.whole(v, layer.seed)
        if layer.kind in ("residual", "late"):
            return self.residual(v, layer, layer.kind == "late")
        if layer.kind == "pointwise" and v.type.dtype.is_float:
            epilogue, params = self.epilogue(v.type, layer.gives)
            return self.emit(Requantize(epilogue), self.emit(Relu(), v), *params) if epilogue else None
        return None

    def whole(self, v: Value, seed: int) -> Value | None:
        """A pool of all pixels, of one of the forms that there are for the type."""
        everything, dtype = Window((v.shape[1], v.shape[2])), v.type.dtype
        if dtype.is_float:
            ops = AveragePool(everything), ReduceMean((1, 2)), ReduceSum((1, 2)), MaxPool(everything), ReduceMin((1, 2))
            return self.emit(ops[seed % len(ops)], v)
        if dtype is INT8 and seed % 2:
            op = AveragePool(everything, x_zero=seed - 50, requant=CODES)
            numbers = (7, 2**28 // (v.shape[1] * v.shape[2]), 28)
            return self.emit(op, v, *(self.const(np.array([n], np.int32)) for n in numbers))
        if dtype not in (INT8, BIT1):
            return None
        return self.emit(MaxPool(everything), v, self.const(np.full(v.type.channels, seed % 3 == 0)))

    def residual(self, v: Value, layer: Layer, late: bool = False) -> Value | None:
        """v + conv(v); `late`: what v is read for first needs single rows of it, so that the sum is behind."""
        k = layer.window.kernel
        same = Window(k, (1, 1), ((k[0] - 1) // 2, (k[1] - 1) // 2, k[0] // 2, k[1] // 2))
        x = v
        if late and v.type.dtype.is_float:
            _, params = self.epilogue(v.type, BIT1)
            x = self.emit(Requantize(BIT), v, *params)
        elif late:
            x = self.conv(v, Window(), v.type.dtype, layer.channels, 1)
        t = self.conv(x, same, v.type.dtype, v.type.channels, 1)
        if v.type.dtype is INT8:
            return self.emit(AddRequant(1, 2**20, -3, 2**19 + 1, 20, CODES), t, v)
        return self.emit(Add(), v, t) if v.type.dtype.is_float else t


@dataclass(frozen=True)
class Case:
    """A network, where its one stage starts and stops, in how many strips it runs, of which values strips keep columns
    (one bit each, what the stage reads included), and how many channels run at a time."""

    graph: Graph
    first: int
    last: int
    strips: int
    keep: int
    block: int

    def stage(self, graph: Graph) -> Stage | None:
        """The stage of these nodes in a graph of the same nodes; None if they are none."""
        nodes = graph.nodes[self.first : self.last + 1]
        if any(why_not(n) for n in nodes):
            return None
        images = dict.fromkeys(v for n in nodes for v in (*(n.input(i) for i in image_inputs(n)), n.output))
        keep = frozenset(v for i, v in enumerate(images) if self.keep >> i & 1)
        stage = Stage(nodes, self.strips, keep, self.block)
        return stage if not why_not_strips(graph, stage) else Stage(nodes, block=self.block)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    size = draw(st.tuples(st.integers(3, 17), st.integers(3, 17)))
    dtype, channels = draw(st.sampled_from([FLOAT32, INT8])), draw(st.sampled_from([1, 3, 8]))
    planar = draw(st.booleans())
    net = Net(draw(st.integers(0, 2**16)))
    x = Value("x", TensorType((1, channels, *size) if planar else (1, *size, channels), dtype))
    v = net.emit(Crop(size, planar=True), x) if planar else x
    values = [v]
    for layer in draw(st.lists(layers, min_size=2, max_size=6)):
        following = net.layer(v, layer)
        if following is not None:
            v = following
            values.append(v)
    if v is x:
        v = net.emit(Relu(), x)
    extra = [u for u in draw(st.lists(st.sampled_from(values), max_size=1)) if u not in (v, x)]
    graph = Graph("net", (x,), (v, *extra), tuple(net.nodes))
    first = draw(st.integers(0, len(net.nodes) - 1))
    last = draw(st.integers(first, len(net.nodes) - 1))
    strips, block = draw(st.sampled_from([1, 1, 2, 3, 5])), draw(st.sampled_from([0, 0, 1, 3, 16]))
    keep = draw(st.sampled_from([0, 0xFFFF]) | st.integers(0, 0xFFFF))
    return Case(graph, first, last, strips, keep, block)


def together(found: list[Case]) -> tuple[Graph, list[tuple[Case, int]]]:
    """One graph of all networks, and where the nodes of each start."""
    inputs: list[Value] = []
    outputs: list[Value] = []
    nodes, starts = [], []
    for i, case in enumerate(found):
        for v in dict.fromkeys((*case.graph.inputs, *case.graph.outputs)):
            v.name = f"g{i}_{v.name}"
        starts.append((case, len(nodes)))
        inputs += case.graph.inputs
        outputs += case.graph.outputs
        nodes += case.graph.nodes
    return Graph("many", tuple(inputs), tuple(outputs), tuple(nodes)), starts


def schedule(graph: Graph, starts: list[tuple[Case, int]]) -> Schedule:
    """The stages of all cases in the graph of `together`, with its layouts."""
    stages = []
    for case, start in starts:
        part = Graph("part", (), graph.outputs, graph.nodes[start : start + len(case.graph.nodes)])
        stage = case.stage(part)
        if stage:
            stages.append(stage)
    return Schedule(graph, tuple(stages))
