"""Channels of a layer made zero, with all that would add to them: batch norms, constants per channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, shape_inference


def channel_sizes(model: ModelProto) -> dict[str, int]:
    """Sizes of the second axis of all tensors whose shape can be inferred."""
    graph = shape_inference.infer_shapes(model).graph
    found = {}
    for v in (*graph.input, *graph.value_info, *graph.output):
        dims = v.type.tensor_type.shape.dim
        if len(dims) > 1 and dims[1].dim_value > 0:
            found[v.name] = dims[1].dim_value
    return found


# fmt: off
_KEEPS = frozenset((
    "Abs", "AveragePool", "Celu", "Clip", "Div", "Dropout", "Elu", "Gelu", "GlobalAveragePool", "GlobalMaxPool",
    "HardSwish", "Identity", "LeakyRelu", "MaxPool", "Mish", "Mul", "Neg", "PRelu", "Pad", "ReduceMean", "Relu",
    "Resize", "Selu", "Sign", "Softsign", "Tanh", "Upsample",
))
# fmt: on
"""Operators that make 0 of 0, channel by channel."""

Zero = Callable[[NodeProto, int, Sequence[int]], None]
"""Sets elements of a node's constant operand, by its index, to zero."""


def silence(
    graph: GraphProto, tensor: str, channels: Sequence[int], sizes: dict[str, int], constants: set[str], zero: Zero
) -> None:
    """Follow zero channels of a tensor and zero what is added to them. `sizes`: channels of tensors, where known."""
    open_tensors, seen = [(tensor, list(channels))], set[str]()
    while open_tensors:
        tensor, at = open_tensors.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        for node in graph.node:
            if tensor not in node.input:
                continue
            if node.op_type == "BatchNormalization" and node.input[0] == tensor:
                zero(node, 1, at)
                zero(node, 2, at)
            elif node.op_type in ("Add", "Sub"):
                for i, name in enumerate(node.input):
                    if name in constants:
                        zero(node, i, at)
            elif node.op_type == "Concat" and any(a.name == "axis" and a.i in (1, -3) for a in node.attribute):
                before = [sizes.get(n) for n in list(node.input)[: list(node.input).index(tensor)]]
                if any(n is None for n in before):
                    continue
                start = int(np.sum([n for n in before if n is not None]))
                open_tensors.append((node.output[0], [start + c for c in at]))
                continue
            elif node.op_type not in _KEEPS:
                continue
            open_tensors.append((node.output[0], at))
