"""States of recurrent layers that start from zeros in every run, made inputs and outputs of the model: then a network
that was exported for whole sequences can be fed step by step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bitc.errors import UsageError
from bitc.frontend.order import label

RECURRENT = "recurrent"
"""Stands for the states of all recurrent layers, as an option."""
_SLOTS = {"RNN": ((5, 1, "h"),), "GRU": ((5, 1, "h"),), "LSTM": ((5, 1, "h"), (6, 2, "c"))}
"""Per operator: the input that a state is at first, the output that it is at last, its name."""


def with_layer_states(model: ModelProto) -> list[str]:
    """Add the states of all layers of the top-level graph to the model's inputs and outputs, in place, for a batch of
    one; returns the pairs "IN:OUT". Raises UsageError for layers that read the sequence backwards, and for states that
    start from other values than zeros."""
    makers = {o: n for n in model.graph.node for o in n.output if o}
    constants = {t.name: t for t in model.graph.initializer}
    inputs = {i.name for i in model.graph.input} - set(constants)
    pairs = []
    for node in list(model.graph.node):
        if node.op_type not in _SLOTS or node.domain not in ("", "ai.onnx"):
            continue
        attributes = {a.name: a for a in node.attribute}
        if "direction" in attributes and attributes["direction"].s.lower() != b"forward":
            raise UsageError(
                "reads the sequence backwards, so that it can not be fed step by step",
                where=label(node),
                hint="train a network that only looks back",
            )
        width = attributes["hidden_size"].i if "hidden_size" in attributes else 0
        if width < 1:
            raise UsageError("does not say its hidden_size", where=label(node), hint="export the model again")
        for slot, output, letter in _SLOTS[node.op_type]:
            if _is_free(node, slot, makers, constants, inputs):
                pairs.append(_add(model, node, slot, output, letter, width))
    if not pairs:
        raise UsageError(
            "there is no recurrent layer without a state of its own", where="--state", hint="name inputs and outputs"
        )
    return pairs


def _is_free(
    node: NodeProto, slot: int, makers: Mapping[str, NodeProto], constants: Mapping[str, TensorProto], inputs: set[str]
) -> bool:
    """Whether a state starts from zeros; false if it comes from an input of the model."""
    pending = [node.input[slot]] if len(node.input) > slot and node.input[slot] else []
    tensors: list[TensorProto] = []
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in seen or not name:
            continue
        seen.add(name)
        if name in inputs:
            return False
        if name in constants:
            tensors.append(constants[name])
        elif name in makers and makers[name].op_type not in ("Shape", "Size"):
            tensors += [a.t for a in makers[name].attribute if a.HasField("t")]
            pending += makers[name].input
    for t in tensors:
        if t.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16) and np.any(numpy_helper.to_array(t)):
            raise UsageError(
                "starts from other values than zeros", where=label(node), hint="make its state an input and an output"
            )
    return True


def _add(model: ModelProto, node: NodeProto, slot: int, output: int, letter: str, width: int) -> str:
    name = f"{label(node)}.{letter}"
    node.input.extend([""] * (slot + 1 - len(node.input)))
    node.output.extend([""] * (output + 1 - len(node.output)))
    node.input[slot] = name
    node.output[output] = node.output[output] or f"{name}.last"
    model.graph.node.append(helper.make_node("Identity", [node.output[output]], [f"{name}.next"]))
    model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, width]))
    model.graph.output.append(helper.make_tensor_value_info(f"{name}.next", TensorProto.FLOAT, [1, 1, width]))
    return f"{name}:{name}.next"
