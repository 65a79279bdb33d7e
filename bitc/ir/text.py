"""A graph as text: for `bitc inspect`, golden tests and bug reports."""

from __future__ import annotations

from bitc.ir.graph import Graph, Value


def to_text(graph: Graph) -> str:
    """One line per node, in order; constants appear with their type where they are used."""

    def show(v: Value | None) -> str:
        if v is None:
            return "-"
        return f"{v.name}:{v.type}" if v.is_const else f"%{v.name}"

    lines = [f"graph {graph.name}"]
    lines += [f"  input %{v.name}: {v.type}" for v in graph.inputs]
    for n in graph.nodes:
        outs = ", ".join(f"%{v.name}: {v.type}" for v in n.outputs)
        lines.append(f"  {outs} = {n.op}({', '.join(map(show, n.inputs))})")
    lines += [f"  output {show(v)}" for v in graph.outputs]
    return "\n".join(lines) + "\n"
