"""The whole exception tree.

Every error a user can cause is a :class:`BitcError`: one line of *what* went wrong, *where* it did (a node, a file, a
layer) and a *hint* that says what to do about it. The class decides the exit code and makes clear who is at fault: the
call (2), the model (3), the target (4), the toolchain (5) or bitc itself (70).
"""

from __future__ import annotations

from dataclasses import dataclass


class BitcError(Exception):
    """Base of all errors. `what` and `hint` are one line each; `where` names the node, file or layer, or is empty."""

    exit_code = 70

    def __init__(self, what: str, *, where: str = "", hint: str = "", detail: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint
        self.detail = detail
        """Optional longer text (a memory map, a compiler's output), shown between reason and hint."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class UsageError(BitcError):
    """The call is wrong: a bad option, an unwritable folder, inputs that do not match the model."""

    exit_code = 2


class ModelError(BitcError):
    """The model is at fault."""

    exit_code = 3


class InvalidModel(ModelError):
    """Not ONNX, truncated, inconsistent, or its external data is missing."""


class DynamicShape(ModelError):
    """A dimension is not known at compile time."""


@dataclass(frozen=True)
class Unsupported:
    """One node that bitc can not compile: its name, operator, why, and what the user can do."""

    node: str
    op: str
    reason: str
    hint: str


class UnsupportedOp(ModelError):
    """Nodes that bitc can not compile, all of them at once."""

    def __init__(self, nodes: list[Unsupported]) -> None:
        count = f"{len(nodes)} node{'s' if len(nodes) > 1 else ''}"
        ops = ", ".join(sorted({n.op for n in nodes}))
        super().__init__(
            f"{count} not supported: {ops}",
            hint="; ".join(dict.fromkeys(n.hint for n in nodes if n.hint)),
            detail="\n".join(f"{n.node} ({n.op}): {n.reason}" for n in nodes),
        )
        self.nodes = nodes


class TargetError(BitcError):
    """The target is unknown, malformed, or can not do what was asked."""

    exit_code = 4


class NoKernel(TargetError):
    """No kernel variant of the target takes an operator with these types."""


class DoesNotFit(TargetError):
    """RAM or flash of the target is too small; `detail` holds the memory map."""


class ToolchainError(BitcError):
    """A compiler, linker, emulator or flashing tool failed or is missing."""

    exit_code = 5


class InternalError(BitcError):
    """A bug in bitc."""

    exit_code = 70
