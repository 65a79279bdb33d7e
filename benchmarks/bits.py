"""The convolutions of a layer of the suite as a model of their own: bits in, as they lie in memory."""

from __future__ import annotations

from pathlib import Path

from benchmarks.suite import Layer, model
from bitc.codegen import emit
from bitc.ir.graph import Graph
from bitc.ir.schedule import Schedule
from bitc.kernels import assign_layouts, select
from bitc.lower import lower
from bitc.ops.linear import Conv2D
from bitc.pipeline import optimize
from bitc.schedule import plan_memory
from bitc.target import Target
from bitc.toolchain import Runnable, build_model

NAME = "layer"


def layer_graph(layer: Layer) -> Graph:
    """Only the convolutions, with what is fused into them."""
    graph = optimize(model([layer]).SerializeToString()).graph
    nodes = tuple(n for n in graph.nodes if isinstance(n.op, Conv2D))
    made = {v for n in nodes for v in n.outputs}
    inputs = dict.fromkeys(v for n in nodes for v in n.inputs if v is not None and not v.is_const and v not in made)
    return Graph(NAME, tuple(inputs), nodes[-1].outputs, nodes)


def build(layer: Layer, target: Target, folder: Path) -> tuple[Runnable, str]:
    """The built layer, and the name of its kernel row."""
    return build_graph(layer_graph(layer), target, folder)


def build_graph(graph: Graph, target: Target, folder: Path) -> tuple[Runnable, str]:
    """A built graph, and the name of the kernel row of its first node."""
    graph = assign_layouts(graph, target)
    selection = select(graph, target)
    program = lower(Schedule(graph), selection, target)
    folder.mkdir(parents=True)
    for path, text in emit(program, plan_memory(program), target, NAME).items():
        (folder / path).write_text(text, encoding="utf-8")
    return build_model(target, folder, NAME, folder / "out"), selection[graph.nodes[0]].name
