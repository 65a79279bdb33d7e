"""Rows of which constants differ: where all else is the same, these lie one after the other in one array, and one loop
runs over the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bitc.kernels.step import Arg, Operand, Packed, Scratch, Step

Steps = tuple[Step, ...]


@dataclass(frozen=True)
class Stacked:
    """The steps of one row: those of the first row `like` it, and where its constants start in theirs, in bytes."""

    like: int
    steps: Steps
    at: Mapping[Operand, int]


def stack(rows: Sequence[Steps]) -> list[Stacked]:
    """The rows with their constants in one array for all that are alike."""
    groups: list[list[int]] = []
    for i, steps in enumerate(rows):
        alike = next((g for g in groups if _alike(rows[g[0]], steps)), None)
        if alike is None:
            groups.append([i])
        else:
            alike.append(i)
    found = {i: row for g in groups for i, row in zip(g, _stack([rows[i] for i in g], g[0]), strict=True)}
    return [found[i] for i in range(len(rows))]


def _alike(a: Steps, b: Steps) -> bool:
    """Whether the steps of two rows differ in the values of constants alone."""
    return len(a) == len(b) and all(_same_code(s, t) for s, t in zip(a, b, strict=True))


def _same_code(s: Step, t: Step) -> bool:
    same = (s.kernel, s.template, s.uses, len(s.args)) == (t.kernel, t.template, t.uses, len(t.args))
    return same and s.context == t.context and all(_same_form(a, b) for a, b in zip(s.args, t.args, strict=True))


def _same_form(a: Arg, b: Arg) -> bool:
    x, y = a.operand, b.operand
    if isinstance(x, Packed) and isinstance(y, Packed):
        return x.data.nbytes == y.data.nbytes and a.param == b.param
    if isinstance(x, Scratch) and isinstance(y, Scratch) and x.type != y.type:
        return False
    return a.param == b.param and type(x) is type(y)


def _stack(rows: Sequence[Steps], like: int) -> list[Stacked]:
    at: list[dict[Operand, int]] = [{} for _ in rows]
    steps: list[Step] = []
    for same in zip(*rows, strict=True):
        args: list[Arg] = []
        for each in zip(*(s.args for s in same), strict=True):
            first, parts = each[0], [a.operand.data.reshape(-1) for a in each if isinstance(a.operand, Packed)]
            if not isinstance(first.operand, Packed) or all((p == parts[0]).all() for p in parts):
                args.append(first)
                continue
            together = replace(first.operand, data=np.concatenate(parts))
            args.append(replace(first, operand=together))
            for i, starts in enumerate(at):
                starts[together] = i * parts[0].nbytes
        steps.append(replace(same[0], args=tuple(args)))
    return [Stacked(like, tuple(steps), starts) for starts in at]
