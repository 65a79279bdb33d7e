"""A mix of steps per layer, and what a model with it is worth and takes on a target.

A mix is made in one order, whatever the order in which it was found: whole channels go first, then the layers change in
the order of the network, each on what the layers before it now give, and at last what is to be int8 is quantized.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bitc import actions
from bitc.compression.calibration import Calibration, Score
from bitc.compression.int8 import Quantize
from bitc.compression.layerwise import LayerStep
from bitc.compression.steps import parse
from bitc.compression.work import Choice, Work
from bitc.errors import BitcError, DoesNotFit, InternalError
from bitc.ir.graph import Array
from bitc.kernels.costs import instructions
from bitc.pipeline import Compiled, Options, compile_model
from bitc.target import Memories, Target
from bitc.toolchain import Toolchain
from bitc.verification.inputs import Sample

INT8, FLOAT = "int8", "float"
"""What a layer multiplies: 8-bit codes, or reals as it comes."""


@dataclass(frozen=True, order=True)
class Change:
    """`steps` as text, one after the other, on `layers`; `INT8` and `FLOAT` are no steps, but what the layers are at
    last. No layers: `INT8` for all that are not `FLOAT`."""

    steps: str
    layers: tuple[str, ...] = ()

    @property
    def place(self) -> tuple[str, tuple[str, ...]]:
        """Two changes of one place exclude each other: channels, weights, or what a layer multiplies."""
        if self.steps in (INT8, FLOAT):
            return "precision", self.layers
        return ("channels" if self.steps.startswith("channels") else "weights"), self.layers


Mix = tuple[Change, ...]
"""Sorted; one change for a place."""


def with_change(mix: Mix, change: Change) -> Mix:
    """The mix with another change, in place of the one it excludes."""
    return tuple(sorted([*(c for c in mix if c.place != change.place), change]))


@dataclass(frozen=True)
class Needs:
    """What a compiled model takes: bytes of RAM (arena, input, output) and of weights, predicted instructions; bytes of
    code and stack, 0 if they were not measured."""

    ram: int
    weights: int
    instructions: int
    code: int = 0
    stack: int = 0

    def short(self, memory: Memories) -> float:
        """By how much it is too large, relative to what the target has."""
        pairs = ((self.ram + self.stack, memory.ram), (self.weights + self.code, memory.flash))
        return sum(max(need - room, 0) / room for need, room in pairs if room)


@dataclass(frozen=True)
class Trial:
    """The score with a mix, the noise it brings (see `Score`), and what the model then takes. `why` there is none."""

    score: float
    noise: float
    needs: Needs
    why: str = ""


FAILED = Trial(0.0, 0.0, Needs(0, 0, 0))


@dataclass(frozen=True)
class Problem:
    """All that a trial needs to know; it travels to the workers."""

    source: bytes
    samples: Sequence[Sample]
    labels: Array | None
    seed: int
    target: Target
    options: Options

    def calibration(self) -> Calibration:
        return Calibration(self.source, self.samples, self.labels, self.seed)

    @property
    def key(self) -> str:
        """Changes with everything that a result depends on."""
        found = hashlib.sha256(self.source)
        for sample in self.samples:
            for name, x in sample.items():
                found.update(name.encode() + np.ascontiguousarray(x).tobytes())
        labels = None if self.labels is None else self.labels.tolist()
        chip = (self.target.name, sorted(self.target.features), self.target.memory)
        found.update(repr((labels, self.seed, chip, self.options)).encode())
        return found.hexdigest()


class Workbench:
    """Makes mixes of one problem, and measures them."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.start = Work(problem.source, problem.calibration(), float("inf"))
        self._made: list[tuple[Change, Work]] = []
        """The changes of the last mix, in the order of making, and the model after each."""

    def attempt(self, mix: Mix, measured: bool = False) -> Trial:
        """What a mix is worth; if `measured`, code and stack are compiled for their sizes."""
        try:
            model, score = self.model(mix)
            return Trial(score.value, score.noise, self.needs(model, measured))
        except InternalError:
            raise
        except BitcError as e:
            return replace(FAILED, why=str(e).splitlines()[0])

    def model(self, mix: Mix) -> tuple[bytes, Score]:
        """The model with a mix, and its score. Raises ModelError, UsageError."""
        at = {layer.name: i for i, layer in enumerate(self.start.model.layers)}
        changes = [c for c in mix if c.place[0] != "precision"]
        changes.sort(key=lambda c: (c.place[0] != "channels", min(at[name] for name in c.layers), c))
        same = 0
        while same < min(len(changes), len(self._made)) and self._made[same][0] == changes[same]:
            same += 1
        del self._made[same:]
        for change in changes[same:]:
            work = (self._made[-1][1] if self._made else self.start).copy()
            work.choice = Choice(change.layers)
            _apply(work, change)
            self._made.append((change, work))
        work = self._made[-1][1] if self._made else self.start
        whole = Change(INT8) in mix
        stay = {name for c in mix if c.steps == FLOAT for name in c.layers}
        named = {name for c in mix if c.steps == INT8 for name in c.layers}
        layers = [layer for layer in work.model.layers if layer.name in named or (whole and layer.name not in stay)]
        names = [layer.name for layer in layers if not work.model.level_nodes(layer)]  # two-valued inputs run on bits
        if not names:
            return work.data, work.score
        data = Quantize().quantized(work, work.data, names)
        return data, work.calibration.score(data)

    def needs(self, model: bytes, measured: bool = False) -> Needs:
        """What a model takes on the target. Raises ModelError, TargetError, ToolchainError."""
        target, options = self.problem.target, self.problem.options
        unbounded = replace(target, memory=replace(target.memory, ram=None, flash=None))
        try:
            compiled = compile_model(model, target, options)
        except DoesNotFit:  # no schedule has room: what the fastest one takes
            compiled = compile_model(model, unbounded, options)
        found = _needs(compiled)
        if not measured:
            return found
        report = actions.measure(replace(compiled, target=unbounded), Toolchain(), "-O3").report
        return replace(found, code=report["code_bytes"] or 0, stack=report["stack_bytes"] or 0)


def _apply(work: Work, change: Change) -> None:
    for text in change.steps.split():
        step = parse(text)
        if isinstance(step, LayerStep):
            for stage in step.stages():
                for name in change.layers:
                    stage.apply(work, name)
        else:
            for _ in step.run(work):
                pass


def _needs(compiled: Compiled) -> Needs:
    interface = compiled.program.given_bytes + sum(b.type.nbytes for b in compiled.program.outputs)
    chosen = compiled.selection.choices.items()
    cost = sum(instructions(c.variant, node, compiled.target) for node, c in chosen)
    return Needs(compiled.plan.arena_bytes + interface, compiled.program.weights_bytes, round(cost))


def attempt(problem: Problem, mix: Mix) -> Trial:
    """One mix of a problem."""
    return Workbench(problem).attempt(mix)
