"""Which inputs and outputs of a graph are its state: what one run leaves for the next."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bitc.errors import UsageError
from bitc.ir import Graph, Value

AUTO = "auto"
"""Stands for all pairs that are found by their names."""
States = tuple[tuple[str, str], ...]
"""(input, output) by ONNX names."""

_WHERE = "--state"
# fmt: off
_WORDS = frozenset((
    "state", "states", "hidden", "cell", "h", "c", "hx", "cx", "cache", "mem", "memory", "buf", "buffer", "ctx",
    "context", "past", "prev", "rnn", "gru", "lstm",
))
"""One of these in its name makes an input a state; x and x_out are a signal."""
_BEFORE = frozenset(("past", "prev", "previous", "old", "init", "initial", "in", "input", "0"))
_AFTER = frozenset(("present", "next", "new", "out", "output", "n", "cur", "current", "updated", "final"))
# fmt: on


def _tokens(name: str) -> list[str]:
    spread = re.sub(r"([a-z])([A-Z]|\d)", r"\1_\2", re.sub(r"^([hc])(n)$", r"\1_\2", name))
    return [t.lower() for t in re.split(r"[^A-Za-z0-9]+|_", spread) if t]


def _stem(name: str, marks: frozenset[str]) -> tuple[str, ...]:
    """What is left of a name without its marks of before or after."""
    return tuple(t for t in _tokens(name) if t not in marks)


def found_by_name(graph: Graph) -> States:
    """Pairs of one type whose names differ by a mark of before and after alone, as in h_in and h_out, h0 and hn, state
    and stateN, past_k and present_k."""
    pairs: list[tuple[str, str]] = []
    for v in graph.inputs:
        if not _WORDS & set(_tokens(v.name)):
            continue
        stem = _stem(v.name, _BEFORE)
        same = [o for o in graph.outputs if o.type == v.type and _stem(o.name, _AFTER) == stem]
        if len(same) == 1 and same[0].name not in {o for _, o in pairs}:
            pairs.append((v.name, same[0].name))
    return tuple(pairs)


def resolve(graph: Graph, wanted: Sequence[str]) -> tuple[States, list[str]]:
    """The pairs that `wanted` ("IN:OUT", or "auto") names, and notices. Raises UsageError where they do not fit."""
    found = found_by_name(graph)
    pairs: dict[str, str] = dict(found) if AUTO in wanted else {}
    for text in wanted:
        if text != AUTO:
            name, output = _pair(graph, text)
            pairs[name] = output
    shown = ", ".join(f"{i}:{o}" for i, o in pairs.items())
    if len(set(pairs.values())) < len(pairs):
        raise UsageError(f"an output is the state of two inputs: {shown}", where=_WHERE, hint="pair each once")
    if len(pairs) == len(graph.outputs):
        raise UsageError("no output is left", where=_WHERE, hint="keep at least one output")
    notices = []
    if AUTO in wanted:
        notices.append(f"state kept between runs, found by name: {shown}" if pairs else "no state was found by name")
    elif not wanted and found:
        shown = ", ".join(f"{i} and {o}" for i, o in found)
        notices.append(f"{shown} look like a state; --state auto keeps it between runs")
    return tuple(pairs.items()), notices


def _pair(graph: Graph, text: str) -> tuple[str, str]:
    """An input and an output; names may hold colons themselves."""
    inputs, outputs = ({v.name: v for v in side} for side in (graph.inputs, graph.outputs))
    for at in (i for i, c in enumerate(text) if c == ":"):
        name, output = text[:at], text[at + 1 :]
        if name in inputs and output in outputs:
            _check(inputs[name], outputs[output])
            return name, output
    hint = f"write IN:OUT; inputs: {', '.join(inputs) or 'none'}; outputs: {', '.join(outputs)}"
    raise UsageError(f"{text!r} does not name an input and an output", where=_WHERE, hint=hint)


def _check(before: Value, after: Value) -> None:
    if before.type != after.type:
        raise UsageError(
            f"{before.name} is {before.type}, {after.name} is {after.type}",
            where=_WHERE,
            hint="a state has one type; give --shape where a dimension is open",
        )
