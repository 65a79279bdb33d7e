"""The ONNX project's own backend tests, from the installed onnx: models, inputs and expected outputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TypeProto, numpy_helper

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")

# fmt: off
OUT_OF_SCOPE: dict[str, frozenset[str]] = {
    "random numbers": frozenset((
        "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
    )),
    "image files": frozenset(("ImageDecoder",)),
    "text": frozenset(("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer")),
    "training": frozenset(("Adagrad", "Adam", "Gradient", "Momentum")),
}
# fmt: on
"""Operators that are no inference on numeric tensors, by what they are."""


NOISY = {"test_dft_inverse": 1e-6, "test_dft_inverse_opset19": 1e-6}
"""Absolute tolerance of cases whose expected zeros hold the rounding errors of the float32 transform that made them."""


@dataclass(frozen=True, eq=False)
class Case:
    """One test of the onnx project: a model, and pairs of inputs and expected outputs in the graph's order."""

    name: str
    kind: str
    model: ModelProto
    samples: tuple[tuple[tuple[Any, ...], tuple[Any, ...]], ...]
    rtol: float
    atol: float

    @property
    def operators(self) -> list[str]:
        return sorted({n.op_type for n in self.model.graph.node})

    def feeds(self, sample: int = 0) -> dict[str, Any]:
        """Inputs of a sample by name; initializers are not fed."""
        constants = {t.name for t in self.model.graph.initializer}
        names = [i.name for i in self.model.graph.input if i.name not in constants]
        return dict(zip(names, self.samples[sample][0], strict=False))


def load_cases(kinds: Iterable[str] = KINDS) -> list[Case]:
    """Every case, in the order of kinds and names."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():  # the tests' own generators overflow on purpose
        warnings.simplefilter("ignore")
        found = [(kind, c) for kind in kinds for c in load_model_tests(kind=kind)]
    cases = []
    for kind, c in sorted(found, key=lambda pair: (KINDS.index(pair[0]), pair[1].name)):
        model, samples = (c.model, c.data_sets) if c.model is not None else _from_folder(Path(c.model_dir))
        pairs = tuple((tuple(map(_array, i)), tuple(map(_array, o))) for i, o in samples or [])
        cases.append(Case(c.name, kind, model, pairs, c.rtol, NOISY.get(c.name, c.atol)))
    return cases


def _array(data: Any) -> Any:
    """Tensors as arrays; sequences and the like, which are out of scope, as they are."""
    return np.asarray(numpy_helper.to_array(data)) if isinstance(data, onnx.TensorProto) else data


def _from_folder(folder: Path) -> tuple[ModelProto, list[tuple[list[Any], list[Any]]]]:
    model = onnx.load(folder / "model.onnx")
    samples = []
    for data in sorted(folder.glob("test_data_set_*")):
        inputs = [_read(data / f"input_{i}.pb") for i in range(len(list(data.glob("input_*.pb"))))]
        outputs = [_read(data / f"output_{i}.pb") for i in range(len(list(data.glob("output_*.pb"))))]
        samples.append((inputs, outputs))
    return model, samples


def _read(path: Path) -> Any:
    """A tensor of the test data, or None where it is a sequence or an optional."""
    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(path.read_bytes())
        return np.asarray(numpy_helper.to_array(tensor))
    except Exception:  # another message type: the case is out of scope
        return None


def out_of_scope(case: Case) -> str:
    """What makes the case no inference on numeric tensors, or an empty text."""
    graph = case.model.graph
    types = [v.type for v in (*graph.input, *graph.output, *graph.value_info)]
    domains = {n.domain for n in graph.node}
    operators = {n.op_type for n in _all_nodes(graph)}
    if any("training" in d for d in domains) or any(d.startswith("ai.onnx.ml") for d in domains):
        return "training" if any("training" in d for d in domains) else "classical machine learning"
    for what, names in OUT_OF_SCOPE.items():
        if operators & names:
            return what
    if any(_is_text(t) for t in types):
        return "text"
    if any(t.WhichOneof("value") in ("sequence_type", "map_type", "optional_type") for t in types):
        return "sequences and optionals"
    if any(op.startswith(("Sequence", "Optional")) or op.endswith("ToSequence") for op in operators):
        return "sequences and optionals"
    if _trains(case):
        return "training"
    return ""


def _all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    inner = [g for n in graph.node for a in n.attribute for g in ([a.g] if a.HasField("g") else []) + list(a.graphs)]
    return [*graph.node, *(n for g in inner for n in _all_nodes(g))]


def _is_text(t: TypeProto) -> bool:
    return t.WhichOneof("value") == "tensor_type" and t.tensor_type.elem_type == onnx.TensorProto.STRING


def _trains(case: Case) -> bool:
    """Whether a normalization or dropout runs in training mode."""
    feeds = case.feeds()
    for n in case.model.graph.node:
        if any(a.name == "training_mode" and a.i for a in n.attribute):
            return True
        if n.op_type == "Dropout" and len(n.input) > 2 and np.any(feeds.get(n.input[2], False)):
            return True
    return False
