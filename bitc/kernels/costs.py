"""Predicted instructions of a kernel on a target: the terms of its work times their prices.

`costs.json` holds the prices, fitted by ``python -m benchmarks fit`` to exact counts in the emulators with the bundled
compiler at ``--optimize speed``. A target uses the prices of the most similar chip that was measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from bitc.ir.graph import Node
from bitc.kernels.step import Variant
from bitc.target import Target

TABLE = Path(__file__).with_name("costs.json")
Prices = Mapping[str, Mapping[str, float]]
"""Instructions per term, by row."""


@dataclass(frozen=True)
class Profile:
    """A kind of chip for which rows were measured."""

    isa: str
    triple: str
    features: frozenset[str]
    word_bits: int
    prices: Prices
    code: Mapping[str, int] = field(default_factory=dict)
    """Bytes of code of a layer, by row: the median."""

    def likeness(self, target: Target) -> tuple[int, int] | None:
        """How much of the target this is; None if code for this can not run there."""
        if (self.isa, self.word_bits) != (target.isa, target.word_bits) or not self.features <= target.features:
            return None
        return len(self.features), int(self.triple == target.toolchain.triple)


@cache
def profiles() -> tuple[Profile, ...]:
    """What was measured."""
    if not TABLE.exists():
        return ()
    found = json.loads(TABLE.read_text(encoding="utf-8"))
    return tuple(Profile(**{**p, "features": frozenset(p["features"])}) for p in found["profiles"])


def profile(target: Target) -> Profile | None:
    """The measured chip that is most like the target."""
    ranked = [(likeness, p) for p in profiles() if (likeness := p.likeness(target)) is not None]
    return max(ranked, key=lambda r: r[0])[1] if ranked else None


def prices(target: Target) -> Prices:
    """The prices of the measured chip that is most like the target; empty if there is none."""
    found = profile(target)
    return found.prices if found else {}


def code_bytes(row: Variant, target: Target) -> int:
    """Bytes of code of a layer with this row, roughly; 0 if it was not measured."""
    found = profile(target)
    return found.code.get(row.like or row.name, 0) if found else 0


def predict(row: Variant, node: Node, target: Target) -> float | None:
    """Instructions of `row` for a node; None if the row, or something that it has to do, has no price."""
    known = prices(target).get(row.like or row.name)
    if row.work is None or known is None:
        return None
    work = {term: n for term, n in row.work(node, target).items() if n}
    return sum(n * known[term] for term, n in work.items()) if work.keys() <= known.keys() else None


def instructions(row: Variant, node: Node, target: Target) -> float:
    """As `predict`, or the row's own rough estimate."""
    found = predict(row, node, target)
    return row.cost(node, target) if found is None else found
