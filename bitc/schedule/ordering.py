"""The order of operators: of a few topological orders, the one whose values need the least memory at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bitc.ir.graph import Graph, Node, Value
from bitc.ops.movement import Reshape


def order(graph: Graph) -> Graph:
    """The same graph with its nodes in the better of the given order, a greedy one and a depth-first one."""
    candidates = [list(graph.nodes), _greedy(graph), _depth_first(graph)]
    best = min(candidates, key=lambda nodes: peak(graph, nodes))
    return replace(graph, nodes=tuple(best))


def peak(graph: Graph, nodes: Sequence[Node]) -> int:
    """Most bytes of computed values alive at once. A value lives from its node to its last reader; the result of a
    Reshape is the memory of its operand."""
    owner: dict[Value, Value] = {}
    for n in graph.nodes:
        for v in n.outputs:
            x = n.inputs[0] if isinstance(n.op, Reshape) else None
            owner[v] = v if x is None else owner.get(x, v)
    last: dict[Value, int] = {}
    for i, n in enumerate(nodes):
        last |= {owner[v]: i for v in (*n.inputs, *n.outputs) if v in owner}
    last |= {owner[v]: len(nodes) for v in graph.outputs if v in owner}
    ends: dict[int, int] = {}
    for v, i in last.items():
        ends[i] = ends.get(i, 0) + v.type.nbytes
    alive = most = 0
    for i, n in enumerate(nodes):
        alive += sum(v.type.nbytes for v in n.outputs if owner[v] is v)
        most = max(most, alive)
        alive -= ends.get(i, 0)
    return most


def _reads(node: Node, computed: dict[Value, int]) -> list[Value]:
    return [v for v in dict.fromkeys(node.inputs) if v is not None and v in computed]


def _greedy(graph: Graph) -> list[Node]:
    """Always the ready node after which the least is alive."""
    left = {v: graph.uses(v) for n in graph.nodes for v in n.outputs}
    waiting, done = list(graph.nodes), set[Value]()
    result: list[Node] = []

    def growth(node: Node) -> int:
        freed = sum(v.type.nbytes for v in _reads(node, left) if left[v] == 1)
        return sum(v.type.nbytes for v in node.outputs) - freed

    while waiting:
        ready = [n for n in waiting if all(v in done for v in _reads(n, left))]
        node = min(ready, key=growth)
        waiting.remove(node)
        result.append(node)
        done.update(node.outputs)
        for v in _reads(node, left):
            left[v] -= 1
    return result


def _depth_first(graph: Graph) -> list[Node]:
    """From the outputs back, larger operands first."""
    result: list[Node] = []
    seen: set[Node] = set()
    stack = [(n, False) for n in reversed(graph.nodes) if any(v in graph.outputs for v in n.outputs)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            result.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            operands = sorted((v for v in node.inputs if v in graph.producers), key=lambda v: v.type.nbytes if v else 0)
            stack += [(graph.producers[v], False) for v in operands if v is not None and graph.producers[v] not in seen]
    return result
