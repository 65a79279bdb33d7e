"""What one row of a node takes: the node as it runs in a stage, instructions and working memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bitc.errors import InternalError
from bitc.ir.graph import Node, Value
from bitc.kernels import Choice, Selection, choose
from bitc.kernels.costs import instructions, predict
from bitc.kernels.step import Scratch, Variant, View
from bitc.ops.linear import AddProducts, Conv2D
from bitc.schedule.rows import image_inputs, image_size, turns, window
from bitc.schedule.totals import rows_of
from bitc.target import Target

PER_ELEMENT = 5
"""Instructions for an element of the result of a kernel without a price."""
Pads = tuple[int, int, int, int]


@dataclass(frozen=True)
class RowCost:
    """Instructions, and bytes of working memory beside inputs and output."""

    instructions: float
    scratch: int


def row_node(
    node: Node, pads: Pads, shapes: Mapping[int, tuple[int, ...]], columns: int
) -> tuple[Node, dict[Value, int]]:
    """The node that makes so many columns of one row from windows of such `shapes`, by input, with `pads` around them;
    and the values that stand for the windows."""
    images = {Value(node.input(i).name, node.input(i).type.with_shape(shape)): i for i, shape in shapes.items()}
    by_input = {i: v for v, i in images.items()}
    y = Value(node.output.name, node.output.type.with_shape((1, 1, columns, node.output.type.channels)))
    inputs = tuple(y if v is node.output else by_input.get(i, v) for i, v in enumerate(node.inputs))
    small = replace(node, op=node.op.on_window(pads, (1, columns)), inputs=inputs, outputs=(y,))
    types = small.op.infer(*(None if v is None else v.type for v in inputs))
    if types[0].shape != y.shape:
        raise InternalError(f"a row of {node.output.name} is {types[0]}, not {y.type}", where="rows of stages")
    return small, images


class RowCosts:
    """Costs of rows within the image, by the number of their columns, kept."""

    def __init__(self, target: Target, selection: Selection) -> None:
        self.target, self.selection = target, selection
        self._known: dict[tuple[Value, int], RowCost] = {}
        self._rows: dict[Value, Variant] = {}

    def of(self, node: Node, columns: int) -> RowCost:
        """The cost of so many columns of a row of the node's output."""
        key = node.output, columns
        if key not in self._known:
            self._known[key] = self._cost(node, columns)
        return self._known[key]

    def whole(self, node: Node) -> float:
        """Instructions of a node that runs by itself."""
        return self._instructions(self.selection[node], node)

    def _instructions(self, variant: Variant, node: Node) -> float:
        cost = instructions(variant, node, self.target)
        priced = isinstance(node.op, Conv2D | AddProducts) or predict(variant, node, self.target) is not None
        return cost if priced else max(cost, PER_ELEMENT * node.outputs[0].type.size)

    def _cost(self, node: Node, columns: int) -> RowCost:
        width, row = node.output.shape[2], turns(node) // 2
        left = (width - columns) // 2
        shapes: dict[int, tuple[int, ...]] = {}
        pads: Pads = (0, 0, 0, 0)
        for i in image_inputs(node):
            x, size = node.input(i).type, image_size(node, i)
            box = window(node, i, (row, row + 1), (left, left + columns))
            pads = box.beyond(size) if any(box.beyond(size)) else pads
            shapes[i] = x.shape if node.op.strides_over_image else (1, *box.inside(size).size, x.channels)
        rows = rows_of(node)
        small, _ = row_node(rows[row] if len(rows) > 1 else node, pads, shapes, columns)
        variant = self._variant(node.output, small)
        if variant is None:
            return RowCost(PER_ELEMENT * small.output.type.size, 0)
        built = variant.build(small, self.target)
        steps = () if isinstance(built, View) else built
        scratch = [sum(a.operand.type.nbytes for a in s.args if isinstance(a.operand, Scratch)) for s in steps]
        return RowCost(self._instructions(variant, small), max(scratch, default=0))

    def _variant(self, value: Value, small: Node) -> Variant | None:
        """The kernel row that was chosen for other rows of the value, if it takes this one too."""
        known = self._rows.get(value)
        if known is not None and not known.refuses(small, self.target):
            return known
        choice = choose(small, self.target, self.selection.goal, self.selection.without)
        if not isinstance(choice, Choice):
            return None
        return self._rows.setdefault(value, choice.variant)
