"""What of a stage runs: its nodes with copies of columns, and in blocks of channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bitc.ir.graph import Graph, Node, Value
from bitc.ir.schedule import Stage, kept
from bitc.ops.movement import Crop
from bitc.schedule.blocks import in_blocks, splits
from bitc.schedule.pools import across_and_down, is_divided
from bitc.schedule.rows import RowPlan, image_inputs, plan_rows, window
from bitc.schedule.totals import by_rows_of, is_dense, is_pool
from bitc.schedule.waiting import with_waiting


@dataclass(frozen=True, eq=False)
class Parts:
    """The nodes that a stage runs, in order."""

    nodes: tuple[Node, ...]
    layers: tuple[Node, ...]
    """What is reported: the nodes of the stage, and copies."""
    layer: tuple[int, ...]
    """Which of the layers each node belongs to."""
    whole: tuple[Value, ...]
    """Values that are needed after the stage."""
    at_once: frozenset[Value]
    """Values of which all rows of a strip are made before the next value's: blocks of channels."""
    copies: Mapping[Value, Value]
    """Copies of columns of tensors from outside."""
    waiting: frozenset[Value] = frozenset()
    """Copies of rows that wait for late readers."""
    keep: frozenset[Value] = frozenset()
    """Values of which a strip keeps columns for the next."""
    strips: int = 1

    def cut(self, stage: Stage) -> Parts:
        """The same nodes in the strips of a stage."""
        return replace(self, keep=frozenset(self.copies.get(v, v) for v in stage.keep), strips=stage.strips)

    def rows(self) -> RowPlan:
        """Which row is made when."""
        return plan_rows(self.nodes, self.whole, self.at_once, self.waiting)


def parts(graph: Graph, stage: Stage) -> Parts:
    """The nodes of a stage as they run.

    A tensor from outside is copied, as far as a window reaches, wherever strips read several rows of it: to the kernel
    a window is a dense tensor. It is also copied where the stage keeps its columns: only then the last value may take
    over its memory strip by strip.
    """
    nodes, layers, layer = list(stage.nodes), list(stage.nodes), list(range(len(stage.nodes)))
    at_once: frozenset[Value] = frozenset()
    if stage.block:
        nodes, layer, at_once = _in_blocks(graph, stage)
    nodes, layer = _divided(nodes, layer)
    whole, numbers = kept(graph, stage), iter(layer)
    found, waiting = with_waiting(tuple(nodes), whole, at_once)
    movers = [n for n in found if n.output in waiting]
    nodes, layer = list(found), [len(layers) + movers.index(n) if n in movers else next(numbers) for n in found]
    layers += movers
    copies: dict[Value, Value] = {}
    if stage.strips > 1:
        nodes, layer, copies = _with_copies(stage, nodes, layer, len(layers))
        layers += [n for n in nodes if n.output in copies.values()]
    return Parts(tuple(nodes), tuple(layers), tuple(layer), whole, at_once, copies, waiting).cut(stage)


def _in_blocks(graph: Graph, stage: Stage) -> tuple[list[Node], list[int], frozenset[Value]]:
    nodes, layer, at_once = list[Node](), list[int](), set[Value]()
    split = splits(graph, stage.nodes)
    for i, node in enumerate(stage.nodes):
        if node in split:
            continue  # with its reader
        first = next((n for n in split if split[n] is node), None)
        if first is None:
            nodes.append(node)
            layer.append(i)
            continue
        blocks, join = in_blocks(first, node, stage.block)
        for one, other in blocks:
            nodes += [one, other]
            layer += [stage.nodes.index(first), i]
            at_once.add(other.output)
        nodes.append(join)
        layer.append(i)
    return nodes, layer, frozenset(at_once)


def _divided(nodes: Sequence[Node], layer: Sequence[int]) -> tuple[list[Node], list[int]]:
    """Pools of whole images, and dense layers of what is made within the stage, as nodes that add up rows and such that
    finish; other max pools of that as two nodes."""
    made = {n.output for n in nodes}
    found: list[tuple[Node, int]] = []
    for node, k in zip(nodes, layer, strict=True):
        within = node.input(0) in made
        if within and is_divided(node) and not is_pool(node):
            steps = across_and_down(node)
        else:
            steps = (node,) if is_dense(node) and not within else by_rows_of(node)
        found += [(n, k) for n in steps]
    return [n for n, _ in found], [k for _, k in found]


def _with_copies(
    stage: Stage, nodes: Sequence[Node], layer: Sequence[int], first: int
) -> tuple[list[Node], list[int], dict[Value, Value]]:
    made = {n.output for n in nodes}
    copies: dict[Value, Value] = {}
    found: list[Node] = []
    numbers: list[int] = []
    for k, n in zip(layer, nodes, strict=True):
        inputs = list(n.inputs)
        for i in image_inputs(n):
            x = n.input(i)
            kept_for_later = x in stage.keep and n is not nodes[-1]
            several = window(n, i, (0, 1), (0, 1)).size[0] > 1
            if x in made or n.op.strides_over_image or not (several or kept_for_later):
                continue
            if x not in copies:
                copies[x] = Value(f"{x.name}.window", x.type)
                found.append(Node(Crop((x.shape[1], x.shape[2])), (x,), (copies[x],), f"columns of {x.name}"))
                numbers.append(first + len(copies) - 1)
            inputs[i] = copies[x]
        found.append(replace(n, inputs=tuple(inputs)) if tuple(inputs) != n.inputs else n)
        numbers.append(k)
    return found, numbers, copies
