"""Importers of operators that look elements up by index, order them, or accumulate along an axis."""

from __future__ import annotations

import numpy as np

from bitc.frontend.context import Context, Importer, Refused, Table
from bitc.frontend.extents import ragged
from bitc.frontend.movement import reshaped, sliced
from bitc.ir import BOOL, INT32, INT64, Value
from bitc.ops import binary as b
from bitc.ops import indexing as ix
from bitc.ops.movement import Expand, Gather
from bitc.ops.reduce import ArgMax


def integers(ctx: Context, index: int) -> Value:
    """Input `index` as int32 or int64."""
    value = ctx.input(index)
    dtype = value.type.dtype
    if not dtype.is_integer or dtype is BOOL:
        raise ctx.invalid(f"the indices are {value.type}")
    return value if dtype in (INT32, INT64) else ctx.cast(value, INT64)


def checked(ctx: Context, indices: Value, size: int, what: str) -> Value:
    """Constant indices counted from the front; InvalidModel if one is outside an axis of `size` elements."""
    if not indices.is_const:
        return indices
    i = indices.array
    if i.size and not (-size <= int(i.min()) and int(i.max()) < size):
        raise ctx.invalid(f"an index is outside {what}")
    return ctx.const(np.where(i < 0, i + size, i).astype(np.int64))


def gather(ctx: Context) -> Value:
    x = ctx.input()
    axis = ctx.axis(ctx.attrs.int_("axis", 0), x.type.rank)
    indices = checked(ctx, integers(ctx, 1), x.shape[axis], f"axis {axis} of {x.type}")
    if not indices.is_const:
        return ctx.emit(ix.Take(axis), x, indices)
    if indices.type.size == 1 and not x.is_const:  # one element: a slice
        at = int(indices.array.reshape(-1)[0])
        ranges = [(0, d, 1) for d in x.shape]
        ranges[axis] = (at, at + 1, 1)
        return reshaped(ctx, sliced(ctx, x, ranges), (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))
    return ctx.emit(Gather(axis), x, indices)


def gather_elements(ctx: Context) -> Value:
    x = ctx.input()
    axis = ctx.axis(ctx.attrs.int_("axis", 0), x.type.rank)
    indices = checked(ctx, integers(ctx, 1), x.shape[axis], f"axis {axis} of {x.type}")
    return ctx.emit(ix.GatherElements(axis), x, indices)


def gather_nd(ctx: Context) -> Value:
    x, indices = ctx.input(), integers(ctx, 1)
    batch = ctx.attrs.int_("batch_dims", 0) if ctx.opset >= 12 else 0
    _check_tuples(ctx, x, indices, batch)
    return ctx.emit(ix.GatherND(batch), x, indices)


def _check_tuples(ctx: Context, x: Value, indices: Value, batch: int) -> None:
    if not indices.is_const:
        return
    if indices.type.rank <= batch or batch + indices.shape[-1] > x.type.rank:
        raise ctx.invalid(f"indices {indices.type} of {x.type}")
    for k in range(indices.shape[-1]):
        i, size = indices.array[..., k], x.shape[batch + k]
        if i.size and not (-size <= int(i.min()) and int(i.max()) < size):
            raise ctx.invalid(f"an index is outside axis {batch + k} of {x.type}")


def _reduction(ctx: Context) -> str:
    reduction = ctx.attrs.str_("reduction", "none")
    if reduction not in ix.REDUCTIONS:
        raise ctx.invalid(f"reduction is {reduction!r}")
    if reduction != "none" and ctx.input().type.dtype is BOOL:
        raise Refused(f"reduces bools by {reduction!r}", "reduce integers")
    return reduction


def scatter_elements(ctx: Context) -> Value:
    x = ctx.input()
    axis = ctx.axis(ctx.attrs.int_("axis", 0), x.type.rank)
    indices = checked(ctx, integers(ctx, 1), x.shape[axis], f"axis {axis} of {x.type}")
    return ctx.emit(ix.ScatterElements(axis, _reduction(ctx)), x, indices, ctx.input(2))


def scatter_nd(ctx: Context) -> Value:
    x, indices = ctx.input(), integers(ctx, 1)
    _check_tuples(ctx, x, indices, 0)
    return ctx.emit(ix.ScatterND(_reduction(ctx)), x, indices, ctx.input(2))


def tensor_scatter(ctx: Context) -> Value:
    """Writes `update` into the cache `x` along `axis`, for each batch element from its own position on."""
    x, update = ctx.input(0), ctx.input(1)
    axis = ctx.axis(ctx.attrs.int_("axis", -2), x.type.rank)
    mode = ctx.attrs.str_("mode", "linear")
    if axis == 0 or mode not in ("linear", "circular") or update.type.rank != x.type.rank:
        raise ctx.invalid(f"mode {mode!r} on axis {axis} of {x.type}")
    shape = [1] * x.type.rank
    shape[axis] = update.shape[axis]
    at = ctx.const(np.arange(update.shape[axis], dtype=np.int64).reshape(shape))
    if ctx.optional(2) is not None:
        first = ctx.cast(integers(ctx, 2), INT64)
        at = ctx.emit(b.Add(), reshaped(ctx, first, (x.shape[0], *[1] * (x.type.rank - 1))), at)
    if mode == "circular":
        at = ctx.emit(b.Mod(), at, ctx.const(np.array(x.shape[axis], np.int64)))
    indices = at if at.shape == update.shape else ctx.emit(Expand(update.shape), at)
    return ctx.emit(ix.ScatterElements(axis), x, indices, update)


def top_k(ctx: Context) -> list[Value]:
    """Values and indices; `k` is an attribute before opset 10, an input after."""
    x = ctx.number()
    axis = ctx.axis(ctx.attrs.int_("axis", -1), x.type.rank)
    k = ctx.attrs.int_("k") if ctx.opset < 10 else _number(ctx, x.shape[axis])
    largest = ctx.attrs.flag("largest", True)
    ctx.attrs.ignore("sorted")  # sorted ones are as good as others
    if not 0 < k <= x.shape[axis]:
        raise ctx.invalid(f"the top {k} on axis {axis} of {x.type}")
    indices = ctx.emit(ix.ArgTop(axis, k, largest), x)
    found = [ctx.emit(ix.GatherElements(axis), x, indices), indices]
    if ctx.opset < 10 or ctx.input(1).is_const:
        return found
    most = ctx.emit(b.Min(), ctx.cast(reshaped(ctx, ctx.input(1), ()), INT32), ctx.const(np.array(k, np.int32)))
    return [ragged(ctx, y, axis, ctx.emit(b.Max(), most, ctx.const(np.array(0, np.int32)))) for y in found]


def _number(ctx: Context, size: int) -> int:
    """How many elements of `size` are asked for; all where it is computed at run time."""
    k = ctx.input(1)
    if k.type.size != 1:
        raise ctx.invalid(f"the number of elements (k) is {k.type}")
    return int(k.array.reshape(-1)[0]) if k.is_const else size


def running(product: bool) -> Importer:
    def run(ctx: Context) -> Value:
        x, axis = ctx.number(), ctx.ints(1, "the axis")
        if len(axis) != 1:
            raise ctx.invalid("the axis must be one number")
        op = ix.Cumulate(
            ctx.axis(axis[0], x.type.rank), product, ctx.attrs.flag("exclusive"), ctx.attrs.flag("reverse")
        )
        return ctx.emit(op, x)

    return run


def reverse_sequence(ctx: Context) -> Value:
    """The first ``lengths[n]`` elements of each sequence in reverse: ``y[t] = x[t < length ? length - 1 - t : t]``."""
    x, lengths = ctx.input(), ctx.cast(integers(ctx, 1), INT64)
    batch, time = ctx.attrs.int_("batch_axis", 1), ctx.attrs.int_("time_axis", 0)
    if {batch, time} != {0, 1} or x.type.rank < 2 or lengths.shape != (x.shape[batch],):
        raise ctx.invalid(f"sequences of {x.type} on axes {batch} and {time}, lengths {lengths.type}")
    shape = [1] * x.type.rank
    shape[batch] = x.shape[batch]
    lengths = reshaped(ctx, lengths, shape)
    shape[batch], shape[time] = 1, x.shape[time]
    t = ctx.const(np.arange(x.shape[time], dtype=np.int64).reshape(shape))
    mirrored = ctx.emit(b.Sub(), ctx.emit(b.Sub(), lengths, ctx.const(np.array(1, np.int64))), t)
    at = ctx.emit(b.Where(), ctx.emit(b.Less(), t, lengths), mirrored, t)
    return ctx.emit(ix.GatherElements(time), x, ctx.emit(Expand(x.shape), at))


def one_hot(ctx: Context) -> Value:
    """``values[1]`` where the new axis' position is the index (from the end if negative), ``values[0]`` elsewhere."""
    index, depth, values = ctx.number(0), ctx.array(1, "the depth"), ctx.input(2)
    axis = ctx.axis(ctx.attrs.int_("axis", -1), index.type.rank + 1)
    count = int(depth.reshape(-1)[0]) if depth.size == 1 else -1
    if count < 1 or values.shape != (2,):
        raise ctx.invalid(f"a depth of {depth.tolist()} and values {values.type}")
    whole = ctx.cast(index, INT64)
    size = ctx.const(np.array(count, np.int64))
    wrapped = ctx.emit(b.Where(), _negative(ctx, whole), ctx.emit(b.Add(), whole, size), whole)
    wide = reshaped(ctx, wrapped, (*index.shape[:axis], 1, *index.shape[axis:]))
    place = np.arange(count, dtype=np.int64).reshape(count, *[1] * (index.type.rank - axis))
    hot = ctx.emit(b.Equal(), wide, ctx.const(place))
    off, on = (reshaped(ctx, sliced(ctx, values, [(i, i + 1, 1)]), ()) for i in range(2))
    return ctx.emit(b.Where(), hot, on, off)


def _negative(ctx: Context, x: Value) -> Value:
    return ctx.emit(b.Less(), x, ctx.const(np.array(0, np.int64)))


def hardmax(ctx: Context) -> Value:
    """1 at the first largest element, 0 elsewhere. Before opset 13 over all axes from `axis` on as one."""
    x, old = ctx.floats(), ctx.opset < 13
    axis = ctx.axis(ctx.attrs.int_("axis", 1 if old else -1), x.type.rank)
    flat = x
    if old:
        flat = reshaped(ctx, x, (int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:]))))
        axis = 1
    best = ctx.emit(ArgMax(axis), flat)
    place = np.arange(flat.shape[axis], dtype=np.int64).reshape(-1, *[1] * (flat.type.rank - axis - 1))
    return reshaped(ctx, ctx.cast(ctx.emit(b.Equal(), best, ctx.const(place)), x.type.dtype), x.shape)


def trilu(ctx: Context) -> Value:
    """The upper or lower triangle of the last two axes, zeros elsewhere."""
    x, upper = ctx.input(), ctx.attrs.flag("upper", True)
    k = 0
    if ctx.optional(1) is not None:
        k = int(ctx.array(1, "the diagonal (k)").reshape(-1)[0])
    if x.type.rank < 2:
        raise ctx.invalid(f"a triangle of {x.type}")
    rows, columns = np.ogrid[: x.shape[-2], : x.shape[-1]]
    kept = columns >= rows + k if upper else columns <= rows + k
    return ctx.emit(b.Where(), ctx.const(kept), x, ctx.scalar(0, x))


TABLE: Table = {
    ("", "Gather"): gather,
    ("", "GatherElements"): gather_elements,
    ("", "GatherND"): gather_nd,
    ("", "Scatter"): scatter_elements,
    ("", "ScatterElements"): scatter_elements,
    ("", "ScatterND"): scatter_nd,
    ("", "TensorScatter"): tensor_scatter,
    ("", "TopK"): top_k,
    ("", "CumSum"): running(product=False),
    ("", "CumProd"): running(product=True),
    ("", "ReverseSequence"): reverse_sequence,
    ("", "OneHot"): one_hot,
    ("", "Hardmax"): hardmax,
    ("", "Trilu"): trilu,
}
