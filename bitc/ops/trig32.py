"""Trigonometric and hyperbolic functions of float32 step by step: the same text as ``runtime_c/bitc_trig.h``. Change
both. Each function takes and returns float32 arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bitc.ir.graph import Array
from bitc.ops import math32

_F = np.float32
_NAN = _F(np.nan)


def _quiet(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """On float32, without warnings."""

    def run(x: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(function(np.asarray(x, _F)), _F)

    run.__doc__ = function.__doc__
    return run


def _poly(z: Array, *coefficients: float) -> Array:
    """``(c0 * z + c1) * z + …``, each step rounded."""
    p: Array = z * _F(coefficients[0])
    for c in coefficients[1:-1]:
        p = (p + _F(c)) * z
    return np.asarray(p + _F(coefficients[-1]))


def _quadrant(x: Array) -> tuple[Array, Array]:
    near = np.abs(x) < _F(1073741824)
    d = np.where(near, x, _F(0)).astype(np.float64)
    n = d * 0.63661977236758138
    n = (n + 6755399441055744.0) - 6755399441055744.0
    d = d - n * 1.57079632673412561417
    d = d - n * 6.07710050650619224932e-11
    return np.where(near, d.astype(_F), x - x), n.astype(np.int32) & 3


def _sin_near(r: Array) -> Array:
    z = r * r
    return np.asarray(_poly(z, -1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1) * z * r + r)


def _cos_near(r: Array) -> Array:
    z = r * r
    p = _poly(z, 2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2) * z * z
    return np.asarray(p - z * _F(0.5) + _F(1))


@_quiet
def sin(x: Array) -> Array:
    r, q = _quadrant(x)
    y = np.where(q & 1, _cos_near(r), _sin_near(r))
    return np.where(q & 2, -y, y)


@_quiet
def cos(x: Array) -> Array:
    r, q = _quadrant(x)
    y = np.where(q & 1, _sin_near(r), _cos_near(r))
    return np.where((q + 1) & 2, -y, y)


@_quiet
def tan(x: Array) -> Array:
    r, q = _quadrant(x)
    s, c = _sin_near(r), _cos_near(r)
    return np.where(q & 1, -(c / s), s / c)


def _asin_near(a: Array) -> Array:
    z = a * a
    p = _poly(z, 4.2163199048e-2, 2.4181311049e-2, 4.5470025998e-2, 7.4953002686e-2, 1.6666752422e-1)
    return np.asarray(p * z * a + a)


@_quiet
def asin(x: Array) -> Array:
    a = np.abs(x)
    r = _asin_near(math32.sqrt((_F(1) - a) * _F(0.5)))
    large = _F(1.57079637) - (r + r)
    y = np.where(a > _F(0.5), large, _asin_near(a))
    return np.where(a <= 1, np.copysign(y, x), _NAN)


@_quiet
def acos(x: Array) -> Array:
    a = np.abs(x)
    r = _asin_near(math32.sqrt((_F(1) - a) * _F(0.5)))
    r = r + r
    large = np.where(x < 0, _F(3.14159274) - r, r)
    s = _asin_near(a)
    small = np.where(x < 0, _F(1.57079637) + s, _F(1.57079637) - s)
    return np.where(a <= 1, np.where(a > _F(0.5), large, small), _NAN)


@_quiet
def atan(x: Array) -> Array:
    a = np.abs(x)
    far, middle = a > _F(2.41421366), a > _F(0.414213568)
    y = np.where(far, _F(1.57079637), np.where(middle, _F(0.785398185), _F(0)))
    t = np.where(far, _F(-1) / a, np.where(middle, (a - _F(1)) / (a + _F(1)), a))
    z = t * t
    p = _poly(z, 8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1) * z * t + t
    return np.where(np.isnan(x), x, np.copysign(y + p, x))


def _half_exp(a: Array) -> Array:
    """exp(a) / 2, which overflows no sooner than its value."""
    e = math32.exp(a * _F(0.5))
    return e * _F(0.5) * e


@_quiet
def sinh(x: Array) -> Array:
    a = np.abs(x)
    z = x * x
    small = _poly(z, 2.03721912945e-4, 8.33028376239e-3, 1.66667160211e-1) * z * x + x
    t = _half_exp(a)
    return np.where(a < 1, small, np.copysign(t - _F(0.25) / t, x))


@_quiet
def cosh(x: Array) -> Array:
    t = _half_exp(np.abs(x))
    return t + _F(0.25) / t


@_quiet
def asinh(x: Array) -> Array:
    a = np.abs(x)
    z = x * x
    small = _poly(z, 2.0122003309e-2, -4.2699340972e-2, 7.4847586088e-2, -1.6666288134e-1) * z * a + a
    large = math32.log(a) + _F(0.693147182)
    middle = math32.log(math32.sqrt(a * a + _F(1)) + a)
    r = np.where(a < _F(0.5), small, np.where(a > 1500, large, middle))
    return np.where(np.isnan(x), x, np.copysign(r, x))


@_quiet
def acosh(x: Array) -> Array:
    z = x - _F(1)
    p = _poly(z, 1.7596881071e-3, -7.5272886713e-3, 2.6454905019e-2, -1.1784741703e-1, 1.4142135263)
    near = p * math32.sqrt(z)
    large = math32.log(x) + _F(0.693147182)
    middle = math32.log(math32.sqrt((x + _F(1)) * z) + x)
    return np.where(x >= 1, np.where(x > 1500, large, np.where(z < _F(0.5), near, middle)), _NAN)


@_quiet
def atanh(x: Array) -> Array:
    a = np.abs(x)
    z = x * x
    p = _poly(z, 1.81740078349e-1, 8.24370301058e-2, 1.46691431730e-1, 1.99782164500e-1, 3.33337300303e-1)
    small = p * z * x + x
    large = np.copysign(math32.log((_F(1) + a) / (_F(1) - a)) * _F(0.5), x)
    return np.where(a <= 1, np.where(a < _F(0.5), small, large), _NAN)
