"""Operators that move elements: loop nests of strided copies, on C objects or on bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bitc.ir.graph import Array, Node, Op, Value
from bitc.ir.types import TensorType
from bitc.kernels.copy import copy_step
from bitc.kernels.literals import c_number
from bitc.kernels.loops import Dim, nest, row_major
from bitc.kernels.pack import pack_tensor
from bitc.kernels.step import Arg, Built, Packed, Part, Step, Variant, View, first_reason, out, product
from bitc.ops.movement import Concat, Crop, Expand, Gather, Pad, Reshape, Rows, Slice, Tile, Transpose
from bitc.ops.quantize import Repack
from bitc.target import Target

USES = ("bitc_defs.h",)


@dataclass(frozen=True)
class Move:
    """``y[y_at + i . y_steps] = x[x_at + i . x_steps]`` for i over `shape`; all in elements, bits if packed.

    Where `tables` has an entry for an axis, the source moves by its entries instead of a stride.
    """

    shape: tuple[int, ...]
    x_steps: tuple[int, ...]
    y_steps: tuple[int, ...]
    x_at: int = 0
    y_at: int = 0
    tables: tuple[tuple[int, Array], ...] = ()


def steps_of(t: TensorType) -> tuple[int, ...]:
    """Distance of neighbours along each axis, in elements, or in bits of one plane if packed."""
    return (*row_major(t.shape[:-1], t.row_step * (t.layout.word or 1)), 1) if t.shape else ()


def move_steps(node: Node, x: Value, move: Move, clear: bool, overwrite: bool = False) -> list[Step]:
    """The calls for one move; `clear`: zero y first if not every bit of it is written. `overwrite`: y may hold ones
    where bits go."""
    y = node.output.type
    steps: list[Step] = []
    if not y.layout.word:
        return [_dense(node, x, move, 1)]
    whole_rows = y.channels % y.layout.word == 0
    octets = _as_octets(move, x.type, y)
    if clear and not (octets and whole_rows):
        steps.append(_fill(node, 0))
    if octets:
        return [*steps, *[_dense(node, x, m, 8) for m in octets]]
    planes = [(p * x.type.words_per_plane * x.type.layout.word, p * y.words_per_plane * y.layout.word)
              for p in range(y.dtype.planes)]  # fmt: skip
    bits = [replace(move, x_at=move.x_at + px, y_at=move.y_at + py) for px, py in planes]
    return [*steps, *[_bits(node, x, m, overwrite) for m in bits]]


def _as_octets(move: Move, x: TensorType, y: TensorType) -> list[Move]:
    """The same move on bytes, one per plane, if every run of bits starts and ends at a byte."""
    numbers = [move.x_at, move.y_at, move.shape[-1], *move.x_steps[:-1], *move.y_steps[:-1]]
    numbers += [int(v) for _, t in move.tables for v in t]
    contiguous = move.x_steps[-1] == move.y_steps[-1] == 1 and all(a != len(move.shape) - 1 for a, _ in move.tables)
    if not contiguous or any(v % 8 for v in numbers):
        return []
    return [
        Move(
            (*move.shape[:-1], move.shape[-1] // 8),
            (*(s // 8 for s in move.x_steps[:-1]), 1),
            (*(s // 8 for s in move.y_steps[:-1]), 1),
            (move.x_at + p * x.words_per_plane * x.layout.word) // 8,
            (move.y_at + p * y.words_per_plane * y.layout.word) // 8,
            tuple((a, t // 8) for a, t in move.tables),
        )
        for p in range(y.dtype.planes)
    ]


def _loops(move: Move) -> tuple[list[Dim], dict[str, Any], list[Arg]]:
    axes = dict(move.tables)
    if not axes:
        dims = nest(move.shape, [move.x_steps, move.y_steps])
    else:
        dims = [Dim(n, (0 if a in axes else move.x_steps[a], move.y_steps[a])) for a, n in enumerate(move.shape)]
    tables = [Arg(f"table{a}", Packed(t.astype(np.int32), "table", is_weight=False)) for a, t in move.tables]

    def terms(operand: int, at: int) -> str:
        parts = [f"i{k} * {d.strides[operand]}" if d.strides[operand] != 1 else f"i{k}"
                 for k, d in enumerate(dims) if d.strides[operand]]  # fmt: skip
        parts += [f"table{a}[i{a}]" for a in axes if operand == 0]
        return " + ".join([*parts, *([str(at)] if at or not parts else [])])

    context = {"dims": [d.size for d in dims], "x_index": terms(0, move.x_at), "y_index": terms(1, move.y_at)}
    return dims, context, tables


def _dense(node: Node, x: Value, move: Move, bits: int) -> Step:
    """Copy C objects, or bytes of packed rows."""
    _, context, tables = _loops(move)
    octets = "uint8_t" if bits == 8 else ""
    args = (replace(out(node), c_type=octets), Arg("x", x, c_type=octets), *tables)
    return Step("move", "kernels/move.j2", args, context, USES)


def _bits(node: Node, x: Value, move: Move, overwrite: bool) -> Step:
    _, context, tables = _loops(move)
    context |= {"x_word": x.type.layout.word, "y_word": node.output.type.layout.word, "overwrite": overwrite}
    return Step("move_bits", "kernels/move_bits.j2", (out(node), Arg("x", x), *tables), context, USES)


def _fill(node: Node, value: float) -> Step:
    t = node.output.type
    if not t.layout.word:
        return Step("fill", "kernels/fill.j2", (out(node),), {"size": t.size, "value": c_number(value, t.dtype)}, USES)
    row = pack_tensor(np.full(t.channels, value).astype(t.dtype.carrier), t.with_shape((t.channels,)))
    size = t.rows * t.row_words
    if (row == row[0]).all():
        return Step("fill", "kernels/fill.j2", (out(node),), {"size": size, "value": f"{row[0]:#x}u"}, USES)
    context = {"size": size, "value": f"row[i % {t.row_words}]"}
    return Step("fill", "kernels/fill.j2", (out(node), Arg("row", Packed(row, "row", is_weight=False))), context, USES)


def _one(node: Node, move: Move) -> tuple[Step, ...]:
    return tuple(move_steps(node, node.input(0), move, clear=True))


def _reshape(node: Node, target: Target) -> Built:
    x, y = node.input(0).type, node.output.type
    if not x.layout.word:
        return View()
    exact = x.channels % x.layout.word == 0 and y.channels % y.layout.word == 0 and x.dtype.planes == 1
    if exact or (x.channels, x.layout) == (y.channels, y.layout):
        return View()
    px, py = x.row_words * x.layout.word, y.row_words * y.layout.word
    small, big = sorted((x.channels, y.channels))
    if big % small:
        context: dict[str, Any] = {
            "size": x.size, "planes": x.dtype.planes, "x_channels": x.channels, "y_channels": y.channels,
            "x_pitch": px, "y_pitch": py, "x_word": x.layout.word, "y_word": y.layout.word,
            "x_plane": x.words_per_plane * x.layout.word, "y_plane": y.words_per_plane * y.layout.word,
        }  # fmt: skip
        args = (out(node), Arg("x", node.input(0)))
        return (_fill(node, 0), Step("reshape_bits", "kernels/reshape_bits.j2", args, context, USES))
    shape = (x.size // big, big // small, small)
    x_steps = (shape[1] * px, px, 1) if x.channels == small else (px, small, 1)
    y_steps = (shape[1] * py, py, 1) if y.channels == small else (py, small, 1)
    return _one(node, Move(shape, x_steps, y_steps))


def _transpose(node: Node, target: Target) -> Built:
    op, x, y = node.op, node.input(0).type, node.output.type
    assert isinstance(op, Transpose)
    steps = steps_of(x)
    moved = [p for p in op.perm if x.shape[p] != 1]
    if moved == sorted(moved) and x.channels == y.channels:
        return View()
    return _one(node, Move(y.shape, tuple(steps[p] for p in op.perm), steps_of(y)))


def _slice(node: Node, target: Target) -> Built:
    op, x, y = node.op, node.input(0).type, node.output.type
    assert isinstance(op, Slice)
    steps = steps_of(x)
    at = sum(s * t for s, t in zip(op.starts, steps, strict=True))
    if not x.layout.pitch and _is_part(y, x, set(op.steps)):
        return View(at * x.nbytes // x.size if not x.layout.word else at // 8)
    return _one(node, Move(y.shape, tuple(a * b for a, b in zip(op.steps, steps, strict=True)), steps_of(y), at))


def cut(node: Node) -> Part | None:
    """Where the result of a Slice lies in what it is cut out of, if its rows lie equally far apart there."""
    op, x, y = node.op, node.input(0).type, node.output.type
    if not isinstance(op, Slice) or set(op.steps) != {1} or x.layout.word != y.layout.word or x.dtype.planes > 1:
        return None
    if any(p != w and product(x.shape[:a]) > 1 for a, (p, w) in enumerate(zip(y.shape[:-1], x.shape, strict=False))):
        return None
    word = x.layout.word
    if word and (op.starts[-1] % word or (y.channels % word and op.stops[-1] != x.channels)):
        return None
    at = sum(s * t for s, t in zip(op.starts, steps_of(x), strict=True))
    return Part(at // 8 if word else at * x.dtype.carrier.itemsize, x.row_step)


def _is_part(part: TensorType, whole: TensorType, strides: set[int]) -> bool:
    """Whether a part of a tensor, with such strides, lies there as it would by itself: what is cut is the first axis
    that is not of length 1, and all words of rows belong to the part."""
    if strides != {1} or part.layout.word != whole.layout.word or part.layout.pitch:
        return False
    cut = next((a for a, (p, w) in enumerate(zip(part.shape, whole.shape, strict=True)) if p != w), part.rank)
    in_words = not part.layout.word or cut < part.rank - 1 or cut == part.rank
    return in_words and part.shape[cut + 1 :] == whole.shape[cut + 1 :] and product(whole.shape[:cut]) == 1


def _crop(node: Node, target: Target) -> Built:
    op, x, y = node.op, node.input(0).type, node.output.type
    assert isinstance(op, Crop)
    steps = steps_of(x)
    return _one(node, Move(y.shape, tuple(steps[i] for i in (0, 2, 3, 1)) if op.planar else steps, steps_of(y)))


def _rows(node: Node, target: Target) -> Built:
    return (copy_step(node.input(0), node.output),)


def _expand(node: Node, target: Target) -> Built:
    x, y = node.input(0).type, node.output.type
    extra = y.rank - x.rank
    steps = [0] * extra + [0 if d == 1 else s for d, s in zip(x.shape, steps_of(x), strict=True)]
    return _one(node, Move(y.shape, tuple(steps), steps_of(y)))


def _tile(node: Node, target: Target) -> Built:
    op, x, y = node.op, node.input(0).type, node.output.type
    assert isinstance(op, Tile)
    shape, x_steps, y_steps = [], [], []
    for repeat, size, sx, sy in zip(op.repeats, x.shape, steps_of(x), steps_of(y), strict=True):
        shape += [repeat, size]
        x_steps += [0, sx]
        y_steps += [size * sy, sy]
    return _one(node, Move(tuple(shape), tuple(x_steps), tuple(y_steps)))


def _concat(node: Node, target: Target) -> Built:
    op, y = node.op, node.output.type
    assert isinstance(op, Concat)
    steps: list[Step] = []
    start = 0
    octets = y.layout.word and op.axis == y.rank - 1
    aligned = all(v is None or v.type.channels % 8 == 0 for v in node.inputs) and y.channels % y.layout.word == 0 \
        if octets else not y.layout.word or y.channels % 8 == 0  # fmt: skip
    if y.layout.word and not (aligned and y.channels % y.layout.word == 0):
        steps.append(_fill(node, 0))
    for x in node.inputs:
        if x is None or not x.type.size:
            continue
        to = start * steps_of(y)[op.axis]
        copies = move_steps(node, x, Move(x.shape, steps_of(x.type), steps_of(y), 0, to), clear=False)
        at = to // 8 if y.layout.word else to * y.dtype.carrier.itemsize
        if len(copies) == 1 and (row := _row_step(x.type, y, op.axis)) is not None:
            copies = [replace(copies[0], part=Part(at, row))]
        steps += copies
        start += x.shape[op.axis]
    return tuple(steps)


def _row_step(x: TensorType, y: TensorType, axis: int) -> int | None:
    """How far apart the rows of x lie as a part of y, in C objects; 0: one after the other, None: not as rows do."""
    if not y.layout.pitch and _is_part(replace(x, layout=replace(x.layout, pitch=0)), y, {1}):
        return 0
    along = axis == y.rank - 1 or product(y.shape[:axis]) == 1
    whole_words = x.layout.word == y.layout.word and (not y.layout.word or x.channels % x.layout.word == 0)
    return y.row_step if along and whole_words else None


def _pad(node: Node, target: Target) -> Built:
    op, x, y = node.op, node.input(0).type, node.output.type
    assert isinstance(op, Pad)
    to = steps_of(y)
    if op.mode == "constant":
        at = sum(b * s for b, s in zip(op.before, to, strict=True))
        move = Move(x.shape, steps_of(x), to, 0, at)
        return (_fill(node, op.value), *move_steps(node, node.input(0), move, clear=False, overwrite=op.value != 0))
    tables = []
    for axis, (before, size, after, step) in enumerate(zip(op.before, x.shape, op.after, steps_of(x), strict=True)):
        mode: Any = op.mode
        indices = np.pad(np.arange(size), (before, after), mode=mode)
        if before or after:
            tables.append((axis, indices * step))
    return _one(node, Move(y.shape, steps_of(x), to, tables=tuple(tables)))


def _gather(node: Node, target: Target) -> Built:
    op, x, y = node.op, node.input(0).type, node.output.type
    assert isinstance(op, Gather)
    indices, steps = node.input(1).array.reshape(-1), steps_of(x)
    rank = node.input(1).type.rank
    middle = steps_of(y)[op.axis + rank - 1] if rank else 0
    shape = (*x.shape[: op.axis], indices.size, *x.shape[op.axis + 1 :])
    y_steps = (*steps_of(y)[: op.axis], middle, *steps_of(y)[op.axis + rank :])
    return _one(node, Move(shape, steps, y_steps, tables=((op.axis, indices * steps[op.axis]),)))


def _repack(node: Node, target: Target) -> Built:
    x, y = node.input(0).type, node.output.type
    if x.layout == y.layout:
        return View()
    return _one(node, Move(y.shape, steps_of(x), steps_of(y)))


def _packed_gather(node: Node, target: Target) -> str:
    op, x, indices = node.op, node.input(0).type, node.input(1)
    assert isinstance(op, Gather)
    last = op.axis == x.rank - 1 and indices.type.rank != 1
    return first_reason(
        (indices.is_const, "indices are computed"), (not (x.dtype.is_packed and last), "indices reshape packed rows")
    )


def _crop_accepts(node: Node, target: Target) -> str:
    op = node.op
    assert isinstance(op, Crop)
    packed_planes = op.planar and node.input(0).type.dtype.is_packed
    return _always(node, target) or first_reason((not packed_planes, "planes of packed pixels"))


def _always(node: Node, target: Target) -> str:
    return first_reason(
        (bool(node.output.type.dtype.c_type) or node.output.type.dtype.is_packed, "no C type"),
        (product(node.output.shape) > 0 or isinstance(node.op, Reshape), "an empty tensor"),
    )


def _no_tails(node: Node, target: Target) -> str:
    """Bits after the channels are cleared in all rows at once."""
    y = node.output.type
    whole = all(v is None or v.type.channels % y.layout.word == 0 for v in (node.output, *node.inputs)) \
        if y.layout.word and y.layout.pitch else True  # fmt: skip
    return _always(node, target) or first_reason((whole, "rows that lie apart end within words"))


def _variant(name: str, op: type[Op], build: Any, accepts: Any = _always, apart: str = "") -> Variant:
    return Variant(name, (op,), accepts, build, apart=apart)


MOVEMENT = (
    _variant("reshape", Reshape, _reshape),
    _variant("transpose", Transpose, _transpose),
    _variant("slice", Slice, _slice, _no_tails, "xy"),
    _variant("crop", Crop, _crop, _crop_accepts),
    _variant("rows", Rows, _rows),
    _variant("expand", Expand, _expand),
    _variant("tile", Tile, _tile),
    _variant("concat", Concat, _concat, _no_tails, "xy"),
    _variant("pad", Pad, _pad),
    _variant("gather", Gather, _gather, _packed_gather),
    _variant("repack", Repack, _repack),
)
