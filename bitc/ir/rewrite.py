"""Rebuilding graphs: the one way in which passes change them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from bitc.ir.graph import Array, Graph, Node, Op, Origin, Value, constant
from bitc.ir.types import TensorType

Rule = Callable[["Rewriter", Node], "Sequence[Value] | Value | None"]


class Builder:
    """Emits nodes in topological order and gives values unique names."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._producers: dict[Value, Node] = {}
        self._positions: dict[Node, int] = {}
        self._names: dict[str, int] = {}

    def unique(self, name: str) -> str:
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return name if not count else self.unique(f"{name}.{count}")

    def add(self, node: Node) -> Node:
        """Append a node that already exists."""
        self._positions[node] = len(self.nodes)
        self.nodes.append(node)
        for v in node.outputs:
            self._producers[v] = node
        return node

    def emit_all(
        self,
        op: Op,
        inputs: Sequence[Value | None],
        at: str = "",
        names: Sequence[str] = (),
        types: Sequence[TensorType] | None = None,
    ) -> tuple[Value, ...]:
        """Append a node; its output types come from `op.infer` unless `types` are given."""
        out_types = types or op.infer(*(None if v is None else v.type for v in inputs))
        base = names or [op.name.lower()] * len(out_types)
        outputs = tuple(Value(self.unique(n), t) for n, t in zip(base, out_types, strict=False))
        self.add(Node(op, tuple(inputs), outputs, at))
        return outputs

    def emit(
        self,
        op: Op,
        *inputs: Value | None,
        at: str = "",
        name: str = "",
        origin: Origin | None = None,
        type: TensorType | None = None,
    ) -> Value:
        """Append a node with one output and return it."""
        value = self.emit_all(op, inputs, at, [name] if name else (), [type] if type else None)[0]
        value.origin = origin
        return value

    def const(self, array: Array, name: str = "const", type: TensorType | None = None) -> Value:
        return constant(self.unique(name), array, type)

    def producer(self, value: Value | None) -> Node | None:
        """The node that makes `value`, if it is not an input or a constant."""
        return self._producers.get(value) if value is not None else None

    def position(self, node: Node) -> int:
        """Index of an emitted node in `nodes`."""
        return self._positions[node]


class Rewriter(Builder):
    """A `Builder` that walks an existing graph; `old` is that graph, `uses` counts readers in it."""

    def __init__(self, old: Graph) -> None:
        super().__init__()
        self.old = old
        self.map: dict[Value, Value] = {}
        self._back: dict[Value, list[Value]] = {}

    def new(self, value: Value | None) -> Value | None:
        return None if value is None else self.map.get(value, value)

    def uses(self, value: Value) -> int:
        """How many nodes and outputs of the old graph read a value of the new one (values kept or replaced)."""
        return sum(self.old.uses(v) for v in self._old(value))

    def readers(self, value: Value) -> list[Node]:
        """Nodes of the old graph that read a value of the new one."""
        return [n for v in self._old(value) for n in self.old.consumers.get(v, ())]

    def is_output(self, value: Value) -> bool:
        return any(v in self.old.outputs for v in self._old(value))

    def replace(self, old: Value, new: Value) -> None:
        self.map[old] = new
        self._back.setdefault(new, [new]).append(old)
        if new.origin is None and not new.is_const:
            new.origin = old.origin

    def _old(self, value: Value) -> list[Value]:
        """The values of the old graph that `value` is or stands for."""
        return self._back.get(value, [value])


def rewrite(graph: Graph, rule: Rule) -> Graph:
    """Apply `rule` to every node in topological order and return the new graph, dead nodes removed.

    The rule gets nodes whose inputs are already replaced; it emits new nodes through the rewriter and returns the
    values that take the place of the node's outputs, or None to keep the node as it is. Where a new value has no
    `origin` it inherits that of the one it replaces: a pass preserves real-valued meaning.
    """
    rw = Rewriter(graph)
    for v in graph.inputs:
        rw.unique(v.name)
    for node in graph.nodes:
        inputs = tuple(rw.new(v) for v in node.inputs)
        same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
        current = node if same else replace(node, inputs=inputs)
        result = rule(rw, current)
        if result is None:
            rw.add(current)
            for v in current.outputs:
                rw.unique(v.name)
            continue
        values = (result,) if isinstance(result, Value) else result
        for old, new in zip(node.outputs, values, strict=True):
            if old is not new:
                rw.replace(old, new)
    outputs = tuple(rw.map.get(v, v) for v in graph.outputs)
    return dead_code(Graph(graph.name, graph.inputs, outputs, tuple(rw.nodes)))


def rewrite_all(graph: Graph, rule: Rule) -> Graph:
    """Apply `rule`, which makes one node of several, until there is nothing left to merge."""
    while True:
        merged = rewrite(graph, rule)
        if len(merged.nodes) == len(graph.nodes):
            return merged
        graph = merged


def name_outputs(graph: Graph, names: Sequence[str], same: Callable[[TensorType], Op]) -> Graph:
    """Give every output its name and a value of its own: one that is an input, a constant or listed twice gets a node
    of the identity operator `same(type)`."""
    nodes, outputs, taken = list(graph.nodes), [], set(graph.inputs)
    for value, name in zip(graph.outputs, names, strict=True):
        if value in taken or value.is_const:
            copy = Value(name, value.type, origin=value.origin)
            nodes.append(Node(same(value.type), (value,), (copy,), f"output {name}"))
            value = copy
        value.name = name
        taken.add(value)
        outputs.append(value)
    return Graph(graph.name, graph.inputs, tuple(outputs), tuple(nodes))


def in_order(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Nodes sorted so that each follows those it reads from; as they are where that is so already."""
    producers = {v: n for n in nodes for v in n.outputs}
    done: dict[Node, None] = {}
    stack = list(reversed(nodes))
    while stack:
        node = stack[-1]
        needed = [producers[v] for v in node.inputs if v in producers and producers[v] not in done]
        if needed:
            stack.extend(needed)
            continue
        done.setdefault(stack.pop())
    return tuple(done)


def dead_code(graph: Graph) -> Graph:
    """Remove nodes none of whose outputs is read."""
    live = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if any(v in live for v in node.outputs):
            kept.append(node)
            live.update(v for v in node.inputs if v is not None)
    return Graph(graph.name, graph.inputs, graph.outputs, tuple(reversed(kept)))
