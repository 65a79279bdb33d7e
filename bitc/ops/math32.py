"""float32 functions step by step: the same text as ``runtime_c/bitc_math.h``, so that the oracle and every target agree
to the last bit. Change both. Each function takes and returns float32 arrays."""

from __future__ import annotations

import numpy as np

from bitc.ir.graph import Array

_F = np.float32


def _horner(x: Array, coefficients: tuple[float, ...]) -> Array:
    """``(((c0 * x + c1) * x + c2) …) * x + cn``, each step rounded."""
    p: Array = x * x.dtype.type(coefficients[0])
    for c in coefficients[1:-1]:
        p = (p + x.dtype.type(c)) * x
    return np.asarray(p + x.dtype.type(coefficients[-1]))


def _pow2i(n: Array) -> Array:
    return np.asarray(((n + 127).astype(np.uint32) << np.uint32(23)).view(_F))


def exp(x: Array) -> Array:
    with np.errstate(all="ignore"):
        x = np.asarray(x, _F)
        safe = np.where(np.isfinite(x), np.clip(x, _F(-105), _F(89)), _F(0))
        n: Array = np.rint(safe * _F(1.44269504))
        r: Array = safe - n * _F(0.693359375)
        r = r - n * _F(-2.12194440e-4)
        p = _horner(
            r, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
        )
        p = p * (r * r) + r + _F(1)
        e = n.astype(np.int32)
        h = np.trunc(e / 2).astype(np.int32)
        p = p * _pow2i(h) * _pow2i(e - h)
        p = np.where(x > _F(88.8), _F(np.inf), np.where(x < _F(-104), _F(0), p))
        return np.where(np.isnan(x), x, p).astype(_F)


_LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
    2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip


def log(x: Array) -> Array:
    with np.errstate(all="ignore"):
        x = np.asarray(x, _F)
        tiny = x < _F(1.17549435e-38)
        scaled = np.where(tiny, x * _F(8388608), x)
        safe = np.where((scaled > 0) & np.isfinite(scaled), scaled, _F(1))
        u = np.ascontiguousarray(safe).view(np.uint32) - np.uint32(0x3F3504F3)
        e = (u >> np.uint32(23)).astype(np.int32) - np.where(u & np.uint32(0x80000000), 512, 0) - np.where(tiny, 23, 0)
        m = ((u & np.uint32(0x007FFFFF)) + np.uint32(0x3F3504F3)).view(_F)
        f = e.astype(_F)
        z = m - _F(1)
        q = z * z
        p = _horner(z, _LOG) * z * q
        p = p + f * _F(-2.12194440e-4)
        p = p - q * _F(0.5)
        y = (z + p) + f * _F(0.693359375)
        y = np.where(x == 0, _F(-np.inf), np.where(x == np.inf, x, y))
        return np.where(np.isnan(x) | (x < 0), _F(np.nan), y).astype(_F)


def tanh(x: Array) -> Array:
    with np.errstate(all="ignore"):
        x = np.asarray(x, _F)
        a = np.abs(x)
        z = x * x
        p = _horner(z, (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1))
        small = p * z * a + a
        large = _F(1) - _F(2) / (exp(a + a) + _F(1))
        r = np.where(a < _F(0.625), small, np.where(a < _F(9.1), large, _F(1)))
        return np.where(np.isnan(x), x, np.copysign(r, x)).astype(_F)


def sigmoid(x: Array) -> Array:
    with np.errstate(all="ignore"):
        x = np.asarray(x, _F)
        e = exp(-np.abs(x))
        d = e + _F(1)
        return np.where(x < 0, e / d, _F(1) / d).astype(_F)


_ERF_SMALL = (
    7.889119297e-05, -8.020841051e-04, 5.189535208e-03, -2.685444430e-02, 1.128360033e-01, -3.761262596e-01,
    1.128379107e00,
)  # fmt: skip
_ERF_LARGE = (
    -2.168685023e-05, 4.413363640e-04, -4.204561934e-03, 2.520825714e-02, -1.084185764e-01, -6.332198977e-01,
    -1.129578471e00, 1.880402269e-04,
)  # fmt: skip


def erf(x: Array) -> Array:
    with np.errstate(all="ignore"):
        x = np.asarray(x, _F)
        a = np.abs(x)
        small = _horner(x * x, _ERF_SMALL) * a
        large = _F(1) - exp(_horner(a, _ERF_LARGE))
        r = np.where(a <= 1, small, np.where(a < 4, large, _F(1)))
        return np.where(np.isnan(x), x, np.copysign(r, x)).astype(_F)


def sqrt(x: Array) -> Array:
    """Correctly rounded, as IEEE 754 asks of hardware."""
    with np.errstate(all="ignore"):
        return np.sqrt(np.asarray(x, _F))


def pow(x: Array, y: Array) -> Array:
    """C99's pow, computed in float64 and rounded."""
    with np.errstate(all="ignore"):
        x, y = np.broadcast_arrays(np.asarray(x, _F), np.asarray(y, _F))
        whole = np.trunc(y) == y
        odd = whole & (np.abs(y) < 16777216) & (np.where(np.abs(y) < 16777216, y, 0).astype(np.int32) & 1).astype(bool)
        sign = np.where(odd, x, _F(1))
        a = np.abs(x)
        special = (a == 0) | np.isinf(a)
        limit = np.where((a == 0) == (y < 0), _F(np.inf), _F(0))
        general = _pow_positive(np.where(special | np.isnan(a), _F(1), a), np.where(np.isnan(y), _F(1), y))
        r = np.copysign(np.where(special, limit, np.where(a == 1, _F(1), general)), sign)
        r = np.where((x < 0) & ~whole & ~special, _F(np.nan), r)
        r = np.where(np.isnan(x) | np.isnan(y), _F(np.nan), r)
        return np.where((y == 0) | (x == 1), _F(1), r).astype(_F)


def _pow_positive(a: Array, y: Array) -> Array:
    d = np.ascontiguousarray(a.astype(np.float64))
    u = d.view(np.uint64) - np.uint64(0x3FE6A09E00000000)
    e = (u >> np.uint64(52)).astype(np.int64) - np.where(u >> np.uint64(63), 4096, 0)
    m = ((u & np.uint64(0x000FFFFFFFFFFFFF)) + np.uint64(0x3FE6A09E00000000)).view(np.float64)
    f = (m - 1.0) / (m + 1.0)
    z = f * f
    p = z / 15.0
    for c in (13.0, 11.0, 9.0, 7.0, 5.0, 3.0):
        p = (p + 1.0 / c) * z
    p = (p + 1.0) * f
    p = p + p
    t = (e.astype(np.float64) * 0.69314718055994531 + p) * y.astype(np.float64)
    t = np.where(t > 200.0, 200.0, np.where(t < -200.0, -200.0, t))
    n = t * 1.4426950408889634
    i = np.where(n < 0, n - 0.5, n + 0.5).astype(np.int64)
    r = t - i.astype(np.float64) * 0.69314718055994531
    p = np.ones_like(r)
    for k in range(11, 0, -1):
        p = p * r / float(k) + 1.0
    scale = ((i + 1023).astype(np.uint64) << np.uint64(52)).view(np.float64)
    return np.asarray((p * scale).astype(_F))
