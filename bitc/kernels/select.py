"""Choosing a kernel for every node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bitc.errors import NoKernel
from bitc.ir.graph import Graph, Node
from bitc.kernels.costs import instructions
from bitc.kernels.step import Variant
from bitc.kernels.variants import VARIANTS
from bitc.target import Target


@dataclass(frozen=True, eq=False)
class Choice:
    """The row for one node, and why each other row of the operator was not taken."""

    variant: Variant
    rejected: tuple[tuple[str, str], ...]
    """(row, reason)."""


@dataclass(frozen=True, eq=False)
class Selection:
    choices: Mapping[Node, Choice] = field(repr=False)

    def __getitem__(self, node: Node) -> Variant:
        return self.choices[node].variant


def select(graph: Graph, target: Target) -> Selection:
    """The cheapest row that takes each node. Raises NoKernel, which lists all nodes that no row takes."""
    choices: dict[Node, Choice] = {}
    missing: list[str] = []
    for node in graph.nodes:
        choice = _choose(node, target)
        if isinstance(choice, Choice):
            choices[node] = choice
        else:
            reasons = "; ".join(f"{name}: {why}" for name, why in choice) or "no kernel row knows the operator"
            types = ", ".join("-" if v is None else str(v.type) for v in node.inputs)
            missing.append(f"{node.origin or node.output.name} ({node.op.name} of {types}): {reasons}")
    if missing:
        raise NoKernel(
            f"no kernel for {len(missing)} node{'s' if len(missing) > 1 else ''}",
            where=target.name,
            hint="simplify these nodes before export, or report them with the model",
            detail="\n".join(missing),
        )
    return Selection(choices)


def _choose(node: Node, target: Target) -> Choice | list[tuple[str, str]]:
    rejected: list[tuple[str, str]] = []
    offers: list[tuple[float, Variant]] = []
    for row in VARIANTS:
        if not isinstance(node.op, row.ops):
            continue
        if reason := row.accepts(node, target):
            rejected.append((row.name, reason))
        else:
            offers.append((instructions(row, node, target), row))
    if not offers:
        return rejected
    best_cost, best = min(offers, key=lambda offer: offer[0])
    rejected += [(row.name, f"cost {c:.3g}, {best.name} {best_cost:.3g}") for c, row in offers if row is not best]
    return Choice(best, tuple(rejected))
