"""Rows with computed indices, of order, accumulation and bits against the reference, bit for bit. Random indices reach
far outside: they must be moved inside alike."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from bitc import resources
from bitc.ir.dtypes import BOOL, FLOAT32, INT8, INT16, INT32, INT64, UINT8, UINT32, UINT64, DType
from bitc.ir.graph import Graph
from bitc.ir.types import TensorType
from bitc.ops import binary as b2
from bitc.ops import bits, trig, trig32
from bitc.ops import indexing as ix
from bitc.ops.linear import Conv2D
from bitc.ops.window import Window
from bitc.target import Target
from tests.kernels.harness import check, library_of, merge, portable, random_array, random_feeds, single
from tests.kernels.test_math32 import call, same_bits

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in cast")

TARGETS = {"host": lambda: Target.load("host"), "portable": portable}


def t(*shape: int, dtype: DType = FLOAT32) -> TensorType:
    return TensorType(shape, dtype)


def gathers() -> list[Graph]:
    graphs = []
    for d in (FLOAT32, INT8, BOOL, INT64):
        for i in (INT32, INT64):
            x = t(3, 4, 5, dtype=d)
            graphs += [single(ix.Take(a), x, t(2, 3, dtype=i)) for a in range(3)]
            graphs += [single(ix.Take(1), x, t(dtype=i)), single(ix.Take(0), t(7, dtype=d), t(1, dtype=i))]
            graphs += [single(ix.GatherElements(a), x, t(3, 4, 5, dtype=i)) for a in range(3)]
            graphs += [
                single(ix.GatherElements(1), x, t(2, 9, 5, dtype=i)),
                single(ix.GatherND(2), x, t(3, 4, 1, dtype=i)),
            ]
            graphs += [single(ix.GatherND(), x, t(2, 6, k, dtype=i)) for k in (1, 2, 3)]
            graphs += [single(ix.GatherND(1), x, t(3, 6, k, dtype=i)) for k in (1, 2)]
    return graphs


def scatters() -> list[Graph]:
    graphs = []
    for d in (FLOAT32, INT8, INT32, UINT64):
        for r in ix.REDUCTIONS:
            x = t(3, 4, 5, dtype=d)
            for a in range(3):
                graphs.append(single(ix.ScatterElements(a, r), x, t(3, 3, 2, dtype=INT64), t(3, 3, 2, dtype=d)))
            graphs.append(single(ix.ScatterND(r), x, t(6, 2, dtype=INT32), t(6, 5, dtype=d)))
            graphs.append(single(ix.ScatterND(r), x, t(2, 2, 3, dtype=INT64), t(2, 2, dtype=d)))
    return graphs


def orders() -> list[Graph]:
    graphs = []
    for d in (FLOAT32, INT8, UINT8, INT64):
        for largest in (False, True):
            graphs += [single(ix.ArgTop(a, k, largest), t(3, 7, 5, dtype=d)) for a in range(3) for k in (1, 2, 3)]
            graphs.append(single(ix.ArgTop(1, 7, largest), t(3, 7, 5, dtype=d)))
        for product in (False, True):
            for exclusive in (False, True):
                for reverse in (False, True):
                    graphs.append(single(ix.Cumulate(1, product, exclusive, reverse), t(3, 7, 5, dtype=d)))
        graphs.append(single(ix.Cumulate(0), t(1, dtype=d)))
    return graphs


def bitwise() -> list[Graph]:
    graphs = []
    for d in (INT8, UINT8, INT16, INT32, UINT32, INT64, UINT64):
        small = random_array(t(5, dtype=d), np.random.default_rng(0)) % d.carrier.type(70)
        for op in (bits.BitAnd(), bits.BitOr(), bits.BitXor(), b2.Pow()):
            graphs.append(single(op, t(3, 5, dtype=d), t(5, dtype=d)))
        for left in (False, True):
            graphs += [single(bits.Shift(left), t(3, 5, dtype=d), v) for v in (t(5, dtype=d), small, -small)]
        graphs.append(single(b2.Pow(), t(3, 5, dtype=d), small))
        graphs.append(single(bits.Invert(), t(3, 5, dtype=d)))
    for a, b in ((INT8, UINT8), (BOOL, UINT8), (INT32, FLOAT32), (FLOAT32, INT32), (FLOAT32, UINT32), (INT64, UINT64)):
        graphs.append(single(bits.BitCast(b), t(33, dtype=a)))
    return graphs


def trigonometric() -> list[Graph]:
    return [single(op(), t(3, 40)) for op in trig.Trigonometric.__subclasses__()]


def convolutions() -> list[Graph]:
    graphs = []
    for x, w in ((FLOAT32, FLOAT32), (INT8, INT8), (UINT8, INT8), (FLOAT32, INT8)):
        for group in (1, 2, 6):
            window = Window((3, 2), (2, 1), (1, 0, 1, 2), (1, 2))
            graphs.append(single(Conv2D(window, group), t(2, 7, 6, 6, dtype=x), t(6, 3, 2, 6 // group, dtype=w)))
        graphs.append(single(Conv2D(Window()), t(1, 3, 3, 5, dtype=x), t(3, 1, 1, 5, dtype=w)))
    return graphs


GROUPS = {
    f.__name__: f for f in (gathers, scatters, orders, bitwise, trigonometric, convolutions)
}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("group", GROUPS)
def test_group(target: str, group: str, tmp_path: Path) -> None:
    graph = merge(GROUPS[group]())
    feeds = random_feeds(graph)
    for array in feeds.values():
        if array.dtype.kind == "f" and array.size > 20 and group != "convolutions":
            array.reshape(-1)[[1, 3, 5, 7, 9]] = [0.0, -0.0, np.inf, -np.inf, np.nan]
        if array.dtype.kind == "i" and array.dtype.itemsize > 2 and array.size > 2:
            array.reshape(-1)[1:] %= 5  # most inside, a few far out
            array.reshape(-1)[2] = -2
    check(graph, TARGETS[target](), tmp_path, feeds)


FUNCTIONS = {
    "sin": (np.sin, 2.0), "cos": (np.cos, 2.0), "tan": (np.tan, 3.0), "asin": (np.arcsin, 3.0),
    "acos": (np.arccos, 3.0), "atan": (np.arctan, 3.0), "sinh": (np.sinh, 4.0), "cosh": (np.cosh, 4.0),
    "asinh": (np.arcsinh, 4.0), "acosh": (np.arccosh, 3.0), "atanh": (np.arctanh, 3.0),
}  # fmt: skip


@pytest.fixture(scope="module")
def lib(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("trig")
    lines = ['#include "bitc_trig.h"']
    for name in FUNCTIONS:
        lines.append(
            f"void {name}_all(const float *x, float *y, long n) "
            f"{{ for (long i = 0; i < n; i++) {{ y[i] = bitc_{name}f(x[i]); }} }}"
        )
    (folder / "m.c").write_text("\n".join(lines))
    return ctypes.CDLL(str(library_of(Target.load("host"), [folder / "m.c"], resources.runtime_c(), folder)))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_trigonometry(lib: ctypes.CDLL, name: str) -> None:
    rng = np.random.default_rng(0)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 0.5, -0.5, 1e-45, 1e38, -1e38, 1e10, 2.0**30]
    parts = [special, rng.uniform(-1, 1, 50_000), rng.standard_normal(50_000) * 10.0 ** rng.uniform(-8, 5, 50_000)]
    x = np.concatenate(parts).astype(np.float32)
    c = call(lib, name, x)
    assert same_bits(c, getattr(trig32, name)(x)).all()
    true, ulp = FUNCTIONS[name]
    with np.errstate(all="ignore"):
        exact = true(x.astype(np.float64))
        near = np.isfinite(exact.astype(np.float32)) & (np.abs(x) < 2.0**20)
        error = np.abs(c[near] - exact[near]) / np.spacing(np.abs(exact[near]).astype(np.float32))
    assert error.max() <= ulp, (x[near][error.argmax()], error.max())
    far = np.abs(x) >= 2.0**20
    assert same_bits(c[~near & ~far], exact[~near & ~far].astype(np.float32)).all()
    assert (np.isnan(c[far]) == np.isnan(exact[far])).all()
