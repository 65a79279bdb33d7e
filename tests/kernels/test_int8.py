"""int8 rows against the reference, bit for bit, on awkward sizes and extreme values; on this machine and on emulated
chips, where the same sums are assembly."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitc import interp
from bitc.codegen import emit
from bitc.ir.dtypes import BIT1, INT8, INT16, TERN, UINT8, DType
from bitc.ir.graph import Graph, Value
from bitc.ir.schedule import Schedule
from bitc.ir.types import Quant, TensorType
from bitc.kernels import Selection, assign_layouts, select
from bitc.kernels.fixed import upper_word
from bitc.kernels.select import Choice
from bitc.kernels.step import Variant
from bitc.kernels.variants import VARIANTS
from bitc.lower import lower
from bitc.ops.epilogue import Affine, Epilogue, Requant, TernThreshold, Threshold
from bitc.ops.linear import Conv2D
from bitc.ops.pool import MaxPool
from bitc.ops.window import Window
from bitc.runners import available
from bitc.schedule import plan_memory
from bitc.target import Target
from bitc.toolchain import compile_sources
from bitc.toolchain.stack import HELPER_BYTES
from tests.kernels.harness import (
    Compiled,
    assert_same,
    bits,
    call,
    merge,
    portable,
    random_feeds,
    run_on_target,
    shared_library,
    single,
)  # fmt: skip

PM = Quant.two_valued(-1, 1)
OUTS = (
    Requant(INT8, -3, -128, 127), Requant(UINT8, 128, 131, 250), Requant(INT16, 0, -32768, 32767),
    Requant(UINT8, 0, 0, 255), Requant(INT8, -128, -128, 100),
)  # fmt: skip
WINDOWS = (
    Window(), Window((3, 3), pads=(1, 1, 1, 1)), Window((3, 3), (2, 2), (0, 1, 1, 2)),
    Window((3, 3), (1, 1), (2, 2, 2, 2), (2, 2)), Window((2, 3), (1, 2)), Window((5, 5), pads=(2, 2, 2, 2)),
    Window((2, 2), (3, 3), (2, 2, 2, 2)), Window((6, 7)), Window((3, 2), (1, 1), (2, 0, 0, 1)),
    Window((3, 9), pads=(1, 4, 1, 1)),
)  # fmt: skip
CHANNELS = ((1, 1, 1), (2, 3, 1), (3, 16, 1), (5, 7, 1), (7, 2, 1), (17, 5, 1), (31, 4, 1), (33, 33, 1), (6, 4, 2),
            (16, 24, 4), (64, 6, 1))  # fmt: skip
DEPTHWISE = tuple((c, c * m, c) for c, m in ((1, 2), (2, 1), (3, 1), (5, 2), (8, 1), (17, 1), (33, 1)))
ROWS = {row.name: row for row in VARIANTS}
CHIPS = {
    "dsp": lambda: replace(portable(), features=frozenset({"dsp"}), vector_bytes=4),
    "plain": lambda: replace(portable(), vector_bytes=0),
    "cortex-m0plus": lambda: Target.load("cortex-m0plus", ram="1M", flash="4M"),
    "cortex-m3": lambda: Target.load("cortex-m3", ram="1M", flash="4M"),
    "cortex-m4": lambda: Target.load("cortex-m4", ram="1M", flash="4M"),
    "cortex-m55": lambda: Target.load("cortex-m55"),
    "host": lambda: Target.load("host"),
    "vectors": lambda: replace(portable(), vector_bytes=16),
}


def requant(rng: np.random.Generator, outputs: int, reach: float, i: int) -> list[np.ndarray]:
    """Bias, multiplier and shift: of 24 bits, powers of two (ties), far apart, or one for all."""
    mantissa, exponent = np.frexp((2.0 ** rng.uniform(5, 8, outputs) / max(reach, 1)).astype(np.float32))
    multiplier, shift = (mantissa * 2**24).astype(np.int64), 24 - exponent
    if i % 4 == 1:
        multiplier, shift = np.ones(outputs, np.int64), np.maximum(-exponent, 0)
    elif i % 4 == 2:
        shift = shift + rng.integers(-9, 10, outputs)
    bias = rng.integers(-3000, 3000, outputs)
    one = slice(0, 1) if i % 4 == 3 else slice(None)
    return [p[one].astype(np.int32) for p in (bias, multiplier, np.clip(shift, 0, 62))]


def case(rng: np.random.Generator, window: Window, sizes: tuple[int, int, int], i: int, weights: DType = INT8) -> Graph:
    c, o, group = sizes
    dtype = (INT8, UINT8, INT16)[i % 3]
    planar = c <= 3 and group == 1 and i % 2 == 1
    n = 1 + (i % 5 == 0)
    x = TensorType((n, c, 6, 7) if planar else (n, 6, 7, c), dtype)
    shape = (o, *window.kernel, c // group)
    codes = rng.choice([-128, 127, -127], shape) if i % 7 == 0 else np.rint(rng.normal(0, 40, shape)).clip(-128, 127)
    few = codes < 0 if weights is BIT1 else np.sign(codes) if weights is TERN else codes
    w = Value("w", TensorType(shape, weights), few if weights is BIT1 else few.astype(np.int8))
    zero = int(rng.integers(dtype.min, dtype.max + 1)) if i % 3 and dtype is not INT16 else 0
    op = Conv2D(window, group, None, planar, zero)
    t = rng.integers(-200, 200, o).astype(np.int32)
    forms: dict[int, tuple[Epilogue | None, list[np.ndarray]]] = {
        4: (TernThreshold(Quant()), [t, t + 40]),
        5: (Threshold(PM), [t]),
        6: (None, []),
        7: (Affine(), [rng.normal(size=o).astype(np.float32), np.zeros(1, np.float32)]),
    }
    plain = OUTS[i % 5], requant(rng, o, float(op.reach(x, w.array).max()), i)
    epilogue, params = forms.get(i % 8, plain)
    return single(replace(op, epilogue=epilogue), x, w, *params)


def cases(sizes: tuple[tuple[int, int, int], ...], every: int) -> Iterator[Graph]:
    rng = np.random.default_rng(every)
    for i, (window, channels) in enumerate((w, c) for w in WINDOWS for c in sizes):
        graph = case(rng, window, channels, i)
        if i % every == 0:
            yield graph


def compile_with(graph: Graph, target: Target, row: Variant) -> tuple[Compiled, int]:
    """With `row` for every node that it takes, and how many those are."""
    graph = assign_layouts(graph, target)
    choices = dict(select(graph, target).choices)
    taken = {n: Choice(row, ()) for n in graph.nodes if not row.accepts(n, target)}
    program = lower(Schedule(graph), Selection(choices | taken), target)
    plan = plan_memory(program)
    return Compiled(graph, program, plan, emit(program, plan, target, graph.name), target), len(taken)


def feeds(graph: Graph) -> list[dict[str, np.ndarray]]:
    """Random codes, and codes at the ends of the range."""
    rng = np.random.default_rng(1)
    ends = {v.name: rng.choice([v.type.dtype.min, v.type.dtype.max], v.shape) for v in graph.inputs}
    return [random_feeds(graph), {v.name: ends[v.name].astype(v.type.dtype.carrier) for v in graph.inputs}]


def check(graph: Graph, target: Target, row: Variant, folder: Path, least: int) -> None:
    compiled, taken = compile_with(graph, target, row)
    assert taken >= least
    on_host = target.toolchain.link == "shared"
    library = ctypes.CDLL(str(shared_library(compiled, folder))) if on_host else None
    for i, given in enumerate(feeds(graph)):
        got = call(compiled, library, given) if library else run_on_target(compiled, folder / str(i), given)[0]
        for name, want in interp.run(graph, given).items():
            assert_same(got[name], want, name)


@pytest.mark.parametrize(
    "row, chip", [("conv_smlad", "dsp"), ("conv_smlad", "cortex-m4"), ("conv_bytes", "plain"),
                  ("conv_bytes", "cortex-m0plus"), ("conv_mve", "cortex-m55"), ("depthwise_int8", "plain"),
                  ("depthwise_int8", "dsp"), ("depthwise_int8", "cortex-m4"), ("depthwise_int8", "cortex-m0plus"),
                  ("depthwise_mve", "cortex-m55"), ("depthwise_channels", "cortex-m55")],
)  # fmt: skip
def test_row(row: str, chip: str, tmp_path: Path) -> None:
    target = CHIPS[chip]()
    if reason := available(target):
        pytest.skip(reason)
    graphs = list(cases(DEPTHWISE if row.startswith("depthwise") else CHANNELS, 5))
    check(merge(graphs), target, ROWS[row], tmp_path, len(graphs) // (4 if row == "depthwise_channels" else 2))


def rows_of_depthwise(rng: np.random.Generator, i: int) -> Graph:
    """A 3x3 window over an image of any size, with codes of a whole byte: rows of outputs as assembly."""
    stride, top, left, bottom, right = (int(rng.integers(low, high)) for low, high in ((1, 4), *((0, 3),) * 4))
    h, w, c = (int(rng.integers(low, high)) for low, high in ((1, 9), (1, 16), (1, 9)))
    if i % 8 == 2:
        h, top, bottom = 2, 0, 1  # the last row of an image that comes by rows
    window = Window((3, 3), (int(rng.integers(1, 3)), stride), (top, left, bottom, right), (1 + (i % 6 == 5), 1))
    h, w = max(h, 6 if window.dilations[0] > 1 else 3 - top - bottom), max(w, 3 - left)
    if i % 8 == 4:
        h, w, c = 4, 9, 260  # rows too far apart for offsets
    dtype = (INT8, UINT8, INT16)[i % 3]
    x = TensorType((1 + i % 2, h, w, c), dtype)
    weights = np.rint(rng.normal(0, 60, (c, 3, 3, 1))).clip(-128, 127).astype(np.int8)
    zero = int(rng.integers(dtype.min, dtype.max + 1)) if i % 5 and dtype is not INT16 else 0
    out = (OUTS[0], OUTS[3])[i % 2]
    op = Conv2D(window, c, out, False, zero)
    value = Value("w", TensorType(weights.shape, INT8), weights)
    return single(op, x, value, *requant(rng, c, float(op.reach(x, weights).max()), 4 * i + 3 * (i % 3 == 1)))


@pytest.mark.parametrize("chip", ["cortex-m4", "cortex-m0plus"])
def test_rows_of_depthwise(chip: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    graph, row = merge([rows_of_depthwise(rng, i) for i in range(64)]), ROWS["depthwise_int8"]
    compiled, _ = compile_with(graph, CHIPS[chip](), row)
    contexts = [c.function.context for c in compiled.program.calls if c.function.kernel == row.name]
    assert len(contexts) > 40
    if chip == "cortex-m4":
        short = [c for c in contexts if c["in_registers"]]
        assert len(short) > 20 and any(c["far"] for c in short) and any(c["sweep"].rounds for c in short)
    check(graph, CHIPS[chip](), row, tmp_path, 40)


@pytest.mark.parametrize("window", [Window((3, 3), (3, 3), (1, 1, 0, 0)), Window((3, 3), (1, 1), (2, 2, 2, 2), (2, 2))])
@pytest.mark.parametrize(("row", "chip"), [("conv_smlad", "dsp"), ("conv_mve", "cortex-m55")])
def test_one_output_over_as_many_pixels_as_taps(window: Window, row: str, chip: str, tmp_path: Path) -> None:
    """The window lies beside the image, whatever their sizes say."""
    target = CHIPS[chip]()
    if reason := available(target):
        pytest.skip(reason)
    rng = np.random.default_rng(1)
    w = Value("w", TensorType((4, 3, 3, 4), INT8), rng.integers(-9, 9, (4, 3, 3, 4)).astype(np.int8))
    op = Conv2D(window, epilogue=Requant(INT8, -3, -128, 127), x_zero=5)
    x = TensorType((1, 3, 3, 4), INT8)
    graph = single(op, x, w, *requant(rng, 4, float(op.reach(x, w.array).max()), 0))
    check(graph, target, ROWS[row], tmp_path, 1)


@pytest.mark.parametrize("row", ["conv_smlad", "depthwise_int8"])
def test_stack_of_assembly_is_reported(row: str, tmp_path: Path) -> None:
    """No less than what the emulator sees, with nothing else on the way that is only estimated."""
    target = CHIPS["cortex-m4"]()
    graph = case(np.random.default_rng(1), Window((3, 3)), (8, 8, 8 if row == "depthwise_int8" else 1), 0)
    compiled, taken = compile_with(graph, target, ROWS[row])
    assert taken
    _, result = run_on_target(compiled, tmp_path, feeds(graph)[0])
    objects = compile_sources(target, sorted(tmp_path.glob("*.c")), [tmp_path], tmp_path / "objects")
    known = objects.stack_bytes(f"{graph.name}_run")
    assert known is not None and result.stack_bytes is not None and result.stack_bytes <= known < HELPER_BYTES + 200


def test_nothing_but_padding(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    window = Window((3, 1), (1, 3), (1, 1, 1, 0))  # one column of outputs, left of the image
    graph = case(rng, window, (2, 2, 2), 1)
    x = Value("x", TensorType((1, 6, 1, 2), graph.inputs[0].type.dtype))
    op, parameters = graph.nodes[0].op, [v.array for v in graph.nodes[0].inputs[2:] if v is not None]
    graph = single(op, x.type, graph.nodes[0].input(1), *parameters)
    check(graph, CHIPS["cortex-m0plus"](), ROWS["depthwise_int8"], tmp_path, 1)


@pytest.mark.parametrize("chip", ["dsp", "cortex-m4"])
def test_pixels_one_by_one(chip: str, tmp_path: Path) -> None:
    """Without room for the halfwords of two pixels: of any number of channels and outputs, with any epilogue."""
    target = CHIPS[chip]()
    tight, rng = replace(target, memory=replace(target.memory, ram=8)), np.random.default_rng(3)
    sizes = [(c, o) for c in (1, 4, 7, 36, 66) for o in (1, 3, 8, 33) if c != o]
    graphs = [case(rng, Window(), (c, o, 1), i) for i, (c, o) in enumerate(sizes)]
    compiled, _ = compile_with(merge(graphs), tight, ROWS["conv_smlad"])
    calls = [c for c in compiled.program.calls if c.function.kernel == "dense_smlad"]
    assert len(calls) > len(graphs) // 3 and all(c.function.context["pixels"] > 1 for c in calls)
    check(merge(graphs), tight, ROWS["conv_smlad"], tmp_path, len(graphs) // 2)


@pytest.mark.parametrize("chip", ["dsp", "cortex-m4", "cortex-m55", "host", "vectors"])
def test_max_pool(chip: str, tmp_path: Path) -> None:
    windows = (*WINDOWS[:7], Window((3, 2), (2, 2), (2, 1, 2, 1), (2, 3)))
    graphs = [
        single(MaxPool(w), TensorType((1 + i % 2, 6, 7, c), (INT8, UINT8)[i % 2]))
        for i, (w, c) in enumerate((w, c) for w in windows for c in (9, 4, 12, 37, 80))
    ]
    check(merge(graphs), CHIPS[chip](), ROWS["max_pool_words"], tmp_path, len(graphs) * 4 // 5)


def test_bits_on_helium(tmp_path: Path) -> None:
    """The rows that compete for binary layers: counted in vectors, or as bytes ±1."""
    target = CHIPS["cortex-m55"]()
    if reason := available(target):
        pytest.skip(reason)
    rng = np.random.default_rng(9)
    graphs = []
    for (window, c), o in zip(((w, c) for w in WINDOWS[1:5] for c in (48, 288)), (5, 33) * 4, strict=True):
        shape = (o, *window.kernel, c)
        w = Value("w", TensorType(shape, BIT1), rng.random(shape) < 0.5)
        t = rng.integers(-20, 20, o).astype(np.int32)
        graphs.append(single(Conv2D(window, 1, Threshold(PM)), TensorType((1, 6, 7, c), BIT1), w, t))
    graphs.append(single(Conv2D(Window()), TensorType((1, 1, 1, 8448), BIT1), bits(rng, 5, 1, 1, 8448)))
    for row in ("conv_mve", "conv_bits"):
        check(merge(graphs), target, ROWS[row], tmp_path / row, len(graphs))


@pytest.mark.parametrize("weights", [BIT1, TERN])
def test_packed_weights_as_bytes_on_helium(weights: DType, tmp_path: Path) -> None:
    target = CHIPS["cortex-m55"]()
    if reason := available(target):
        pytest.skip(reason)
    rng, sizes = np.random.default_rng(11), ((3, 64, 1), (16, 12, 1), (21, 5, 1), (12, 16, 4), (2, 40, 1))
    given = [(window, channels) for window in WINDOWS for channels in sizes]
    graphs = [case(rng, window, channels, i, weights) for i, (window, channels) in enumerate(given) if i % 3 != 2]
    check(merge(graphs), target, ROWS["conv_mve"], tmp_path, len(graphs))


@pytest.mark.full
@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize(
    "row", ["conv_smlad", "conv_bytes", "conv_mve", "depthwise_int8", "depthwise_mve", "depthwise_channels"]
)
def test_sweep(row: str, chip: str, tmp_path: Path) -> None:
    target = CHIPS[chip]()
    if reason := available(target):
        pytest.skip(reason)
    check(merge(list(cases(DEPTHWISE if row.startswith("depthwise") else CHANNELS, 1))), target, ROWS[row], tmp_path, 0)


@pytest.mark.parametrize("k, value", [(516, 127), (517, 127), (518, 127), (1200, 127), (512, -128), (513, -128)])
def test_accumulator_limits(k: int, value: int, tmp_path: Path) -> None:
    """256 times a sum stays below 2**31 up to k = 517 products of 127 and 127 + 1."""
    shape = (9, 1, 1, k)
    w = Value("w", TensorType(shape, INT8), np.full(shape, value, np.int8))
    graph = single(Conv2D(Window()), TensorType((1, 1, 1, k), INT8), w)
    rows = single(Conv2D(Window()), TensorType((1, 1, 2, k), INT8), Value("v", w.type, w.array))
    check(merge([graph, rows]), CHIPS["dsp"](), ROWS["conv_smlad"], tmp_path, 2)


def test_upper_word_is_exact() -> None:
    """Whatever is found equals the definition for every sum."""
    rng = np.random.default_rng(5)
    found = split = 0
    for i in range(60):
        out = OUTS[i % 5]
        bias, multiplier, shift = requant(rng, 3, 2.0 ** rng.uniform(8, 15), i)
        low, high = np.full(3, -30_000), np.full(3, 30_000)
        upper = upper_word(out, bias, multiplier, shift, low, high)
        if upper is None:
            continue
        found += 1
        acc = np.arange(-30_000, 30_001)[:, None]
        v = acc + bias.astype(np.int64)
        got = (((v << upper.before) * upper.multiplier >> 32) + upper.add) >> upper.after
        want = out.apply(acc, bias, multiplier, shift)
        assert (np.clip(got, out.lo, out.hi) == want).all()
        if half := upper.halves:
            v = np.clip(v, -half.limit, half.limit) if half.limit else v
            m, low_bits = half.multiplier.astype(np.int64), 2**half.bits - 1
            parts = [v * (m >> half.bits), v * (m & low_bits)]
            total = parts[0] + (parts[1] >> half.bits) + half.add
            assert max(abs(p).max() for p in (*parts, total)) < 2**31
            assert (np.clip(total >> half.after, out.lo, out.hi) == want).all()
            split += 1
    assert found > 30 and split > 20
