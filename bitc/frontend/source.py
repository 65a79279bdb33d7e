"""From a path or bytes to a ModelProto that is worth looking at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
import onnx.inliner
from onnx import GraphProto, ModelProto, NodeProto, OperatorSetIdProto

from bitc.errors import InvalidModel, UsageError

OLDEST_OPSET = 6
LIMIT_NODES = 1_000_000
QONNX_DOMAINS = ("onnx.brevitas", "finn.custom_op.general", "qonnx.custom_op.general", "qonnx", "finn", "")
QONNX_OPS = ("BipolarQuant", "Quant", "IntQuant", "MultiThreshold", "Trunc")


def is_qonnx(domain: str, op_type: str) -> bool:
    """Whether an operator is one of QONNX's, under any of the domains that exporters use."""
    return op_type in QONNX_OPS and (domain in QONNX_DOMAINS or domain.startswith(("qonnx.", "finn.")))


def read_model(source: str | Path | bytes) -> tuple[ModelProto, Path | None]:
    """Parse a model. Returns it and the folder of its external data (None for bytes).

    Raises UsageError if there is no such file, InvalidModel if it is not ONNX.
    """
    where, folder = "model", None
    if isinstance(source, bytes):
        data = source
    else:
        path = Path(source)
        where, folder = str(source), path.parent
        data = _read(path)
    hint = "pass a file written by an ONNX exporter"
    if not data:
        raise InvalidModel("the file is empty", where=where, hint=hint)
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as e:  # the decoder's errors have no public base
        raise InvalidModel("not an ONNX model, or truncated", where=where, hint=hint) from e
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise InvalidModel("not an ONNX model: it has no graph", where=where, hint=hint)
    if not all(_is_text(name) for name in _names(model)):
        raise InvalidModel("a name is not printable text", where=where, hint="the file is damaged")
    return model, folder


def _is_text(name: object) -> bool:
    """Whether a protobuf string is one: the decoder hands out bytes where they are not UTF-8."""
    return isinstance(name, str) and not any(c < " " for c in name)


def _names(model: ModelProto) -> Iterator[object]:
    yield from (model.producer_name, model.producer_version, model.domain)
    yield from (o.domain for o in model.opset_import)
    yield from _graph_names(model.graph)
    for f in model.functions:
        yield from (f.name, f.domain, *f.input, *f.output)
        yield from _node_names(f.node)


def _graph_names(graph: GraphProto) -> Iterator[object]:
    yield graph.name
    for v in (*graph.input, *graph.output, *graph.value_info):
        yield v.name
        yield from (d.dim_param for d in v.type.tensor_type.shape.dim)
    yield from (t.name for t in graph.initializer)
    yield from (s.values.name for s in graph.sparse_initializer)
    yield from _node_names(graph.node)


def _node_names(nodes: Iterable[NodeProto]) -> Iterator[object]:
    for n in nodes:
        yield from (n.name, n.op_type, n.domain, *n.input, *n.output)
        yield from (a.name for a in n.attribute)
        for g in subgraphs(n):
            yield from _graph_names(g)


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise UsageError("is a folder, not a model", where=str(path), hint="pass the .onnx file")
        if path.exists() and path.stat().st_size >= 2**31:
            raise InvalidModel("is larger than 2 GiB", where=str(path), hint="keep large weights in external data")
        return path.read_bytes()
    except FileNotFoundError as e:
        raise UsageError("no such file", where=str(path), hint="check the path") from e
    except (OSError, ValueError) as e:
        raise UsageError(f"can not be read: {e}", where=repr(str(path)), hint="check the path") from e


def opset_table(entries: Iterable[OperatorSetIdProto]) -> dict[str, int]:
    """Versions by domain, the newest where a domain is listed twice."""
    versions: dict[str, int] = {}
    for entry in entries:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        versions[domain] = max(versions.get(domain, 0), entry.version)
    return versions


def opsets_of(model: ModelProto) -> dict[str, int]:
    """Opset versions by domain. Raises InvalidModel if the default domain's is absent, too old or unknown."""
    versions = opset_table(model.opset_import)
    newest = onnx.defs.onnx_opset_version()
    if "" not in versions:
        raise InvalidModel("does not say which opset it uses", where="model", hint="export the model again")
    if not OLDEST_OPSET <= versions[""] <= newest:
        raise InvalidModel(
            f"uses opset {versions['']}; bitc reads {OLDEST_OPSET} to {newest}",
            where="model",
            hint="export with opset 13 or newer" if versions[""] < OLDEST_OPSET else "export with an older opset",
        )
    return versions


def inline_functions(model: ModelProto) -> ModelProto:
    """Replace calls of model-local functions by their bodies, but keep calls of QONNX's operators, whose bodies may be
    stubs. Raises InvalidModel for recursive functions and for expansions beyond reason."""
    if not model.functions:
        return model
    _check_expansion(model)
    stubs = [(f.domain, f.name) for f in model.functions if is_qonnx(f.domain, f.name)]
    try:
        inlined = onnx.inliner.inline_selected_functions(model, stubs, exclude=True)
    except Exception as e:
        raise InvalidModel(f"its functions can not be inlined: {_line(e)}", where="model", hint=_INLINE_HINT) from e
    return inlined


_INLINE_HINT = "inline the functions before export"


def _line(e: Exception) -> str:
    return (str(e).strip().splitlines() or [type(e).__name__])[0][:200]


class _TooLarge(Exception):
    """The expansion of functions has no end, or none within reason."""


def _check_expansion(model: ModelProto) -> None:
    bodies = {(f.domain, f.name): list(f.node) for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}
    open_calls: set[tuple[str, str]] = set()

    def size(nodes: list[NodeProto]) -> int:
        total = 0
        for n in nodes:
            total += 1 + sum(size(list(g.node)) for g in subgraphs(n))
            key = (n.domain, n.op_type)
            if key in bodies:
                total += function_size(key)
            if total > LIMIT_NODES:
                raise _TooLarge
        return total

    def function_size(key: tuple[str, str]) -> int:
        if key in open_calls:
            raise _TooLarge
        if key not in sizes:
            open_calls.add(key)
            sizes[key] = size(bodies[key])
            open_calls.discard(key)
        return sizes[key]

    try:
        size(list(model.graph.node))
    except (_TooLarge, RecursionError) as e:
        raise InvalidModel("its functions are recursive or far too large", where="model", hint=_INLINE_HINT) from e


def subgraphs(node: NodeProto) -> list[GraphProto]:
    """The graphs that a node holds (branches of If, bodies of loops)."""
    return [g for a in node.attribute for g in ([a.g] if a.HasField("g") else []) + list(a.graphs)]
