"""Which tensor's memory the result of a stage can take over."""

from __future__ import annotations

from bitc.ir.graph import Graph, Node, Value
from bitc.ir.schedule import Stage, kept
from bitc.ops.base import Pointwise
from bitc.schedule.columns import strips
from bitc.schedule.parts import Parts, parts
from bitc.schedule.rows import Make, image_inputs


def operands(graph: Graph, nodes: tuple[Node, ...]) -> list[Value]:
    """The tensors from outside a stage whose memory its last value might take over: the last node adds to it, or the
    like, and nothing outside reads it later."""
    last, stage = nodes[-1], Stage(nodes)
    y, made = last.output, {n.output for n in nodes}
    if not isinstance(last.op, Pointwise) or kept(graph, stage) != (y,):
        return []
    found = []
    for i in image_inputs(last):
        x = last.input(i)
        inside = all(n.output in made for n in graph.consumers.get(x, ()))
        outside = x in made or x in graph.outputs or x not in graph.producers
        if inside and not outside and (x.shape, x.type.nbytes) == (y.shape, y.type.nbytes):
            found.append(x)
    return found


def overwritten(graph: Graph, stage: Stage) -> Value | None:
    """The tensor whose memory the stage's last value takes over row by row: nothing reads a pixel of it once that pixel
    of the result is made. None if there is none."""
    possible = [x for x in operands(graph, stage.nodes) if stage.strips == 1 or x in stage.keep]
    if not possible:
        return None
    running = parts(graph, stage)
    return next((x for x in possible if _rows_done(running, x) and _columns_done(running, x)), None)


def _rows_done(running: Parts, x: Value) -> bool:
    """Whether no row of x is read after that row of the stage's last value is made."""
    written = -1
    for step in running.rows().steps:
        if not isinstance(step, Make):
            continue
        node = running.nodes[step.node]
        for v, rows in zip(node.inputs, step.reads, strict=True):
            if v is x and rows is not None and rows[0] <= written:
                return False
        if node is running.nodes[-1]:
            written = step.row
    return True


def _columns_done(running: Parts, x: Value) -> bool:
    """Whether no strip reads columns of x that the strips before have written."""
    written = 0
    for strip in strips(running):
        for node in running.nodes:
            for i in image_inputs(node) if strip.making(node.output) else ():
                if node.input(i) is x and strip.reads(node, i)[0] < written:
                    return False
        written = strip.spans[running.nodes[-1].output][1]
    return True
