"""What all runners have in common: the request, the result, and the checks around them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from bitc.errors import UsageError
from bitc.target import Target
from bitc.toolchain import Runnable


@dataclass(frozen=True)
class RunRequest:
    """What to run, on which inputs."""

    build: Runnable
    inputs: list[bytes]
    """One image of NAME_input_t per sample."""
    hooks: bool = False
    """Call NAME_run_hooked and record what it reports; the build must have hooks."""
    repeat: int = 0
    """Calls per timing, for runners that measure time; 0: as many as make a timing steady."""
    seconds: float = 300.0
    """Give up on a sample after this time."""


@dataclass(frozen=True)
class HookRecord:
    """One call of the hook. Costs count from the start of the inference to this call."""

    layer: int
    data: bytes
    instructions: int | None = None
    """Instructions or fuel, as the result's metric says; the hook's own are left out."""
    nanoseconds: int | None = None


@dataclass(frozen=True)
class RunResult:
    """What came back; lists have one entry per sample."""

    outputs: list[bytes]
    """Images of NAME_output_t."""
    codes: list[int]
    """What NAME_run returned: 0 is success."""
    metric: str
    """What the runner measures: `instructions`, `fuel` or `nanoseconds`."""
    instructions: int | None = None
    """Of one inference (the first sample): instructions from entry to return of NAME_run, or fuel; exact."""
    nanoseconds: int | None = None
    """Of one inference (the first sample), best of several timings."""
    layers: list[list[HookRecord]] = field(default_factory=list)
    stack_bytes: int | None = None
    """The most stack that any sample used, NAME_run's own frame included; None where it can not be measured."""


class Runner(ABC):
    """Runs models that were built for one target. Keeps the last model loaded, so that more samples are cheap."""

    metric = "instructions"

    def __init__(self, target: Target) -> None:
        self.target = target

    @abstractmethod
    def run(self, request: RunRequest) -> RunResult:
        """Run every sample.

        Raises UsageError (inputs of the wrong size, no hooks in the build), ToolchainError (a fault, with its
        address; no end in time; an emulator that fails).
        """


def check_request(request: RunRequest, input_bytes: int) -> None:
    """Raises UsageError if the request does not fit what was built."""
    if request.hooks and not request.build.hooks:
        raise UsageError("the model was built without hooks", hint="build it with hooks=True")
    for number, data in enumerate(request.inputs):
        if len(data) != input_bytes:
            raise UsageError(
                f"sample {number} has {len(data)} bytes, the model takes {input_bytes}",
                where=request.build.name,
                hint=f"give one image of {request.build.name}_input_t per sample",
            )
