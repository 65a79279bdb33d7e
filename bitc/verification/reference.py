"""What a model should compute: onnxruntime's values of named ONNX tensors, or those of the imported graph in numpy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import onnxruntime

from bitc import interp
from bitc.errors import InvalidModel
from bitc.frontend import Ragged
from bitc.frontend.expose import expose
from bitc.ir.graph import Array, Graph

_TYPES = {
    "float": np.float32, "double": np.float64, "float16": np.float16, "bool": np.bool_,
    "int8": np.int8, "int16": np.int16, "int32": np.int32, "int64": np.int64,
    "uint8": np.uint8, "uint16": np.uint16, "uint32": np.uint32, "uint64": np.uint64,
}  # fmt: skip


class Reference(Protocol):
    """Evaluates a model. `name` says by what, for reports."""

    @property
    def name(self) -> str: ...

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Values of the ONNX tensors asked for (those that exist) and of all outputs, by their ONNX names."""
        ...


class OnnxRuntime:
    """onnxruntime on the CPU, one thread, its default optimisations; `tensors` become extra outputs.

    An extra output keeps onnxruntime from fusing across that tensor, so ask only for what is needed.
    """

    name = "onnxruntime"

    def __init__(
        self, model: bytes, tensors: Iterable[str] = (), ragged: Mapping[str, Ragged] = MappingProxyType({})
    ) -> None:
        """`ragged`: tensors that are as long as the data says; they get zeros behind, and outputs their counts."""
        self._ragged = ragged
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        wanted = list(tensors)
        try:
            self._session = _session(expose(model, wanted), options)
        except Exception as first:  # onnxruntime's errors have no common base but Exception
            try:
                self._session = _session(model, options)
            except Exception as e:
                raise InvalidModel(
                    f"onnxruntime refuses it: {_line(e)}", where="model", hint="the export is not valid ONNX"
                ) from first
        self._outputs = [o.name for o in self._session.get_outputs()]
        self._inputs = {i.name: _numpy_type(i.type) for i in self._session.get_inputs()}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        cast = {n: np.ascontiguousarray(feeds[n]).astype(t, copy=False) for n, t in self._inputs.items() if n in feeds}
        try:
            values = self._session.run(self._outputs, cast)
        except Exception as e:
            raise InvalidModel(f"onnxruntime fails: {_line(e)}", where="model", hint="run it there first") from e
        found = dict(zip(self._outputs, (np.asarray(v) for v in values), strict=True))
        for name, r in self._ragged.items():
            if name in found:
                found |= _padded(name, found[name], r)
        return found


def _padded(name: str, array: Array, ragged: Ragged) -> dict[str, Array]:
    """A tensor with zeros behind its entries and, of an output, how many there are."""
    if not array.size:  # onnxruntime gives what a loop of no steps collects the shape [0]
        array = np.zeros([0 if a == ragged.axis else d for a, d in enumerate(ragged.shape)], array.dtype)
    count = array.shape[ragged.axis]
    pads = [(0, d - n) for d, n in zip(ragged.shape, array.shape, strict=True)]
    return {name: np.pad(array, pads)} | ({ragged.count: np.array(count, np.int32)} if ragged.count else {})


def _session(model: bytes, options: Any) -> Any:
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _line(e: Exception) -> str:
    return (str(e).strip().splitlines() or [type(e).__name__])[0][:200]


def _numpy_type(text: str) -> Any:
    """numpy's type for onnxruntime's "tensor(float)"."""
    return _TYPES.get(text.removeprefix("tensor(").removesuffix(")"), np.float32)


class Numpy:
    """The imported graph, evaluated in numpy: for QONNX, which onnxruntime does not have."""

    name = "numpy"

    def __init__(self, graph: Graph, tensors: Iterable[str] = ()) -> None:
        self._graph = graph
        self._wanted = set(tensors)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        env = interp.evaluate(self._graph, feeds)
        found = {
            v.origin.tensor: a
            for v, a in env.items()
            if v.origin and not v.origin.steps and v.origin.tensor in self._wanted
        }
        return found | {v.name: v.array if v.is_const else env[v] for v in self._graph.outputs}
