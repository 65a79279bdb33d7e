"""ONNX networks as exporters write them, and the check that the passes put them on bits without changing a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bitc.interp import run
from bitc.ir import Graph, Node
from bitc.ops.linear import Conv2D, MatMul
from bitc.passes.context import Context
from bitc.pipeline import Options, optimize

Array = np.ndarray[Any, Any]


@dataclass
class Net:
    """An ONNX graph under construction; values are names."""

    seed: int = 0
    opset: int = 13
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def input(self, *shape: int, name: str = "x") -> str:
        self.inputs[name] = shape
        return name

    def const(self, array: Any, dtype: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array, dtype)
        return name

    def op(self, kind: str, *inputs: Any, domain: str = "", **attributes: Any) -> str:
        """A node; inputs that are not names become float constants."""
        names = [i if isinstance(i, str) else self.const(i) for i in inputs]
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [name], name=name, domain=domain, **attributes))
        return name

    # Pieces

    def signs(self, *shape: int) -> Array:
        return np.where(self.rng.random(shape) < 0.5, -1, 1).astype(np.float32)

    def reals(self, *shape: int) -> Array:
        return self.rng.normal(size=shape).astype(np.float32)

    def shape4(self, channels: int) -> tuple[int, ...]:
        return (1, channels, 1, 1)

    def bn(self, x: str, channels: int, gamma: Any = None) -> str:
        """BatchNormalization; some gammas are negative."""
        g = self.reals(channels) + np.float32(0.1) if gamma is None else np.broadcast_to(gamma, channels)
        params = (g, self.reals(channels), self.reals(channels), np.abs(self.reals(channels)) + np.float32(0.5))
        return self.op("BatchNormalization", x, *params)

    def conv(self, x: str, outputs: int, inputs: int, k: int = 3, alpha: Any = 1.0, **attributes: Any) -> str:
        """A binary convolution with weights ±alpha."""
        w = self.signs(outputs, inputs // attributes.get("group", 1), k, k) * np.asarray(alpha, np.float32)
        return self.op("Conv", x, w, kernel_shape=[k, k], **attributes)

    def first(self, channels: int, size: int = 6) -> str:
        """A real convolution of the input image."""
        x = self.input(1, 3, size, size)
        return self.op("Conv", x, self.reals(channels, 3, 3, 3), kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def alphas(self, outputs: int) -> Array:
        return np.abs(self.reals(outputs, 1, 1, 1)) + np.float32(0.1)

    def model(self, output: str) -> bytes:
        domains = {n.domain for n in self.nodes}
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in self.inputs.items()],
            [helper.make_empty_tensor_value_info(output)],
            [numpy_helper.from_array(a, n) for n, a in self.constants.items()],
        )
        imports = [helper.make_opsetid(d, self.opset if not d else 1) for d in sorted(domains | {""})]
        return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


@dataclass
class Result:
    """What the passes made of a net."""

    graph: Graph
    findings: Context

    @property
    def convs(self) -> list[Node]:
        """All convolutions and products, in order."""
        return [n for n in self.graph.nodes if isinstance(n.op, Conv2D | MatMul)]

    @property
    def on_bits(self) -> list[bool]:
        """For each of `convs`: whether both operands are codes."""
        return [all(n.input(i).type.dtype.is_code for i in (0, 1)) for n in self.convs]

    def count(self, kind: type) -> int:
        return sum(isinstance(n.op, kind) for n in self.graph.nodes)


def check(net: Net, output: str, options: Options | None = None, samples: int = 3, tolerance: float = 1e-4) -> Result:
    """Optimize, and compare outputs with the imported graph on random inputs."""
    model = optimize(net.model(output), options or Options())
    for _ in range(samples):
        feeds = {n: net.reals(*s) for n, s in net.inputs.items()}
        want, got = run(model.imported.graph, feeds), run(model.graph, feeds)
        for name, array in want.items():
            scale = max(1.0, float(np.abs(array).max()))
            np.testing.assert_allclose(got[name], array, atol=tolerance * scale, rtol=tolerance)
    return Result(model.graph, model.findings)
