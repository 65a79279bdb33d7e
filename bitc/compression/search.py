"""Which layers to compress, and how, so that a model fits a target.

int8 saves most for the least: it is tried first, and where the score allows it, all that follows is measured with it,
and ends with it. Every candidate (a step on a layer, or channels removed everywhere) is tried alone: what it saves and
what the score loses. Then they are taken in the order of saving per loss, each on the model so far, until it fits; one
that would let the score drop too far is passed over. Trials run in parallel, and are kept in a journal, so that a
search that was stopped goes on where it was.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bitc import actions
from bitc.compression.calibration import Calibration
from bitc.compression.int8 import Quantize
from bitc.compression.layerwise import FEW, LayerStep
from bitc.compression.steps import parse
from bitc.compression.work import Choice, Outcome, Work
from bitc.errors import DoesNotFit, ModelError, UsageError
from bitc.frontend.edit import EditableModel
from bitc.ir.graph import Array
from bitc.kernels.costs import instructions
from bitc.pipeline import Options, compile_model
from bitc.target import Target
from bitc.toolchain import Toolchain
from bitc.verification.inputs import Sample

EVERYWHERE = ("share:entries=256", "share:entries=16", "prune:sparsity=0.5", "prune:sparsity=0.8")
INSIDE = ("ternarize", "binarize:bases=2", "binarize")
"""Candidates for all layers with weights enough, and for those that are neither first nor last."""
REMOVAL = "channels:share=0.25"
LOSSLESS = 0.002
"""Added to what a candidate loses: differences below it are noise."""


@dataclass(frozen=True)
class Candidate:
    """A step as text, and the layer that it is for; empty: all."""

    step: str
    layer: str = ""


QUANTIZED = Candidate("quantize")


@dataclass(frozen=True)
class Needs:
    """What a compiled model takes: bytes of RAM (arena, input, output) and of weights, predicted instructions."""

    ram: int
    weights: int
    instructions: int


@dataclass(frozen=True)
class Trial:
    """A candidate alone: the score that is left, and what the model then needs."""

    score: float
    needs: Needs


@dataclass(frozen=True)
class Problem:
    """All that a trial needs to know; it travels to the workers."""

    source: bytes
    samples: Sequence[Sample]
    labels: Array | None
    seed: int
    target: Target
    options: Options
    int8: bool = False
    """Whether what is left at last is quantized."""

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
        found.update(repr((labels, self.seed, chip, self.options, self.int8)).encode())
        return found.hexdigest()


@dataclass(frozen=True)
class Move:
    """One step of the path: what was done or passed over, why, and what the model then needed."""

    candidate: Candidate
    score: float
    needs: Needs
    why: str


@dataclass
class Found:
    model: bytes
    fits: bool
    path: list[Move] = field(default_factory=list)


Mapper = Callable[[Problem, Sequence[Candidate]], Iterator[Trial]]
"""Runs trials somewhere and yields their results in order."""


def candidates(model: EditableModel) -> list[Candidate]:
    """What may be tried on a model."""
    found = [Candidate(REMOVAL)]
    for i, layer in enumerate(model.layers):
        if layer.inner >= FEW:
            inside = INSIDE if 0 < i < len(model.layers) - 1 else ()
            found += [Candidate(step, layer.name) for step in (*EVERYWHERE, *inside)]
    return found


def needs(model: bytes, target: Target, options: Options) -> Needs:
    """What a model takes on a target. Raises ModelError, TargetError."""
    compiled = compile_model(model, target, options)
    interface = compiled.program.given_bytes + sum(b.type.nbytes for b in compiled.program.outputs)
    cost = sum(instructions(c.variant, node, target) for node, c in compiled.selection.choices.items())
    return Needs(compiled.plan.arena_bytes + interface, compiled.program.weights_bytes, round(cost))


def fits(model: bytes, target: Target, options: Options) -> bool:
    """Whether code, weights and memory have room on the target, as the C compiler measures them."""
    try:
        actions.measure(compile_model(model, target, options), Toolchain(), "-O3")
    except DoesNotFit:
        return False
    return True


def attempt(problem: Problem, candidate: Candidate) -> Trial:
    """One candidate alone."""
    work = Work(problem.source, problem.calibration(), 1.0, _choice(candidate))
    for _ in _change(work, candidate):
        pass
    score = work.score.value
    return Trial(score, needs(_last(work, problem).data, problem.target, problem.options))


def _last(work: Work, problem: Problem) -> Work:
    """The model so far, quantized if the problem says so."""
    last = copy.copy(work)
    last.choice = Choice()
    if problem.int8:
        for _ in Quantize().run(last):
            pass
    return last


def search(
    problem: Problem,
    max_drop: float,
    run: Mapper,
    journal: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Found:
    """The path to a model that fits the problem's target; `fits` is false if there is none within `max_drop`."""
    path: list[Move] = []
    target, options = problem.target, problem.options
    work = Work(problem.source, problem.calibration(), max_drop)
    if fits(work.data, target, options):
        return Found(work.data, True)
    last = _whole_int8(work, problem)
    if last is not None:
        problem = replace(problem, int8=True)
        path.append(Move(QUANTIZED, last.score.value, needs(last.data, target, options), "saves most, loses least"))
        if fits(last.data, target, options):
            return Found(last.data, True, path)
    last, done = last or work, False
    present = before = needs(last.data, target, options)
    tried = _trials(problem, candidates(work.model), run, journal)
    value = {c: _value(before, t, work.before.value, problem.target) for c, t in tried.items()}
    changed = set[str]()
    for candidate in sorted((c for c in tried if value[c] > 0), key=lambda c: -value[c]):
        if candidate.layer in changed:
            continue
        work.choice = _choice(candidate)
        outcomes = list(_change(work, candidate))
        kept = "; ".join(o.kept for o in outcomes if o.kept)
        if all(o.kept for o in outcomes):
            path.append(Move(candidate, work.score.value, present, kept))
        else:
            changed.add(candidate.layer)
            last = _last(work, problem)
            present = needs(last.data, target, options)
            path.append(Move(candidate, last.score.value, present, f"saves most per loss ({value[candidate]:.3g})"))
            done = fits(last.data, target, options)
        report(f"{candidate.step} {candidate.layer}: {path[-1].why}")
        if done:
            break
    return Found(last.data, done, path)


def _whole_int8(work: Work, problem: Problem) -> Work | None:
    """The model with all layers at int8; None if it can not be, or would lose too much."""
    try:
        last = _last(work, replace(problem, int8=True))
    except (ModelError, UsageError):
        return None
    return last if last.score.value >= work.floor and not last.model.layers else None


def _choice(candidate: Candidate) -> Choice:
    return Choice((candidate.layer,)) if candidate.layer else Choice()


def _change(work: Work, candidate: Candidate) -> Iterator[Outcome]:
    step = parse(candidate.step)
    if isinstance(step, LayerStep):
        for stage in step.stages():
            yield stage.apply(work, candidate.layer)
    else:
        yield from step.run(work)


def _value(before: Needs, trial: Trial, score: float, target: Target) -> float:
    """What is saved of that which the target is short of, relative to what it has, per loss."""
    memory = target.memory
    saved = (before.instructions - trial.needs.instructions) / max(before.instructions, 1) * 1e-3
    if memory.ram is not None and before.ram > memory.ram * 0.9:
        saved += (before.ram - trial.needs.ram) / memory.ram
    if memory.flash is not None:
        saved += (before.weights - trial.needs.weights) / memory.flash
    return saved / (max(score - trial.score, 0.0) + LOSSLESS)


def _trials(
    problem: Problem, wanted: Sequence[Candidate], run: Mapper, journal: Path | None
) -> Mapping[Candidate, Trial]:
    """Results of all candidates: those in the journal, and the others as they come."""
    known = _read(journal, problem.key)
    missing = [c for c in wanted if c not in known]
    for candidate, trial in zip(missing, run(problem, missing), strict=True):
        known[candidate] = trial
        if journal is not None:
            line = {"key": problem.key, "candidate": asdict(candidate), "trial": asdict(trial)}
            with journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
    return {c: known[c] for c in wanted}


def _read(journal: Path | None, key: str) -> dict[Candidate, Trial]:
    """What an earlier search of the same problem has found; lines cut short by its end are left out."""
    if journal is None or not journal.exists():
        return {}
    found = {}
    for text in journal.read_text(encoding="utf-8").splitlines():
        try:
            line: dict[str, Any] = json.loads(text)
        except ValueError:
            continue
        if line["key"] == key:
            trial = line["trial"]
            found[Candidate(**line["candidate"])] = Trial(trial["score"], Needs(**trial["needs"]))
    return found
