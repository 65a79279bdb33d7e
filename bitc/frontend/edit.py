"""An ONNX model whose layers' weights can be replaced: what compression works on.

A layer is a Conv, Gemm or MatMul with constant float weights. Its weights are seen as a matrix with one row per output
channel, ``[O, K]``, where K runs over (input channel of the group, ky, kx) for Conv and over the inner axis otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bitc.errors import InvalidModel
from bitc.frontend.attributes import Attributes
from bitc.frontend.plain import fold_constants, fold_factors
from bitc.frontend.silence import channel_sizes, silence
from bitc.frontend.source import inline_functions, opsets_of, read_model
from bitc.frontend.tensors import with_data

Floats = NDArray[np.float32]
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)


@dataclass(frozen=True)
class Spatial:
    """Geometry of a convolution, in ONNX's order of axes. `auto_pad` is ONNX's word, `pads` counts where it is
    NOTSET."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str


@dataclass(frozen=True)
class Layer:
    """A layer by the name of its node. `x` and `y` are its input and output tensors; `spatial` is None for matrix
    products; `group` counts groups of channels."""

    name: str
    op: str
    x: str
    y: str
    outputs: int
    inner: int
    group: int
    spatial: Spatial | None

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.outputs * self.inner

    @property
    def taps(self) -> int:
        """Weights per channel of an output."""
        return 1 if self.spatial is None else prod(self.spatial.kernel)


class EditableModel:
    """A model with its layers. Raises what reading a model raises: UsageError, InvalidModel."""

    def __init__(self, source: str | Path | bytes) -> None:
        model, folder = read_model(source)
        self.opset = opsets_of(model)[""]
        self._model: ModelProto = inline_functions(model)
        self._graph: GraphProto = self._model.graph
        self._tensors = {t.name: _loaded(t, folder) for t in self._graph.initializer}
        for node in self._graph.node:
            for a in node.attribute:
                if a.name == "value" and a.t.data_location == TensorProto.EXTERNAL:
                    a.t.CopyFrom(_loaded(a.t, folder))
        fold_constants(self._graph, self._tensors)
        self._names = set(self._all_names())
        self._uses = self._count_uses()
        fold_factors(self._graph, self._tensors, self._uses)
        self._node_of: dict[str, NodeProto] = {}
        self._sizes: dict[str, int] = {}
        self.skipped: dict[str, str] = {}
        """Why a Conv, Gemm or MatMul is no layer, by name."""
        self.layers = tuple(self._find_layers())

    def to_bytes(self) -> bytes:
        """The model with its present weights."""
        del self._graph.initializer[:]
        used = {name for n in self._graph.node for name in n.input} | {o.name for o in self._graph.output}
        used |= {name for n in self._graph.node for name in _captured(n)}
        self._graph.initializer.extend(t for t in self._tensors.values() if t.name in used)
        kept = [i for i in self._graph.input if i.name not in self._tensors]  # initializers that are inputs as well
        del self._graph.input[:]
        self._graph.input.extend(kept)
        return bytes(self._model.SerializeToString())

    def layer(self, name: str) -> Layer:
        """The layer of that name."""
        return next(layer for layer in self.layers if layer.name == name)

    def weights(self, layer: Layer) -> Floats:
        """Its weights ``[O, K]``."""
        w = self._array(self._weight_name(layer))
        return np.array(w.reshape(layer.outputs, -1) if self._rows_first(layer) else w.T, np.float32, order="C")

    def set_weights(self, layer: Layer, w: Floats) -> None:
        """Replace its weights; `w` is ``[O, K]``."""
        name = self._weight_name(layer)
        old = self._tensors[name]
        dtype = helper.tensor_dtype_to_np_dtype(old.data_type)
        data = np.ascontiguousarray(w if self._rows_first(layer) else w.T, dtype)
        self._tensors[name] = numpy_helper.from_array(data.reshape(tuple(old.dims)), name)

    def bias(self, layer: Layer) -> Floats:
        """Its bias ``[O]``; zeros if it has none."""
        name = self._bias_name(layer)
        if not name:
            return np.zeros(layer.outputs, np.float32)
        return np.broadcast_to(self._array(name).astype(np.float32).reshape(-1), layer.outputs).copy()

    def set_bias(self, layer: Layer, bias: Floats) -> None:
        """Give it the bias ``[O]``; a MatMul gets an Add behind it."""
        node = self._node_of[layer.name]
        dtype, old = self._dtype(layer), self._bias_name(layer)
        name = old if old and self._uses.get(old, 0) == 1 else self._unique(f"{layer.name}.bias")
        self._tensors[name] = numpy_helper.from_array(np.asarray(bias, dtype), name)
        self._uses[name] = 1
        if old == name:
            return
        if layer.op != "MatMul":
            del node.input[2:]
            node.input.append(name)
            return
        add = self._bias_add(node)
        if add is not None:
            add.input[list(add.input).index(old)] = name
            return
        inner = self._unique(f"{layer.name}.product")
        add = helper.make_node("Add", [inner, name], [node.output[0]], name=self._unique(f"{layer.name}.add"))
        node.output[0] = inner
        self._graph.node.insert(list(self._graph.node).index(node) + 1, add)

    def silence(self, layer: Layer, channels: Sequence[int]) -> None:
        """Make output channels of a layer zero, and what batch norms and the like would add to them."""
        w, bias = self.weights(layer), self.bias(layer)
        w[list(channels)], bias[list(channels)] = 0, 0
        self.set_weights(layer, w)
        self.set_bias(layer, bias)
        self._sizes = self._sizes or channel_sizes(self._model)
        silence(self._graph, layer.y, channels, self._sizes, set(self._tensors), self._zero)

    def _zero(self, node: NodeProto, index: int, channels: Sequence[int]) -> None:
        name = node.input[index]
        old = self._tensors.get(name)
        if old is None:
            return
        values = self._array(name).copy()
        if values.size <= max(channels) or values.size != max(values.shape, default=1):
            return  # one for all channels
        values.reshape(-1)[list(channels)] = 0
        if self._uses[name] > 1:
            self._uses[name] -= 1
            name = node.input[index] = self._unique(name)
            self._uses[name] = 1
        self._tensors[name] = numpy_helper.from_array(values, name)

    def two_levels(self, layer: Layer, threshold: float, low: float, high: float) -> None:
        """Make the layer's input two-valued: `high` where ``x >= threshold``, else `low`. Raises InvalidModel below
        opset 9, which can not say so."""
        if self.opset < 9:
            hint = "export with opset 9 or newer"
            raise InvalidModel(f"opset {self.opset} has no Where to binarize with", where=layer.name, hint=hint)
        node = self._node_of[layer.name]
        base, dtype = f"{layer.name}.levels", self._dtype(layer)
        names = [self._unique(f"{base}.{part}") for part in ("threshold", "low", "high", "mask", "out")]
        for name, value in zip(names[:3], (threshold, low, high), strict=True):
            self._tensors[name] = numpy_helper.from_array(np.asarray(value, dtype), name)
            self._uses[name] = 1
        older = self.opset < 12  # only the opposite of GreaterOrEqual
        op, levels = ("Less", names[1:3]) if older else ("GreaterOrEqual", names[2:0:-1])
        compare = helper.make_node(op, [node.input[0], names[0]], [names[3]], name=self._unique(base))
        choose = helper.make_node("Where", [names[3], *levels], [names[4]], name=self._unique(base))
        at = list(self._graph.node).index(node)
        self._graph.node.insert(at, choose)
        self._graph.node.insert(at, compare)
        node.input[0] = names[4]

    def level_nodes(self, layer: Layer) -> tuple[str, ...]:
        """The names of the nodes that make the layer's input two-valued, as `two_levels` does; empty if none do."""
        choose = self._producer(self._node_of[layer.name].input[0])
        if choose is None or choose.op_type != "Where" or not set(choose.input[1:]) <= set(self._tensors):
            return ()
        compare = self._producer(choose.input[0])
        return tuple(n.name for n in (compare, choose) if n is not None)

    # How the layers are found and where their tensors are.

    def _find_layers(self) -> Iterator[Layer]:
        for node in self._graph.node:
            layer = self._layer(node)
            if layer is not None:
                node.name = layer.name  # so that it is still called so after an edit
                self._node_of[layer.name] = node
                yield layer

    def _layer(self, node: NodeProto) -> Layer | None:
        if node.domain not in ("", "ai.onnx") or node.op_type not in ("Conv", "Gemm", "MatMul") or len(node.input) < 2:
            return None
        name = node.name if node.name and node.name not in self._node_of else node.output[0]
        why = self._no_layer(node)
        if why:
            self.skipped[name] = why
            return None
        attributes, shape = Attributes(node, name), tuple(self._tensors[node.input[1]].dims)
        if node.op_type == "Conv":
            rank = len(shape) - 2
            spatial = Spatial(
                shape[2:],
                attributes.ints("strides") or (1,) * rank,
                attributes.ints("dilations") or (1,) * rank,
                attributes.ints("pads") or (0,) * 2 * rank,
                attributes.str_("auto_pad", "NOTSET"),
            )
            inner = int(np.prod(shape[1:]))
            group = attributes.int_("group", 1)
            return Layer(name, "Conv", node.input[0], node.output[0], shape[0], inner, group, spatial)
        outputs, inner = shape if attributes.int_("transB", 0) else shape[::-1]
        return Layer(name, node.op_type, node.input[0], node.output[0], outputs, inner, 1, None)

    def _no_layer(self, node: NodeProto) -> str:
        """Why a Conv, Gemm or MatMul is no layer; empty if it is one."""
        tensor = self._tensors.get(node.input[1])
        if tensor is None:
            maker = self._producer(node.input[1])
            if maker is not None and maker.op_type == "DequantizeLinear":
                return "its weights are quantized already"
            return "its first operand is the constant one" if node.input[0] in self._tensors else "no constant weights"
        if tensor.data_type not in _FLOATS:
            return "its weights are not float"
        if self._uses[node.input[1]] != 1:
            return "another node reads its weights too"
        if len(node.input) > 2 and node.input[2] and node.input[2] not in self._tensors:
            return "its bias is computed"
        rank = len(tensor.dims)
        if rank not in ((3, 4) if node.op_type == "Conv" else (2,)):
            return f"its weights have {rank} axes"
        values = {a.name: a.f if a.type == a.FLOAT else a.i for a in node.attribute}
        if values.get("transA") or values.get("alpha", 1.0) != 1.0 or values.get("beta", 1.0) != 1.0:
            return "its operand is transposed, or it has a factor"
        return ""

    def _weight_name(self, layer: Layer) -> str:
        return str(self._node_of[layer.name].input[1])

    def _dtype(self, layer: Layer) -> np.dtype[Any]:
        """The type in which it computes."""
        return helper.tensor_dtype_to_np_dtype(self._tensors[self._weight_name(layer)].data_type)

    def _bias_name(self, layer: Layer) -> str:
        node = self._node_of[layer.name]
        if layer.op == "MatMul":
            add = self._bias_add(node)
            return "" if add is None else next(str(i) for i in add.input if i in self._tensors)
        return str(node.input[2]) if len(node.input) > 2 and node.input[2] in self._tensors else ""

    def _bias_add(self, product: NodeProto) -> NodeProto | None:
        """The Add of a constant per output that follows a MatMul, if nothing else reads the product."""
        y = product.output[0]
        readers = [n for n in self._graph.node if y in n.input]
        if self._uses.get(y, 0) > 1 or len(readers) != 1 or readers[0].op_type != "Add":
            return None
        shapes = [tuple(self._tensors[i].dims) for i in readers[0].input if i in self._tensors]
        outputs = self._tensors[product.input[1]].dims[-1]
        return readers[0] if shapes and shapes[0] in ((outputs,), (1, outputs), (1,), ()) else None

    def _producer(self, tensor: str) -> NodeProto | None:
        return next((n for n in self._graph.node if tensor in n.output), None)

    def _rows_first(self, layer: Layer) -> bool:
        """Whether the first axis of the stored weights counts outputs."""
        node = self._node_of[layer.name]
        return layer.op == "Conv" or bool(Attributes(node, layer.name).int_("transB", 0))

    def _array(self, name: str) -> NDArray[Any]:
        return np.asarray(numpy_helper.to_array(self._tensors[name]))

    # Names and nodes.

    def _count_uses(self) -> dict[str, int]:
        uses: dict[str, int] = {o.name: 1 for o in self._graph.output}
        for node in self._graph.node:
            for name in (*node.input, *_captured(node)):
                uses[name] = uses.get(name, 0) + 1
        return uses

    def _all_names(self) -> Iterator[str]:
        yield from self._tensors
        yield from (v.name for v in (*self._graph.input, *self._graph.output))
        for node in self._graph.node:
            yield from (node.name, *node.input, *node.output)

    def _unique(self, name: str) -> str:
        return unique(name, self._names)


def unique(name: str, names: set[str]) -> str:
    """The name, with a number where it is among the names already; it is one of them afterwards."""
    number, found = 0, name
    while found in names:
        number += 1
        found = f"{name}.{number}"
    names.add(found)
    return found


def _captured(node: NodeProto) -> Sequence[str]:
    """Names that a node's subgraphs use."""
    inner = [n for a in node.attribute for g in (a.g, *a.graphs) for n in g.node]
    return [name for n in inner for name in (*n.input, *_captured(n))]


def _loaded(tensor: TensorProto, folder: Path | None) -> TensorProto:
    return with_data(tensor, folder) if tensor.data_location == TensorProto.EXTERNAL else tensor
