"""A model in standard operators, written with QONNX's: Quant and BipolarQuant on weights and activations.

What is rewritten keeps its value to the last bit: weights that are sums of codes (`forms`), tensors of int8 weights,
pairs of QuantizeLinear and DequantizeLinear whose zero point is 0 or the lowest code, and two-valued activations. All
else stays in standard operators. The file carries the two operators as functions, so that any ONNX runtime can run it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import FunctionProto, ModelProto, NodeProto, helper, numpy_helper, parser

from bitc.errors import UsageError
from bitc.frontend.edit import EditableModel, Layer, unique
from bitc.frontend.forms import summed, terms
from bitc.frontend.upgrade import LEAST_OPSET, upgraded

DOMAIN = "qonnx.custom_op.general"
_BIPOLAR = """
<opset_import: ["" : {opset}], domain: "qonnx.custom_op.general">
BipolarQuant (x, scale) => (y) {{
  zero = Constant <value_float = 0.0> ()
  high = GreaterOrEqual (x, zero)
  minus = Neg (scale)
  y = Where (high, scale, minus)
}}
"""
_QUANT = """
<opset_import: ["" : {opset}], domain: "qonnx.custom_op.general">
Quant <signed, narrow, rounding_mode> (x, scale, zeropt, bitwidth) => (y) {{
  signed_int = Constant <value_int : int = @signed> ()
  narrow_int = Constant <value_int : int = @narrow> ()
  is_signed = Cast <to = 1> (signed_int)
  is_narrow = Cast <to = 1> (narrow_int)
  one = Constant <value_float = 1.0> ()
  two = Constant <value_float = 2.0> ()
  digits = Sub (bitwidth, is_signed)
  range = Pow (two, digits)
  top = Sub (range, one)
  is_unsigned = Sub (one, is_signed)
  less = Mul (is_unsigned, is_narrow)
  high = Sub (top, less)
  bottom = Mul (range, is_signed)
  more = Mul (is_narrow, is_signed)
  low = Sub (more, bottom)
  ratio = Div (x, scale)
  shifted = Add (ratio, zeropt)
  above = Max (shifted, low)
  within = Min (above, high)
  code = Round (within)
  centred = Sub (code, zeropt)
  y = Mul (centred, scale)
}}
"""
"""What QONNX specifies, for the rounding mode ROUND."""


def to_qonnx(source: bytes) -> bytes:
    """The model with QONNX's operators. Raises UsageError if its opset can not be raised to 13, or nothing in it is
    quantized."""
    base = upgraded(source)
    if base is None:
        hint = f"export with opset {LEAST_OPSET} or newer"
        raise UsageError(f"can not be brought to opset {LEAST_OPSET}", where="--format qonnx", hint=hint)
    editable = EditableModel(base)
    model = ModelProto()
    model.ParseFromString(editable.to_bytes())
    writer = _Writer(model)
    for layer in editable.layers:
        writer.weights(layer, editable.weights(layer))
    for node in list(model.graph.node):
        if node.op_type == "DequantizeLinear":
            writer.codes(node)
        elif node.op_type == "QuantizeLinear":
            writer.rounded(node)
        elif node.op_type == "Where":
            writer.two_levels(node)
    if not writer.count:
        hint = "write ONNX, or binarize, ternarize or quantize first"
        raise UsageError("the model holds nothing that QONNX can say", where="--format qonnx", hint=hint)
    return writer.to_bytes()


@dataclass(frozen=True)
class _Coded:
    """The parameters of a QuantizeLinear or DequantizeLinear; `zero` is of the code's type."""

    scale: NDArray[np.float32]
    zero: NDArray[np.integer]
    axis: int

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Coded) or self.zero.dtype != other.zero.dtype:
            return False
        return np.array_equal(self.scale, other.scale) and np.array_equal(self.zero, other.zero)


class _Writer:
    def __init__(self, model: ModelProto) -> None:
        self._model, self._graph = model, model.graph
        self._tensors = {t.name: t for t in self._graph.initializer}
        self._names = {n for node in self._graph.node for n in (*node.input, *node.output, node.name)}
        self._names |= set(self._tensors)
        self.count = 0

    def to_bytes(self) -> bytes:
        """The model, with what nothing reads any more left out."""
        outputs = {o.name for o in self._graph.output}
        while True:
            used = outputs | {i for n in self._graph.node for i in _reads(n)}
            kept = [n for n in self._graph.node if used & set(n.output)]
            if len(kept) == len(self._graph.node):
                break
            del self._graph.node[:]
            self._graph.node.extend(kept)
        del self._graph.initializer[:]
        self._graph.initializer.extend(t for t in self._tensors.values() if t.name in used)
        del self._graph.value_info[:]
        opset = next(o.version for o in self._model.opset_import if o.domain in ("", "ai.onnx"))
        self._model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
        functions: list[FunctionProto] = [parser.parse_function(t.format(opset=opset)) for t in (_BIPOLAR, _QUANT)]
        self._model.functions.extend(functions)
        self._model.ir_version = max(self._model.ir_version, 8)  # the first with functions
        return bytes(self._model.SerializeToString())

    def weights(self, layer: Layer, w: NDArray[np.float32]) -> None:
        """A layer's weights [O, K] as a sum of Quant and BipolarQuant nodes."""
        node = next(n for n in self._graph.node if n.name == layer.name)
        found = terms(w)
        if not found or not np.array_equal(summed(found), w):
            return
        old = self._tensors[node.input[1]]
        rows_first = node.op_type == "Conv" or any(a.name == "transB" and a.i for a in node.attribute)
        shape = tuple(old.dims)
        per_row = (layer.outputs, *(1,) * (len(shape) - 1)) if rows_first else (1, layer.outputs)
        parts = []
        for term in found:
            values = term.value if rows_first else term.value.T
            x = self._constant(f"{layer.name}.weights", values.reshape(shape))
            scale = self._constant(f"{layer.name}.scale", term.scale.reshape(per_row))
            parts.append(self._emit(node, *self._quant(x, scale, term.bits, narrow=True)))
        total = parts[0]
        for part in parts[1:]:
            total = self._emit(node, "Add", [total, part])
        node.input[1] = total

    def codes(self, node: NodeProto) -> None:
        """int8 weights behind a DequantizeLinear, symmetric."""
        tensor, coded = self._tensors.get(node.input[0]), self._coded(node)
        if tensor is None or coded is None or coded.zero.dtype != np.int8 or coded.zero.any():
            return
        codes = numpy_helper.to_array(tensor)
        shape = [1] * codes.ndim
        if coded.scale.size > 1:
            shape[coded.axis] = coded.scale.size
        scale = coded.scale.reshape(shape if coded.scale.size > 1 else ())
        x = self._constant(f"{node.output[0]}.weights", codes.astype(np.float32) * scale)
        new = self._emit(node, *self._quant(x, self._constant(f"{node.output[0]}.scale", scale), 8))
        self._instead(node.output[0], new)

    def rounded(self, node: NodeProto) -> None:
        """A QuantizeLinear and the DequantizeLinears that read it, if they say the same."""
        coded = self._coded(node)
        if coded is None or coded.scale.size != 1 or coded.zero.dtype not in (np.int8, np.uint8):
            return
        readers = [n for n in self._graph.node if node.output[0] in _reads(n)]
        if any(n.op_type != "DequantizeLinear" or self._coded(n) != coded for n in readers):
            return
        lowest = int(np.iinfo(coded.zero.dtype).min)
        zero = int(coded.zero.reshape(-1)[0]) - lowest  # of codes from 0 to 255
        if zero not in (0, 128) or node.output[0] in {o.name for o in self._graph.output}:
            return
        scale = self._constant(f"{node.output[0]}.scale", coded.scale.reshape(()))
        new = self._emit(node, *self._quant(node.input[0], scale, 8, signed=zero == 128))
        for reader in readers:
            self._instead(reader.output[0], new)

    def two_levels(self, node: NodeProto) -> None:
        """``x >= t ? high : low`` as ``BipolarQuant(x - t, half) + middle``."""
        compare = next((n for n in self._graph.node if node.input[0] in n.output), None)
        if compare is None or compare.op_type != "GreaterOrEqual":
            return
        known = [self._scalar(n) for n in (compare.input[1], node.input[1], node.input[2])]
        if any(v is None for v in known):
            return
        t, high, low = (np.float32(v) for v in known if v is not None)
        half, middle = (high - low) / np.float32(2), (high + low) / np.float32(2)
        if not half > 0 or middle + half != high or middle - half != low:
            return
        x = compare.input[0]
        if t:
            x = self._emit(node, "Sub", [x, self._constant(f"{node.output[0]}.threshold", np.asarray(t))])
        y = self._emit(node, *self._quant(x, self._constant(f"{node.output[0]}.scale", np.asarray(half)), 1))
        if middle:
            y = self._emit(node, "Add", [y, self._constant(f"{node.output[0]}.middle", np.asarray(middle))])
        self._instead(node.output[0], y)

    # Nodes and tensors.

    def _quant(
        self, x: str, scale: str, bits: int, signed: bool = True, narrow: bool = False
    ) -> tuple[str, list[str], dict[str, Any]]:
        self.count += 1
        if bits == 1:
            return "BipolarQuant", [x, scale], {"domain": DOMAIN}
        zero, width = (self._constant(n, np.asarray(v, np.float32)) for n, v in (("zeropt", 0), ("bitwidth", bits)))
        options: dict[str, Any] = {"domain": DOMAIN, "signed": int(signed), "narrow": int(narrow)}
        return "Quant", [x, scale, zero, width], {**options, "rounding_mode": "ROUND"}

    def _emit(self, before: NodeProto, op: str, inputs: list[str], options: dict[str, Any] | None = None) -> str:
        """A new node in front of another; the name of its output."""
        name = unique(f"{before.output[0]}.{op.lower()}", self._names)
        node = helper.make_node(op, inputs, [name], name=name, **(options or {}))
        self._graph.node.insert(list(self._graph.node).index(before), node)
        return name

    def _instead(self, old: str, new: str) -> None:
        """Let all that reads `old` read `new`; an output of the model keeps its name."""
        for node in self._graph.node:
            for i, name in enumerate(node.input):
                if name == old:
                    node.input[i] = new
        if old in {o.name for o in self._graph.output}:
            maker = next(n for n in self._graph.node if old in n.output)
            maker.CopyFrom(helper.make_node("Identity", [new], [old], name=maker.name))

    def _constant(self, name: str, value: NDArray[np.float32]) -> str:
        name = unique(name, self._names)
        self._tensors[name] = numpy_helper.from_array(
            np.ascontiguousarray(value, np.float32).reshape(value.shape), name
        )
        return name

    def _scalar(self, name: str) -> float | None:
        tensor = self._tensors.get(name)
        value = None if tensor is None else numpy_helper.to_array(tensor)
        return None if value is None or value.size != 1 or value.dtype != np.float32 else float(value.reshape(-1)[0])

    def _coded(self, node: NodeProto) -> _Coded | None:
        names = list(node.input[1:])
        if len(names) < 2 or any(n not in self._tensors for n in names):
            return None
        scale, zero = (numpy_helper.to_array(self._tensors[n]) for n in names)
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        blocked = any(a.name == "block_size" and a.i for a in node.attribute)
        return None if blocked or scale.dtype != np.float32 else _Coded(scale, zero, axis)


def _reads(node: NodeProto) -> Iterator[str]:
    yield from node.input
    for a in node.attribute:
        for g in ([a.g] if a.HasField("g") else []) + list(a.graphs):
            for inner in g.node:
                yield from _reads(inner)
