"""Vectors of codes of 8 bits, as compilers have them for every vector unit: templates/isa/codes.j2."""

from __future__ import annotations

from bitc.target import Target

LANES = (64, 32, 16, 8)


def lanes_for(target: Target, codes: int) -> int:
    """The codes that a vector of the target holds, of so many that lie side by side; 0: none."""
    return next((n for n in LANES if n <= min(target.vector_bytes, codes)), 0) if target.vector_bytes >= 16 else 0


def codes_isa(lanes: int) -> tuple[str, ...]:
    """The template of such vectors."""
    return (f"isa/codes{lanes}.j2",) if lanes else ()
