"""Recurrent layers, one direction each: RNN, GRU and LSTM as ONNX defines them.

Products are summed in order from 0, one at a time; ``xw = x W + b`` and the product with the recurrent weights are then
added. Every step rounds to float32, as in the generated C.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitc.ir.dtypes import INT32
from bitc.ir.graph import Array, Op
from bitc.ir.types import TensorType
from bitc.ops.unary import Unary, f32

Activation = tuple[Unary, ...]
"""Applied one after the other."""


def activate(chain: Activation, x: Array) -> Array:
    for op in chain:
        x = op.compute(x)
    return np.asarray(x, np.float32)


@dataclass(frozen=True)
class Recurrent(Op):
    """Base. Inputs: x ``[T, B, I]``; w ``[gates * H, I]``; r ``[gates * H, H]``, the recurrent weights; bias
    ``[gates * H]``; h0 ``[B, H]``; lengths ``int32[B]``, the steps of each sequence; then those of the subclass. Absent
    ones are zeros, absent lengths all T.

    Outputs: the last h ``[B, H]``; then those of the subclass; then, if `sequence`, all h ``[T, B, H]``, with zeros
    after the end of a sequence. `reverse` runs from the last step of each sequence to the first. `clip` bounds what
    activations are applied to.
    """

    activations: tuple[Activation, ...]
    reverse: bool = False
    sequence: bool = True
    clip: float = float("inf")

    gates = 1
    states = 1
    """States of a layer: h, and c of an LSTM."""

    def infer(self, *types: TensorType | None) -> tuple[TensorType, ...]:
        x, w, r, bias, h0, lengths = types[:6]
        assert x is not None and w is not None and r is not None and x.rank == 3 and r.rank == 2
        steps, batch, _ = x.shape
        rows, hidden = r.shape
        assert rows == self.gates * hidden and w.shape == (rows, x.shape[2]), f"weights {w} and {r} for {x}"
        assert bias is None or bias.shape == (rows,), f"bias {bias} for {r}"
        assert h0 is None or h0.shape == (batch, hidden), f"initial state {h0} for {x}"
        assert lengths is None or (lengths.shape == (batch,) and lengths.dtype is INT32), f"lengths {lengths}"
        state = TensorType((batch, hidden), x.dtype)
        whole = (TensorType((steps, batch, hidden), x.dtype),) if self.sequence else ()
        return (*(state for _ in range(self.states)), *whole)

    def reference(self, *arrays: Array | None) -> tuple[Array, ...]:
        x, w, r, bias, h0, lengths, *rest = arrays
        assert x is not None and w is not None and r is not None
        more = (*rest, None, None)
        steps, batch, _ = x.shape
        hidden = r.shape[1]
        zeros = np.zeros((batch, hidden), np.float32)
        states = [zeros.copy() if s is None else s.astype(np.float32) for s in self._initial(h0, more)]
        y = np.zeros((steps, batch, hidden), np.float32)
        ends = np.full(batch, steps) if lengths is None else np.clip(lengths, 0, steps)
        for s in range(steps):
            rows = np.flatnonzero(s < ends)
            t = ends[rows] - 1 - s if self.reverse else np.full(len(rows), s)
            xw = product(w, x[t, rows])
            after = self._step(xw if bias is None else xw + bias, r, [v[rows] for v in states], more)
            for state, new in zip(states, after, strict=True):
                state[rows] = new
            y[t, rows] = states[0][rows]
        return (*states, *((y,) if self.sequence else ()))

    def macs(self, *types: TensorType | None) -> int:
        """Multiply-accumulates of all steps."""
        x, w, r = types[:3]
        assert x is not None and w is not None and r is not None
        return x.shape[0] * x.shape[1] * (w.size + r.size)

    def _initial(self, h0: Array | None, more: tuple[Array | None, ...]) -> list[Array | None]:
        return [h0]

    def _step(self, x: Array, r: Array, states: list[Array], more: tuple[Array | None, ...]) -> list[Array]:
        """The states after one step; `x` is ``x W + b``, ``[B, gates * H]``."""
        raise NotImplementedError(self.name)

    def _act(self, index: int, x: Array) -> Array:
        if self.clip < float("inf"):
            x = np.where(x < -f32(self.clip), -f32(self.clip), x)
            x = np.where(x > f32(self.clip), f32(self.clip), x)
        return activate(self.activations[index], x)


def product(r: Array, h: Array) -> Array:
    """``h[B, K] r[N, K]^T``, summed in order."""
    acc = np.zeros((h.shape[0], r.shape[0]), np.float32)
    for k in range(r.shape[1]):
        acc += h[:, k : k + 1] * r[:, k]
    return acc


@dataclass(frozen=True)
class Rnn(Recurrent):
    """``h = f(xw + R h)``."""

    def _step(self, x: Array, r: Array, states: list[Array], more: tuple[Array | None, ...]) -> list[Array]:
        return [self._act(0, x + product(r, states[0]))]


@dataclass(frozen=True)
class Gru(Recurrent):
    """``z = f(xz + Rz h), r = f(xr + Rr h), n = g(xn + Rn (r h)), h = (1 - z) n + z h``; with `reset_after` (ONNX's
    linear_before_reset) ``n = g(xn + r (Rn h + bn))``, where bn ``[H]`` is a further input, or absent for 0."""

    reset_after: bool = False

    gates = 3

    def _step(self, x: Array, r: Array, states: list[Array], more: tuple[Array | None, ...]) -> list[Array]:
        h, n = states[0], r.shape[1]
        z = self._act(0, x[:, :n] + product(r[:n], h))
        reset = self._act(0, x[:, n : 2 * n] + product(r[n : 2 * n], h))
        if self.reset_after:
            inner = product(r[2 * n :], h)
            inner = inner if more[0] is None else inner + more[0]
            new = self._act(1, x[:, 2 * n :] + reset * inner)
        else:
            new = self._act(1, x[:, 2 * n :] + product(r[2 * n :], reset * h))
        return [(f32(1) - z) * new + z * h]


@dataclass(frozen=True)
class Lstm(Recurrent):
    """``i = f(xi + Ri h + Pi c), g = f(xf + Rf h + Pf c), c' = g c + i g(xc + Rc h), o = f(xo + Ro h + Po c'),
    h = o h(c')``, gates in the order i, o, f, c. Further inputs: c0 ``[B, H]``, p ``[3 H]``, peepholes of i, o, f; both
    may be absent. A further output: the last c. With `coupled` (ONNX's input_forget) the forget gate is ``1 - i``. The
    cell state is not clipped, as in onnxruntime."""

    coupled: bool = False

    gates = 4
    states = 2

    def _initial(self, h0: Array | None, more: tuple[Array | None, ...]) -> list[Array | None]:
        return [h0, more[0]]

    def _step(self, x: Array, r: Array, states: list[Array], more: tuple[Array | None, ...]) -> list[Array]:
        (h, c), n, p = states, r.shape[1], more[1]
        xi, xo, xf, xc = (x[:, k * n : (k + 1) * n] + product(r[k * n : (k + 1) * n], h) for k in range(4))
        xi = xi if p is None else xi + p[:n] * c
        i = self._act(0, xi)
        xf = xf if p is None else xf + p[2 * n :] * c
        forget = f32(1) - i if self.coupled else self._act(0, xf)
        candidate = self._act(1, xc)
        new = forget * c + i * candidate
        o = self._act(0, xo if p is None else xo + p[n : 2 * n] * new)
        return [o * activate(self.activations[2], new), new]
