"""Which layers to compress, and how, so that a model fits a target.

A multiple-choice knapsack: each layer has several changes to choose from, for its weights, its channels and whether it
multiplies int8. int8 saves most for the least: all layers get it first, or as many as the score allows. Then every
change is tried alone beside that (in parallel); the noise that it brings to the outputs adds up with that of others,
which makes it a finer measure than the score. Greedily, the change that saves most per noise is taken, in place of what
its layer had before, until the model fits. The whole mix is measured each time: one that loses too much, or saves
nothing, is passed over. At last, changes that turn out not to be needed are taken back, and where nothing fits, the
worst ones are given up for others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bitc.compression.channels import tied
from bitc.compression.int8 import Quantize
from bitc.compression.journal import Journal
from bitc.compression.layerwise import FEW
from bitc.compression.mix import FLOAT, INT8, Change, Mix, Needs, Problem, Trial, Workbench, with_change
from bitc.compression.work import Choice
from bitc.errors import ModelError, UsageError
from bitc.frontend.edit import EditableModel

EVERYWHERE = (
    "share:entries=16",
    "share:entries=4",
    "prune:sparsity=0.5",
    "prune:sparsity=0.8",
    "prune:pattern=2:4",
    "prune:sparsity=0.5 share:entries=16",
)
INSIDE = ("ternarize", "binarize", "binarize:activations=sign")
"""Changes for all layers with weights enough, and for those that are neither first nor last."""
REALS = ("share:entries=256",)
"""Changes that save nothing at int8."""
REMOVALS = ("channels:share=0.125", "channels:share=0.25", "channels:share=0.5")
SMALL = 0.005
"""Layers with a smaller part of the weights and of the instructions are left alone."""
NOISE = 1e-3
"""Added to the noise that a change brings: differences below it do not count."""
BEYOND = 1.5
"""Mixes of so many times the least noise that lost too much are not tried."""
GIVEN_UP = 3
"""How many of the worst changes are given up for others, one after the other."""
MINIMIZE = ("none", "instructions", "weights")


@dataclass(frozen=True)
class Move:
    """One step of the path: what was done, passed over or taken back, why, and what the model then needed."""

    change: Change
    score: float
    needs: Needs
    why: str


@dataclass
class Found:
    model: bytes
    fits: bool
    path: list[Move] = field(default_factory=list)


Mapper = Callable[[Problem, Sequence[Mix]], Iterator[Trial]]
"""Runs trials somewhere and yields their results in order."""
Report = Callable[[str], None]


def changes(source: bytes, int8: bool) -> list[Change]:
    """What may be tried on a model whose layers are int8 at last, or not."""
    model = EditableModel(source)
    names = {layer.name for layer in model.layers}
    found = [Change(step, makers) for makers in sorted(tied(source)) if names >= set(makers) for step in REMOVALS]
    total = sum(layer.size for layer in model.layers)
    for i, layer in enumerate(model.layers):
        if layer.inner >= FEW and layer.size >= SMALL * total:
            inside = INSIDE if 0 < i < len(model.layers) - 1 else ()
            steps = (*EVERYWHERE, *inside, *(() if int8 else REALS))
            found += [Change(step, (layer.name,)) for step in steps]
    return found


def search(
    problem: Problem,
    max_drop: float,
    run: Mapper,
    journal: Path | None = None,
    report: Report = lambda line: None,
    minimize: str = "none",
) -> Found:
    """The path to a model that fits the problem's target; `fits` is false if there is none within `max_drop`. Unless
    `minimize` is ``none``, the search goes on from there to the fewest ``instructions`` or bytes of ``weights``."""
    return _Search(problem, max_drop, run, Journal(journal, problem.key), report, minimize).run()


@dataclass(frozen=True)
class _State:
    mix: Mix
    trial: Trial


class _Search:
    def __init__(
        self, problem: Problem, max_drop: float, run: Mapper, journal: Journal, report: Report, minimize: str
    ) -> None:
        self.problem, self.map, self.journal, self.report, self.minimize = problem, run, journal, report, minimize
        self.bench = Workbench(problem)
        self.memory = problem.target.memory
        self.floor = self.bench.start.before.value - max_drop
        self.path: list[Move] = []
        self.state = self.start = _State((), self._measured(()))
        self.base = self.state
        """What changes are tried beside: nothing, or int8."""
        self.alone: dict[Change, Trial] = {}
        self.refused: set[Change] = set()
        self.loud = float("inf")
        """The least noise of a mix that lost too much."""

    def run(self) -> Found:
        if not self._done():
            self._int8()
        if not self._done():
            self._try_all()
            self._descend()
            self._give_up_worst()
            self._take_back()
        return Found(self.bench.model(self.state.mix)[0], self._fits(self.state), self.path)

    # What is wanted.

    def _fits(self, state: _State) -> bool:
        return state.trial.needs.short(self.memory) == 0

    def _done(self) -> bool:
        return self.minimize == "none" and self._fits(self.state)

    def _cost(self, needs: Needs) -> float:
        """What is to become less: first what the target is short of, then what is to be minimized."""
        first = self.start.trial.needs
        work, weights = needs.instructions / max(first.instructions, 1), needs.weights / max(first.weights, 1)
        other = {"none": 0.01 * work, "instructions": work + 0.01 * weights, "weights": weights + 0.01 * work}
        return 100 * needs.short(self.memory) + other[self.minimize]

    # Steps of the search.

    def _int8(self) -> None:
        """All layers at int8, or as many as the score allows."""
        mix: Mix = (Change(INT8),)
        trial = self._measured(mix)
        if not trial.why and trial.score < self.floor:
            mix = self._partly_int8()
            trial = self._measured(mix)
        why = trial.why or self._refusal(_State(mix, trial))
        count = sum(c.steps == FLOAT for c in mix)
        some = f"saves most, loses least; {count} sensitive layers stay float" if count else "saves most, loses least"
        if not why:
            self.state = self.base = _State(mix, trial)
        self._note(Change(INT8), why or some)

    def _partly_int8(self) -> Mix:
        """The most sensitive layers as they are, found by bisection."""
        work = self.bench.start.copy()
        work.choice, work.floor = Choice(), self.floor
        try:
            stay = [o.layer for o in Quantize().run(work) if o.kept]
        except (ModelError, UsageError):
            return ()
        return tuple(sorted([Change(INT8), *(Change(FLOAT, (name,)) for name in stay)]))

    def _try_all(self) -> None:
        """Every change alone, beside the base."""
        int8 = Change(INT8) in self.base.mix
        wanted = changes(self.problem.source, int8)
        wanted += [Change(INT8, c.layers) for c in self.base.mix if c.steps == FLOAT]
        mixes = {c: with_change(self.base.mix, c) for c in wanted}
        missing = [m for m in mixes.values() if m not in self.journal.known]
        for mix, trial in zip(missing, self.map(self.problem, missing), strict=True):
            self.journal.add(mix, trial)
        self.alone = {c: self.journal.known[m] for c, m in mixes.items() if not self.journal.known[m].why}

    def _descend(self) -> None:
        """Take the change that saves most per noise, until the model fits or none is left."""
        while not self._done():
            best = max(self.alone, key=self._value, default=None)
            if best is None or self._value(best) <= 0:
                return
            self.refused.add(best)  # tried once, taken or not
            trial = self._measured(with_change(self.state.mix, best))
            state = _State(with_change(self.state.mix, best), trial)
            why = self._refusal(state)
            if not why:
                said = f"saves most for its noise ({self._noise(best):.2g})"
                self.state = state
            self._note(best, why or said)

    def _give_up_worst(self) -> None:
        """Where nothing fits, or less would be better: leave out a change that brings much noise for what it saves, and
        go on with others."""
        for _ in range(GIVEN_UP):
            taken = [c for c in self.state.mix if c in self.alone]
            if self._done() or not taken:
                return
            worst = min(taken, key=self._saved)
            kept, refused, loud, moves = self.state, set(self.refused), self.loud, len(self.path)
            self.refused = set(self.state.mix) | {worst}
            self.loud = float("inf")
            self._take_out(worst, "to make room for others")
            self._descend()
            if self._cost(self.state.trial.needs) >= self._cost(kept.trial.needs):
                self.state, self.refused, self.loud = kept, refused | {worst}, loud
                del self.path[moves:]
                return

    def _take_back(self) -> None:
        """Changes without which the model fits as well, those of most noise first."""
        if self.minimize != "none" or not self._fits(self.state):
            return
        for change in sorted((c for c in self.state.mix if c in self.alone), key=lambda c: -self._noise(c)):
            without = self._without(change)
            if self._guess(without).short(self.memory) > 0:
                continue
            state = _State(without, self._measured(without))
            if self._fits(state) and state.trial.noise < self.state.trial.noise:
                self.state = state
                self._note(change, "taken back: it fits without")

    # Parts of these.

    def _measured(self, mix: Mix) -> Trial:
        known = self.journal.known.get(mix)
        if known is None or not (known.needs.code or known.why):
            known = self.bench.attempt(mix, measured=True)
            self.journal.add(mix, known)
        return known

    def _refusal(self, state: _State) -> str:
        """Why a mix is passed over; empty if it is taken."""
        trial, metric = state.trial, self.bench.start.before.metric
        if trial.why:
            return f"passed over: {trial.why}"
        if trial.score < self.floor:
            self.loud = min(self.loud, trial.noise)
            return f"passed over: {metric} would be {trial.score:.4f}, below {self.floor:.4f}"
        if self._cost(trial.needs) >= self._cost(self.state.trial.needs):
            return "passed over: saves nothing beside the others"
        return ""

    def _note(self, change: Change, why: str) -> None:
        move = Move(change, self.state.trial.score, self.state.trial.needs, why)
        self.path.append(move)
        self.report(f"{change.steps} {', '.join(change.layers)}: {why}")

    def _without(self, change: Change) -> Mix:
        """The mix with what the base has in place of a change."""
        instead = [c for c in self.base.mix if c.place == change.place]
        return tuple(sorted([*(c for c in self.state.mix if c != change), *instead]))

    def _take_out(self, change: Change, why: str) -> None:
        without = self._without(change)
        self.state = _State(without, self._measured(without))
        self._note(change, f"taken back {why}")

    def _noise(self, change: Change) -> float:
        """What a change adds alone."""
        return self.alone[change].noise - self.base.trial.noise

    def _guess(self, mix: Mix) -> Needs:
        """What a mix may need, by what its changes save alone."""
        needs = self.state.trial.needs
        signed = [(1, c) for c in mix if c not in self.state.mix] + [(-1, c) for c in self.state.mix if c not in mix]
        base = self.base.trial.needs
        for sign, change in signed:
            if change in self.alone:
                found = self.alone[change].needs
                needs = replace(
                    needs,
                    ram=needs.ram + sign * (found.ram - base.ram),
                    weights=needs.weights + sign * (found.weights - base.weights),
                    instructions=needs.instructions + sign * (found.instructions - base.instructions),
                )
        return needs

    def _before(self, change: Change) -> Change | None:
        """What a change would take the place of."""
        return next((c for c in self.state.mix if c.place == change.place and c in self.alone), None)

    def _value(self, change: Change) -> float:
        """What a change would save per noise, in place of what its layer has now; 0 for one not worth a try."""
        if change in self.refused:
            return 0.0
        old = self._before(change)
        noise = self._noise(change) - (self._noise(old) if old else 0.0)
        if self.state.trial.noise + noise > BEYOND * self.loud:
            return 0.0
        saved = self._cost(self.state.trial.needs) - self._cost(self._guess(with_change(self.state.mix, change)))
        return saved / (max(noise, 0.0) + NOISE)

    def _saved(self, change: Change) -> float:
        """What a change that was taken saves per noise."""
        saved = self._cost(self._guess(self._without(change))) - self._cost(self.state.trial.needs)
        return saved / (max(self._noise(change), 0.0) + NOISE)
