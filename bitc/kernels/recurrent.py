"""Recurrent layers: a loop over time in one function, with four rows of the recurrent weights at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitc.ir.dtypes import FLOAT32
from bitc.ir.graph import Array, Node, Value
from bitc.kernels.literals import c_float
from bitc.kernels.pointwise_rows import ROWS
from bitc.kernels.step import Arg, Packed, Step, Variant, first_reason, out, scratch
from bitc.ops.recurrent import Gru, Lstm, Recurrent
from bitc.target import Target

_LANES = 4


def blocked(r: Array) -> Array:
    """Rows ``[N, K]`` four at a time, their elements interleaved; what is left of N as it is."""
    n, k = r.shape
    whole = n // _LANES * _LANES
    blocks = r[:whole].reshape(-1, _LANES, k).transpose(0, 2, 1)
    return np.concatenate([blocks.reshape(-1), r[whole:].reshape(-1)])


def _accepts(node: Node, target: Target) -> str:
    op = node.op
    assert isinstance(op, Recurrent)
    unknown = [a.name for chain in op.activations for a in chain if type(a) not in ROWS]
    return first_reason(
        (node.input(0).type.dtype is FLOAT32, f"of {node.input(0).type.dtype}"),
        (not unknown, f"no C expression for {unknown}"),
    )


def _build(node: Node, target: Target) -> tuple[Step, ...]:
    op = node.op
    assert isinstance(op, Recurrent)
    x, w, r = node.input(0), node.input(1), node.input(2)
    steps, batch, inputs = x.shape
    hidden = r.shape[1]
    more: list[Value | None] = [*node.inputs[3:], None, None]
    bias, h0, lengths, first, second = more[:5]
    lstm, gru = isinstance(op, Lstm), isinstance(op, Gru)
    optional = {
        "bias": bias,
        "h0": h0,
        "lengths": lengths,
        "c0": first if lstm else None,
        "p": second if lstm else None,
        "inner": first if gru else None,
    }
    # Rows of a gate start a product of their own where the products of a step do not run in one go.
    whole = r.is_const and (hidden % _LANES == 0 or not isinstance(op, Gru) or op.reset_after)
    context: dict[str, Any] = {
        "cell": op.name.lower(),
        "gates": op.gates,
        "steps": steps,
        "batch": batch,
        "hidden": hidden,
        "inputs": inputs,
        "w_blocked": w.is_const,
        "r_blocked": whole,
        "reverse": op.reverse,
        "sequence": op.sequence,
        "clip": c_float(op.clip) if op.clip < float("inf") else None,
        "activations": [[ROWS[type(a)](a, FLOAT32, FLOAT32) for a in chain] for chain in op.activations],
        "reset_after": isinstance(op, Gru) and op.reset_after,
        "coupled": isinstance(op, Lstm) and op.coupled,
        "has_h0": h0 is not None,
        "has_lengths": lengths is not None,
        "has_c0": optional["c0"] is not None,
        "has_peepholes": optional["p"] is not None,
        "has_bias": bias is not None,
        "has_inner_bias": optional["inner"] is not None,
    }
    args = [out(node, overlay=True)]
    if lstm:
        args.append(Arg("yc", node.outputs[1], written=True, overlay=True))
    if op.sequence:
        args.append(Arg("all", node.outputs[-1], written=True))
    args += [scratch(name, op.gates * hidden, np.float32) for name in ("g", "a")]
    if isinstance(op, Gru) and not op.reset_after:
        args.append(scratch("v", hidden, np.float32))
    args += [Arg("x", x), Arg("w", Packed(blocked(w.array), "w") if w.is_const else w)]
    args += [Arg("r", Packed(blocked(r.array), "r") if whole else r)]
    args += [Arg(name, v) for name, v in optional.items() if v is not None]
    return (Step(op.name.lower(), "kernels/recurrent.j2", tuple(args), context, ("bitc_math.h",)),)


def _cost(node: Node, target: Target) -> float:
    op = node.op
    assert isinstance(op, Recurrent)
    return float(op.macs(*(v.type for v in node.inputs[:3] if v is not None)))


RECURRENT = Variant("recurrent", (Recurrent,), _accepts, _build, _cost)
