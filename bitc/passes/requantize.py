"""From one quantizer to the next in integers.

    codes of y = clip(round(a * x + c) + zero, lo, hi)        the staircase from a root x to y

What the root is decides the operator: an accumulator or codes of 16 bits are requantized, 8-bit codes are looked up
(whatever unary functions lie between), sums, products and means of codes are computed on the codes, and a quantizer
behind a max pool or a movement of elements goes in front of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from bitc.ir.dtypes import INT16, INT32, DType
from bitc.ir.graph import Array, Node, Value
from bitc.ir.rewrite import Rewriter
from bitc.ir.types import Quant, TensorType
from bitc.ops.binary import Add, Div, Mul, Sub
from bitc.ops.epilogue import Epilogue, FixedPoint, Requant
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Concat, Expand, Gather, Pad, Reshape, Slice, Tile, Transpose
from bitc.ops.pool import AveragePool, MaxPool
from bitc.ops.quantize import Quantize, Requantize
from bitc.ops.quantized import AddRequant, Lookup, MulRequant
from bitc.ops.reduce import ReduceMean
from bitc.ops.unary import Cast, Clip, Round
from bitc.ops.window import Window
from bitc.passes.chain import find_chains
from bitc.passes.coded import (
    NEAR,
    Coded,
    all_codes,
    code_of,
    codes_of,
    constant,
    fraction,
    is_codes,
    quantizer,
    scalar,
    shift_of_bias,
    storage,
)
from bitc.passes.context import Context, Declined, Found
from bitc.passes.stairs import DOWN, EVEN, ROUNDS, Stairs, climb, computed, is_line, walk

MOVERS = (Reshape, Transpose, Slice, Concat, Pad, Gather, Expand, Tile, MaxPool)
_FLAT = 1e-4
"""A function that changes less than that, in steps, is a constant."""
_TOLERANCE = 1 / 16
"""Largest error of a bias, in steps of the output, that rounding it to an accumulator's integer may make. onnxruntime
rounds the bias of integer weights likewise; that of packed weights, which it computes in float, is kept."""


class Requantizer:
    """Finds the integer form of quantizers in a graph that is being rewritten."""

    def __init__(self, rw: Rewriter, few: int, ctx: Context) -> None:
        """Tensors of up to `few` values are left as they are. `ctx` collects what was found."""
        self._rw = rw
        self._few = few
        self._ctx = ctx
        self._rounded: set[Value] = set()
        """What lines compute behind a rounding."""
        self._left: set[Value] = set()
        """Codes of few values."""

    def _decline(self, at: str, why: str) -> None:
        self._ctx.not_integer.append(Declined(at, why))

    def _found(self, at: str, form: str) -> None:
        self._ctx.integer.append(Found(at, form))

    def leaves(self, codes: Value) -> bool:
        """Whether these codes have few values."""
        return codes in self._left

    # Codes that exist

    def coded(self, v: Value) -> Coded | None:
        """v as a scaled integer tensor that is computed already, but for moving it or limiting its codes; None if it
        is none."""
        root, nodes = walk(self._rw, v)
        if v.is_const:
            return None
        if not is_codes(root.type.dtype) or root in self._left:
            return self._moved(root) if root is v else None
        s = climb(root, nodes)
        if s is None or s.mode or not s.per_tensor or s.a[0] <= 0:
            return None
        a, t, dtype = float(s.exact[0]), float(s.t[0]), root.type.dtype
        zero = -round(t)
        bounds = [float(b[0]) / a + zero for b in (s.lo, s.hi)]
        if any(np.isfinite(b) and abs(b - round(b)) > NEAR for b in (*bounds, t)):
            return None  # a zero or a limit that is no code
        value, (lo, hi) = root, (np.rint(b) for b in bounds)
        if lo > dtype.min or hi < dtype.max:
            value = self._rw.emit(Clip(float(lo), float(hi)), root, at=nodes[-1].origin, name=f"{v.name}.codes")
        return Coded(value, float(s.a[0]), zero)

    def _moved(self, v: Value) -> Coded | None:
        """Codes behind a movement of one tensor."""
        mover = self._rw.producer(v)
        if mover is None or not isinstance(mover.op, Reshape | Transpose | Slice | Expand | Tile | MaxPool):
            return None
        source = self.coded(mover.input(0)) if len(mover.inputs) == 1 else None
        if source is None:
            return None
        return replace(source, value=self._rw.emit(mover.op, source.value, at=mover.origin, name=f"{v.name}.codes"))

    # Codes that a quantizer makes

    def quantized(self, node: Node, into: DType | None) -> tuple[Value, Quant] | None:
        """The codes of what `node`, the last of a line, computes, and what they mean. `into`: the codes are the
        node's values themselves, of this type; else any that fits."""
        root, nodes = self._line(node)
        s = quantizer(root, nodes)
        if s is None:
            return None
        lo, hi = s.bounds
        if not np.isfinite([lo, hi]).all():
            return None
        found = (into, int(s.offset)) if into and s.integral(root) else None if into else storage(lo, hi)
        if found is None:
            return None
        if hi - lo < self._few:
            self._left.add(node.output)
            return None
        dtype, zero = found
        if lo + zero < dtype.min or hi + zero > dtype.max:
            return None
        real_zero = zero - round(s.offset / s.scale) if not into else 0
        quant = Quant((s.scale,), zero=real_zero) if not into else Quant()
        want = Requant(dtype, zero, int(lo) + zero, int(hi) + zero)
        value = self._through(root, nodes, want)
        return None if value is None else (value, quant)

    def ends(self, node: Node) -> bool:
        """Whether `node` is the last of a line that rounds: something reads it that does not go on with its
        staircase."""
        if not isinstance(node.op, ROUNDS) and computed(node) not in self._rounded:
            return False
        self._rounded.add(node.output)
        if is_codes(node.output.type.dtype) or self._rw.is_output(node.output):
            return True
        root, nodes = self._line(node)
        return not all(is_line(n) and climb(root, [*nodes, n]) for n in self._rw.readers(node.output))

    def _line(self, node: Node) -> tuple[Value, list[Node]]:
        """The longest line to `node`, which is not emitted yet, that is one staircase."""
        source = next(v for v in node.inputs if v is not None and not v.is_const)
        root, nodes = walk(self._rw, source) if not is_codes(source.type.dtype) else (source, [])
        nodes = [*nodes, node]
        return self._longest(root, nodes)

    @staticmethod
    def _longest(root: Value, nodes: list[Node]) -> tuple[Value, list[Node]]:
        while len(nodes) > 1 and climb(root, nodes) is None:
            root, nodes = nodes[0].output, nodes[1:]
        return root, nodes

    def _through(self, root: Value, nodes: list[Node], want: Requant) -> Value | None:
        """Codes of what the nodes make of the root."""
        s = quantizer(root, nodes)
        if s is None:
            return None
        lo, hi = (b + want.zero for b in s.bounds)
        want = replace(want, lo=int(max(lo, want.lo)), hi=int(min(hi, want.hi)))
        at, name = nodes[-1].origin, f"{nodes[-1].output.name}.codes"
        if root.type.dtype.is_packed or root.type.dtype.carrier.kind == "b":
            return None
        if root.type.dtype.is_integer:
            return self._of_integers(root, nodes, s, want, at, name)
        producer = self._rw.producer(root)
        value = self._of_operator(producer, root, nodes, s, want, at, name) if producer is not None else None
        return value or self._of_reals(root, nodes, s, want, at, name)

    def _of_integers(
        self, root: Value, nodes: Sequence[Node], s: Stairs, want: Requant, at: str, name: str
    ) -> Value | None:
        if root.type.dtype.bits == 8 and s.per_tensor and root.type.dtype.is_code:
            return self._lookup(root, all_codes(root.type.dtype), nodes, s, want, at, name)
        if (s.lo != s.lo[0]).any() or (s.hi != s.hi[0]).any():
            self._decline(at, "its limits differ between channels")
            return None
        if root.type.dtype.bits > 32:
            narrow = self._narrow(root, s)
            if narrow is None:
                return self._cast(root, nodes, s, want, at, name)
            root = narrow
        if s.mode not in (EVEN, DOWN):
            self._decline(at, f"it rounds {s.mode}")
            return None
        if (s.exact * self._reach(root) < _FLAT).any():
            root, s = self._upright(root, nodes, s)
        if s.mode == EVEN:
            root, s = self._finer(root, nodes, s)
        factor = fraction(s.a) if (s.exact >= 0).all() else None
        if factor is None:
            self._decline(at, "its factor is not positive")
            return None
        error = float((np.abs(s.t - np.rint(s.t)) * s.exact).max())
        reach = self._reach(root)
        plain = s.mode == EVEN and (s.exact > 0).all() and error <= (NEAR / 100 if self._packed(root) else _TOLERANCE)
        if plain and reach + np.abs(s.t).max() < 2**31:
            params = self._params(name, want, np.rint(s.t), *factor)
            self._found(at, f"requantized{shift_of_bias(error)}")
            return self._rw.emit(Requantize(want), root, *params, at=at, name=name)
        if s.mode == EVEN and s.a.size == 1 and s.exact[0] > 0 and is_codes(root.type.dtype):
            return self._biased(root, float(s.exact[0]), s.t, want, at, name)
        epilogue = FixedPoint(want)
        factor = fraction(s.a, np.floor(60 - np.log2(np.maximum(np.abs(s.c), 1))).astype(np.int64)) or factor
        addend = np.rint(s.c * 2.0 ** factor[1] + (2.0 ** (factor[1] - 1) if s.mode == EVEN else 0))
        if float((reach * factor[0] + np.abs(addend)).max()) >= 2.0**62:
            self._decline(at, "its sums may exceed 64 bits")
            return None
        params = self._params(name, epilogue, factor[0], addend, factor[1])
        self._found(at, "requantized in fixed point" + (", halves up" if s.mode == EVEN else ", rounding down"))
        return self._rw.emit(Requantize(epilogue), root, *params, at=at, name=name)

    def _narrow(self, root: Value, s: Stairs) -> Value | None:
        """A float cast to 64 bits, cast to 32 instead: where that saturates, the staircase is at its limits."""
        cast = self._rw.producer(root)
        if cast is None or not isinstance(cast.op, Cast) or not cast.input(0).type.dtype.is_float:
            return None
        ends = np.sort(np.stack([s.exact * end + s.c for end in (INT32.min, INT32.max)]), axis=0)
        if (ends[0] > s.lo).any() or (ends[1] < s.hi).any():
            return None
        return self._rw.emit(Cast(INT32), cast.input(0), at=cast.origin, name=root.name)

    def _params(self, name: str, epilogue: Epilogue, *params: Array) -> list[Value]:
        kinds = {"addend": np.int64}
        return [
            self._rw.const(p.astype(kinds.get(n, np.int32)), f"{name}.{n}")
            for n, p in zip(epilogue.param_names, params, strict=True)
        ]

    def _biased(self, x: Value, a: float, t: Array, want: Requant, at: str, name: str) -> Value | None:
        """``a * (x + t)`` for a t per channel between integers: the sum of x and a constant of 16 bits."""
        fine = int(np.floor(np.log2((2**15 - 1) / np.abs(t).max())))
        codes = self._rw.const(np.rint(t * 2.0**fine).astype(np.int16), f"{name}.bias")
        return self._sum(Coded(x, a, 0), Coded(codes, a / 2.0**fine, 0), 1.0, want, at, name)

    def _packed(self, root: Value) -> bool:
        conv = self._rw.producer(root)
        return conv is not None and isinstance(conv.op, Conv2D) and conv.input(1).type.dtype.is_packed

    def _reach(self, root: Value) -> float:
        conv = self._rw.producer(root)
        if conv is not None and isinstance(conv.op, Conv2D):
            return float(conv.op.reach(conv.input(0).type, conv.input(1).array).max())
        return max(abs(root.type.dtype.min), abs(root.type.dtype.max)) - 1

    def _alone(self, root: Value, nodes: Sequence[Node]) -> Node | None:
        """The convolution that computes the root, if nothing but the nodes reads it."""
        conv = self._rw.producer(root)
        if conv is None or not isinstance(conv.op, Conv2D) or conv.op.epilogue:
            return None
        return None if any(self._rw.uses(v) > 1 for v in (root, *(n.output for n in nodes[:-1]))) else conv

    def _upright(self, root: Value, nodes: Sequence[Node], s: Stairs) -> tuple[Value, Stairs]:
        """Weights of channels with a negative factor negated, and those of channels that hardly change removed: there,
        y is c."""
        conv = self._alone(root, nodes)
        if conv is None:
            return root, s
        w = conv.input(1)
        flat = np.abs(s.exact) * self._reach(root) < _FLAT
        sign = np.broadcast_to(np.where(flat, 0, np.sign(s.exact)), w.shape[0]).reshape(-1, *(1,) * (w.type.rank - 1))
        if w.array.dtype.kind == "b":
            turned = w.array ^ (sign < 0)
        elif (w.array == np.iinfo(w.array.dtype).min).any():
            return root, s
        else:
            turned = w.array * sign.astype(w.array.dtype)
        weights = self._rw.const(turned, w.name, w.type)
        acc = self._rw.emit(conv.op, conv.input(0), weights, at=conv.origin, name=root.name)
        steps = 0 if w.type.dtype.is_packed else np.maximum(np.abs(s.c), 1) / 2**16
        a = np.where(flat, steps, np.abs(s.a)).astype(np.float32)
        return acc, replace(s, a=a, exact=np.where(flat, steps, np.abs(s.exact)))

    def _finer(self, root: Value, nodes: Sequence[Node], s: Stairs) -> tuple[Value, Stairs]:
        """Small weights times a power of two, or whatever 8 bits hold (the steps that a quantizer had), where they are
        the accumulator's only use, so that a bias between two of its integers becomes one."""
        conv = self._alone(root, nodes)
        if conv is None or (np.abs(s.t - np.rint(s.t)) * s.exact).max() < NEAR:
            return root, s
        w = conv.input(1)
        if w.type.dtype.is_packed:
            return root, s
        room = np.iinfo(w.array.dtype).max // max(int(np.abs(w.array.astype(np.int64)).max()), 1)
        on_codes = (np.abs(s.t * room - np.rint(s.t * room)) * s.exact).max() < NEAR * room
        gain = room if on_codes else 1 << max(room.bit_length() - 1, 0)
        if gain == 1 or self._reach(root) * gain >= 2**30:
            return root, s
        weights = self._rw.const(w.array * w.array.dtype.type(gain), w.name)
        fine = self._rw.emit(conv.op, conv.input(0), weights, at=conv.origin, name=root.name)
        return fine, replace(s, a=(s.a / np.float32(gain)).astype(np.float32), exact=s.exact / gain)

    def _lookup(
        self, root: Value, reals: Array, nodes: Sequence[Node], s: Stairs, want: Requant, at: str, name: str
    ) -> Value | None:
        """A table of what the nodes make of `reals`, one for each 8-bit code of the root; the root itself if that is
        the same codes."""
        table = codes_of(reals, nodes, s, want)
        if table is None:
            return None
        if want.dtype is root.type.dtype and (table == all_codes(want.dtype)).all():
            return root
        self._found(at, "table of 256 codes")
        return self._rw.emit(Lookup(), root, self._rw.const(table, f"{name}.table"), at=at, name=name)

    def _of_operator(
        self, p: Node, root: Value, nodes: list[Node], s: Stairs, want: Requant, at: str, name: str
    ) -> Value | None:
        """Codes of a staircase over the result of an operator on reals; None if it has no integer form."""
        if isinstance(p.op, MOVERS):
            return self._before(p, nodes, want)
        if s.per_tensor and s.mode == EVEN and s.a[0] > 0:
            if isinstance(p.op, Add | Sub | Mul) and s.c[0] == 0:
                return self._pair(p, s, want, at, name)
            if isinstance(p.op, AveragePool | ReduceMean) and s.c[0] == 0:
                return self._mean(p, s, want, at, name)
        if not s.per_tensor:
            return None
        for chain in find_chains(self._rw, root, lambda value, inside: False):
            x = chain.root.type
            if is_codes(x.dtype) and x.dtype.bits == 8 and not chain.pools and prod(chain.varying()[:-1]) == 1:
                wide = np.broadcast_to(all_codes(x.dtype)[:, None], (256, x.channels))
                reals = chain(wide.reshape(256, *(1,) * (x.rank - 1), -1)).reshape(256, -1)
                same = bool((reals == reals[:, :1]).all())
                return self._lookup(chain.root, reals[:, 0], nodes, s, want, at, name) if same else None
        return None

    def _before(self, mover: Node, nodes: list[Node], want: Requant) -> Value | None:
        """The quantizer in front of a movement: moved codes are the codes of what is moved."""
        s = quantizer(mover.output, nodes)
        keeps_channels = isinstance(mover.op, MaxPool) or (
            isinstance(mover.op, Concat) and mover.op.axis < mover.output.type.rank - 1
        )
        if s is None or (s.a <= 0).any() or not (s.per_tensor or keeps_channels):
            return None
        if isinstance(mover.op, MaxPool) and len(mover.inputs) > 1:
            return None
        op, data = mover.op, mover.inputs[:1] if isinstance(mover.op, Gather) else mover.inputs
        if isinstance(op, Pad) and op.mode == "constant":
            op = replace(op, value=float(code_of(op.value, nodes, s, want)))
        moved: list[Value | None] = []
        for v in data:
            assert v is not None
            if v.is_const:
                return None
            root, prefix = walk(self._rw, v)
            root, line = self._longest(root, [*prefix, *nodes])
            one = quantizer(root, line) if len(line) >= len(nodes) else None
            if one is None or one.scale != s.scale:
                return None
            shift = int((one.offset - s.offset) / s.scale)  # codes of an equal quantizer are not rounded again
            moved.append(self._through(root, line, replace(want, zero=want.zero + shift)))
        if None in moved:
            return None
        rest = mover.inputs[1:] if isinstance(op, Gather) else ()
        return self._rw.emit(op, *moved, *rest, at=mover.origin, name=f"{mover.output.name}.codes")

    def _pair(self, p: Node, s: Stairs, want: Requant, at: str, name: str) -> Value | None:
        """The sum, difference or product of two coded tensors."""
        a, b = (constant(self._rw, v) if v.is_const else self.coded(v) for v in (p.input(0), p.input(1)))
        factor = float(s.a[0])
        if not isinstance(p.op, Mul):
            a, b = (self._fine(p, i, (a, b), s) for i in (0, 1))
        if a is None or b is None:
            return None
        if isinstance(p.op, Mul):
            found = fraction(np.array([factor * a.scale * b.scale]))
            if found is None or a.reach * b.reach * int(found[0][0]) >= 2**61:
                return None
            op = MulRequant(a.zero, b.zero, int(found[0][0]), int(found[1][0]), want)
            self._found(at, "product of codes")
            return self._rw.emit(op, a.value, b.value, at=at, name=name)
        return self._sum(a, b, factor, want, at, name, -1 if isinstance(p.op, Sub) else 1)

    def _fine(self, p: Node, index: int, parts: Sequence[Coded | None], s: Stairs) -> Coded | None:
        """Operand `index` of a sum. An accumulator (a residual added before any quantizer) is first brought to 16 bits,
        so finely that they span all that the sum's quantizer and the other operand can make a difference to."""
        own, other = parts[index], parts[1 - index]
        if own is not None or p.input(index).is_const:
            return own
        span = float(max(abs(s.bounds[0]), abs(s.bounds[1])) + 1) / float(s.exact[0])
        span = span + (other.reach * other.scale if other else span)
        root, line = walk(self._rw, p.input(index))
        if not np.isfinite(span) or not self._is_sum(root):
            return None
        x, scale = p.input(index), np.float32(span / INT16.max)
        to = (x, self._rw.const(np.array(scale), f"{x.name}.step"), self._rw.const(np.zeros((), np.float32), "zero"))
        low, high = int(INT16.min), int(INT16.max)
        codes = Value(f"{x.name}.fine", TensorType(x.shape, INT16))
        node = Node(Quantize(INT16, low, high), to, (codes,), p.origin)
        value = self._through(root, [*line, node], Requant(INT16, 0, low, high))
        return None if value is None else Coded(value, float(scale), 0)

    def _is_sum(self, root: Value) -> bool:
        """Whether a value is an accumulator, or a line over one that was only moved."""
        mover = self._rw.producer(root)
        if mover is not None and isinstance(mover.op, MOVERS) and len(mover.inputs) == 1:
            return self._is_sum(walk(self._rw, mover.input(0))[0])
        return root.type.dtype is INT32

    def _sum(self, a: Coded, b: Coded, factor: float, want: Requant, at: str, name: str, sign: int = 1) -> Value | None:
        """``factor * (a + sign * b)``, in 32-bit arithmetic if both have 8 bits."""
        left, right = factor * a.scale, sign * factor * b.scale
        total, largest = a.reach * left + b.reach * abs(right), max(left, abs(right))
        narrow = max(a.value.type.dtype.bits, b.value.type.dtype.bits) == 8
        room = min((2.0**30 if narrow else 2.0**61) / total, (2**31 - 1) / largest)
        shift = min(int(np.floor(np.log2(room))), 61)
        if shift < 0:
            return None
        m, n = (round(f * 2.0**shift) for f in (left, right))
        while shift and not (m | n) & 1:
            m, n, shift = m // 2, n // 2, shift - 1
        self._found(at, f"sum of codes, factors of {shift} bits")
        op = AddRequant(a.zero, m, b.zero, n, shift, want)
        return self._rw.emit(op, a.value, b.value, at=at, name=name)

    def _mean(self, p: Node, s: Stairs, want: Requant, at: str, name: str) -> Value | None:
        """The mean of windows, or over adjacent axes, of a coded tensor."""
        x = self.coded(p.input(0))
        if x is None:
            return None
        value, include = x.value, True
        if isinstance(p.op, AveragePool):
            window, include = p.op.window, p.op.count_include_pad
        else:
            assert isinstance(p.op, ReduceMean)
            axes, shape = p.op.axes, value.shape
            if list(axes) != list(range(axes[0], axes[-1] + 1)):
                return None
            block = prod(shape[i] for i in axes)
            flat = (prod(shape[: axes[0]]), 1, block, prod(shape[axes[-1] + 1 :]))
            value = self._rw.emit(Reshape(flat), value, at=at)
            window = Window(kernel=(1, block))
        taps = window.kernel[0] * window.kernel[1]
        counts = np.array([taps]) if include or not window.has_padding else np.maximum(np.arange(taps + 1), 1)
        factor = fraction((s.a[0] * np.float32(x.scale)) / counts.astype(np.float32))
        if factor is None or taps * x.reach >= 2**31:
            return None
        params = self._params(name, want, np.zeros(1), *factor)
        self._found(at, "mean of codes")
        y = self._rw.emit(AveragePool(window, include, x.zero, want), value, *params, at=at, name=name)
        return y if y.shape == p.output.shape else self._rw.emit(Reshape(p.output.shape), y, at=at, name=name)

    def _of_reals(
        self, root: Value, nodes: Sequence[Node], s: Stairs, want: Requant, at: str, name: str
    ) -> Value | None:
        """Codes of reals that are computed as such: the nodes up to the one that rounds, and that as one operator."""
        rw, x = self._rw, root
        if s.mode != EVEN:
            return self._cast(root, nodes, s, want, at, name)
        scale = rw.const(np.array(1, np.float32), f"{name}.scale")
        for node, after in zip(nodes, [*nodes[1:], None], strict=True):
            rounds = isinstance(node.op, Round | Quantize)
            divides = isinstance(node.op, Div) and after is not None and isinstance(after.op, Round)
            operands = [v if v is None or not v.is_const else scalar(rw, v) for v in node.inputs]
            if isinstance(node.op, Quantize) or (divides and node.input(1).is_const):
                scale = operands[1] or scale
            if rounds:
                zero = rw.const(np.array(want.zero, np.float32), f"{name}.zero")
                return rw.emit(Quantize(want.dtype, want.lo, want.hi), x, scale, zero, at=at, name=name)
            if not (divides and node.input(1).is_const):
                x = rw.emit(node.op, *(v if v is None or v.is_const else x for v in operands), at=node.origin)
        return None

    def _cast(self, root: Value, nodes: Sequence[Node], s: Stairs, want: Requant, at: str, name: str) -> Value | None:
        """Reals that the nodes have rounded in some other way, as codes."""
        if s.scale != 1 or s.offset:
            return None
        x = root
        for node in nodes:
            operands = [v if v is None or not v.is_const else scalar(self._rw, v) for v in node.inputs]
            x = self._rw.emit(node.op, *(v if v is None or v.is_const else x for v in operands), at=node.origin)
        if want.zero:
            zero = self._rw.const(np.array(want.zero, x.type.dtype.carrier), f"{name}.zero")
            x = self._rw.emit(Add(), x, zero, at=at)
        return self._rw.emit(Cast(want.dtype), x, at=at, name=name)
