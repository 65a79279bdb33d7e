"""An input image that comes row by row, so that it is never whole in RAM.

A node `Rows` behind the image says so. What stands in front of it (reshapes, the way from planes to pixels) is left to
the caller, who gives rows of pixels: that is how a camera has them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from bitc.errors import UsageError
from bitc.ir.graph import Graph, Node, Value
from bitc.ir.rewrite import Rewriter, rewrite
from bitc.ops.movement import Crop, Reshape, Rows, Transpose
from bitc.schedule.rows import why_not
from bitc.schedule.rows_first import elementwise, rows_first

_HINT = "leave out --input stream: then the whole input is given at once"


def by_rows(graph: Graph, states: tuple[str, ...] = ()) -> Graph:
    """The same graph with a `Rows` node behind its image. `states` names inputs that the caller does not give.

    Raises UsageError if there is more than one input, or if a node that reads the input needs all of it.
    """
    given = [v for v in graph.inputs if v.name not in states]
    if len(given) != 1:
        names = ", ".join(v.name for v in given) or "none"
        raise UsageError(f"only a single input can come by rows, the model has {names}", hint=_HINT)
    graph = rewrite(rows_first(graph), _shaped_first)
    image = _image(graph, given[0])
    name = image.name if image in graph.outputs else f"{given[0].name}.rows"

    def rule(rw: Rewriter, node: Node) -> list[Value] | None:
        if image not in node.inputs:  # those after the first reader see the rows already
            return None
        rows = Value(name, image.type)
        rw.add(Node(Rows(), (image,), (rows,), f"rows of {given[0].name}"))
        rw.replace(image, rows)
        inputs = tuple(rows if v is image else v for v in node.inputs)
        names, types = [v.name for v in node.outputs], [v.type for v in node.outputs]
        return list(rw.emit_all(node.op, inputs, node.origin, names, types))

    return rewrite(graph, rule)


def _shaped_first(rw: Rewriter, node: Node) -> Value | None:
    """Reshape(f(x)) = f(Reshape(x)), f elementwise: the caller reshapes what it gives."""
    if not isinstance(node.op, Reshape):
        return None
    producer = rw.producer(node.input(0))
    if producer is None or not elementwise(producer) or rw.uses(node.input(0)) > 1:
        return None
    reshape = Node(node.op, (producer.input(0),), node.outputs, node.origin)
    x = _shaped_first(rw, reshape) or rw.emit(node.op, producer.input(0), at=node.origin)
    return rw.emit(producer.op, x, *producer.inputs[1:], at=producer.origin, name=node.output.name)


def _image(graph: Graph, x: Value) -> Value:
    """The last value behind an input, moved but not computed, that is an image of which each reader needs some rows."""
    chain = [x]
    while graph.uses(chain[-1]) == 1 and chain[-1] in graph.consumers:
        node = graph.consumers[chain[-1]][0]
        if not isinstance(node.op, Reshape | Transpose | Crop):
            break
        chain.append(node.output)
    for v in reversed(chain):
        readers = graph.consumers.get(v, [])
        image = v.type.rank == 4 and v.shape[0] == 1 and v.shape[1] > 1
        if image and readers and not any(why_not(n) or n.op.strides_over_image for n in readers):
            return v
    v = chain[-1]
    image = v.type.rank == 4 and v.shape[1] > 1
    reasons = [
        f"{n.origin or n.output.name} ({n.op.name}) {f'needs all of it: {why_not(n)}' if image else f'reads {v.type}'}"
        for n in graph.consumers.get(v, [])
        if not image or why_not(n)
    ]
    what = "; ".join(reasons) or "no node reads it"
    raise UsageError(f"the input is not read as an image by rows: {what}", where=x.name, hint=_HINT)


def rows_node(graph: Graph) -> Node | None:
    """The node at which the input comes by rows."""
    return next((n for n in graph.nodes if isinstance(n.op, Rows)), None)


@lru_cache(maxsize=256)
def upstream(graph: Graph) -> frozenset[Node]:
    """The nodes in front of `Rows`, whose work the caller does."""
    node, found = rows_node(graph), set[Node]()
    while node is not None:
        node = graph.producers.get(node.input(0))
        if node is not None:
            found.add(node)
    return frozenset(found)


def downstream(graph: Graph) -> Graph:
    """The graph from `Rows` on; all of it where there are none."""
    node = rows_node(graph)
    if node is None:
        return graph
    before = upstream(graph)
    kept = tuple(n for n in graph.nodes if n not in before)
    used = [v for v in graph.inputs if any(v in n.inputs for n in kept) and v is not node.input(0)]
    return replace(graph, inputs=(node.input(0), *used), nodes=kept)
