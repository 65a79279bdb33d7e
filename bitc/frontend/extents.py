"""Tensors that are as long as the data says: what an operator makes of one.

Such a tensor is held at the greatest length it can have, with a count beside it. A rule imports a node as if the tensor
were that long, and says which axis of the results is as long as the count then; where an operator works along that
axis, what lies behind the count is first filled so that it does not matter. Operators without a rule are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from math import prod

import numpy as np

from bitc.frontend.context import Context, Extent, Importer, Refused
from bitc.frontend.elementwise import TABLE as ELEMENTWISE
from bitc.frontend.movement import axes_of, reshaped, sliced
from bitc.ir import INT64, Value
from bitc.ops import binary as b
from bitc.ops.dynamic import FillTail
from bitc.ops.movement import Concat

Rule = Callable[[Context, Importer], list[Value]]

_HINT = "bitc holds such a tensor at its greatest length; cut the model before this node, or give it a fixed length"


def follow(ctx: Context, importer: Importer) -> list[Value]:
    """Import a node that takes such a tensor, or the sizes of one. Raises Refused where it can not be followed."""
    plain = ctx.node.op_type if ctx.node.domain in ("", "ai.onnx") else ""
    if all(ctx.extent(v) is None for v in ctx.inputs):
        return _sizes(ctx, importer) if plain in GROWING else _listed(importer(ctx))
    rule = RULES.get(plain)
    if rule is None:
        raise _refusal(ctx, "it takes")
    return rule(ctx, importer)


def concerned(ctx: Context) -> bool:
    """Whether the node takes such a tensor, or the sizes of one."""
    return any(v in ctx.session.extents or v in ctx.session.bounds for v in ctx.inputs)


def _sizes(ctx: Context, importer: Importer) -> list[Value]:
    """Arithmetic of sizes, once as it is and once at their bounds."""
    bounds = ctx.session.bounds
    most = copy(ctx)
    most.inputs = tuple(ctx.const(bounds[v]) if v in bounds else v for v in ctx.inputs if v is not None)
    found, limits = _listed(importer(ctx)), _listed(importer(most))
    for v, limit in zip(found, limits, strict=True):
        if limit.is_const and limit.type.dtype.is_integer:
            bounds[v] = limit.array
    return found


def _bound(ctx: Context, value: Value, dims: Sequence[int]) -> Value:
    """Note the greatest sizes that `value` can hold."""
    ctx.session.bounds[value] = np.array(dims, np.int64).reshape(value.shape)
    return value


def _refusal(ctx: Context, what: str) -> Refused:
    which = next(v for v in ctx.inputs if ctx.extent(v) is not None)
    e = ctx.extent(which)
    assert which is not None and e is not None
    return Refused(f"{what} a tensor whose length the data says, at most {which.shape[e.axis]}", _HINT)


def fixed(ctx: Context, *values: Value) -> None:
    """Refuse values whose length depends on the data."""
    if any(ctx.extent(v) is not None for v in values):
        raise Refused("a tensor whose length the data says goes into or comes out of its subgraphs", _HINT)


def ragged(ctx: Context, value: Value, axis: int, count: Value, zeroed: bool = False) -> Value:
    """Note that `value` has only `count` entries at `axis`. Where that is known, cut it."""
    if count.is_const:
        ranges = [(0, d, 1) for d in value.shape]
        ranges[axis] = (0, int(count.array), 1)
        return sliced(ctx, value, ranges)
    ctx.session.extents[value] = Extent(axis, count, zeroed)
    return value


def _listed(values: Value | Sequence[Value]) -> list[Value]:
    return [values] if isinstance(values, Value) else list(values)


def _filled(ctx: Context, index: int, fill: float) -> None:
    """Put a filled tensor in the place of input `index`."""
    x = ctx.input(index)
    e = ctx.extent(x)
    if e is not None:
        done = x if e.zeroed and fill == 0 else ctx.emit(FillTail(e.axis, fill), x, e.count)
        ctx.inputs = (*ctx.inputs[:index], done, *ctx.inputs[index + 1 :])


def _only(ctx: Context, *indices: int) -> tuple[Value, Extent]:
    """The input that is such a tensor, which must be one of `indices` and the only one."""
    found = [i for i, v in enumerate(ctx.inputs) if ctx.extent(v) is not None]
    if len(found) != 1 or found[0] not in indices:
        raise _refusal(ctx, "it can not take here")
    x = ctx.input(found[0])
    return x, ctx.session.extents[x]


def _pointwise(ctx: Context, importer: Importer) -> list[Value]:
    inputs = [v for v in ctx.inputs if v is not None]
    rank = max(v.type.rank for v in inputs)
    found = {(e.axis + rank - v.type.rank, e.count) for v in inputs if (e := ctx.extent(v)) is not None}
    (axis, count), *more = found
    others = [v for v in inputs if ctx.extent(v) is None and v.type.rank >= rank - axis]
    if more or any(v.shape[axis - rank + v.type.rank] != 1 for v in others):
        raise _refusal(ctx, "its operands differ in length, and one is")
    (y,) = _listed(importer(ctx))[:1]
    return [ragged(ctx, y, axis, count)]


def _same(ctx: Context, importer: Importer) -> list[Value]:
    """The first input's elements, unchanged."""
    _x, e = _only(ctx, 0)
    y = _listed(importer(ctx))
    return [ragged(ctx, y[0], e.axis, e.count, e.zeroed), *y[1:]]


def _view(ctx: Context, importer: Importer) -> list[Value]:
    """The same elements in another shape: the axis must stay, or take in those after it."""
    x, e = _only(ctx, 0)
    if (shape := ctx.optional(1)) is not None and shape in ctx.session.bounds:
        ctx.inputs = (x, ctx.const(ctx.session.bounds[shape]), *ctx.inputs[2:])
    (y,) = _listed(importer(ctx))
    size, before = x.shape[e.axis], prod(x.shape[: e.axis])
    for axis, d in enumerate(y.shape):
        factor = d // size
        if prod(y.shape[:axis]) == before and d % size == 0 and prod(x.shape[e.axis + 1 :]) % factor == 0:
            count = e.count if factor == 1 else ctx.emit(b.Mul(), e.count, ctx.const(np.array(factor, np.int32)))
            return [ragged(ctx, y, axis, count, e.zeroed)]
    raise _refusal(ctx, "it gives another shape to")


def _expand(ctx: Context, importer: Importer) -> list[Value]:
    x, e = _only(ctx, 0)
    if ctx.input(1) in ctx.session.bounds:
        ctx.inputs = (x, ctx.const(ctx.session.bounds[ctx.input(1)]))
    (y,) = _listed(importer(ctx))
    axis = y.type.rank - x.type.rank + e.axis
    if y.shape[axis] != x.shape[e.axis]:
        raise _refusal(ctx, "it repeats")
    return [ragged(ctx, y, axis, e.count)]


def _transpose(ctx: Context, importer: Importer) -> list[Value]:
    x, e = _only(ctx, 0)
    perm = ctx.attrs.ints("perm") or tuple(reversed(range(x.type.rank)))
    (y,) = _listed(importer(ctx))
    return [ragged(ctx, y, perm.index(e.axis), e.count, e.zeroed)]


def _gather(ctx: Context, importer: Importer) -> list[Value]:
    x, indices = ctx.input(0), ctx.input(1)
    axis = ctx.axis(ctx.attrs.int_("axis", 0), x.type.rank)
    of_x, of_indices = ctx.extent(x), ctx.extent(indices)
    if of_x is not None and of_x.axis == axis:
        if indices.is_const and indices.array.size and indices.array.min() < 0:
            raise _refusal(ctx, "it counts from the end of")
        of_x = None
    if of_x is not None and of_indices is not None:
        raise _refusal(ctx, "two axes depend on the data: it takes")
    (y,) = _listed(importer(ctx))
    if of_indices is not None:
        return [ragged(ctx, y, axis + of_indices.axis, of_indices.count)]
    if of_x is not None:
        shift = 0 if of_x.axis < axis else indices.type.rank - 1
        return [ragged(ctx, y, of_x.axis + shift, of_x.count)]
    return [y]


def _gather_nd(ctx: Context, importer: Importer) -> list[Value]:
    x, indices = ctx.input(0), ctx.input(1)
    batch = ctx.attrs.int_("batch_dims", 0) if ctx.opset >= 12 else 0
    of_x, e = ctx.extent(x), ctx.extent(indices)
    looked_up = range(batch, batch + indices.shape[-1])
    if of_x is not None and of_x.axis not in looked_up:
        raise _refusal(ctx, "it takes slices of")
    if e is not None and not batch <= e.axis < indices.type.rank - 1:
        raise _refusal(ctx, "its indices are")
    (y,) = _listed(importer(ctx))
    return [y if e is None else ragged(ctx, y, e.axis, e.count)]


def _gather_elements(ctx: Context, importer: Importer) -> list[Value]:
    x, indices = ctx.input(0), ctx.input(1)
    axis = ctx.axis(ctx.attrs.int_("axis", 0), x.type.rank)
    of_x, e = ctx.extent(x), ctx.extent(indices)
    alike = e is not None and of_x is not None and (of_x.axis, of_x.count) == (e.axis, e.count)
    if of_x is not None and of_x.axis != axis and not alike:
        raise _refusal(ctx, "its indices have another length than")
    (y,) = _listed(importer(ctx))
    return [y if e is None else ragged(ctx, y, e.axis, e.count)]


def _concat(ctx: Context, importer: Importer) -> list[Value]:
    values = [ctx.input(i) for i in range(len(ctx.inputs))]
    axis = ctx.axis(ctx.attrs.int_("axis", None if ctx.opset >= 4 else 1), values[0].type.rank)
    found = [e for v in values if (e := ctx.extent(v)) is not None]
    e, last = found[0], ctx.extent(values[-1])
    along = e.axis == axis and len(found) == 1 and last is e
    beside = e.axis != axis and len(found) == len(values) and len({(f.axis, f.count) for f in found}) == 1
    if not along and not beside:
        raise _refusal(ctx, "it puts something behind or beside")
    (y,) = _listed(importer(ctx))
    before = sum(v.shape[axis] for v in values[:-1]) if along else 0
    count = ctx.emit(b.Add(), e.count, ctx.const(np.array(before, np.int32))) if before else e.count
    return [ragged(ctx, y, e.axis, count)]


def _slice(ctx: Context, importer: Importer) -> list[Value]:
    """From the front with step 1, or on other axes."""
    x, e = _only(ctx, 0)
    size = x.shape[e.axis]
    start, stop = 0, size
    if ctx.opset < 10:
        starts, ends, axes = (ctx.attrs.ints(n) for n in ("starts", "ends", "axes"))
        steps: tuple[int, ...] | None = None
    else:
        starts, ends = ctx.ints(1, "the start of a slice"), ctx.ints(2, "the end of a slice")
        axes, steps = (
            None if ctx.optional(i) is None else ctx.ints(i, what) for i, what in ((3, "the axes"), (4, "the steps"))
        )
    for i, a in enumerate(axes or range(len(starts or ()))):
        if ctx.axis(a, x.type.rank) != e.axis or not starts or not ends:
            continue
        start, stop = starts[i], min(ends[i], size)
        if start < 0 or stop < 0 or (steps or (1,) * len(starts))[i] != 1:
            raise _refusal(ctx, "it counts from the end of, or leaves out entries of,")
    (y,) = _listed(importer(ctx))
    if (start, stop) == (0, size):
        return [ragged(ctx, y, e.axis, e.count, e.zeroed)]
    left = ctx.emit(b.Sub(), e.count, ctx.const(np.array(start, np.int32)))
    least, most = (ctx.const(np.array(n, np.int32)) for n in (0, max(stop - start, 0)))
    return [ragged(ctx, y, e.axis, ctx.emit(b.Min(), ctx.emit(b.Max(), left, least), most), e.zeroed)]


def _along(first: int, to_end: bool = False) -> Rule:
    """Operators on one tensor that work along an axis (by default `first`), or from it `to_end`, which must be another
    one; the results keep their axes."""

    def rule(ctx: Context, importer: Importer) -> list[Value]:
        x, e = _only(ctx, 0)
        axis = ctx.axis(ctx.attrs.int_("axis", first), x.type.rank)
        if e.axis >= axis if to_end else e.axis == axis:
            raise _refusal(ctx, "it works along the length of")
        return [ragged(ctx, y, e.axis, e.count) for y in _listed(importer(ctx))]

    return rule


def _softmax(ctx: Context, importer: Importer) -> list[Value]:
    return _along(1 if ctx.opset < 13 else -1, to_end=ctx.opset < 13)(ctx, importer)


def _extreme(ctx: Context, index: int, largest: bool) -> float:
    """What is never above, or never below, another element."""
    dtype = ctx.input(index).type.dtype
    if dtype.is_float:
        return -np.inf if largest else np.inf
    return dtype.min if largest else dtype.max


def _reduce(fill: Callable[[Context], float], since: int = 18, one_axis: bool = False) -> Rule:
    """Reductions; `fill` does not change their result."""

    def rule(ctx: Context, importer: Importer) -> list[Value]:
        x, e = _only(ctx, 0)
        rank = x.type.rank
        given = (ctx.attrs.int_("axis", 0),) if one_axis else axes_of(ctx, 1, since)
        axes = ctx.axes(given, rank) if given else tuple(range(rank))
        if e.axis in axes:
            _filled(ctx, 0, fill(ctx))
        keeps = ctx.attrs.flag("keepdims", True)
        (y,) = _listed(importer(ctx))
        if e.axis in axes:
            return [y]
        return [ragged(ctx, y, e.axis if keeps else e.axis - sum(a < e.axis for a in axes), e.count)]

    return rule


def _top_k(ctx: Context, importer: Importer) -> list[Value]:
    x, e = _only(ctx, 0)
    if ctx.axis(ctx.attrs.int_("axis", -1), x.type.rank) != e.axis:
        return [ragged(ctx, y, e.axis, e.count) for y in _listed(importer(ctx))]
    _filled(ctx, 0, _extreme(ctx, 0, ctx.attrs.flag("largest", True)))
    found = _listed(importer(ctx))
    own = ctx.extent(found[0])  # where k is computed too
    wanted = ctx.const(np.array(found[0].shape[e.axis], np.int32)) if own is None else own.count
    count = ctx.emit(b.Min(), e.count, wanted)
    return [ragged(ctx, y, e.axis, count) for y in found]


def _matmul(ctx: Context, importer: Importer) -> list[Value]:
    """Rows of the first factor, columns of the second."""
    x, e = _only(ctx, 0, 1)
    rank = x.type.rank
    kept = rank - 2 if x is ctx.input(0) else rank - 1
    if rank < 2 or e.axis != kept:
        raise _refusal(ctx, "it sums over, or repeats,")
    (y,) = _listed(importer(ctx))
    return [ragged(ctx, y, y.type.rank - rank + e.axis, e.count)]


def _gemm(ctx: Context, importer: Importer) -> list[Value]:
    _x, e = _only(ctx, 0)
    c = ctx.optional(2)
    if e.axis != int(ctx.attrs.flag("transA")) or (c is not None and c.type.rank > 1 and c.shape[0] != 1):
        raise _refusal(ctx, "it sums over")
    (y,) = _listed(importer(ctx))
    return [ragged(ctx, y, 0, e.count)]


def _shape(ctx: Context, importer: Importer) -> list[Value]:
    x, e = _only(ctx, 0)
    start, end, _ = slice(ctx.attrs.int_("start", 0), ctx.attrs.int_("end", x.type.rank)).indices(x.type.rank)
    if not start <= e.axis < end:
        return _listed(importer(ctx))
    dims: list[Value] = [ctx.const(np.array([d], np.int64)) for d in x.shape]
    dims[e.axis] = reshaped(ctx, ctx.cast(e.count, INT64), (1,))
    made = dims[start] if end == start + 1 else ctx.emit(Concat(0), *dims[start:end])
    return [_bound(ctx, made, x.shape[start:end])]


def _size(ctx: Context, importer: Importer) -> list[Value]:
    x, e = _only(ctx, 0)
    each = ctx.const(np.array(x.type.size // x.shape[e.axis], np.int64))
    return [_bound(ctx, ctx.emit(b.Mul(), ctx.cast(e.count, INT64), each), [x.type.size])]


def _suppress(ctx: Context, importer: Importer) -> list[Value]:
    """Boxes that are not there have no score; a NaN is never taken."""
    boxes, scores = (ctx.extent(ctx.input(i)) for i in range(2))
    if scores is None or scores.axis != 2 or (boxes is not None and (boxes.axis, boxes.count) != (1, scores.count)):
        raise _refusal(ctx, "boxes and scores differ in length, and one is")
    _filled(ctx, 1, np.nan)
    return _listed(importer(ctx))


def _non_zero(ctx: Context, importer: Importer) -> list[Value]:
    _filled(ctx, 0, 0)
    return _listed(importer(ctx))


def _compress(ctx: Context, importer: Importer) -> list[Value]:
    x, condition = ctx.extent(ctx.input(0)), ctx.extent(ctx.input(1))
    flat = "axis" not in ctx.attrs and ctx.input().type.rank > 1
    axis = ctx.axis(ctx.attrs.int_("axis", 0), ctx.input().type.rank)
    if x is not None and (flat or condition is None or (x.axis, x.count) != (axis, condition.count)):
        raise _refusal(ctx, "its condition has another length than")
    _filled(ctx, 1, 0)
    return _listed(importer(ctx))


GROWING = {
    "Gather",
    "Slice",
    "Concat",
    "Squeeze",
    "Unsqueeze",
    "Reshape",
    "Cast",
    "Identity",
    "Add",
    "Mul",
    "Min",
    "Max",
}
"""Operators whose results are the greatest at the greatest sizes."""

RULES: dict[str, Rule] = {
    **{op: _pointwise for domain, op in ELEMENTWISE if not domain and op != "CastLike"},
    "Identity": _same, "Cast": _same, "Dropout": _same,
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _view), "Expand": _expand,
    "Transpose": _transpose, "Gather": _gather, "GatherND": _gather_nd, "GatherElements": _gather_elements,
    "Concat": _concat, "Slice": _slice, "Split": _along(0), "TopK": _top_k, "Shape": _shape, "Size": _size,
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _softmax), "LpNormalization": _along(-1),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _along(-1, to_end=True)),
    "ReduceSum": _reduce(lambda ctx: 0, since=13),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum"), _reduce(lambda ctx: 0)),
    "ReduceProd": _reduce(lambda ctx: 1),
    "ReduceMax": _reduce(lambda ctx: _extreme(ctx, 0, largest=True)),
    "ReduceMin": _reduce(lambda ctx: _extreme(ctx, 0, largest=False)),
    "ArgMax": _reduce(lambda ctx: _extreme(ctx, 0, largest=True), one_axis=True),
    "ArgMin": _reduce(lambda ctx: _extreme(ctx, 0, largest=False), one_axis=True),
    "MatMul": _matmul, "Gemm": _gemm, "NonMaxSuppression": _suppress, "NonZero": _non_zero, "Compress": _compress,
}  # fmt: skip
"""By operator of the default domain."""
