"""What passes share: what the user chose, and what passes have to say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from bitc.ir.graph import Graph


@dataclass(frozen=True)
class Found:
    """A layer that runs on bits or integers: the ONNX node and the form that was found there."""

    node: str
    form: str


@dataclass(frozen=True)
class Declined:
    """A layer that stays as it is: the ONNX node and the reason."""

    node: str
    why: str


@dataclass
class Context:
    """Collects findings while passes run; `bitc inspect` prints them."""

    binary: list[Found] = field(default_factory=list)
    not_binary: list[Declined] = field(default_factory=list)
    integer: list[Found] = field(default_factory=list)
    """Layers and quantizers that run on integers."""
    not_integer: list[Declined] = field(default_factory=list)
    """Quantizers that stay real."""
    notices: list[str] = field(default_factory=list)

    def notice(self, text: str) -> None:
        if text not in self.notices:
            self.notices.append(text)


class Pass(Protocol):
    """A frozen dataclass whose fields are its options. `lossless`: reals before and after are equal up to float
    rounding (codes exactly)."""

    @property
    def lossless(self) -> bool: ...

    def run(self, graph: Graph, ctx: Context) -> Graph: ...
