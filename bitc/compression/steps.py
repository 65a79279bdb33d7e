"""The steps by name, and their options read from text.  ``prune:sparsity=0.9,pattern=2:4`` is Prune(0.9, "2:4").

``binarize@conv2,conv3`` is Binarize() on the layers of these names or patterns alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, Protocol

from bitc.compression.binarize import Binarize
from bitc.compression.channels import Channels
from bitc.compression.int8 import Quantize
from bitc.compression.prune import Prune
from bitc.compression.share import Share
from bitc.compression.ternarize import Ternarize
from bitc.compression.work import Outcome, Work
from bitc.errors import UsageError


class Step(Protocol):
    """A frozen dataclass whose fields are its options."""

    def run(self, work: Work) -> Iterator[Outcome]:
        """Change the model of `work`."""
        ...


STEPS: dict[str, type[Binarize | Ternarize | Prune | Share | Channels | Quantize]] = {
    "binarize": Binarize,
    "ternarize": Ternarize,
    "prune": Prune,
    "share": Share,
    "channels": Channels,
    "quantize": Quantize,
}


def parse_on(text: str) -> tuple[Step, tuple[str, ...]]:
    """A step, and the patterns of the layers that it alone is for, from ``step@pattern,...``. Raises UsageError."""
    what, _, patterns = text.partition("@")
    return parse(what), tuple(filter(None, patterns.split(",")))


def parse(text: str) -> Step:
    """A step from ``name`` or ``name:option=value,...``. Raises UsageError."""
    name, _, rest = text.partition(":")
    where, known = f"--step {text}", ", ".join(STEPS)
    if name not in STEPS:
        raise UsageError(f"there is no step {name!r}", where=where, hint=f"the steps are {known}")
    kind = STEPS[name]
    types: dict[str, Callable[[str], Any]] = {f.name: type(getattr(kind, f.name)) for f in fields(kind)}
    options: dict[str, Any] = {}
    for pair in filter(None, rest.split(",")):
        key, equals, value = pair.partition("=")
        if key not in types or not equals:
            hint = "write " + ", ".join(f"{f.name}={f.default}" for f in fields(kind))
            raise UsageError(f"{pair!r} is no option of {name}", where=where, hint=hint)
        try:
            options[key] = types[key](value)
        except ValueError as e:
            raise UsageError(f"{value!r} is not a number", where=where, hint=f"write a number for {key}") from e
    try:
        return kind(**options)
    except ValueError as e:
        raise UsageError(str(e), where=where, hint="change the option") from e
