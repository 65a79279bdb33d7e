"""Integer arithmetic on codes against the reference, and that against fractions."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from bitc import interp
from bitc.ir.dtypes import BIT1, FLOAT32, INT8, INT16, INT32, TERN, UINT8, UINT16, DType
from bitc.ir.graph import Graph, Node, Value, constant
from bitc.ir.types import TensorType
from bitc.kernels.epilogues import factors
from bitc.ops.epilogue import FixedPoint, Requant, round_half_even
from bitc.ops.linear import Conv2D
from bitc.ops.pool import AveragePool
from bitc.ops.quantize import Requantize
from bitc.ops.quantized import AddRequant, Lookup, MulRequant
from bitc.ops.window import Window
from bitc.runners import available
from bitc.target import Target
from tests.kernels.harness import (
    assert_same,
    check,
    compile_graph,
    merge,
    portable,
    random_array,
    random_feeds,
    run_on_target,
    single,
)

TARGETS = {"host": lambda: Target.load("host"), "portable": portable}
MORE = TARGETS | {
    "words": lambda: replace(portable(), features=frozenset({"dsp"}), vector_bytes=4),
    "vectors": lambda: replace(portable(), vector_bytes=16),
}
I8 = Requant(INT8, -3, -128, 127)
OUTS = (I8, Requant(UINT8, 128, 131, 250), Requant(INT16, 0, -32768, 32767), Requant(UINT16, 5, 0, 65535))
WINDOWS = (Window(), Window((3, 3), pads=(1, 1, 1, 1)), Window((2, 3), (2, 1), (0, 1, 1, 2)), Window((3, 1), (1, 1)))


def params(rng: np.random.Generator, kind: str, outputs: int, reach: float) -> list[np.ndarray]:
    """Bias, multiplier and shift of each kind that rows treat in their own way, for results of 8 bits and more."""
    typical = 2.0 ** rng.uniform(5, 9, outputs) / max(reach, 1)
    mantissa, exponent = np.frexp(typical.astype(np.float32))
    multiplier, shift = (mantissa * 2**24).astype(np.int64), 24 - exponent
    bias = rng.integers(-1000, 1000, outputs)
    if kind == "ties":  # powers of two
        multiplier, shift = np.ones(outputs, np.int64), np.maximum(-exponent, 0)
    elif kind == "spread":  # no common shift
        shift = shift + rng.integers(-15, 16, outputs)
        shift[0], multiplier[-1] = 0, 0
    elif kind == "one":
        bias, multiplier, shift = (p[:1] for p in (bias, multiplier, shift))
    elif kind == "none":
        bias, multiplier, shift = np.zeros(1), np.ones(1), np.zeros(1)
    return [p.astype(np.int32) for p in (bias, multiplier, np.clip(shift, 0, 62))]


KINDS = ("float", "ties", "spread", "one", "none")


def conv(rng: np.random.Generator, x: TensorType, w: DType, window: Window, outputs: int, group: int, i: int) -> Graph:
    kind = TensorType((outputs, *window.kernel, x.channels // group), w)
    weights = Value("w", kind, random_array(kind, rng))
    zero = 0 if x.dtype.is_packed else int(rng.integers(x.dtype.min, x.dtype.max)) if i % 3 else 0
    op = Conv2D(window, group, OUTS[i % len(OUTS)], x_zero=zero)
    return single(op, x, weights, *params(rng, KINDS[i % 5], outputs, float(op.reach(x, weights.array).max())))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [INT8, UINT8, INT16], ids=str)
def test_convolution(target: str, dtype: DType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    graphs = []
    for i, (window, (c, o, group)) in enumerate(
        itertools.product(WINDOWS, ((1, 1, 1), (3, 9, 1), (16, 8, 1), (5, 5, 5), (4, 8, 4), (6, 4, 2), (33, 17, 1)))
    ):
        graphs.append(conv(rng, TensorType((1 + i % 2, 5, 6, c), dtype), INT8, window, o, group, i))
    graph = merge(graphs)
    check(graph, TARGETS[target](), tmp_path, random_feeds(graph))


@pytest.mark.parametrize("target", TARGETS)
def test_other_accumulators(target: str, tmp_path: Path) -> None:
    """Bits and trits in, codes out, and codes times bits and wide weights."""
    rng = np.random.default_rng(1)
    graphs = []
    pairs = ((BIT1, BIT1), (BIT1, TERN), (TERN, BIT1), (TERN, TERN), (INT8, BIT1), (UINT8, TERN), (INT8, INT16))
    for i, ((x, w), window, (c, o, group)) in enumerate(
        itertools.product(pairs, WINDOWS[:3], ((64, 33, 1), (64, 64, 64), (33, 9, 1)))
    ):
        graphs.append(conv(rng, TensorType((1, 5, 6, c), x), w, window, o, group, i))
    graphs.append(conv(rng, TensorType((1, 16, 16, 64), BIT1), BIT1, WINDOWS[1], 64, 1, 0))
    graph = merge(graphs)
    check(graph, TARGETS[target](), tmp_path, random_feeds(graph))


@pytest.mark.parametrize("target", TARGETS)
def test_fixed_point(target: str, tmp_path: Path) -> None:
    """Rounding down, with addends of 64 bits."""
    rng = np.random.default_rng(6)
    graphs = []
    pairs = ((BIT1, BIT1), (TERN, TERN), (INT8, INT8), (UINT8, BIT1), (INT16, INT8))
    for i, ((x, w), (c, o)) in enumerate(itertools.product(pairs, ((64, 33), (33, 64), (3, 8)))):
        kind = TensorType((o, 3, 3, c), w)
        weights = Value("w", kind, random_array(kind, rng))
        op = Conv2D(WINDOWS[1], epilogue=FixedPoint(OUTS[i % 4]), x_zero=0 if x.is_packed else 3)
        many = o if i % 2 else 1
        shift = np.full(many, 30 + i % 3 * 8, np.int32)
        factor = rng.integers(0, 2**24, many).astype(np.int32)
        addend = (rng.normal(size=many) * 30 * 2.0 ** shift[0]).astype(np.int64)
        graphs.append(single(op, TensorType((1, 6, 6, c), x), weights, factor, addend, shift))
    graphs.append(single(Conv2D(WINDOWS[1], epilogue=FixedPoint(I8)), TensorType((1, 16, 16, 64), BIT1),
                         Value("w", TensorType((64, 3, 3, 64), BIT1), rng.random((64, 3, 3, 64)) < 0.5),
                         np.int32([3]), np.int64([-5]), np.int32([2])))  # fmt: skip
    graphs.append(single(Requantize(FixedPoint(I8)), TensorType((3, 5), INT32), *(np.array([v]) for v in (27, 99, 20))))
    graph = merge(graphs)
    check(graph, TARGETS[target](), tmp_path, random_feeds(graph))


@pytest.mark.parametrize("target", MORE)
def test_elementwise(target: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    graphs = []
    for i, (a, b) in enumerate([(INT8, INT8), (UINT8, INT8), (INT16, INT16), (INT8, INT16), (UINT8, UINT8)]):
        for left, right, out in (((3, 5), (3, 5), OUTS[i % 4]), ((2, 1, 4), (3, 1), I8)):
            x = (TensorType(left, a), TensorType(right, b))
            graphs += [
                single(AddRequant(3, 1_471_238, 7, 2_031_007, 21, out), *x),
                single(AddRequant(0, 1, 0, 1, 1, out), *x),
                single(AddRequant(-1, 1, 1, -3, 2, out), *x),
                single(AddRequant(0, 2**31 - 1, 9, -(2**30), 40, out), *x),
                single(MulRequant(3, -5, 12_345_679, 38, out), *x),
                single(MulRequant(0, 0, 1, 3, out), *x),
            ]
        graphs.append(
            single(AddRequant(0, 1, 0, 1, 0, I8), TensorType((4, 3), a), random_array(TensorType((3,), b), rng))
        )
    for dtype, table in itertools.product((INT8, UINT8), (INT8, UINT8, INT16, FLOAT32)):
        graphs.append(single(Lookup(), TensorType((3, 7), dtype), random_array(TensorType((256,), table), rng)))
    for i, dtype in enumerate((INT8, UINT8, INT16, INT32)):
        for kind in KINDS:
            reach = min(dtype.max, 2.0**20)
            graphs.append(single(Requantize(OUTS[i]), TensorType((2, 3, 5), dtype), *params(rng, kind, 5, reach)))
    graph = merge(graphs)
    check(graph, MORE[target](), tmp_path, random_feeds(graph))


@pytest.mark.parametrize("target", MORE)
def test_pools(target: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    graphs = []
    windows = (Window((3, 2), (2, 2), (1, 0, 1, 1)), Window((5, 6)), Window((2, 2), (2, 2)))
    for i, (window, dtype, pad) in enumerate(itertools.product(windows, (INT8, UINT8, INT16), (False, True))):
        taps = window.kernel[0] * window.kernel[1]
        for kind in ("one", "ties"):
            given = params(rng, kind, taps + 1, dtype.max * taps)
            op = AveragePool(window, pad, (0, 7, -100)[i % 3], OUTS[i % 4])
            graphs.append(single(op, TensorType((2, 5, 6, 5), dtype), *given))
    graph = merge(graphs)
    check(graph, MORE[target](), tmp_path, random_feeds(graph))


CHIPS = [
    *("cortex-m4", "cortex-m55", "aarch64", "wasm32-simd128", "x86-64-v3"),
    *(pytest.param(c, marks=pytest.mark.full) for c in ("cortex-m0plus", "armv7-neon", "x86-64", "x86-64-v4")),
]


def elementwise_codes(rng: np.random.Generator) -> list[Graph]:
    """Sums and products of all the forms in which operands run, with rows that do not fill vectors; factors of many
    bits, of few, negative ones, and such that no 32 bits hold; look-up tables."""
    graphs = []
    pairs = ((INT8, INT8), (UINT8, INT8), (UINT8, UINT8))
    shapes = (
        ((2, 75), (2, 75)),
        ((3, 70), (70,)),
        ((5, 3, 17), (3, 1)),
        ((3,), (3,)),
        ((2, 133), (1,)),
        ((1, 129), (129, 1)),
    )
    for i, (types, (left, right)) in enumerate(itertools.product(pairs, shapes)):
        x, out = tuple(TensorType(s, t) for s, t in zip((left, right), types, strict=True)), OUTS[i % 2]
        full = Requant(out.dtype, out.zero, int(out.dtype.min), int(out.dtype.max))
        graphs += [
            single(AddRequant(3, 1_471_238, 7, 2_031_007, 21, (out, full)[i % 2]), *x),
            single(AddRequant(*((0, 1, 0, 1, 1), (-1, 1, 1, -3, 2), (0, 2**31 - 1, 9, -(2**30), 38))[i % 3], full), *x),
            single(MulRequant(3, -5, 12_345_679, (30, 31, 24)[i % 3], (full, out)[i % 2]), *x),
        ]
    graphs.append(
        single(AddRequant(0, 1, 0, 1, 0, I8), TensorType((4, 70), INT8), random_array(TensorType((70,), INT8), rng))
    )
    for i, n in enumerate((1, 15, 16, 37, 256)):
        dtype, table = (INT8, UINT8)[i % 2], (INT8, UINT8, INT8)[i % 3]
        graphs.append(single(Lookup(), TensorType((n,), dtype), random_array(TensorType((256,), table), rng)))
    x = Value("x", TensorType((3, 50), INT8))  # in place
    first = Node(AddRequant(3, 1_471_238, 7, 2_031_007, 21, I8), (x, x), (Value("s", TensorType((3, 50), INT8)),))
    second = Node(MulRequant(3, 0, 12_345_679, 29, I8), (first.output, x), (Value("p", TensorType((3, 50), INT8)),))
    table = constant("t", random_array(TensorType((256,), INT8), rng))
    third = Node(Lookup(), (second.output, table), (Value("y", TensorType((3, 50), INT8)),))
    return [*graphs, Graph("chain", (x,), third.outputs, (first, second, third))]


def pooled_codes(rng: np.random.Generator) -> list[Graph]:
    graphs = []
    windows = (Window((3, 2), (2, 2), (1, 0, 1, 1)), Window((13, 12)), Window((2, 2), (2, 2)), Window((1, 12), (2, 1)))
    for i, (window, dtype, c) in enumerate(itertools.product(windows, (INT8, UINT8), (5, 19, 80))):
        taps = window.kernel[0] * window.kernel[1]
        x, zero, out = TensorType((2, 13, 12, c), dtype), (0, 7, -100, 128)[i % 4], OUTS[i % 2]
        given = [np.zeros(1, np.int32), np.int32([1.1 * 2**24 / taps]), np.int32([24])]
        graphs.append(single(AveragePool(window, bool(i % 2), zero, out), x, *given))
        many = [rng.integers(-9, 9, taps + 1), 1.1 * 2**24 / np.arange(1, taps + 2), np.full(taps + 1, 24)]
        graphs.append(single(AveragePool(window, bool(i % 3), zero, out), x, *(p.astype(np.int32) for p in many)))
    return graphs


@pytest.mark.parametrize("chip", CHIPS)
def test_on_chips(chip: str, tmp_path: Path) -> None:
    """The rows of several codes at once, where they are instructions of their own."""
    target = Target.load(chip) if chip == "cortex-m55" else Target.load(chip, ram="1M", flash="4M")
    if reason := available(target):
        pytest.skip(reason)
    rng = np.random.default_rng(7)
    graph = merge([*elementwise_codes(rng), *pooled_codes(rng)])
    compiled, feeds = compile_graph(graph, target), random_feeds(graph)
    got, _ = run_on_target(compiled, tmp_path, feeds, opt="-O2")
    for name, want in interp.run(graph, feeds).items():
        assert_same(got[name], want, name)


def test_rounding_is_exact() -> None:
    rng = np.random.default_rng(4)
    near = np.concatenate([rng.integers(-(2**61), 2**61, 200), np.arange(-40, 40)])
    for shift in (0, 1, 2, 3, 8, 31, 61, 62):
        for value in (
            near,
            (near >> 2) << 1,
            np.int64(1) << shift,
            (np.int64(3) << min(max(shift - 1, 0), 59)) * np.arange(2),
        ):
            got = np.atleast_1d(round_half_even(np.asarray(value), shift))
            want = [round(Fraction(int(v), 2**shift)) for v in np.atleast_1d(value)]
            assert got.tolist() == want, shift


def test_ties_are_seen_where_they_occur() -> None:
    """Exhaustive over sums: `factors` says that halves occur if and only if they do (it may be careful)."""
    for multiplier, shift, reach in itertools.product((1, 3, 12, 20, 1 << 20), range(1, 24), (7, 100, 5000)):
        sums = np.arange(-reach, reach + 1) * multiplier
        real = bool(((sums % (1 << shift)) == (1 << (shift - 1))).any())
        assert factors(0, multiplier, shift, reach).ties == real, (multiplier, shift, reach)


def test_cheaper_factors_are_equal() -> None:
    rng = np.random.default_rng(5)
    for spread in (0, 3, 20):
        m, s = rng.integers(0, 2**24, 9), 20 + rng.integers(-spread, spread + 1, 9)
        found = factors(np.zeros(9, np.int64), m, s, 1000)
        assert found.multiplier.max() < 2**31 and found.shift.min() >= 1 and (found.shift.size == 1) == (spread < 20)
        acc = rng.integers(-1000, 1001, (50, 9))
        want = round_half_even(acc * m, s)
        assert (round_half_even(acc * found.multiplier, found.shift) == want).all()
