"""From a tensor of reals to the codes behind it.

`CodeFinder.codes` is asked for the codes of a convolution's input. It goes up through movement operators (which act on
codes as well as on reals) to the quantizer, and puts a threshold on the quantizer's root.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bitc.ir.dtypes import BIT1, INT8, INT32, TERN, UINT8
from bitc.ir.graph import Array, Node, Value
from bitc.ir.rewrite import Rewriter
from bitc.ir.types import DENSE, Quant, TensorType
from bitc.ops.linear import Conv2D, units
from bitc.ops.movement import Concat, Gather, Pad, Reshape, Slice, Transpose
from bitc.ops.pool import MaxPool
from bitc.ops.quantize import Dequantize, Requantize
from bitc.ops.unary import Sign
from bitc.passes.chain import Chain, find_chains
from bitc.passes.context import Context
from bitc.passes.thresholds import MOST_LEVELS, NotAQuantizer, Quantizer, search
from bitc.passes.value_sets import ValueSets


@dataclass(frozen=True)
class Codes:
    """`value` holds codes; a real is ``step * (unit - zero) + middle``, where unit is +1/-1 for bits and the code
    otherwise."""

    value: Value
    step: float
    middle: float
    form: str
    zero: int = 0


@dataclass(frozen=True)
class Declined:
    """Why a tensor has no codes."""

    why: str


class CodeFinder:
    """Finds codes of values in a graph that is being rewritten; remembers them, so that a quantizer read by several
    layers is computed once."""

    def __init__(self, rw: Rewriter, ctx: Context) -> None:
        self._rw = rw
        self._ctx = ctx
        self._sets = ValueSets(rw)
        self._known: dict[Value, Value | Declined] = {}

    @property
    def found(self) -> dict[Value, Value]:
        """The codes found so far, by the computed tensor of reals that they stand for."""
        return {
            x: codes
            for x, codes in self._known.items()
            if isinstance(codes, Value) and not x.is_const and not self._is_decoded(x)
        }

    def codes(self, x: Value, padded: bool) -> Codes | Declined:
        """Codes of a convolution's input. `padded`: the convolution has zero padding, so zero must be the value of a
        skipped tap, which it is only where `middle` is 0."""
        few = self._sets[x].points
        value = self._find(x) if few and len(few) <= MOST_LEVELS else None
        if not isinstance(value, Value):
            integer = self._integer_input(x, padded)
            if integer is not None:
                return integer
            value = self._find(x)
        if isinstance(value, Declined):
            return value
        quant = value.type.quant
        assert quant is not None and quant.per_tensor
        if value.type.dtype is TERN:
            return Codes(value, quant.scale[0], 0.0, f"input {{-1, 0, 1}} * {quant.scale[0]:g}")
        if value.type.dtype.digits:
            return _numbers(value, quant, padded)
        low, high = quant.low, quant.high
        middle = (low + high) / 2
        if middle and padded:
            return Declined(f"its input takes the values {low:g} and {high:g}, and padding adds a third, 0")
        form = f"input ±{high:g}" if not middle else f"input {{{low:g}, {high:g}}}"
        return Codes(value, (high - low) / 2, middle, form)

    def _find(self, x: Value) -> Value | Declined:
        if x not in self._known:
            self._known[x] = self._through_movement(x) or self._quantizer(x)
        return self._known[x]

    def _through_movement(self, x: Value) -> Value | Declined | None:
        """Codes of a moved tensor are the moved codes; None if x is not the result of movement."""
        if x.is_const:
            return self._constant(x)
        node = self._rw.producer(x)
        if node is None:
            return Declined("its input is a graph input of any real value")
        op = node.op
        if isinstance(op, Dequantize) and node.input(0).type.dtype.is_packed:
            return node.input(0)
        if isinstance(op, MaxPool):
            return self._pool(node)
        if not isinstance(op, Reshape | Transpose | Slice | Concat | Pad | Gather):
            return None
        if isinstance(op, Gather):
            source = self._find(node.input(0))
            if isinstance(source, Declined) or not node.input(1).is_const:
                return source
            return self._rw.emit(op, source, node.input(1), at=node.origin, name=f"{x.name}.codes", origin=x.origin)
        sources = [self._find(v) for v in node.inputs if v is not None]
        for s in sources:
            if isinstance(s, Declined):
                return s
        values = [s for s in sources if isinstance(s, Value)]
        if any((v.type.dtype, v.type.quant) != (values[0].type.dtype, values[0].type.quant) for v in values):
            return Declined("its input joins tensors with different values")
        if isinstance(op, Pad) and op.mode == "constant":
            coded = _pad_code(op, values[0])
            if coded is None:
                return Declined(f"its input is padded with {op.value:g}, which is none of its values")
            op = coded
        return self._rw.emit(op, *values, at=node.origin, name=f"{x.name}.codes", origin=x.origin)

    def _constant(self, x: Value) -> Value | Declined:
        """A constant of two values joins computed bits (an image is padded with ones by a Concat)."""
        points = np.unique(x.array)
        if len(points) > 2 or not np.isfinite(points).all():
            return Declined(f"it is joined with a constant of {len(points)} values")
        lo, hi = (
            (float(points[0]), float(points[-1])) if len(points) > 1 else sorted((float(points[0]), -float(points[0])))
        )
        if lo == hi:
            return Declined("it is joined with a constant of zeros")
        return self._rw.const(
            x.array == lo, f"{x.name}.codes", TensorType(x.shape, BIT1, DENSE, Quant.two_valued(lo, hi))
        )

    def _pool(self, node: Node) -> Value | Declined | None:
        """A max pool directly over a quantized tensor works on its codes."""
        source = self._find(node.input(0))
        if isinstance(source, Declined):
            return None  # the pool may still be part of the chain to a quantizer behind it
        y = node.output
        return self._rw.emit(node.op, source, *node.inputs[1:], at=node.origin, name=f"{y.name}.codes", origin=y.origin)

    def _quantizer(self, x: Value) -> Value | Declined:
        """Put a threshold on the root of the chain that quantizes x; long chains first: they may reach integers."""
        values = self._sets[x]
        if values.points is None or len(values.points) > MOST_LEVELS:
            return Declined(f"its input takes values {values}")
        why = "its input is no function of one tensor"
        for chain in reversed(list(find_chains(self._rw, x, self._shared))):
            if chain.varying()[:1] != (1,):
                why = "its input depends on constants that vary over the batch"
                continue
            try:
                return self._emit(chain, search(chain, self._reachable(chain.root)))
            except NotAQuantizer as reason:
                why = f"its input is not a threshold of {chain.root.name}: {reason}"
        return Declined(why)

    def _emit(self, chain: Chain, q: Quantizer) -> Value:
        rw, at, name = self._rw, chain.nodes[-1].origin, f"{chain.end.name}.codes"
        if q.zero_reachable and self._zero_is_unintended(chain):
            self._ctx.notice(
                f"{at}: Sign can give 0 here, kept as a third value (two bit planes); "
                "--sign0=+1 or --sign0=-1 makes it one bit"
            )
        params = [rw.const(p, f"{chain.end.name}.{n}") for p, n in zip(q.params, q.epilogue.param_names, strict=False)]
        value = rw.emit(Requantize(q.epilogue), chain.root, *params, at=at, name=name)
        for pool, minimum in zip(chain.pools, q.minimum, strict=True):
            flags = (rw.const(minimum, f"{pool.output.name}.minimum"),) if minimum.any() else ()
            value = rw.emit(pool.op, value, *flags, at=pool.origin, name=name)
        value.origin = chain.end.origin
        return value

    def _zero_is_unintended(self, chain: Chain) -> bool:
        """Whether the zero comes from a Sign of a real of either sign, not from a quantizer with three values."""
        signs = [self._sets[n.input(0)] for n in chain.nodes if isinstance(n.op, Sign)]
        return bool(signs) and all(s.is_interval_around_zero for s in signs)

    def _is_decoded(self, x: Value) -> bool:
        node = self._rw.producer(x)
        return node is not None and isinstance(node.op, Dequantize)

    def _shared(self, value: Value, inside: set[Value]) -> bool:
        return any(not inside.intersection(n.outputs) for n in self._rw.readers(value)) or self._rw.is_output(value)

    def _reachable(self, root: Value) -> Array | None:
        """Every value that an integer accumulator can take, ascending; None for float roots.

        K products of ±1 sum to -K, -K + 2, ..., K. In general a sum of ±w has the parity of sum |w| and lies within
        it; the sum is over the taps inside the image, which differ along the border, and zeros of the input give any
        parity.
        """
        node = self._rw.producer(root)
        if node is None or not isinstance(node.op, Conv2D) or root.type.dtype is not INT32:
            dtype = root.type.dtype
            return np.arange(dtype.min, dtype.max + 1) if dtype.is_integer and dtype.bits <= 8 else None
        x, w = node.input(0), node.input(1)
        weights = units(w.array)
        if weights.dtype.kind == "f":
            return None
        if x.type.dtype is BIT1:
            per_tap = np.abs(weights.astype(np.int64)).sum(axis=3)
            boxes = node.op.window.tap_boxes((x.shape[1], x.shape[2]))
            bounds = {int(v) for rows, cols in boxes for v in np.unique(per_tap[:, rows, cols].sum(axis=(1, 2)))}
            return np.unique(np.concatenate([np.arange(-k, k + 1, 2) for k in bounds]))
        lowest, highest = node.op.span(x.type, w.array)
        return np.arange(lowest.min(), highest.max() + 1)

    def _integer_input(self, x: Value, padded: bool) -> Codes | None:
        """x as a scaled 8-bit tensor: a chain of which the codes 0..255 (or -128..127) give evenly spaced reals, the
        same in each channel."""
        mover = self._rw.producer(x)
        if mover is not None and isinstance(mover.op, Reshape | Transpose | Slice):
            inner = self._integer_input(mover.input(0), padded)
            if inner is None:
                return None
            return replace(inner, value=self._rw.emit(mover.op, inner.value, at=mover.origin, name=f"{x.name}.codes"))
        for chain in find_chains(self._rw, x, lambda value, inside: False):
            dtype, rank = chain.root.type.dtype, chain.root.type.rank
            if dtype not in (UINT8, INT8) or chain.pools:
                continue
            codes = np.arange(dtype.min, dtype.max + 1)
            columns = np.broadcast_to(codes.astype(dtype.carrier)[:, None], (256, chain.root.type.channels))
            table = chain(columns.reshape(256, *(1,) * (rank - 1), -1)).reshape(256, -1)
            reals = table[:, 0].astype(np.float64)
            if (table != table[:, :1]).any() or not np.isfinite(reals).all():
                continue
            step = float(reals[-1] - reals[0]) / 255
            offset = float(reals[np.argmin(np.abs(codes))])
            if step == 0 or np.abs(reals - (codes * step + offset)).max() > 1e-6 * np.abs(reals).max():
                continue
            if offset and padded:
                continue
            return Codes(chain.root, step, offset, f"input {dtype} * {step:g}")
        return None


def _pad_code(op: Pad, codes: Value) -> Pad | None:
    """The same padding with the code of its value."""
    quant = codes.type.quant
    assert quant is not None
    code = np.rint((op.value - quant.offset[0]) / quant.scale[0])
    real = quant.decode(code)
    exact = abs(real - op.value) <= 1e-4 * abs(quant.scale[0]) and codes.type.dtype.min <= code <= codes.type.dtype.max
    return replace(op, value=float(code)) if exact else None


def _numbers(value: Value, quant: Quant, padded: bool) -> Codes | Declined:
    """Numbers in bit planes. Where 0 is one of their reals, its code is the zero of the product."""
    step, offset, largest = quant.scale[0], quant.offset[0], int(value.type.dtype.max)
    zero = round(-offset / step)
    is_real = -zero * step == offset
    if padded and not (is_real and 0 <= zero <= largest):
        last = offset + largest * step
        return Declined(
            f"its input takes evenly spaced values from {offset:g} to {last:g}, and padding adds another, 0"
        )
    form = f"input {value.type.dtype} * {step:g}" + (f" {offset:+g}" if offset else "")
    return Codes(value, step, 0.0 if is_real else offset, form, zero if is_real else 0)
