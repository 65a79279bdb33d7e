"""Channels that always hold the same number, folded into the layers that read them.

    sum_c w_c * x_c + b  =  sum_{c varies} w_c * x_c  +  (b + sum_{c constant} w_c * x_c)

Only where every output pixel sees all taps: in the padding a constant is not there. Codes fold exactly, reals up to
float rounding.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitc.ir.graph import Array, Graph, Node, Value, constant
from bitc.ops.epilogue import Affine, Requant
from bitc.ops.linear import Conv2D
from bitc.passes.channel_ties import ChannelTies


def folded(graph: Graph, ties: ChannelTies) -> Graph:
    """The graph with constant channels multiplied by zeros, and biases that make up for them."""
    nodes = tuple(_node(node, ties) for node in graph.nodes)
    same = all(a is b for a, b in zip(nodes, graph.nodes, strict=True))
    return graph if same else replace(graph, nodes=nodes)


def _node(node: Node, ties: ChannelTies) -> Node:
    op = node.op
    if not isinstance(op, Conv2D) or op.group != 1 or op.planar or op.window.has_padding:
        return node
    x, w = node.input(0), node.input(1)
    if not isinstance(op.epilogue, Affine | Requant) or not w.is_const or x.type.dtype.is_packed:
        return node
    if w.type.dtype.is_packed:
        return node
    known = ties.constant(x) - op.x_zero
    at = np.flatnonzero(np.isfinite(known) & (known != 0) & (w.array != 0).any(axis=(0, 1, 2)))
    if not len(at):
        return node
    sums = (w.array[..., at].astype(np.float64) * known[at]).sum(axis=(1, 2, 3))
    index = 3 if isinstance(op.epilogue, Affine) else 2
    bias = node.input(index)
    scale = node.input(2).array.astype(np.float64) if index == 3 else 1
    total = bias.array + sums * scale
    if index == 2 and np.abs(total).max() >= 2**31:
        return node
    weights = w.array.copy()
    weights[..., at] = 0
    inputs = list(node.inputs)
    inputs[1], inputs[index] = _like(w, weights), _like(bias, total)
    return replace(node, inputs=tuple(inputs))


def _like(v: Value, data: Array) -> Value:
    array = np.broadcast_to(data, v.shape).astype(v.array.dtype)
    return constant(v.name, array, v.type)
