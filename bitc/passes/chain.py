"""Chains: the pointwise function between a root tensor and a tensor computed from it alone.

A chain is found by walking up from a tensor through pointwise operators (and max pools) until everything depends on
one value, the root. Shape and number of the operators on the way do not matter: ``BN -> Sign``,
``Where(Less(x, 0), -1, 1)``, ``Sign(Add(Sign(x), 0.1))`` and a decomposed batch norm of five nodes are all just a
function of the root, one function per channel, that can be evaluated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bitc.ir.graph import Array, Node, Value
from bitc.ir.rewrite import Builder
from bitc.ops.base import Pointwise
from bitc.ops.pool import MaxPool


@dataclass(frozen=True)
class Chain:
    """Nodes from `root` (exclusive) to `end` in topological order. `pools` are those of them that are max pools."""

    root: Value
    end: Value
    nodes: tuple[Node, ...]

    @property
    def pools(self) -> list[Node]:
        return [n for n in self.nodes if isinstance(n.op, MaxPool)]

    def varying(self) -> tuple[int, ...]:
        """Shape over which the function varies: the last axis, or more if constants vary over other axes too.

        Leading axes along which no constant varies have length 1."""
        rank = len(self.root.shape)
        shape = [1] * (rank - 1) + list(self.root.shape[-1:])
        for node in self.nodes:
            for v in node.inputs:
                if v is None or not v.is_const or isinstance(node.op, MaxPool):
                    continue
                for axis, d in enumerate(v.shape[::-1], 1):
                    if d != 1 and axis <= rank:
                        shape[-axis] = max(shape[-axis], d)
        return tuple(shape)

    def evaluate(self, x: Array) -> dict[Value, Array]:
        """All values of the chain for root values `x`, elementwise: a pool of equal values is that value."""
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
        own = node.op.direction(index, *consts)
        if own is None:
            return None
        pull = np.sign(own) * known[v]
        if np.isnan(pull).any():
            return None
        if total is None:
            total = pull
            continue
        if (pull * total < 0).any():
            return None
        total = np.sign(pull + total)
    return total


def find_chains(builder: Builder, end: Value, shared: Callable[[Value, set[Value]], bool]) -> list[Chain]:
    """All chains that end in `end`, longest first.

    `shared(value, inside)` tells whether a value has readers other than the chain's nodes (whose outputs are
    `inside`): the walk stops there, because such a value is computed anyway.
    """
    position = {n: i for i, n in enumerate(builder.nodes)}
    found: list[Chain] = []
    frontier: list[Value] = [end]
    nodes: list[Node] = []
    inside: set[Value] = set()
    while True:
        if len(frontier) == 1 and nodes:
            found.append(Chain(frontier[0], end, tuple(sorted(nodes, key=position.__getitem__))))
            if frontier[0].type.dtype.is_code:
                break
        node = _latest(builder, frontier, position)
        if node is None or not isinstance(node.op, Pointwise | MaxPool):
            break
        value = next(v for v in frontier if v in node.outputs)
        if isinstance(node.op, MaxPool) and (len(frontier) > 1 or len(node.inputs) > 1):
            break
        if value is not end and shared(value, inside):
            break
        nodes.append(node)
        inside.add(value)
        frontier.remove(value)
        frontier += [v for v in dict.fromkeys(node.inputs) if v is not None and not v.is_const and v not in frontier]
        if not frontier:
            break
    return found[::-1]


def _latest(builder: Builder, frontier: list[Value], position: dict[Node, int]) -> Node | None:
    """The node that computes the last computed value of the frontier; None if that is an input."""
    producers = [builder.producer(v) for v in frontier]
    known = [p for p in producers if p is not None]
    if len(known) < len(frontier) and len(frontier) == 1:
        return None
    return max(known, key=position.__getitem__) if known else None
