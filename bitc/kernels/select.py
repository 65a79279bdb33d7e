"""Choosing a kernel for every node."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bitc.errors import NoKernel
from bitc.ir.graph import Graph, Node
from bitc.kernels.costs import code_bytes, instructions, predict
from bitc.kernels.step import Packed, Variant, View
from bitc.kernels.variants import VARIANTS, ZEROS_SKIPPED
from bitc.ops.repeat import Repeat
from bitc.target import Target

MAX_GROWTH = 0.05
"""Share by which a layer's weights may outgrow the smallest form that a row stores them in, when balanced."""
DOUBT, ROUGH = 1.1, 1.3
"""By how much a row that leaves out zeros has to win: more than fitted prices, or estimates, are wrong by."""
SLACK = 64
"""Bytes by which they may in any case."""


class Goal(enum.Enum):
    """What the choice of rows weighs."""

    SPEED = "speed"
    """The fewest instructions, whatever the weights take."""
    BALANCED = "balanced"
    """The fewest instructions of the rows whose weights take at most 5 % more than they have to, where the target's
    flash is limited. Weights twice as large have to be four times as fast."""
    SIZE = "size"
    """The fewest bytes of weights and code, then the fewest instructions."""


@dataclass(frozen=True)
class Offer:
    """A way to compute something: predicted instructions, bytes of weights, and of code as measured on other layers."""

    cost: float
    weights: int
    code: int


@dataclass(frozen=True, eq=False)
class Choice:
    """The row for one node, and why each other row of the operator was not taken."""

    variant: Variant
    rejected: tuple[tuple[str, str], ...]
    """(row, reason)."""


@dataclass(frozen=True, eq=False)
class Selection:
    choices: Mapping[Node, Choice] = field(repr=False)
    goal: Goal = Goal.SPEED
    without: Collection[str] = ()
    """Rows that must not be chosen."""

    def __getitem__(self, node: Node) -> Variant:
        return self.choices[node].variant


def select(graph: Graph, target: Target, goal: Goal = Goal.BALANCED, without: Collection[str] = ()) -> Selection:
    """The best row for each node, rows named in `without` aside. Raises NoKernel, which lists all nodes that no row
    takes."""
    choices: dict[Node, Choice] = {}
    missing: list[str] = []
    for node in _all_nodes(graph):
        choice = choose(node, target, goal, without)
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
    return Selection(choices, goal, without)


def _all_nodes(graph: Graph) -> Iterator[Node]:
    """The nodes of a graph and of what runs in loops in it."""
    for node in graph.nodes:
        yield node
        if isinstance(node.op, Repeat):
            yield from _all_nodes(node.op.body)


def choose(node: Node, target: Target, goal: Goal, without: Collection[str] = ()) -> Choice | list[tuple[str, str]]:
    """The best row for a node, or why each row of its operator does not take it."""
    rejected: list[tuple[str, str]] = []
    rows: list[Variant] = []
    for row in VARIANTS:
        if not isinstance(node.op, row.ops):
            continue
        if row.name in without:
            rejected.append((row.name, "not wanted"))
        elif reason := row.refuses(node, target):
            rejected.append((row.name, reason))
        else:
            rows.append(row)
    if not rows:
        return rejected
    if len(rows) == 1:  # nothing to weigh
        return Choice(rows[0], tuple(rejected))
    offers = {row: _offer(row, node, target) for row in rows}
    best = weigh(list(offers.values()), target, goal)
    taken = next(row for row, o in offers.items() if o is best)
    for row, o in offers.items():
        if o is not best:
            ours, theirs = f"{o.cost:.3g} instructions, {o.weights} bytes", f"{best.cost:.3g} and {best.weights}"
            rejected.append((row.name, f"{ours}; {taken.name} {theirs}"))
    return Choice(taken, tuple(rejected))


def total(nodes: Sequence[Node], target: Target, goal: Goal) -> Offer | None:
    """What nodes cost together, each with the row that it gets; None if there is no row for one."""
    choices = [(n, choose(n, target, goal)) for n in nodes]
    offers = [_offer(c.variant, n, target) for n, c in choices if isinstance(c, Choice)]
    if len(offers) < len(nodes):
        return None
    return Offer(sum(o.cost for o in offers), sum(o.weights for o in offers), sum(o.code for o in offers))


def _offer(row: Variant, node: Node, target: Target) -> Offer:
    cost = instructions(row, node, target)
    if row.name in ZEROS_SKIPPED:
        cost *= ROUGH if predict(row, node, target) is None else DOUBT
    return Offer(cost, weights_bytes(row, node, target), code_bytes(row, target))


def weigh(offers: Sequence[Offer], target: Target, goal: Goal) -> Offer:
    """The best of several ways to compute the same."""
    if target.memory.flash is None and goal is not Goal.SIZE:
        goal = Goal.SPEED
    if goal is Goal.SIZE:
        return min(offers, key=lambda o: (o.weights + o.code, o.cost))
    least = min(o.weights for o in offers)
    limit = max(least * (1 + MAX_GROWTH), least + SLACK) if goal is Goal.BALANCED else float("inf")
    return min(offers, key=lambda o: o.cost * max(1, o.weights / limit) ** 2)


def weights_bytes(row: Variant, node: Node, target: Target) -> int:
    """Bytes in which the row stores the node's weights."""
    built = row.build(node, target)
    operands = () if isinstance(built, View) else [a.operand for step in built for a in step.args]
    return sum(o.data.nbytes for o in operands if isinstance(o, Packed) and o.is_weight)
