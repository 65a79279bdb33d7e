"""Constant nodes that have no importer of their own, evaluated by onnx's own reference implementation."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, helper
from onnx.reference import ReferenceEvaluator

from bitc.frontend.context import Context, Refused
from bitc.ir import TensorType, Value

# fmt: off
FOLDABLE = frozenset((
    "DequantizeLinear", "DynamicQuantizeLinear", "MeanVarianceNormalization", "MelWeightMatrix",
    "QuantizeLinear",
))
# fmt: on
"""Deterministic operators of the default domain whose outputs are not larger than their inputs together."""


def evaluate(ctx: Context, opset: int) -> list[Value]:
    """Outputs of the node as constants. Raises Refused if the operator is not one of `FOLDABLE`."""
    if ctx.node.op_type not in FOLDABLE:
        raise Refused("not supported", "")
    feeds = {f"i{n}": v.array for n, v in enumerate(ctx.inputs) if v is not None}
    for v in ctx.inputs:
        if v is not None:
            ctx.session.charge(TensorType(v.shape, v.type.dtype), ctx.at)
    node = NodeProto()
    node.CopyFrom(ctx.node)
    del node.input[:]
    node.input.extend(f"i{n}" if v is not None else "" for n, v in enumerate(ctx.inputs))
    names = [o for o in node.output if o]
    graph = helper.make_graph(
        [node],
        "fold",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in feeds.items()],
        [onnx.ValueInfoProto(name=n) for n in names],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    with np.errstate(all="ignore"):
        results = list(ReferenceEvaluator(model).run(None, feeds))
    by_name = {n: ctx.const(np.asarray(r)) for n, r in zip(names, results, strict=True)}
    return [by_name.get(o, ctx.const(0.0)) for o in node.output]
