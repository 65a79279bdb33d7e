"""Every stage, in order.

ONNX --frontend--> Graph --passes--> Graph on codes --layouts, selection, lowering--> Program --plan--> C files
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import bitc
from bitc import codegen, interp
from bitc.errors import UsageError
from bitc.frontend import Imported, load
from bitc.ir.graph import Array, Graph
from bitc.ir.plan import MemoryPlan
from bitc.ir.program import Program
from bitc.ir.rewrite import name_outputs
from bitc.ir.verify import verify
from bitc.kernels import Goal, Selection
from bitc.kernels.variants import ZEROS_SKIPPED
from bitc.ops.movement import Reshape
from bitc.ops.repeat import with_bodies
from bitc.passes.bases import SumBases
from bitc.passes.binarize import Binarize
from bitc.passes.channels_last import ChannelsLast
from bitc.passes.context import Context, Pass
from bitc.passes.crops import FoldCrops
from bitc.passes.dead_channels import DeadChannels
from bitc.passes.dense import DenseAsConv
from bitc.passes.flat_windows import FlattenWindows
from bitc.passes.fuse import FuseEpilogues
from bitc.passes.integers import Integers
from bitc.passes.last_step import LastStep
from bitc.passes.pads import FoldPads
from bitc.passes.planar import PlanarImages
from bitc.passes.scales import LiftScales
from bitc.passes.sign_zero import SignOfZero
from bitc.passes.simplify import Simplify
from bitc.passes.straight_through import StraightThrough
from bitc.planning import Planned, Planner
from bitc.schedule.streaming import rows_node, upstream
from bitc.target import Target


@dataclass(frozen=True)
class Options:
    """What the user may choose about a compilation.

    `shapes`: shapes of inputs with dynamic dimensions. `constants`: values of inputs that are known now. `states`:
    pairs "IN:OUT" that are kept between runs, "auto" or "recurrent".
    `sign0`: what Sign(0) is: +1, -1, or 0 for ONNX's meaning.
    `tolerance`: relative distance from ±alpha within which a weight is two-valued. `name`: prefix of C names; empty:
    from the file name. `goal`: what kernels are chosen for.
    `sparse`: whether kernels that leave out zero weights may be chosen. `max_overhead`: factor of multiply-accumulates
    within which the least memory is wanted; None: the fewest instructions that fit. `stream`: whether the input
    comes row by row. `overwrite_input`: inputs lie in the arena, where a run may overwrite them.
    """

    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    constants: Mapping[str, Array] = field(default_factory=dict)
    states: Sequence[str] = ()
    sign0: int = 0
    tolerance: float = 1e-4
    name: str = ""
    goal: Goal = Goal.BALANCED
    sparse: bool = True
    max_overhead: float | None = None
    stream: bool = False
    overwrite_input: bool = False


@dataclass(frozen=True)
class Optimized:
    """A model after the passes: `imported` as ONNX has it (the meaning), `graph` on codes (what is generated)."""

    imported: Imported
    graph: Graph
    findings: Context
    options: Options = Options()


@dataclass(frozen=True)
class Compiled:
    """A model compiled for a target. `files` is the C project as text; `name` the prefix of its C names."""

    name: str
    target: Target
    model: Optimized
    graph: Graph
    """The optimized graph with layouts: the oracle of what the generated C computes."""
    selection: Selection
    program: Program
    plan: MemoryPlan
    files: Mapping[str, str]
    planned: Planned

    def given(self, sample: Mapping[str, Array]) -> dict[str, Array]:
        """A sample by ONNX input names as the C interface takes it: where the input comes by rows, as pixels."""
        node = rows_node(self.graph)
        if node is None:
            return dict(sample)
        before = upstream(self.graph)
        (x,) = self.interface.inputs
        moves = Graph("pixels", (x,), (node.input(0),), tuple(n for n in self.graph.nodes if n in before))
        return {**sample, x.name: next(iter(interp.run(moves, sample).values()))}

    @property
    def interface(self) -> Graph:
        """The graph with the inputs and outputs of a run alone, without states."""
        names = {name for pair in self.model.imported.states for name in pair}
        inputs, outputs = (
            tuple(v for v in side if v.name not in names) for side in (self.graph.inputs, self.graph.outputs)
        )
        return replace(self.graph, inputs=inputs, outputs=outputs)


def passes(options: Options) -> list[Pass]:
    """The passes in order."""
    return [
        Simplify(),  # one value for equal expressions: StraightThrough compares by identity
        LastStep(),
        StraightThrough(),  # before all that look at values: what looks like arithmetic hides two-valued tensors
        SignOfZero(options.sign0),
        ChannelsLast(),  # before DenseAsConv, so that Reshape and Transpose stand right before a MatMul
        DenseAsConv(),
        FoldCrops(),  # after a ChannelsLast, so that a Slice stands right behind a convolution
        ChannelsLast(),  # the Transposes that dense layers have made free
        LiftScales(),  # before Binarize: signs times a computed number are not two-valued
        FoldPads(),  # before Binarize: a zero is no ±1, a skipped tap is
        Integers(options.tolerance, few=16),  # before Binarize: thresholds are then searched over integer accumulators
        Binarize(options.tolerance),
        Integers(options.tolerance),  # quantizers behind binary layers, and few values that are not on bits
        FoldPads(),  # in front of a quantizer
        FlattenWindows(),
        ChannelsLast(),  # movement of codes
        FuseEpilogues(),
        DeadChannels(),  # after fusion: a bias and a Relu decide what a channel without weights gives
        SumBases(),  # after fusion, so that each sum is of convolutions
        PlanarImages(),  # last: no other pass has to know
    ]


def optimize(source: str | Path | bytes, options: Options = Options()) -> Optimized:
    """Load a model and run the passes. Raises ModelError."""
    imported = load(source, options.shapes, options.constants, options.states)
    findings = Context(notices=list(imported.notices))
    return Optimized(imported, _optimized(imported.graph, options, findings), findings, options)


def _optimized(graph: Graph, options: Options, findings: Context) -> Graph:
    """The graph after the passes, and what runs in loops in it before that."""
    names = [v.name for v in graph.outputs]
    graph = with_bodies(graph, lambda body: _optimized(body, options, findings))
    for p in passes(options):
        graph = verify(p.run(graph, findings), after=type(p).__name__)
    return name_outputs(graph, names, lambda t: Reshape(t.shape))


def compile_model(
    source: str | Path | bytes,
    target: Target,
    options: Options = Options(),
) -> Compiled:
    """Compile a model for a target. Raises ModelError; TargetError if a node has no kernel there."""
    model = optimize(source, options)
    planned = planner(model, target).choose(options.max_overhead)
    program, plan = planned.program, planned.plan
    name = prefix(options.name, source)
    lengths = {n: (r.axis, r.count) for n, r in model.imported.ragged.items() if r.count}
    form = codegen.Options(f"Generated by bitc {bitc.__version__} for {target.name}.", lengths)
    files = codegen.emit(program, plan, target, name, form)
    return Compiled(name, target, model, planned.schedule.graph, planned.selection, program, plan, files, planned)


def planner(model: Optimized, target: Target) -> Planner:
    """The schedules of a model on a target."""
    options = model.options
    without = () if options.sparse else ZEROS_SKIPPED
    return Planner(
        model.graph, target, options.goal, without, model.imported.states, options.stream, options.overwrite_input
    )


def prefix(name: str, source: str | Path | bytes) -> str:
    """The prefix of C names: as given, or from the file's name."""
    if name:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            raise UsageError(
                f"{name!r} is no C identifier", hint="start --name with a letter, go on with a-z, 0-9 and _"
            )
        return name.lower()
    stem = Path(source).stem if isinstance(source, str | Path) else ""
    cleaned = re.sub(r"[^A-Za-z0-9]+", "_", stem).strip("_").lower()
    return cleaned if cleaned[:1].isalpha() else f"model_{cleaned}".rstrip("_")
