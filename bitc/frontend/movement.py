"""Importers of operators that move elements, and of those that only make shapes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from bitc.frontend.context import Context, Refused, Table
from bitc.frontend.tensors import dtype_of, to_array, type_name
from bitc.ir import Value
from bitc.ops.movement import Concat, Expand, Pad, Reshape, Slice, Tile, Transpose


def reshaped(ctx: Context, x: Value, shape: Sequence[int]) -> Value:
    """Reshape, or nothing where the shape stays."""
    return x if tuple(shape) == x.shape else ctx.emit(Reshape(tuple(int(d) for d in shape)), x)


def reshape(ctx: Context) -> Value:
    x, wanted = ctx.input(), list(ctx.ints(1, "the shape"))
    if not ctx.attrs.flag("allowzero"):
        if any(d == 0 and i >= x.type.rank for i, d in enumerate(wanted)):
            raise ctx.invalid(f"the shape {wanted} copies a dimension that {x.type} does not have")
        wanted = [x.shape[i] if d == 0 else d for i, d in enumerate(wanted)]
    known = prod(d for d in wanted if d != -1)
    if wanted.count(-1) == 1 and known > 0 and x.type.size % known == 0:
        wanted[wanted.index(-1)] = x.type.size // known
    if min(wanted, default=1) < 0 or prod(wanted) != x.type.size:
        raise ctx.invalid(f"{x.type} does not reshape to {wanted}")
    return reshaped(ctx, x, wanted)


def flatten(ctx: Context) -> Value:
    x, axis = ctx.input(), ctx.attrs.int_("axis", 1)
    if not -x.type.rank <= axis <= x.type.rank:
        raise ctx.invalid(f"axis {axis} of {x.type}")
    axis += x.type.rank if axis < 0 else 0
    return reshaped(ctx, x, (prod(x.shape[:axis]), prod(x.shape[axis:])))


def axes_of(ctx: Context, index: int, since: int) -> tuple[int, ...] | None:
    """Axes: an attribute before opset `since`, an optional input from then on."""
    if ctx.opset < since:
        return ctx.attrs.ints("axes")
    return None if ctx.optional(index) is None else ctx.ints(index, "the axes")


def squeeze(ctx: Context) -> Value:
    x, given = ctx.input(), axes_of(ctx, 1, 13)
    axes = [i for i, d in enumerate(x.shape) if d == 1] if given is None else ctx.axes(given, x.type.rank)
    if any(x.shape[a] != 1 for a in axes):
        raise ctx.invalid(f"axes {list(axes)} of {x.type} do not all have length 1")
    return reshaped(ctx, x, [d for i, d in enumerate(x.shape) if i not in axes])


def unsqueeze(ctx: Context) -> Value:
    x, given = ctx.input(), axes_of(ctx, 1, 13)
    if given is None:
        raise ctx.invalid("the axes are missing")
    rank = x.type.rank + len(given)
    axes, rest = ctx.axes(given, rank), iter(x.shape)
    return reshaped(ctx, x, [1 if i in axes else next(rest) for i in range(rank)])


def transpose(ctx: Context) -> Value:
    x = ctx.input()
    perm = ctx.attrs.ints("perm")
    perm = tuple(reversed(range(x.type.rank))) if perm is None else perm
    return x if perm == tuple(range(x.type.rank)) else ctx.emit(Transpose(perm), x)


def concat(ctx: Context) -> Value:
    values = [ctx.input(i) for i in range(len(ctx.inputs))]
    if not values:
        raise ctx.invalid("it has no inputs")
    axis = ctx.axis(ctx.attrs.int_("axis", None if ctx.opset >= 4 else 1), values[0].type.rank)
    full = [v for v in values if v.type.size] or values[:1]
    return full[0] if len(full) == 1 else ctx.emit(Concat(axis), *full)


def _slice_axis(size: int, start: int, end: int, step: int) -> tuple[int, int, int]:
    """ONNX's clamping of one axis, as a range."""
    start += size if start < 0 else 0
    end += size if end < 0 else 0
    if step > 0:
        start, end = min(max(start, 0), size), min(max(end, 0), size)
    else:
        start, end = min(max(start, 0), size - 1), min(max(end, -1), size - 1)
    return (start, end, step) if range(start, end, step) else (0, 0, 1)


def slice_(ctx: Context) -> Value:
    """Starts, ends and axes are attributes before opset 10, inputs after."""
    x = ctx.input()
    if ctx.opset < 10:
        starts, ends, axes = ctx.attrs.ints("starts"), ctx.attrs.ints("ends"), ctx.attrs.ints("axes")
        steps: tuple[int, ...] | None = None
    else:
        starts, ends = ctx.ints(1, "the start of a slice"), ctx.ints(2, "the end of a slice")
        axes = None if ctx.optional(3) is None else ctx.ints(3, "the axes")
        steps = None if ctx.optional(4) is None else ctx.ints(4, "the steps")
    if starts is None or ends is None:
        raise ctx.invalid("starts or ends are missing")
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise ctx.invalid("starts, ends, axes and steps do not match")
    ctx.axes(axes, x.type.rank)
    ranges = [(0, d, 1) for d in x.shape]
    for a, start, end, step in zip(axes, starts, ends, steps, strict=True):
        at = ctx.axis(a, x.type.rank)
        ranges[at] = _slice_axis(x.shape[at], start, end, step)
    return sliced(ctx, x, ranges)


def sliced(ctx: Context, x: Value, ranges: Sequence[tuple[int, int, int]]) -> Value:
    if all(r == (0, d, 1) for r, d in zip(ranges, x.shape, strict=True)):
        return x
    starts, stops, steps = zip(*ranges, strict=True)
    return ctx.emit(Slice(starts, stops, steps), x)


def split(ctx: Context) -> list[Value]:
    """Sizes are an attribute before opset 13, an input after; without them the parts are equal."""
    x, count = ctx.input(), len(ctx.node.output)
    axis = ctx.axis(ctx.attrs.int_("axis", 0), x.type.rank)
    size = x.shape[axis]
    given = ctx.attrs.ints("split") if ctx.opset < 13 else None
    if ctx.opset >= 13 and ctx.optional(1) is not None:
        given = ctx.ints(1, "the sizes of a split")
    if given is None:
        if ctx.opset >= 18 and ctx.attrs.int_("num_outputs", count) != count:
            raise ctx.invalid(f"num_outputs does not match its {count} outputs")
        step = -(-size // max(1, count))
        given = tuple(max(0, min(step, size - i * step)) for i in range(count))
    if sum(given) != size or len(given) != len(ctx.node.output) or min(given) < 0:
        raise ctx.invalid(f"{x.type} does not split into {list(given)} on axis {axis}")
    values, start = [], 0
    for length in given:
        ranges = [(0, d, 1) for d in x.shape]
        ranges[axis] = (start, start + length, 1)
        values.append(sliced(ctx, x, ranges))
        start += length
    return values


def pad(ctx: Context) -> Value:
    """Pads are an attribute before opset 11, an input after; negative ones crop."""
    x, mode = ctx.input(), ctx.attrs.str_("mode", "constant")
    value = ctx.attrs.float_("value", 0.0) if ctx.opset < 11 else 0.0
    pads = ctx.attrs.ints("pads") if ctx.opset < 11 else ctx.ints(1, "the pads")
    axes: tuple[int, ...] | None = None
    if ctx.opset >= 11:
        fill = ctx.optional_array(2, "the padding value")
        value = fill.reshape(-1)[0].item() if fill is not None and fill.size else value
        axes = None if ctx.optional(3) is None else ctx.ints(3, "the axes")
    rank = x.type.rank
    axes = tuple(range(rank)) if axes is None else tuple(ctx.axis(a, rank) for a in axes)
    if pads is None or len(pads) != 2 * len(axes) or len(set(axes)) < len(axes):
        raise ctx.invalid(f"pads {pads} for {len(axes)} axes")
    if mode not in ("constant", "edge", "reflect", "wrap"):
        raise ctx.invalid(f"mode is {mode!r}")
    before, after = [0] * rank, [0] * rank
    for i, a in enumerate(axes):
        before[a], after[a] = pads[i], pads[len(axes) + i]
    return padded(ctx, x, before, after, value, mode)


def padded(ctx: Context, x: Value, before: list[int], after: list[int], value: float, mode: str) -> Value:
    ranges = [(max(0, -lo), d - max(0, -hi), 1) for d, lo, hi in zip(x.shape, before, after, strict=True)]
    if any(start > stop for start, stop, _ in ranges):
        raise ctx.invalid(f"negative pads leave nothing of {x.type}")
    x = sliced(ctx, x, ranges)
    grow = [max(0, p) for p in before], [max(0, p) for p in after]
    if not any((*grow[0], *grow[1])):
        return x
    reach = {"edge": 1, "reflect": 2, "wrap": 1}.get(mode, 0)
    for d, lo, hi in zip(x.shape, *grow, strict=True):
        if (lo or hi) and (
            d < min(reach, 1) or (reach > 1 and max(lo, hi) >= d) or (mode == "wrap" and max(lo, hi) > d)
        ):
            raise ctx.invalid(f"{mode} padding of {lo}, {hi} around {d} elements")
    return ctx.emit(Pad(tuple(grow[0]), tuple(grow[1]), float(value), mode), x)


def expand(ctx: Context) -> Value:
    x, wanted = ctx.input(), ctx.ints(1, "the shape")
    if min(wanted, default=1) < 0:
        raise ctx.invalid(f"expands to {list(wanted)}")
    shape = tuple(int(d) for d in np.broadcast_shapes(x.shape, wanted))
    if shape == x.shape:
        return x
    return reshaped(ctx, x, shape) if prod(shape) == x.type.size else ctx.emit(Expand(shape), x)


def tile(ctx: Context) -> Value:
    x, repeats = ctx.input(), ctx.ints(1, "the repeats")
    return x if set(repeats) <= {1} and len(repeats) == x.type.rank else ctx.emit(Tile(repeats), x)


def depth_to_space(ctx: Context) -> Value:
    x, r, mode = ctx.input(), ctx.attrs.int_("blocksize"), ctx.attrs.str_("mode", "DCR")
    if x.type.rank != 4 or r < 1 or x.shape[1] % (r * r) or mode not in ("DCR", "CRD"):
        raise ctx.invalid(f"block size {r}, mode {mode!r} of {x.type}")
    n, c, h, w = x.shape
    c //= r * r
    split_shape, perm = (
        ((n, r, r, c, h, w), (0, 3, 4, 1, 5, 2)) if mode == "DCR" else ((n, c, r, r, h, w), (0, 1, 4, 2, 5, 3))
    )
    return reshaped(ctx, ctx.emit(Transpose(perm), reshaped(ctx, x, split_shape)), (n, c, h * r, w * r))


def space_to_depth(ctx: Context) -> Value:
    x, r = ctx.input(), ctx.attrs.int_("blocksize")
    if x.type.rank != 4 or r < 1 or x.shape[2] % r or x.shape[3] % r:
        raise ctx.invalid(f"block size {r} of {x.type}")
    n, c, h, w = x.shape
    blocks = ctx.emit(Transpose((0, 3, 5, 1, 2, 4)), reshaped(ctx, x, (n, c, h // r, r, w // r, r)))
    return reshaped(ctx, blocks, (n, c * r * r, h // r, w // r))


def shape(ctx: Context) -> Value:
    dims = ctx.input().shape
    start, end = ctx.attrs.int_("start", 0), ctx.attrs.int_("end", len(dims))
    return ctx.const(np.array(dims[start:end], np.int64))


def size(ctx: Context) -> Value:
    return ctx.const(np.array(ctx.input().type.size, np.int64))


def constant(ctx: Context) -> Value:
    tensor = ctx.attrs.tensor("value")
    if tensor is not None:
        return ctx.const(to_array(tensor, ctx.session.folder))
    if "value_float" in ctx.attrs:
        return ctx.const(ctx.attrs.float_("value_float"))
    if "value_int" in ctx.attrs:
        return ctx.const(np.array(ctx.attrs.int_("value_int"), np.int64))
    floats, ints = ctx.attrs.floats("value_floats"), ctx.attrs.ints("value_ints")
    if floats is not None:
        return ctx.const(np.array(floats, np.float32))
    if ints is not None:
        return ctx.const(np.array(ints, np.int64))
    raise Refused("a constant that is not a dense numeric tensor", "use dense numeric constants")


def constant_of_shape(ctx: Context) -> Value:
    dims = ctx.ints(0, "the shape")
    ctx.check_elements(dims)
    tensor = ctx.attrs.tensor("value")
    fill = np.zeros(1, np.float32) if tensor is None else to_array(tensor, ctx.session.folder)
    if fill.size != 1:
        raise ctx.invalid("its value must have one element")
    return ctx.emit(Expand(dims), ctx.const(fill.reshape(())))


def range_(ctx: Context) -> Value:
    bounds = [ctx.array(i, "a bound of a range") for i in range(3)]
    if any(a.size != 1 for a in bounds):
        raise ctx.invalid("a bound of a range is not a scalar")
    start, limit, step = (a.reshape(()) for a in bounds)  # onnx's own definitions pass tensors of one element
    if step == 0 or not np.isfinite([float(start), float(limit), float(step)]).all():
        raise ctx.invalid("the range is endless")
    count = max(0, int(np.ceil((float(limit) - float(start)) / float(step))))
    ctx.check_elements([count])
    return ctx.const((start + np.arange(count, dtype=start.dtype) * step).astype(start.dtype))


def eye_like(ctx: Context) -> Value:
    rows, columns = ctx.input().shape
    ctx.check_elements([rows, columns])
    elem = ctx.attrs.int_("dtype", 0)
    dtype = dtype_of(elem) if elem else ctx.input().type.dtype
    if dtype is None:
        raise Refused(f"elements of {type_name(elem)}", "use float")
    return ctx.const(np.eye(rows, columns, ctx.attrs.int_("k", 0)), dtype)


TABLE: Table = {
    ("", "Reshape"): reshape,
    ("", "Flatten"): flatten,
    ("", "Squeeze"): squeeze,
    ("", "Unsqueeze"): unsqueeze,
    ("", "Transpose"): transpose,
    ("", "Concat"): concat,
    ("", "Slice"): slice_,
    ("", "Split"): split,
    ("", "Pad"): pad,
    ("", "Expand"): expand,
    ("", "Tile"): tile,
    ("", "DepthToSpace"): depth_to_space,
    ("", "SpaceToDepth"): space_to_depth,
    ("", "Shape"): shape,
    ("", "Size"): size,
    ("", "Constant"): constant,
    ("", "ConstantOfShape"): constant_of_shape,
    ("", "Range"): range_,
    ("", "EyeLike"): eye_like,
}
