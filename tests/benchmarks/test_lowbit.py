"""The committed results of layers beyond bits by bits."""

from __future__ import annotations

from benchmarks import lowbit
from bitc.kernels import assign_layouts
from bitc.kernels.variants import VARIANTS
from bitc.target import Target


def test_committed_results_are_of_these_layers() -> None:
    names, rows = [name for name, *_ in lowbit.LAYERS], {v.name for v in VARIANTS}
    results = lowbit.RESULTS.load()
    assert set(results) == set(lowbit.TARGETS)
    for found in results.values():
        assert list(found) == names and {r["row"] for r in found.values()} <= rows
    assert len(lowbit.table(results).splitlines()) == len(names) + 2


def test_every_layer_has_a_row() -> None:
    graph = lowbit.graph_of([lowbit.node(*layer) for layer in lowbit.LAYERS])
    for name in lowbit.TARGETS:
        target = Target.load(name)
        for node in assign_layouts(graph, target).nodes:
            assert any(not v.refuses(node, target) for v in VARIANTS), (
                name,
                node.origin,
            )
