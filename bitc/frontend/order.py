"""Which nodes of an ONNX graph are needed, and in which order."""

from __future__ import annotations

import heapq

from onnx import GraphProto, NodeProto

from bitc.errors import InvalidModel
from bitc.frontend.source import subgraphs

_HINT = "the graph is inconsistent; export the model again"


def label(node: NodeProto) -> str:
    """A node's name for messages; its operator and first output if it has none."""
    return node.name or " ".join([node.op_type, *(o for o in node.output if o)][:2])


def free_names(graph: GraphProto) -> set[str]:
    """Names that a subgraph reads from outside."""
    inner = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    inner |= {o for n in graph.node for o in n.output}
    read = {o.name for o in graph.output}
    for n in graph.node:
        read |= reads(n)
    return read - inner - {""}


def reads(node: NodeProto) -> set[str]:
    """Every tensor that a node reads, captured ones included."""
    names = set(node.input) - {""}
    for g in subgraphs(node):
        names |= free_names(g)
    return names


def live_nodes(graph: GraphProto) -> tuple[list[NodeProto], set[str]]:
    """The nodes that the outputs need, in topological order (else as written), and the names that they read.

    Raises InvalidModel for cycles and for tensors that are defined twice.
    """
    nodes = list(graph.node)
    maker = _makers(graph, nodes)
    needs: dict[int, set[str]] = {}
    read = {o.name for o in graph.output}
    pending = [maker[n] for n in read if n in maker]
    while pending:
        i = pending.pop()
        if i in needs:
            continue
        needs[i] = reads(nodes[i])
        read |= needs[i]
        pending += [maker[n] for n in needs[i] if n in maker]
    return [nodes[i] for i in _topological(nodes, needs, maker)], read


def _makers(graph: GraphProto, nodes: list[NodeProto]) -> dict[str, int]:
    given = {i.name for i in graph.input}
    constants = [t.name for t in graph.initializer]
    taken = given | set(constants)
    if len(set(constants)) < len(constants):
        raise InvalidModel("two initializers have the same name", where="model", hint=_HINT)
    if len(given) < len(graph.input):
        raise InvalidModel("two inputs have the same name", where="model", hint=_HINT)
    maker: dict[str, int] = {}
    for i, n in enumerate(nodes):
        for o in n.output:
            if o and (o in maker or o in taken):
                raise InvalidModel(f"tensor {o!r} is defined twice", where=label(n), hint=_HINT)
            if o:
                maker[o] = i
    return maker


def _topological(nodes: list[NodeProto], needs: dict[int, set[str]], maker: dict[str, int]) -> list[int]:
    waits = {i: {maker[n] for n in names if n in maker} for i, names in needs.items()}
    readers: dict[int, list[int]] = {i: [] for i in needs}
    for i, makers in waits.items():
        for m in makers:
            readers[m].append(i)
    missing = {i: len(m) for i, m in waits.items()}
    ready = [i for i, count in missing.items() if not count]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for r in readers[i]:
            missing[r] -= 1
            if not missing[r]:
                heapq.heappush(ready, r)
    if len(order) < len(needs):
        stuck = min(i for i, count in missing.items() if count)
        raise InvalidModel("the graph has a cycle", where=label(nodes[stuck]), hint=_HINT)
    return order
