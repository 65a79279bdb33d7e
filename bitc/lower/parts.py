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
from bitc.ops.movement import Concat, Reshape, Slice
from bitc.target import Target


class Apart(enum.Enum):
    """Which parts of rows lie where the whole lies."""

    MADE = "made"
    """Those that a kernel computes and nothing else reads."""
    READ = "read"
    """Those that others read as well, and parts of parts."""
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
    number: dict[Node, int] = field(default_factory=dict)
    """When each node runs."""
    _original: dict[Value, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.number = {n: i for i, n in enumerate(self.alone)}
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
        if self.apart is Apart.CUT:
            self._take_over(node)
        for v, part in self._parts(node):
            owner = self.owner(v)
            computed = owner in self.graph.producers and owner.type.nbytes == v.type.nbytes
            align, y = owner.type.alignment, node.output.type
            free = owner not in self.within and owner not in self.placed
            if not (computed and free) or part.at % align or align > y.alignment:
                continue
            if not part.row or self._made_apart(v, node, part.row):
                self.within[owner] = node.output, part

    def _take_over(self, join: Node) -> None:
        """Make the result of a Concat in the tensor that an operand is cut out of, where that operand lies there as it
        does in the result, and nothing else of the tensor is read when other operands are made: half of it goes through
        a block as it is."""
        y = join.output
        if y in self.within or y in self.placed:
            return
        for v, part in self._parts(join):
            node = self.graph.producers.get(v)
            if node is None or v in self.within or not isinstance(node.op, Slice) or isinstance(self.built[node], View):
                continue
            x, same = node.input(0), cut(node) == part
            whole = self.owner(x)
            same = same and x.shape == y.shape and x.type.layout == y.type.layout and whole.type.nbytes == y.type.nbytes
            if same and self._is_free(whole, v, join) and self._apart(v, self.graph.consumers[v], part.row):
                self.within[v], self.within[y] = (x, part), (whole, Part(0))
                self.built[node] = View()
                return

    def _is_free(self, x: Value, v: Value, join: Node) -> bool:
        """Whether x is a tensor of its own of which nothing but v is read when the other operands of a Concat are made,
        or later."""
        maker = self.graph.producers.get(x)
        if maker not in self.number or x in self.placed or x in self.graph.outputs:
            return False
        others = [self.graph.producers.get(u) for u in join.inputs if u is not None and u is not v]
        known = [n for n in others if n in self.number and not isinstance(n.op, Concat | Slice | Reshape)]
        if len(known) != len(join.inputs) - 1:
            return False
        first = min((self.number[n] for n in known), default=-1)
        return all(self._is_done(n, v, first) for n in self.graph.consumers[x])

    def _is_done(self, node: Node, v: Value, before: int) -> bool:
        """Whether a reader of a tensor, and all that may read it as a view, run before another node; but for v."""
        y = node.output
        if y is v:
            return True
        if isinstance(node.op, Concat) or y in self.graph.outputs or self.number.get(node, before) >= before:
            return False
        if not isinstance(self.built[node], View) and not isinstance(node.op, Slice):
            return True
        return all(self._is_done(n, v, before) for n in self.graph.consumers[y])

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
        if maker is None or join.inputs.count(v) > 1:
            return False
        if self.apart is Apart.MADE and (len(readers) > 1 or isinstance(maker.op, Concat | Slice)):
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
