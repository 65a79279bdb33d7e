"""The order of operators: the one whose values need the least memory at once.

Which values are alive depends on the set of nodes that have run, not on their order, so an order is a path through
such sets, and its peak the most that any step needs. The least peak is found by a bottleneck search: of the sets
reached so far, the one with the lowest peak is extended first. A node that lets go of as much as it makes, within that
peak, runs at once: no order is better for its waiting. If the search gets too long, a greedy or a depth-first order
stands, and the peak that the search had come to is a lower bound of any. (Serenity, Ahn et al., MLSys 2020, searches
the same sets.)
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from bitc.ir.graph import Graph, Node, Value
from bitc.ops.base import Pointwise
from bitc.ops.movement import Concat, Reshape, Slice

MOST = 20_000
"""Sets of nodes that the search may extend."""
WORK = 2_000_000
"""Nodes that it may look at in all."""


@dataclass(frozen=True, eq=False)
class Order:
    """A graph in an order, the bytes of computed values alive at once, and the least that any order needs: a bound if
    it is lower."""

    graph: Graph
    peak: int
    bound: int

    @property
    def is_optimal(self) -> bool:
        return self.peak == self.bound

    @property
    def quality(self) -> str:
        """How good the order is, in words."""
        if self.is_optimal:
            return "optimal"
        return f"at most {100 * (self.peak / self.bound - 1):.1f} % above the optimum"


def best_order(graph: Graph, most: int = MOST) -> Order:
    """The same graph with its nodes in the best order found; the given one if none is better."""
    memory = _Memory(graph)
    candidates = [list(range(len(graph.nodes))), memory.greedy(), memory.depth_first()]
    best = min(candidates, key=memory.peak)
    peak = memory.peak(best)
    found, bound = memory.search(peak, most)
    if found:
        best, peak = found, bound
    return Order(replace(graph, nodes=tuple(graph.nodes[i] for i in best)), peak, bound)


def peak(graph: Graph, nodes: Sequence[Node]) -> int:
    """Most bytes of computed values alive at once, in an order."""
    number = {n: i for i, n in enumerate(graph.nodes)}
    return _Memory(graph).peak([number[n] for n in nodes])


class _Memory:
    """What a graph keeps alive. Sets of nodes are integers, bit i for node i.

    A value lives from its node to its last reader; the result of a Reshape and a part cut out of a tensor are that
    tensor's memory, what is joined is made in place, graph outputs lie elsewhere, and an elementwise node may write
    over an operand that it is the last to read.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        number = {v: i for i, n in enumerate(graph.nodes) for v in n.outputs}
        owner = _owners(graph)
        self.size: dict[Value, int] = {}
        self.readers: dict[Value, int] = {}
        self.before = [0] * len(graph.nodes)
        """Per node those that it reads from."""
        self.made: list[list[Value]] = [[] for _ in graph.nodes]
        self.read: list[list[Value]] = [[] for _ in graph.nodes]
        outside = {owner.get(v, v) for v in graph.outputs}
        for i, n in enumerate(graph.nodes):
            for v in n.outputs:
                if owner[v] is v and v not in outside:
                    self.size[v], self.readers[v] = v.type.nbytes, 1 << i
                    self.made[i].append(v)
            for v in [v for v in dict.fromkeys(n.inputs) if v in number]:
                self.before[i] |= 1 << number[v]
                if owner[v] in self.size and owner[v] not in self.read[i]:
                    self.readers[owner[v]] |= 1 << i
                    self.read[i].append(owner[v])
        self._joined(owner)

    def _joined(self, owner: dict[Value, Value]) -> None:
        """Parts that are made where they are joined live as long as the whole, which needs no more memory."""
        taken: set[Value] = set()
        for i, n in reversed(list(enumerate(self.graph.nodes))):
            y = n.output
            if not isinstance(n.op, Concat) or y not in self.size or y.type.size // _after(y, n.op.axis) != 1:
                continue
            for v in [owner[v] for v in n.inputs if v in owner]:
                if v in self.size and v not in taken:
                    taken.add(v)
                    self.size[y] -= min(v.type.nbytes, self.size[y])
                    self.readers[v] |= self.readers[y]
                    for k in range(len(self.graph.nodes)):
                        if self.readers[y] >> k & 1 and v not in self.read[k] and k != i:
                            self.read[k].append(v)

    def step(self, i: int, done: int, alive: int) -> tuple[int, int]:
        """Bytes alive while node i runs after `done`, and after it."""
        after = done | 1 << i
        made = sum(self.size[v] for v in self.made[i])
        freed = sum(self.size[v] for v in self.read[i] if not self.readers[v] & ~after)
        unread = sum(self.size[v] for v in self.made[i] if not self.readers[v] & ~after)
        over = min(made, freed) if isinstance(self.graph.nodes[i].op, Pointwise) else 0
        return alive + made - over, alive + made - freed - unread

    def peak(self, order: Sequence[int]) -> int:
        done = alive = most = 0
        for i in order:
            need, alive = self.step(i, done, alive)
            most, done = max(most, need), done | 1 << i
        return most

    @cached_property
    def least(self) -> int:
        """What some node needs in any order."""
        everything = (1 << len(self.before)) - 1
        return max((self.step(i, everything & ~(1 << i), sum(self.size[v] for v in self.read[i]))[0]
                    for i in range(len(self.before))), default=0)  # fmt: skip

    def ready(self, done: int) -> list[int]:
        return [i for i, b in enumerate(self.before) if not done >> i & 1 and not b & ~done]

    def greedy(self) -> list[int]:
        """Always the ready node after which the least is alive."""
        result: list[int] = []
        done = alive = 0
        for _ in self.before:
            alive, i = min((self.step(i, done, alive)[1], i) for i in self.ready(done))
            done |= 1 << i
            result.append(i)
        return result

    def depth_first(self) -> list[int]:
        """From the outputs back, larger operands first."""
        graph, result, seen = self.graph, list[int](), set[Node]()
        number = {n: i for i, n in enumerate(graph.nodes)}
        stack = [(n, False) for n in reversed(graph.nodes)]
        while stack:
            node, expanded = stack.pop()
            if expanded:
                result.append(number[node])
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                operands = sorted((v for v in node.inputs if v is not None), key=lambda v: v.type.nbytes)
                makers = (graph.producers[v] for v in operands if v in graph.producers)
                stack += [(maker, False) for maker in makers if maker not in seen]
        return result

    def search(self, limit: int, most: int) -> tuple[list[int] | None, int]:
        """An order with the least peak, if that is below `limit`, and that peak or a lower bound of it."""
        bound, full = self.least, (1 << len(self.before)) - 1
        if bound >= limit or not full:
            return None, limit
        heap = [(bound, 0, 0, 0)]  # peak, nodes done (more first), set, alive
        best = {0: (bound, 0, -1)}
        """Per set the least peak by which it is reached, and from which set by which node."""
        left = min(most, WORK // len(self.before))
        while heap:
            peak, _, done, alive = heapq.heappop(heap)
            if peak > best[done][0]:
                continue
            bound = peak
            if done == full:
                return _path(best, full), peak
            left -= 1
            if left < 0:
                return None, bound
            steps = [(i, *self.step(i, done, alive)) for i in self.ready(done)]
            at_once = next((s for s in steps if s[1] <= peak and s[2] <= alive), None)
            for i, need, after in [at_once] if at_once else steps:
                to, reached = done | 1 << i, max(need, peak)
                if reached < min(limit, best.get(to, (limit, 0, 0))[0]):
                    best[to] = reached, done, i
                    heapq.heappush(heap, (reached, -to.bit_count(), to, after))
        return None, limit


def _path(best: dict[int, tuple[int, int, int]], done: int) -> list[int]:
    result: list[int] = []
    while done:
        _, done, i = best[done]
        result.append(i)
    return result[::-1]


def _owners(graph: Graph) -> dict[Value, Value]:
    """For each computed value the one whose memory it is."""
    owner: dict[Value, Value] = {}
    for n in graph.nodes:
        for v in n.outputs:
            x = n.inputs[0] if _is_view(n) else None
            owner[v] = v if x is None else owner.get(x, x)
    return owner


def _is_view(node: Node) -> bool:
    if not isinstance(node.op, Slice):
        return isinstance(node.op, Reshape)
    x, y = node.input(0), node.output
    cut = next((a for a, (p, w) in enumerate(zip(y.shape, x.shape, strict=True)) if p != w), 0)
    return set(node.op.steps) == {1} and x.type.size == _after(x, cut) and x.shape[cut + 1 :] == y.shape[cut + 1 :]


def _after(v: Value, axis: int) -> int:
    """Elements from an axis on."""
    total = 1
    for d in v.shape[axis:]:
        total *= d
    return total
