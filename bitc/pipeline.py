"""Every stage, in order.

ONNX --frontend--> Graph --passes--> Graph on codes --layouts, selection--> Program --plan--> C files
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bitc.frontend import Imported, load
from bitc.ir.graph import Graph
from bitc.ir.verify import verify
from bitc.passes.binarize import Binarize
from bitc.passes.channels_last import ChannelsLast
from bitc.passes.context import Context, Pass
from bitc.passes.dense import DenseAsConv
from bitc.passes.flat_windows import FlattenWindows
from bitc.passes.fuse import FuseEpilogues
from bitc.passes.pads import FoldPads
from bitc.passes.sign_zero import SignOfZero
from bitc.passes.straight_through import StraightThrough


@dataclass(frozen=True)
class Options:
    """What the user may choose about a compilation.

    `shapes`: shapes of inputs with dynamic dimensions. `sign0`: what Sign(0) is: +1, -1, or 0 for ONNX's meaning.
    `tolerance`: relative distance from ±alpha within which a weight is two-valued. `name`: prefix of C names; empty:
    from the file name.
    """

    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    sign0: int = 0
    tolerance: float = 1e-4
    name: str = ""


@dataclass(frozen=True)
class Optimized:
    """A model after the passes: `imported` as ONNX has it (the meaning), `graph` on codes (what is generated)."""

    imported: Imported
    graph: Graph
    findings: Context


def passes(options: Options) -> list[Pass]:
    """The passes in order."""
    return [
        StraightThrough(),  # first: what looks like arithmetic hides two-valued tensors
        SignOfZero(options.sign0),
        ChannelsLast(),  # before DenseAsConv, so that Reshape and Transpose stand right before a MatMul
        DenseAsConv(),
        ChannelsLast(),  # the Transposes that dense layers have made free
        FoldPads(),  # before Binarize: a zero is no ±1, a skipped tap is
        Binarize(options.tolerance),
        FlattenWindows(),
        ChannelsLast(),  # movement of codes
        FuseEpilogues(),
    ]


def optimize(source: str | Path | bytes, options: Options = Options()) -> Optimized:
    """Load a model and run the passes. Raises ModelError."""
    imported = load(source, options.shapes)
    findings = Context(notices=list(imported.notices))
    graph = imported.graph
    for p in passes(options):
        graph = verify(p.run(graph, findings), after=type(p).__name__)
    return Optimized(imported, graph, findings)
