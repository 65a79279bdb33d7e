"""Which weights take few values, and the codes and scales they stand for.

    w[o, ...] = alpha[o] * (1 - 2 * bit[o, ...])                                two-valued; bit 1 means -alpha
    w[o, ...] = alpha[o] * q[o, ...]                                            q in -n ... n; ternary for n = 1
    w[o, ...] = sum_i a_i[o] * (1 - 2 * bit_i[o, ...])                          residual: two to four bases
    w[o, ...] = alpha[o] * trit[o, ...] + beta[o] * q[o, ...]                   partially binary: few q are not 0

Exporters leave these values only to about 1e-5 relative (a straight-through estimator folded in floats: ternary weights
come with 4 to 6 distinct values), so weights within `tolerance`, relative to the largest, are snapped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitc.ir import binary_sums
from bitc.ir.graph import Array


@dataclass(frozen=True)
class BinaryWeights:
    """`bits` bool like the weights; `alpha` float32 ``[O]``, not negative."""

    bits: Array
    alpha: Array


@dataclass(frozen=True)
class GridWeights:
    """`codes` int8 like the weights, -`levels` ... `levels`; `alpha` float32 ``[O]``, not negative."""

    codes: Array
    alpha: Array

    @property
    def levels(self) -> int:
        return int(np.abs(self.codes).max(initial=0))


@dataclass(frozen=True)
class ResidualWeights:
    """The sum of binary kernels; where a channel needs fewer of them, the alphas of the last ones are 0."""

    bases: tuple[BinaryWeights, ...]


@dataclass(frozen=True)
class PartialWeights:
    """Bits, and few weights of eight bits in their stead: where the codes of `rest` are not 0, those of `bits` are."""

    bits: GridWeights
    rest: GridWeights


def two_valued(w: Array, tolerance: float) -> BinaryWeights | str:
    """Weights ``[O, ...]`` as bits and scales, or the reason why they are not two-valued. A kernel of all zeros is
    taken as bits with alpha 0."""
    if not np.isfinite(w).all():
        return "weights contain NaN or infinity"
    rows = w.reshape(len(w), -1)
    low, high = np.abs(rows).min(axis=1).astype(np.float64), np.abs(rows).max(axis=1).astype(np.float64)
    if not high.any():
        return "all weights are zero"
    alpha = high
    if (low != high).any():  # exact weights do not move by the rounding of a mean
        alpha = np.where(low == high, high, np.abs(rows).mean(axis=1, dtype=np.float64))
    bad = np.maximum(high - alpha, alpha - low) > tolerance * alpha
    if bad.any():
        worst = int(np.argmax(bad))
        values = np.unique(rows[worst])
        if (rows[worst] == 0).any() and len(values) <= 3:
            return f"weights are three-valued (output channel {worst}: {_list(values)})"
        return f"weights are not two-valued (output channel {worst} has {len(values)} values)"
    return BinaryWeights(w < 0, alpha.astype(np.float32))


def on_grid(w: Array, tolerance: float, most: int) -> GridWeights | None:
    """Finite weights ``[O, ...]`` as small integers times a scale per channel, of the fewest levels; None if some
    channel needs more than `most`."""
    if len(w) > 1 and on_grid(w[:1], tolerance, most) is None:
        return None  # real weights are told by their first channel
    rows = w.reshape(len(w), -1).astype(np.float64)
    largest = np.abs(rows).max(axis=1)
    codes, alpha, open_rows = np.zeros(rows.shape, np.int8), np.zeros(len(rows)), largest > 0
    for n in range(1, most + 1):
        step = np.where(open_rows, largest, 1) / n
        near = np.rint(rows / step[:, None])
        fits = open_rows & (np.abs(rows - near * step[:, None]).max(axis=1) <= tolerance * largest)
        codes[fits], open_rows = near[fits], open_rows & ~fits
        exact = (rows == near * step[:, None]).all(axis=1)  # exact weights do not move by the rounding of a mean
        mean = np.abs(rows * near).sum(axis=1) / np.maximum((near * near).sum(axis=1), 1)
        alpha = np.where(fits, np.where(exact, step, mean), alpha)
    return None if open_rows.any() else GridWeights(codes.reshape(w.shape), alpha.astype(np.float32))


def residual(w: Array, tolerance: float) -> ResidualWeights | None:
    """Finite weights ``[O, ...]`` as the fewest binary kernels; None if they are no sum of up to `binary_sums.MOST`."""
    if len(w) > 1 and residual(w[:1], tolerance) is None:
        return None
    rows = w.reshape(len(w), -1).astype(np.float64)
    sizes = [binary_sums.magnitudes(row, tolerance) for row in rows]
    found = [None if m is None else binary_sums.scales(m, tolerance) for m in sizes]
    count = max(0 if a is None else len(a) for a in found)
    alphas, negative = np.zeros((count, len(rows))), np.zeros((count, *rows.shape), np.bool_)
    for o, (row, a) in enumerate(zip(rows, found, strict=True)):
        if a is None:
            return None
        signs = binary_sums.signs(row, a)
        alphas[: len(a), o] = np.linalg.lstsq(signs.T, row, rcond=None)[0]
        negative[:, o] = signs[0] < 0
        negative[: len(a), o] = signs < 0
    shares = zip(negative, alphas.astype(np.float32), strict=True)
    return ResidualWeights(tuple(BinaryWeights(bits.reshape(w.shape), alpha) for bits, alpha in shares))


def partial(w: Array, tolerance: float, most: float) -> PartialWeights | None:
    """Finite weights ``[O, ...]`` of which all but a share of `most` have one magnitude per channel, and the others lie
    on a grid of eight bits; None if they do not."""
    if len(w) > 1 and partial(w[:1], tolerance, most) is None:
        return None
    rows = w.reshape(len(w), -1).astype(np.float64)
    size = np.abs(rows)
    alpha = np.median(size, axis=1, keepdims=True)  # the magnitude of more than half
    binary = np.abs(size - alpha) <= tolerance * alpha
    if binary.mean() < 1 - most or not alpha.all():
        return None
    alpha = np.where((size == alpha).sum(axis=1, keepdims=True) == binary.sum(axis=1, keepdims=True), alpha,
                     _mean(size, binary))  # fmt: skip  # exact weights do not move by the rounding of a mean
    rest = on_grid(np.where(binary, 0, rows).astype(np.float32), tolerance, 127)
    if rest is None:
        return None
    trits = np.where(binary, np.sign(rows), 0).astype(np.int8)
    bits = GridWeights(trits.reshape(w.shape), alpha.reshape(-1).astype(np.float32))
    return PartialWeights(bits, GridWeights(rest.codes.reshape(w.shape), rest.alpha))


def _mean(size: Array, where: Array) -> Array:
    """Mean of each row's elements chosen by `where`."""
    mean: Array = (size * where).sum(axis=1, keepdims=True) / np.maximum(where.sum(axis=1, keepdims=True), 1)
    return mean


def _list(values: Array) -> str:
    return ", ".join(f"{v:g}" for v in values)


@dataclass(frozen=True)
class IntegerWeights:
    """``scale * codes``: int8 where that holds them, else int16; `scale` has one element or one per output."""

    codes: Array
    scale: Array


def integers(w: Array) -> IntegerWeights | None:
    """Weights ``[O, ...]`` as integers times a float32 scale, of all of them or of each output; None if float32 weights
    are on no such grid of 8 bits, or integers take more than 16."""
    if w.dtype.kind in "iu":
        for kind in (np.int8, np.int16):
            if np.can_cast(w.dtype, kind) or (np.iinfo(kind).min <= w.min() and w.max() <= np.iinfo(kind).max):
                return IntegerWeights(w.astype(kind), np.ones(1, np.float32))
        return None
    rows = w.reshape(len(w), -1).astype(np.float64)
    if not np.isfinite(rows).all() or not rows.any():
        return None
    whole = _grid(rows.reshape(1, -1))
    found = whole if whole is not None else _grid(rows)
    if found is None:
        return None
    scale = np.where(found > 0, found, 1.0)
    codes = np.rint(rows / scale[:, None])
    kind = np.int8 if codes.min() > -129 and codes.max() < 128 else np.int16
    return IntegerWeights(codes.astype(kind).reshape(w.shape), scale.astype(np.float32))


def _grid(rows: Array) -> Array | None:
    """The largest step per row of which all its elements are multiples, up to float32 rounding; 0 for rows of zeros;
    None if some row needs more than 255 steps."""
    largest = np.abs(rows).max(axis=1)
    step, unknown = np.zeros(len(rows)), largest > 0
    few = rows[:, :64]  # enough to tell that a row is no multiple
    for n in range(1, 256):
        if not unknown.any():
            break
        at = np.flatnonzero(unknown)
        at = at[_multiples(few[at], largest[at] / n)]
        at = at[_multiples(rows[at], largest[at] / n)]
        step[at], unknown[at] = largest[at] / n, False
        if n == 128 and len(rows) > 1 and not step.any():
            return None  # real weights
    return None if unknown.any() else step


def _multiples(rows: Array, step: Array) -> Array:
    """Rows whose elements are multiples of their step. Rounding of the step and of the element to float32 moves the
    quotient q by at most |q| * 2**-23."""
    q = rows / step[:, None]
    near = np.rint(q)
    return np.asarray((np.abs(q - near) <= np.abs(near) * 2.0**-22).all(axis=1))
