"""What the ONNX standard says of a node's form: how many inputs and outputs it has."""

from __future__ import annotations

import onnx

from bitc.frontend.context import Context


def check_schema(ctx: Context, opset: int) -> None:
    """Check a node of the default domain. Raises InvalidModel.

    Operators that the opset does not have yet, or not any more, pass: exporters write them, and onnxruntime runs them.
    """
    node = ctx.node
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return
    if schema.deprecated:
        return
    if not schema.min_input <= len(node.input) <= schema.max_input:
        raise ctx.invalid(f"{node.op_type} of opset {opset} does not take {len(node.input)} inputs")
    if not schema.min_output <= len(node.output) <= schema.max_output:
        raise ctx.invalid(f"{node.op_type} of opset {opset} does not make {len(node.output)} outputs")
