"""Constants in one form: what is computed of constants alone by moving or casting them becomes an initializer, and the
factors of a Gemm go into its constants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

Tensors = dict[str, TensorProto]


def fold_constants(graph: GraphProto, tensors: Tensors) -> None:
    """Move Constant nodes of one tensor, and what Identity, Cast, Transpose and Reshape make of constants, from the
    graph to `tensors`."""
    kept = []
    outputs = {o.name for o in graph.output}
    for node in graph.node:
        made = None if set(node.output) & outputs else _made(node, tensors)
        if made is None:
            kept.append(node)
        else:
            made.name = node.output[0]
            tensors[made.name] = made
    del graph.node[:]
    graph.node.extend(kept)


def fold_factors(graph: GraphProto, tensors: Tensors, uses: dict[str, int]) -> None:
    """``alpha * A @ B + beta * C`` as ``A @ B' + C'``, where nothing else reads the constants."""
    for node in graph.node:
        names = list(node.input[1:])
        if node.op_type != "Gemm" or any(n not in tensors or uses.get(n, 0) != 1 for n in names):
            continue
        for name, factor in zip(names, ("alpha", "beta"), strict=False):
            k = next((a.f for a in node.attribute if a.name == factor), 1.0)
            if k != 1.0:
                value = numpy_helper.to_array(tensors[name])
                tensors[name] = numpy_helper.from_array((value * k).astype(value.dtype), name)
        attributes = [a for a in node.attribute if a.name not in ("alpha", "beta")]
        del node.attribute[:]
        node.attribute.extend(attributes)


def _made(node: NodeProto, tensors: Tensors) -> TensorProto | None:
    attributes = {a.name: a for a in node.attribute}
    if node.op_type == "Constant" and "value" in attributes:
        found = TensorProto()
        found.CopyFrom(attributes["value"].t)
        return found
    make = _MOVES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if make is None or not node.input or any(i not in tensors for i in node.input):
        return None
    try:
        made = make([numpy_helper.to_array(tensors[i]) for i in node.input], attributes)
    except (TypeError, ValueError):  # what numpy can not do stays a node
        return None
    return numpy_helper.from_array(np.ascontiguousarray(made).reshape(made.shape))


_Arrays = list[NDArray[np.generic]]
_Attributes = dict[str, AttributeProto]


def _cast(x: _Arrays, a: _Attributes) -> NDArray[np.generic]:
    with np.errstate(all="ignore"):
        return x[0].astype(helper.tensor_dtype_to_np_dtype(a["to"].i))


def _transposed(x: _Arrays, a: _Attributes) -> NDArray[np.generic]:
    return x[0].transpose(list(a["perm"].ints) if "perm" in a else None)


def _reshaped(x: _Arrays, a: _Attributes) -> NDArray[np.generic]:
    shape = [int(n) for n in np.asarray(x[1]).reshape(-1)]
    if 0 in shape:
        raise ValueError("copies a dimension")
    return x[0].reshape(shape)


_MOVES: dict[str, Callable[[_Arrays, _Attributes], NDArray[np.generic]]] = {
    "Identity": lambda x, a: x[0],
    "Cast": _cast,
    "Transpose": _transposed,
    "Reshape": _reshaped,
}
