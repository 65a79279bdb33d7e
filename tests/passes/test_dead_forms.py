"""Dead channels in what models do with channels: shuffles, splits, pixel shuffles, squeeze and excite, attention."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from bitc.interp import run
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Concat, Gather, Reshape, Slice
from bitc.pipeline import optimize
from tests.compression.test_compress import bitc
from tests.passes.nets import Net


def whole(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


class Layers(Net):
    def ints(self, *numbers: int) -> str:
        return self.const(whole(*numbers), np.int64)

    def layer(
        self, x: str, inputs: int, outputs: int, k: int = 3, dead: tuple[int, ...] = (), relu: bool = True, **more: Any
    ) -> str:
        """A convolution whose outputs `dead` have no weights and no bias."""
        w, b = self.reals(outputs, inputs // more.get("group", 1), k, k), self.reals(outputs)
        w[list(dead)], b[list(dead)] = 0, 0
        y = self.op("Conv", x, w, b, pads=[k // 2] * 4, **more)
        return self.op("Relu", y) if relu else y

    def image(self) -> str:
        return self.input(1, 3, 8, 8)

    def split(self, x: str, *sizes: int) -> list[str]:
        y = self.op("Split", x, self.ints(*sizes), axis=1)
        self.nodes[-1].output.extend(f"{y}.{i}" for i in range(1, len(sizes)))
        return list(self.nodes[-1].output)

    def shuffle(self, x: str, channels: int, groups: int) -> str:
        y = self.op("Reshape", x, self.ints(1, groups, channels // groups, 8, 8))
        y = self.op("Transpose", y, perm=[0, 2, 1, 3, 4])
        return self.op("Reshape", y, self.ints(1, channels, 8, 8))


def shuffle(n: Layers) -> str:
    x = n.shuffle(n.layer(n.image(), 3, 12, dead=(1, 4)), 12, 3)
    return n.layer(x, 12, 5)


def shuffle_of_alike_groups(n: Layers) -> str:
    x = n.shuffle(n.layer(n.image(), 3, 12, dead=(1, 5, 9)), 12, 3)
    return n.layer(x, 12, 5)


def shuffle_net(n: Layers) -> str:
    x = n.layer(n.image(), 3, 16, dead=(1, 4, 9))
    left, right = n.split(x, 8, 8)
    right = n.layer(n.layer(right, 8, 8, 1, dead=(2,)), 8, 8, 3, relu=False, group=8)
    right = n.layer(right, 8, 8, 1, dead=(3,))
    left, right = n.split(n.shuffle(n.op("Concat", left, right, axis=1), 16, 2), 8, 8)
    x = n.shuffle(n.op("Concat", left, n.layer(right, 8, 8, 1, dead=(4,)), axis=1), 16, 2)
    return n.layer(x, 16, 5)


def slices(n: Layers) -> str:
    x = n.layer(n.image(), 3, 12, dead=(1, 4, 8))
    left = n.op("Slice", x, n.ints(0), n.ints(5), n.ints(1))
    right = n.op("Slice", x, n.ints(11), n.ints(4), n.ints(1), n.ints(-2))
    return n.op("Add", n.layer(left, 5, 4), n.layer(right, 4, 4))


def slices_that_nobody_reads(n: Layers) -> str:
    return n.layer(n.split(n.layer(n.image(), 3, 12), 5, 7)[0], 5, 4)


def pixel_shuffle(n: Layers, mode: str = "CRD") -> str:
    dead = (0, 1, 2, 3, 6) if mode == "CRD" else (0, 4, 8, 12, 1, 2)
    return n.layer(n.op("DepthToSpace", n.layer(n.image(), 3, 16, dead=dead), blocksize=2, mode=mode), 4, 5)


def space_to_depth(n: Layers) -> str:
    return n.layer(n.op("SpaceToDepth", n.layer(n.image(), 3, 4, dead=(1,)), blocksize=2), 16, 5)


def squeeze_excite(n: Layers) -> str:
    x = n.layer(n.image(), 3, 12, dead=(1, 4))
    p = n.layer(n.layer(n.op("GlobalAveragePool", x), 12, 6, 1), 6, 12, 1, relu=False)
    return n.layer(n.op("Mul", x, n.op("Sigmoid", p)), 12, 5)


def squeeze_excite_flat(n: Layers) -> str:
    x = n.layer(n.image(), 3, 12, dead=(1, 4))
    p = n.op("Flatten", n.op("GlobalAveragePool", x))
    p = n.op("MatMul", n.op("Relu", n.op("MatMul", p, n.reals(12, 6))), n.reals(6, 12))
    p = n.op("Reshape", n.op("HardSigmoid", p), n.ints(1, 12, 1, 1))
    return n.layer(n.op("Mul", p, x), 12, 5)


def spatial_attention(n: Layers) -> str:
    x = n.layer(n.image(), 3, 12, dead=(1, 4))
    return n.layer(n.op("Mul", x, n.op("Sigmoid", n.layer(x, 12, 1, relu=False))), 12, 5)


def parametric_relu(n: Layers) -> str:
    x = n.layer(n.image(), 3, 12, dead=(1, 4), relu=False)
    return n.layer(n.op("PRelu", x, n.reals(12, 1, 1)), 12, 5)


def instance_norm(n: Layers) -> str:
    bias = n.reals(12)
    bias[[1, 4]] = 0
    x = n.layer(n.image(), 3, 12, dead=(1, 4), relu=False)
    return n.layer(n.op("InstanceNormalization", x, n.reals(12), bias), 12, 5)


def transposed(n: Layers) -> str:
    x = n.layer(n.image(), 3, 12, dead=(1, 4))
    return n.layer(n.op("ConvTranspose", x, n.reals(12, 8, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]), 8, 5)


def resized(n: Layers) -> str:
    x = n.layer(n.image(), 3, 12, dead=(1, 4))
    return n.layer(n.op("Resize", x, "", [1.0, 1, 2, 2], mode="nearest"), 12, 5)


def zeros_for_channels(n: Layers) -> str:
    """A shortcut without weights into more channels."""
    x = n.layer(n.image(), 3, 4, dead=(1,))
    wide = n.op("Pad", x, n.ints(0, 2, 0, 0, 0, 2, 0, 0))
    return n.layer(n.op("Add", n.layer(x, 4, 8, dead=(0, 3)), wide), 8, 5)


def heads(n: Layers) -> str:
    """Attention with two heads of eight; of the values two channels are dead, of queries and keys the same one."""
    x = n.input(1, 6, 16)
    q, k, v = n.reals(16, 16), n.reals(16, 16), n.reals(16, 16)
    q[:, [3]], k[:, [11]], v[:, [1, 9]] = 0, 0, 0

    def apart(w: Any, *perm: int) -> str:
        return n.op("Transpose", n.op("Reshape", n.op("MatMul", x, w), n.ints(1, 6, 2, 8)), perm=perm)

    scores = n.op("Softmax", n.op("MatMul", apart(q, 0, 2, 1, 3), apart(k, 0, 2, 3, 1)), axis=-1)
    y = n.op("Transpose", n.op("MatMul", scores, apart(v, 0, 2, 1, 3)), perm=[0, 2, 1, 3])
    return n.op("MatMul", n.op("Reshape", y, n.ints(1, 6, 16)), n.reals(16, 8))


FORMS: dict[Callable[..., str], list[int]] = {
    shuffle: [10, 5],
    shuffle_of_alike_groups: [9, 5],
    shuffle_net: [13, 7, 7, 7, 7, 5],
    slices: [7, 4, 4],
    slices_that_nobody_reads: [5, 4],
    pixel_shuffle: [12, 5],
    lambda n: pixel_shuffle(n, "DCR"): [12, 5],
    space_to_depth: [3, 5],
    squeeze_excite: [10, 6, 10, 5],
    squeeze_excite_flat: [10, 6, 10, 5],
    spatial_attention: [10, 1, 5],
    parametric_relu: [10, 5],
    instance_norm: [10, 5],
    transposed: [10, 8, 5],
    resized: [10, 5],
    zeros_for_channels: [3, 6, 5],
    heads: [14, 16, 16, 8],
}
"""Channels that each convolution or dense layer has left."""


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
def test_dead_channels_go(form: Callable[[Layers], str], tmp_path: Path) -> None:
    n = Layers(opset=18)
    path = tmp_path / "net.onnx"
    path.write_bytes(n.model(form(n)))
    graph = optimize(path).graph
    made = [v.output.type.channels for v in graph.nodes if isinstance(v.op, Conv2D)]
    assert sorted(made) == sorted(FORMS[form])
    feeds = {name: n.reals(*shape) for name, shape in n.inputs.items()}
    (want,) = onnxruntime.InferenceSession(path).run(None, feeds)
    (got,) = run(graph, feeds).values()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("form", [shuffle_net, slices, squeeze_excite, heads])
def test_in_c(form: Callable[[Layers], str], tmp_path: Path) -> None:
    n = Layers(opset=18)
    path, arrays = tmp_path / "net.onnx", tmp_path / "x.npz"
    path.write_bytes(n.model(form(n)))
    np.savez(arrays, **{name: n.reals(1, *shape) for name, shape in n.inputs.items()})
    result = bitc("verify", path, "-t", "host", "--inputs", arrays)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["ok"]


def moves(form: Callable[[Layers], str]) -> list[type]:
    n = Layers(opset=18)
    return [
        type(v.op)
        for v in optimize(n.model(form(n))).graph.nodes
        if isinstance(v.op, Gather | Reshape | Slice | Concat)
    ]


def test_a_shuffle_stays_one_where_groups_lose_alike() -> None:
    assert moves(shuffle_of_alike_groups) == [Reshape, Reshape]
    assert moves(shuffle) == [Gather]


def test_what_passes_all_on_is_left_out() -> None:
    assert moves(slices_that_nobody_reads) == []
