"""Tensors that lie within others: operands are made where they are joined, and cut where they lie.

What is joined or cut along the last axis has rows that lie apart, with other parts between them (`Layout.pitch`). That
takes kernels that bear it: the one that makes the part, and all that read it.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from bitc.ir.graph import Graph, Node, Value
from bitc.kernels import Selection
from bitc.kernels.movement import cut
from bitc.kernels.step import Built, Part, View
from bitc.ops.movement import Concat, Slice
from bitc.target import Target


class Apart(enum.Enum):
    """Which parts of rows lie where the whole lies."""

    MADE = "made"
    """Those that nothing else reads."""
    READ = "read"
    """Those that others read as well."""
    CUT = "cut"
    """And those that are cut out of a tensor."""


def ways(graph: Graph) -> tuple[Apart, ...]:
    """The choices that may differ for a graph. What lies in a whole lives as long as that does, so that none is always
    the one that needs the least memory."""
    several = any(isinstance(n.op, Concat | Slice) and n.output.type.rank > 1 for n in graph.nodes)
    return (Apart.CUT, Apart.READ, Apart.MADE) if several else (Apart.CUT,)


@dataclass(eq=False)
class Parts:
    """The parts of a graph's tensors. `alone`: the nodes that run by themselves, in order. `placed`: values that have
    their memory already."""

    graph: Graph
    selection: Selection
    target: Target
    alone: tuple[Node, ...]
    placed: Collection[Value]
    apart: Apart
    built: dict[Node, Built] = field(default_factory=dict)
    views: dict[Value, Value] = field(default_factory=dict)
    """Values that are others', seen in another shape."""
    within: dict[Value, tuple[Value, Part]] = field(default_factory=dict)
    """Values that are made, or found, as parts of another one, and where."""
    as_it_lies: dict[Value, Value] = field(default_factory=dict)
    """Values whose rows lie apart, as the kernels take them."""
    _original: dict[Value, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.built = {n: self.selection[n].build(n, self.target) for n in self.alone}
        self.views = {n.output: n.input(0) for n in self.alone if isinstance(self.built[n], View)}

    def find(self) -> None:
        """Operands that are made where the result that they are parts of lies, instead of copied there."""
        for node in reversed(self.alone):
            if isinstance(node.op, Concat):
                self._join(node)
        for node in self.alone:
            if self.apart is Apart.CUT and not isinstance(self.built[node], View):
                self._cut(node)

    def original(self, v: Value) -> Value:
        """The value of the graph."""
        return self._original.get(v, v)

    def owner(self, v: Value) -> Value:
        """The value whose memory v has."""
        while v in self.views:
            v = self.views[v]
        return v

    def node(self, node: Node) -> Node:
        """A node on its operands as they lie."""
        if not any(v in self.as_it_lies for v in (*node.inputs, *node.outputs)):
            return node
        inputs = tuple(None if v is None else self.as_it_lies.get(v, v) for v in node.inputs)
        return replace(node, inputs=inputs, outputs=tuple(self.as_it_lies.get(v, v) for v in node.outputs))

    def _join(self, node: Node) -> None:
        for v, part in self._parts(node):
            owner = self.owner(v)
            computed = owner in self.graph.producers and owner.type.nbytes == v.type.nbytes
            align, y = owner.type.alignment, node.output.type
            free = owner not in self.within and owner not in self.placed
            if not (computed and free) or part.at % align or align > y.alignment:
                continue
            if not part.row or self._made_apart(v, node, part.row):
                self.within[owner] = node.output, part

    def _parts(self, node: Node) -> Iterator[tuple[Value, Part]]:
        """Operands of a Concat that it copies to one place each."""
        built = self.built[node]
        if isinstance(built, View) or any(step.part is None for step in built):
            return
        for step in built:
            v, part = step.args[1].operand, step.part
            assert isinstance(v, Value) and part is not None
            yield self.original(v), part

    def _cut(self, node: Node) -> None:
        """Read what is cut out of a tensor where it lies."""
        part, y = cut(self.node(node)), node.output
        if part is None or y in self.within or y in self.placed:
            return
        if self._apart(y, self.graph.consumers.get(y, []), part.row):
            self.within[y] = node.input(0), part
            self.built[node] = View()

    def _made_apart(self, v: Value, join: Node, row: int) -> bool:
        maker, readers = self.graph.producers.get(v), self.graph.consumers.get(v, [])
        if maker is None or join.inputs.count(v) > 1 or (len(readers) > 1 and self.apart is Apart.MADE):
            return False
        return self._apart(v, [maker, *readers], row)

    def _apart(self, v: Value, nodes: Sequence[Node], row: int) -> bool:
        """Put the rows of a value apart, if the kernels of all these nodes bear that."""
        if v in self.graph.outputs or any(isinstance(self.built.get(n, View()), View) for n in nodes):
            return False
        apart = Value(v.name, replace(v.type, layout=replace(v.type.layout, pitch=row)), None, v.origin)
        self.as_it_lies[v], self._original[apart] = apart, v
        lying = {n: self.node(n) for n in nodes}
        if any(self.selection[n].refuses(other, self.target) for n, other in lying.items()):
            del self.as_it_lies[v], self._original[apart]
            return False
        for n, other in lying.items():
            self.built[n] = self.selection[n].build(other, self.target)
        return True
