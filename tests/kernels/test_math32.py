"""bitc_math.h and math32 give the same bits, and both are close to the true functions."""

from __future__ import annotations

import ctypes
import math

import numpy as np
import pytest

from bitc import resources
from bitc.ops import math32
from bitc.target import Target
from tests.kernels.harness import library_of

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in cast")

UNARY = {
    "exp": (np.exp, 1.01),
    "log": (np.log, 1.01),
    "tanh": (np.tanh, 2.0),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), 3.0),
    "erf": (np.vectorize(math.erf), 3.0),
    "sqrt": (np.sqrt, 0.501),
    "floor": (np.floor, 0.0),
    "ceil": (np.ceil, 0.0),
    "trunc": (np.trunc, 0.0),
    "round": (np.rint, 0.0),
}


@pytest.fixture(scope="module")
def lib(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("math")
    lines = ['#include "bitc_math.h"']
    for name in UNARY:
        lines.append(
            f"void {name}_all(const float *x, float *y, long n) "
            f"{{ for (long i = 0; i < n; i++) {{ y[i] = bitc_{name}f(x[i]); }} }}"
        )
    for name in ("pow", "fmod", "mod"):
        lines.append(
            f"void {name}_all(const float *x, const float *y, float *z, long n) "
            f"{{ for (long i = 0; i < n; i++) {{ z[i] = bitc_{name}f(x[i], y[i]); }} }}"
        )
    (folder / "m.c").write_text("\n".join(lines))
    return ctypes.CDLL(str(library_of(Target.load("host"), [folder / "m.c"], resources.runtime_c(), folder)))


def same_bits(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))


def call(lib: ctypes.CDLL, name: str, *arrays: np.ndarray) -> np.ndarray:
    out = np.empty_like(arrays[0])
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (*arrays, out)]
    getattr(lib, f"{name}_all")(*pointers, ctypes.c_long(out.size))
    return out


def samples(step: int) -> np.ndarray:
    specials = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 0.5, -0.5, 1.5, 2.5, 1e-45, -1e-45], np.float32)
    spread = np.arange(0, 1 << 32, step, np.uint64).astype(np.uint32).view(np.float32)
    dense = np.linspace(-110, 110, 300_001, dtype=np.float32)
    return np.concatenate([specials, spread, dense])


@pytest.mark.parametrize("name", UNARY)
def test_unary(lib: ctypes.CDLL, name: str) -> None:
    x = samples(99_991)
    c = call(lib, name, x)
    true, ulp = UNARY[name]
    with np.errstate(all="ignore"):
        exact = true(x.astype(np.float64))
        ours = getattr(math32, name)(x) if hasattr(math32, name) else true(x)
    assert same_bits(c, ours.astype(np.float32)).all()
    with np.errstate(all="ignore"):
        finite = np.isfinite(exact.astype(np.float32))
        error = np.abs(c[finite] - exact[finite]) / np.spacing(np.abs(exact[finite]).astype(np.float32))
    assert error.max() <= ulp, (x[finite][error.argmax()], error.max())
    assert same_bits(c[~finite], exact[~finite].astype(np.float32)).all()


def test_fmod(lib: ctypes.CDLL) -> None:
    rng = np.random.default_rng(0)
    x, y = np.exp(rng.normal(0, 20, (2, 200_000))).astype(np.float32) * rng.choice([-1, 1], (2, 200_000))
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 2, -3, 1e-45, -3e-45, 1e38], np.float32)
    sx, sy = (a.ravel() for a in np.meshgrid(special, special))
    x, y = np.concatenate([x, sx]).astype(np.float32), np.concatenate([y, sy]).astype(np.float32)
    with np.errstate(all="ignore"):
        assert same_bits(call(lib, "fmod", x, y), np.fmod(x, y)).all()
        assert same_bits(call(lib, "mod", x, y), np.mod(x, y)).all()


def test_pow(lib: ctypes.CDLL) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 3, 100_000), np.exp(rng.normal(0, 30, 100_000))]).astype(np.float32)
    y = np.where(rng.random(200_000) < 0.5, np.rint(rng.normal(0, 5, 200_000)), rng.normal(0, 5, 200_000))
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 2, -2, 3, -3, 0.5, -0.5, 1e30], np.float32)
    sx, sy = (a.ravel() for a in np.meshgrid(special, special))
    x, y = np.concatenate([x, sx]), np.concatenate([y.astype(np.float32), sy])
    c = call(lib, "pow", x, y)
    assert same_bits(c, math32.pow(x, y)).all()
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.float64), y.astype(np.float64))
        finite = np.isfinite(exact.astype(np.float32))
        error = np.abs(c[finite] - exact[finite]) / np.spacing(np.abs(exact[finite]).astype(np.float32))
    assert error.max() <= 1.0
    odd = ~same_bits(c[~finite], exact[~finite].astype(np.float32))
    assert not odd.any(), list(zip(x[~finite][odd], y[~finite][odd], c[~finite][odd], strict=True))
