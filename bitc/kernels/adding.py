"""Products that are added to a total: convolutions of one window whose sums start from what is in the output.

The rows are those of convolution. Integers are added where accumulators are stored, since their order does not matter;
in float32 each sum starts from the total, so that the roundings are those of the whole sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from bitc.ir.graph import Node
from bitc.kernels.copy import copy_step
from bitc.kernels.step import Step, Variant, View
from bitc.ops.linear import AddProducts
from bitc.target import Target


@lru_cache(maxsize=4096)
def _convolution(node: Node) -> Node:
    """The products alone."""
    assert isinstance(node.op, AddProducts)
    return Node(node.op.conv, node.inputs[1:], node.outputs, node.origin)


def adding(row: Variant) -> Variant:
    """The row for totals that is made of one for convolutions, which has to heed `adds` of its epilogue."""

    def build(node: Node, target: Target) -> tuple[Step, ...]:
        built = row.build(_convolution(node), target)
        assert not isinstance(built, View)
        adds = {"adds": True}
        steps = tuple(replace(s, context={**s.context, "e": s.context["e"] | adds}, overlaps=()) for s in built)
        there = node.output is node.inputs[0]
        return steps if there else (copy_step(node.input(0), node.output), *steps)

    def work(node: Node, target: Target) -> Mapping[str, float]:
        assert row.work is not None
        return row.work(_convolution(node), target)

    return Variant(
        f"{row.name}_added",
        (AddProducts,),
        lambda node, target: row.accepts(_convolution(node), target),
        build,
        lambda node, target: row.cost(_convolution(node), target),
        work if row.work else None,
        like=row.name,
    )
