"""A chain by blocks of channels → calls, block after block."""

from __future__ import annotations

from collections.abc import Callable

from bitc.errors import InternalError
from bitc.ir.graph import Value
from bitc.ir.program import Buffer, Call, Kind, Place
from bitc.ir.schedule import Blocks
from bitc.kernels import Choice, Selection, choose
from bitc.kernels.costs import predict
from bitc.kernels.step import Operand, Packed, Scratch, View
from bitc.lower.stages import Spent, weights_of
from bitc.schedule.blocks import block_nodes
from bitc.target import Target


def lower_blocks(
    blocks: Blocks, target: Target, selection: Selection, operand: Callable[[Operand, str], Buffer], first_layer: int
) -> tuple[list[Call], list[Spent]]:
    """The calls, and what each node comes to. `operand` gives the buffers of constants and of values outside."""
    spent = [Spent() for _ in blocks.nodes]
    calls: list[Call] = []
    result = operand(blocks.nodes[-1].output, "")
    for start in range(0, blocks.nodes[0].output.type.channels, blocks.size):
        places: dict[Value, Place] = {}
        for k, node in enumerate(block_nodes(blocks, start)):
            y = node.output
            choice = spent[k].choice or choose(node, target, selection.goal, selection.without)
            if not isinstance(choice, Choice):
                raise InternalError(f"no kernel for channels of {y.name}: {choice}", where="blocks")
            spent[k].choice = choice
            built = choice.variant.build(node, target)
            if isinstance(built, View):
                base = places[node.input(0)].buffer
                places[y] = Place(Buffer(y.name, y.type, base.kind, base))
                continue
            last = k == len(blocks.nodes) - 1
            offset = start * y.type.dtype.carrier.itemsize
            places[y] = Place(result, offset) if last else Place(Buffer(f"{y.name}.block", y.type, Kind.ARENA))
            for step in built:
                args = tuple(_place(a.operand, f"{y.name}_{a.name}", places, operand) for a in step.args)
                calls.append(step.call(step.function, args, first_layer + k))
            spent[k].weights += weights_of(built)
            cost = predict(choice.variant, node, target)
            total = spent[k].cost
            spent[k].cost = None if cost is None or total is None else total + cost
    return calls, spent


def _place(operand: Operand, name: str, places: dict[Value, Place], other: Callable[[Operand, str], Buffer]) -> Place:
    if isinstance(operand, Value) and operand in places:
        return places[operand]
    assert isinstance(operand, Value | Packed | Scratch)
    return Place(other(operand, name))
