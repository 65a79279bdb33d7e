"""Importers of einsum, determinants, Fourier transforms and column images, as compositions."""

from __future__ import annotations

from math import prod

import numpy as np

from bitc.frontend import fold
from bitc.frontend.context import Context, Refused, Table
from bitc.frontend.movement import reshaped, sliced
from bitc.ir import Value
from bitc.ir.graph import Array
from bitc.ops import binary as b
from bitc.ops.linear import MatMul
from bitc.ops.movement import Gather, Pad, Transpose
from bitc.ops.reduce import ReduceSum

Labels = list[str]


def einsum(ctx: Context) -> Value:
    """Operands are joined from left to right; each join is a product of matrices over the labels that end there."""
    operands, output = _parse(ctx)
    values = [_prepared(ctx, v, labels) for v, labels in operands]
    sizes: dict[str, int] = {}
    for v, labels in values:
        for label, size in zip(labels, v.shape, strict=True):
            if sizes.setdefault(label, size) != size:
                if 1 not in (sizes[label], size):
                    raise ctx.invalid(f"label {label!r} is {sizes[label]} and {size}")
                sizes[label] = max(sizes[label], size)
    if not set(output) <= set(sizes) or len(set(output)) < len(output):
        raise ctx.invalid(f"the output {''.join(output)!r} does not follow from the operands")
    values = [_without_units(ctx, v, labels, sizes) for v, labels in values]
    value, labels = values[0]
    for i, (other, theirs) in enumerate(values[1:], 1):
        needed = set(output) | {x for _, later in values[i + 1 :] for x in later}
        value, labels = _joined(ctx, (value, labels), (other, theirs), needed)
    value, labels = _summed(ctx, value, labels, set(output))
    missing = [x for x in output if x not in labels]  # only of length 1
    value = reshaped(ctx, value, (*value.shape, *[1] * len(missing)))
    return _ordered(ctx, value, [*labels, *missing], output)


def _parse(ctx: Context) -> tuple[list[tuple[Value, Labels]], Labels]:
    """Operands with their labels, and those of the output; axes of an ellipsis get labels of their own."""
    equation = ctx.attrs.str_("equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(ctx.inputs):
        raise ctx.invalid(f"{equation!r} has {len(terms)} terms for {len(ctx.inputs)} operands")
    operands, hidden = [], 0
    for i, term in enumerate(terms):
        value = ctx.number(i)
        count = value.type.rank - len(term.replace("...", ""))
        if count < 0 or (count and "..." not in term):
            raise ctx.invalid(f"{term!r} does not fit {value.type}")
        hidden = max(hidden, count)
        operands.append((value, _labels(term, count)))
    if arrow:
        return operands, _labels(right, hidden)
    names = left.replace("...", "").replace(",", "")
    once = sorted(x for x in set(names) if names.count(x) == 1)
    return operands, _labels(("..." if "..." in left else "") + "".join(once), hidden)


def _labels(term: str, hidden: int) -> Labels:
    before, dots, after = term.partition("...")
    return [*before, *([f".{hidden - i}" for i in range(hidden)] if dots else []), *after]


def _prepared(ctx: Context, v: Value, labels: Labels) -> tuple[Value, Labels]:
    """Repeated labels of one operand become one axis, the diagonal."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            size = v.shape[first]
            if v.shape[second] != size:
                raise ctx.invalid(f"label {label!r} is {size} and {v.shape[second]}")
            rest = [a for a in range(len(labels)) if a not in (first, second)]
            moved = ctx.emit(Transpose((*rest, first, second)), v)
            flat = reshaped(ctx, moved, (*moved.shape[:-2], size * size))
            v = ctx.emit(Gather(len(rest)), flat, ctx.const(np.arange(size, dtype=np.int64) * (size + 1)))
            labels = [*(labels[a] for a in rest), label]
    return v, labels


def _without_units(ctx: Context, v: Value, labels: Labels, sizes: dict[str, int]) -> tuple[Value, Labels]:
    """Axes of length 1 left out: they broadcast, or multiply by one."""
    kept = [(x, d) for x, d in zip(labels, v.shape, strict=True) if d != 1]
    return reshaped(ctx, v, [d for _, d in kept]), [x for x, _ in kept]


def _summed(ctx: Context, v: Value, labels: Labels, needed: set[str]) -> tuple[Value, Labels]:
    axes = tuple(a for a, x in enumerate(labels) if x not in needed)
    return (ctx.emit(ReduceSum(axes, False), v) if axes else v), [x for x in labels if x in needed]


def _ordered(ctx: Context, v: Value, labels: Labels, wanted: Labels) -> Value:
    perm = tuple(labels.index(x) for x in wanted)
    return v if perm == tuple(range(len(perm))) else ctx.emit(Transpose(perm), v)


def _joined(ctx: Context, a: tuple[Value, Labels], c: tuple[Value, Labels], needed: set[str]) -> tuple[Value, Labels]:
    """The product of two operands, summed over the labels that nothing needs afterwards."""
    (x, left), (y, right) = (_summed(ctx, v, own, needed | set(other)) for v, own, other in ((*a, c[1]), (*c, a[1])))
    batch = [s for s in left if s in right and s in needed]
    ending = [s for s in left if s in right and s not in needed]
    rows, columns = [s for s in left if s not in right], [s for s in right if s not in left]
    x, y = _ordered(ctx, x, left, batch + rows + ending), _ordered(ctx, y, right, batch + ending + columns)
    n, r = len(batch), len(batch) + len(rows)
    shape = (*x.shape[:r], *y.shape[n + len(ending) :])
    outer, count, inner, width = prod(x.shape[:n]), prod(x.shape[n:r]), prod(x.shape[r:]), prod(shape[r:])
    p = reshaped(ctx, x, (outer, count, inner))
    q = reshaped(ctx, y, (outer, inner, width))
    product = ctx.emit(MatMul() if ending else b.Mul(), p, q)
    return reshaped(ctx, product, shape), batch + rows + columns


def det(ctx: Context) -> Value:
    """Determinants of the last two axes, by the first row."""
    x = ctx.floats()
    if x.type.rank < 2 or x.shape[-1] != x.shape[-2]:
        raise ctx.invalid(f"a determinant of {x.type}")
    if x.shape[-1] > 4:
        raise Refused(f"a determinant of {x.shape[-1]} rows", "only up to 4 rows are supported")
    found = _det(ctx, x)
    return reshaped(ctx, found, x.shape[:-2])


def _det(ctx: Context, x: Value) -> Value:
    size = x.shape[-1]
    if size == 1:
        return x
    whole = [(0, d, 1) for d in x.shape[:-2]]
    total: Value | None = None
    for column in range(size):
        factor = sliced(ctx, x, [*whole, (0, 1, 1), (column, column + 1, 1)])
        others = [c for c in range(size) if c != column]
        below = sliced(ctx, x, [*whole, (1, size, 1), (0, size, 1)])
        minor = _det(ctx, ctx.emit(Gather(x.type.rank - 1), below, ctx.const(np.array(others, np.int64))))
        term = ctx.emit(b.Mul(), factor, minor)
        total = term if total is None else ctx.emit(b.Sub() if column % 2 else b.Add(), total, term)
    assert total is not None
    return total


def fourier(length: int, complex_in: bool, onesided: bool, inverse: bool) -> Array:
    """The matrix of a transform of `length`, ``[inputs * parts, outputs * parts]`` with real and imaginary part side by
    side; its rows are the transforms of unit vectors."""
    if inverse and onesided:  # from the first half of a spectrum to reals
        bins = length // 2 + 1
        units = np.concatenate([np.eye(bins), 1j * np.eye(bins)], 1).reshape(2 * bins, bins)
        return np.asarray(np.fft.irfft(units, length, axis=1), np.float32)
    units = np.eye(length) + 0j
    if complex_in:
        units = np.stack([np.eye(length) + 0j, 1j * np.eye(length)], 1).reshape(2 * length, length)
    found = np.fft.ifft(units, axis=1) if inverse else np.fft.fft(units, axis=1)
    found = found[:, : length // 2 + 1] if onesided else found
    return np.asarray(np.stack([found.real, found.imag], 2).reshape(len(units), -1), np.float32)


def _transformed(ctx: Context, x: Value, length: int, onesided: bool, inverse: bool) -> Value:
    """The transform of the second to last axis of x ``[..., n, 1 or 2]``, padded with zeros or cut to `length`."""
    parts, rows = x.shape[-1], length // 2 + 1 if inverse and onesided else length
    if parts not in (1, 2) or length < 1 or (inverse and onesided and parts == 1):
        raise ctx.invalid(f"a transform of length {length} of {x.type}")
    if x.shape[-2] > rows:
        x = sliced(ctx, x, [*((0, d, 1) for d in x.shape[:-2]), (0, rows, 1), (0, parts, 1)])
    used = x.shape[-2] * parts
    matrix = fourier(length, parts == 2, onesided, inverse)[:used]
    y = ctx.emit(MatMul(), reshaped(ctx, x, (*x.shape[:-2], used)), ctx.const(matrix))
    out = 1 if inverse and onesided else 2
    return reshaped(ctx, y, (*y.shape[:-1], y.shape[-1] // out, out))


def dft(ctx: Context) -> Value:
    """The axis is an attribute before opset 20, an input after."""
    x = ctx.floats()
    rank = x.type.rank
    axis = ctx.attrs.int_("axis", 1) if ctx.opset < 20 else -2
    if ctx.opset >= 20 and ctx.optional(2) is not None:
        axis = int(ctx.array(2, "the axis").reshape(-1)[0])
    axis = ctx.axis(axis, rank)
    if axis == rank - 1:
        raise ctx.invalid("the last axis holds real and imaginary parts")
    onesided, inverse = ctx.attrs.flag("onesided"), ctx.attrs.flag("inverse")
    length = x.shape[axis]
    if ctx.optional(1) is not None:
        length = int(ctx.array(1, "the length").reshape(-1)[0])
    elif inverse and onesided:
        length = 2 * (length - 1)
    perm = tuple(a for a in range(rank) if a not in (axis, rank - 1))
    order = (*perm, axis, rank - 1)
    y = _transformed(ctx, ctx.emit(Transpose(order), x), length, onesided, inverse)
    return ctx.emit(Transpose(tuple(order.index(a) for a in range(rank))), y)


def stft(ctx: Context) -> Value:
    """Frames of the signal ``[batch, length, 1 or 2]`` times the window, each transformed."""
    x, step = ctx.floats(), int(ctx.array(1, "the step of frames").reshape(-1)[0])
    window = ctx.optional(2)
    if ctx.optional(3) is not None:
        length = int(ctx.array(3, "the length of frames").reshape(-1)[0])
    elif window is not None:
        length = window.shape[0]
    else:
        length = x.shape[1]
    x = reshaped(ctx, x, (*x.shape, 1)) if x.type.rank == 2 else x
    if x.type.rank != 3 or step < 1 or not 1 <= length <= x.shape[1] or (window and window.shape != (length,)):
        raise ctx.invalid(f"frames of {length} with step {step} of {x.type}")
    starts = np.arange((x.shape[1] - length) // step + 1) * step
    frames = ctx.emit(Gather(1), x, ctx.const(starts[:, None] + np.arange(length)))
    if window is not None:
        frames = ctx.emit(b.Mul(), frames, reshaped(ctx, window, (length, 1)))
    return _transformed(ctx, frames, length, ctx.attrs.flag("onesided", True), inverse=False)


def mel_weight_matrix(ctx: Context) -> list[Value]:
    """A constant, since all its inputs are numbers that say its shape."""
    for i in range(5):
        ctx.array(i, "a number of the mel matrix")
    ctx.attrs.int_("output_datatype", 1)
    return fold.evaluate(ctx, ctx.opset)


def col2im(ctx: Context) -> Value:
    """Columns ``[N, C * block, L]`` to images: each pixel is the sum of the entries that blocks have put there."""
    x = ctx.floats()
    image, block = ctx.ints(1, "the shape of the image"), ctx.ints(2, "the shape of the blocks")
    axes = len(image)
    strides = ctx.attrs.ints("strides") or (1,) * axes
    dilations = ctx.attrs.ints("dilations") or (1,) * axes
    pads = ctx.attrs.ints("pads") or (0,) * 2 * axes
    if not axes == len(block) == len(strides) == len(dilations) == len(pads) / 2 or min(*image, *block, *strides) < 1:
        raise ctx.invalid(f"blocks {list(block)} of an image {list(image)}")
    counts = [
        (d + pads[a] + pads[axes + a] - dilations[a] * (k - 1) - 1) // strides[a] + 1
        for a, (d, k) in enumerate(zip(image, block, strict=True))
    ]
    if x.type.rank != 3 or x.shape[1] % prod(block) or x.shape[2] != prod(counts):
        raise ctx.invalid(f"{x.type} is not columns of blocks {list(block)} in an image {list(image)}")
    ctx.check_elements((prod(block), prod(counts)))
    sources = _sources(image, block, strides, dilations, pads, counts)
    entries = prod(block) * prod(counts)
    n, channels = x.shape[0], x.shape[1] // prod(block)
    flat = ctx.emit(Pad((0, 0, 0), (0, 0, 1)), reshaped(ctx, x, (n, channels, entries)))
    total: Value | None = None
    for index in sources.T:
        part = ctx.emit(Gather(2), flat, ctx.const(np.ascontiguousarray(index)))
        total = part if total is None else ctx.emit(b.Add(), total, part)
    assert total is not None
    return reshaped(ctx, total, (n, channels, *image))


def _sources(
    image: tuple[int, ...],
    block: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
    counts: list[int],
) -> Array:
    """For each pixel the entries of ``block x counts`` that lie on it, ``[pixels, most]``; the number of entries, which
    is the index of a zero, where there are no more."""
    places = np.indices((*block, *counts)).reshape(2 * len(image), -1)
    axes = len(image)
    at = [places[a] * dilations[a] + places[axes + a] * strides[a] - pads[a] for a in range(axes)]
    inside = np.all([(p >= 0) & (p < d) for p, d in zip(at, image, strict=True)], axis=0)
    pixel = np.ravel_multi_index([p[inside] for p in at], image)
    entry = np.flatnonzero(inside)
    order = np.argsort(pixel, kind="stable")
    pixel, entry = pixel[order], entry[order]
    number = np.bincount(pixel, minlength=prod(image))
    rank = np.arange(len(pixel)) - np.repeat(np.cumsum(number) - number, number)
    table = np.full((prod(image), max(1, int(number.max(initial=0)))), places.shape[1], np.int64)
    table[pixel, rank] = entry
    return table


TABLE: Table = {
    ("", "Einsum"): einsum,
    ("", "Det"): det,
    ("", "DFT"): dft,
    ("", "STFT"): stft,
    ("", "MelWeightMatrix"): mel_weight_matrix,
    ("", "Col2Im"): col2im,
}
