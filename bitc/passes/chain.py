"""Chains: the pointwise function between a root tensor and a tensor computed from it alone.

A chain is found by walking up from a tensor through pointwise operators (and max pools) until everything depends on
one value, the root. Shape and number of the operators on the way do not matter: ``BN -> Sign``,
``Where(Less(x, 0), -1, 1)``, ``Sign(Add(Sign(x), 0.1))`` and a decomposed batch norm of five nodes are all just a
function of the root, one function per channel, that can be evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from bitc.ir.graph import Array, Node, Value
from bitc.ir.rewrite import Builder
from bitc.ops.base import Pointwise
from bitc.ops.binary import MultiThreshold
from bitc.ops.pool import MaxPool
from bitc.ops.quantize import Quantize
from bitc.ops.unary import Cast

_MAX_NODES = 256
"""Longest chain that is looked at: unrolled recurrent nets are pointwise over thousands of nodes."""


@dataclass(frozen=True)
class Chain:
    """Nodes from `root` (exclusive) to `end` in topological order. All of them keep the root's shape, but for pools."""

    root: Value
    end: Value
    nodes: tuple[Node, ...]

    @property
    def pools(self) -> list[Node]:
        """The nodes that are max pools."""
        return [n for n in self.nodes if isinstance(n.op, MaxPool)]

    def varying(self) -> tuple[int, ...]:
        """Shape over which the function varies: the last axis, or more if constants vary over other axes too. Axes
        along which no constant varies have length 1."""
        rank = len(self.root.shape)
        ones = np.zeros((1,) * (rank - 1) + self.root.shape[-1:], self.root.type.dtype.carrier)
        return np.broadcast_shapes(ones.shape, self(ones).shape)

    def evaluate(self, x: Array) -> dict[Value, Array]:
        """All values of the chain for root values `x`, elementwise: a pool of equal values is that value.

        `x` may have more leading axes than the root."""
        env: dict[Value, Array] = {self.root: x}
        with np.errstate(all="ignore"):
            for node in self.nodes:
                if isinstance(node.op, MaxPool):
                    env[node.output] = env[node.input(0)]
                    continue
                args = [None if v is None else (v.data if v.is_const else env[v]) for v in node.inputs]
                env[node.output] = np.asarray(node.op.reference(*args)[0])
        return env

    def __call__(self, x: Array) -> Array:
        return self.evaluate(x)[self.end]

    def direction(self) -> Array | None:
        """+1 where the function never falls, -1 where it never rises, 0 where it is constant, per channel
        (broadcastable to `varying`); None if that does not follow from the operators."""
        known: dict[Value, Array] = {self.root: np.ones(1)}
        for node in self.nodes:
            if isinstance(node.op, MaxPool):
                known[node.output] = known[node.input(0)]
                continue
            total = _combine(node, known)
            if total is None:
                return None
            known[node.output] = total
        return known[self.end]


def _combine(node: Node, known: dict[Value, Array]) -> Array | None:
    """Direction of a node's output in the root: all its computed inputs must pull the same way."""
    assert isinstance(node.op, Pointwise)
    consts = [None if v is None or not v.is_const else v.array for v in node.inputs]
    total: Array | None = None
    for index, v in enumerate(node.inputs):
        if v is None or v.is_const:
            continue
        # A cast of integers may wrap around; one of reals ends at the range of its type.
        own = np.ones(1) if _rounds(node) else node.op.direction(index, *consts)
        if own is None:
            return None
        pull = np.sign(own) * known[v]
        if total is None:
            total = pull
            continue
        if (pull * total < 0).any():
            return None
        total = np.sign(pull + total)
    return total


def find_chains(builder: Builder, end: Value, shared: Callable[[Value, set[Value]], bool]) -> Iterator[Chain]:
    """All chains that end in `end`, shortest first; the first that ends on an integer root is the last.

    `shared(value, inside)` tells whether a value has readers other than the chain's nodes (whose outputs are
    `inside`): the walk stops there, because such a value is computed anyway.
    """
    frontier: list[Value] = [end]
    nodes: list[Node] = []  # latest first
    inside: set[Value] = set()
    while len(nodes) < _MAX_NODES:
        if len(frontier) == 1 and nodes:
            yield Chain(frontier[0], end, tuple(reversed(nodes)))
            if frontier[0].type.dtype.is_code and not _rounds(builder.producer(frontier[0])):
                return
        node = _latest(builder, frontier)
        if node is None:
            return
        value = next(v for v in frontier if v in node.outputs)
        if value is not end and shared(value, inside):
            return
        nodes.append(node)
        if not _belongs(node) or (len(frontier) > 1 and _is_pool(node)) or _pools_what_varies(nodes):
            return
        inside.add(value)
        frontier.remove(value)
        frontier += [v for v in dict.fromkeys(node.inputs) if v is not None and not v.is_const and v not in frontier]
        if not frontier:
            return


def _rounds(node: Node | None) -> bool:
    """Whether a node makes codes of reals, so that the chain goes on behind it."""
    return node is not None and isinstance(node.op, Cast | Quantize) and node.input(0).type.dtype.is_float


def _is_pool(node: Node) -> bool:
    return isinstance(node.op, MaxPool)


def _belongs(node: Node) -> bool:
    """Whether a node can be part of a chain: a max pool, or pointwise without repeating its inputs."""
    if _is_pool(node):
        return len(node.inputs) == 1
    computed = [v for v in node.inputs if v is not None and not v.is_const]
    return isinstance(node.op, Pointwise) and all(v.shape == node.output.shape for v in computed)


def _pools_what_varies(nodes: list[Node]) -> bool:
    """Whether there is a pool, and a constant that varies over the pixels: then it is no function of one element."""
    return any(map(_is_pool, nodes)) and any(map(_varies_over_pixels, nodes))


def _varies_over_pixels(node: Node) -> bool:
    if isinstance(node.op, MultiThreshold):
        return node.op.axis != -1
    return any(d != 1 for v in node.inputs if v is not None and v.is_const for d in v.shape[:-1])


def _latest(builder: Builder, frontier: list[Value]) -> Node | None:
    """The last emitted of the nodes that compute the frontier; None if it is a graph input."""
    producers = [builder.producer(v) for v in frontier]
    return max((p for p in producers if p is not None), key=builder.position, default=None)
