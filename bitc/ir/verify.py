"""What is legal in a graph, checked between passes."""

from __future__ import annotations

from bitc.errors import InternalError
from bitc.ir.graph import Graph, Value


def verify(graph: Graph, after: str = "") -> Graph:
    """Check that every input is defined before its use, that every value is defined once, that constants match their
    types and that output types are what the operators infer. Returns the graph. Raises InternalError."""

    def fail(what: str) -> InternalError:
        return InternalError(what, where=after, hint="this is a bug in bitc; please report it with the model")

    defined: set[Value] = set(graph.inputs)

    def check(value: Value, at: str) -> None:
        if value.is_const:
            if value.array.shape != value.type.shape:
                raise fail(f"constant {value.name} at {at}: data {value.array.shape}, type {value.type}")
        elif value not in defined:
            raise fail(f"{at} reads {value.name} before it is defined")

    for node in graph.nodes:
        at = f"{node.op.name} ({node.origin})"
        for v in node.inputs:
            if v is not None:
                check(v, at)
        inferred = node.op.infer(*(None if v is None else v.type for v in node.inputs))
        for v, t in zip(node.outputs, inferred, strict=False):
            if v in defined:
                raise fail(f"{at} defines {v.name} twice")
            if (v.type.shape, v.type.dtype) != (t.shape, t.dtype):
                raise fail(f"{at}: {v.name} is {v.type}, the operator infers {t}")
            defined.add(v)
    for v in graph.outputs:
        check(v, "graph output")
    return graph
