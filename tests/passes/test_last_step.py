"""The last step of a recurrent layer, however it is taken, needs no sequence."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from bitc.interp import run
from bitc.ops.recurrent import Recurrent
from bitc.pipeline import optimize
from tests.frontend.models import Array, floats, model, session

node = helper.make_node
TAKES = {
    "gather": ([node("Gather", ["s", "last"], ["y"], axis=0)], True),
    "negative": ([node("Gather", ["s", "minus"], ["y"], axis=0)], True),
    "batch first": (
        [
            node("Transpose", ["s"], ["t"], perm=[1, 0, 2]),
            node("Slice", ["t", "minus1", "far", "one"], ["u"]),
            node("Squeeze", ["u", "one"], ["y"]),
        ],
        True,
    ),
    "first": ([node("Gather", ["s", "zero"], ["y"], axis=0)], False),
    "last two": ([node("Slice", ["s", "minus2", "far", "zeros"], ["y"])], False),
    "last of the batch": ([node("Gather", ["s", "minus"], ["y"], axis=1)], False),
}


@pytest.mark.parametrize("name", TAKES)
@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("batch", [1, 2])
def test_last_step(name: str, direction: str, batch: int) -> None:
    moves, is_last = TAKES[name]
    layer = node("GRU", ["x", "w", "r"], ["all"], hidden_size=3, direction=direction)
    constants: dict[str, Array] = {"w": floats(1, 9, 2, seed=1), "r": floats(1, 9, 3, seed=2)}
    constants |= {"last": np.array(4), "minus": np.array(-1), "zero": np.array(0), "direction": np.array([1])}
    constants |= {n: np.array([v]) for n, v in (("minus1", -1), ("minus2", -2), ("far", 99), ("one", 1), ("zeros", 0))}
    feeds = {"x": floats(5, batch, 2)}
    m = model([layer, node("Squeeze", ["all", "direction"], ["s"]), *moves], feeds, ["y"], constants, opset=14)
    graph = optimize(m.SerializeToString()).graph
    (op,) = [n.op for n in graph.nodes if isinstance(n.op, Recurrent)]
    wanted = (is_last and direction == "forward") or (name == "first" and direction == "reverse")
    assert op.sequence is not wanted
    (want,) = session(m.SerializeToString()).run(None, feeds)
    np.testing.assert_allclose(run(graph, feeds)["y"], want, rtol=1e-5, atol=1e-6)
