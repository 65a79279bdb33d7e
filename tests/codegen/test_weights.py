"""Constants as text: large ones as words of 64 bits, each blob once."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import numpy as np
import pytest

from bitc import interp
from bitc.ir.dtypes import FLOAT32, INT8, DType
from bitc.ir.graph import Graph, Node, Value
from bitc.ir.types import TensorType
from bitc.kernels.literals import words
from bitc.ops.window import Window
from tests.kernels.harness import assert_same, call, compile_graph, portable, random_feeds, shared_library
from tests.schedule.drawn import Net


@pytest.mark.parametrize("size", [1, 7, 8, 9, 40, 41, 4099])
def test_words_hold_the_bytes(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    text = words(data)
    numbers = [int(n, 16) for n in re.findall(r"0x([0-9A-Fa-f]{16})u", text)]
    assert np.array(numbers, "<u8").tobytes() == data + bytes(-size % 8)
    assert re.fullmatch(r"( {4}(0x\w{16}u(, )?){1,5}(,\n|$))+", text)


@pytest.mark.parametrize("dtype", [INT8, FLOAT32], ids=str)
def test_layers_with_equal_weights_share_them(dtype: DType, tmp_path: Path) -> None:
    """Two layers with the same 41 x 3 x 3 x 41 weights: of odd size, so that the last word is not full."""
    net = Net(1)
    x = Value("x", TensorType((1, 6, 5, 41), dtype))
    window = Window((3, 3), pads=(1, 1, 1, 1))
    first = net.conv(x, window, dtype, 41, 1)
    node = net.nodes[0]
    y = Value("y", first.type)
    copies = tuple(None if v is None else Value(f"{v.name} again", v.type, v.data) for v in node.inputs[1:])
    graph = Graph("net", (x,), (y,), (node, Node(node.op, (first, *copies), (y,), "again")))
    compiled = compile_graph(graph, portable())
    defined = re.findall(r"^NET_WEIGHTS_ATTR const uint64_t (\w+)\[", compiled.files["net_weights.c"], re.MULTILINE)
    assert len(defined) == 1 and compiled.program.weights_bytes < 1.5 * 41 * 9 * 41 * x.type.nbytes / x.type.size
    feeds = random_feeds(graph)
    got = call(compiled, ctypes.CDLL(str(shared_library(compiled, tmp_path))), feeds)
    assert_same(got["y"], interp.run(graph, feeds)["y"])
