"""Import of a graph, node by node in topological order."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import GraphProto, NodeProto, TensorProto

from bitc.errors import InvalidModel, ModelError, Unsupported
from bitc.frontend import extents, fold, functions
from bitc.frontend.context import Context, Refused, Session
from bitc.frontend.control import CONTROL, Flow, check_inputs
from bitc.frontend.order import label, live_nodes
from bitc.frontend.rolled import Body, Incomplete
from bitc.frontend.schema import check_schema
from bitc.frontend.source import is_qonnx, opset_table
from bitc.frontend.table import TABLE
from bitc.frontend.tensors import dtype_of, is_narrowed, to_array, type_name
from bitc.ir import Origin, TensorType, Value

_HINT = "the graph is inconsistent; export the model again"
_DEFAULT_HINT = "replace it by supported operators before export, or ask for it in an issue"


class Unknown:
    """Output of a node that is not supported: what reads it can not be checked further."""


UNKNOWN = Unknown()


class Scope:
    """Tensors by name: those of a graph, then those of the graphs around it."""

    def __init__(self, session: Session, graph: GraphProto, outer: Scope | None = None) -> None:
        self._session = session
        self._outer = outer
        self._values: dict[str, Value | Unknown] = {}
        self._initializers: dict[str, TensorProto] = {t.name: t for t in graph.initializer}
        self._sparse = {s.values.name for s in graph.sparse_initializer}
        self.declared = {v.name: v for v in graph.value_info}

    def define(self, name: str, value: Value | Unknown) -> None:
        self._values[name] = value

    def lookup(self, name: str, reader: str) -> Value | Unknown:
        """Raises InvalidModel if nothing defines the name."""
        if name in self._values:
            return self._values[name]
        if name in self._initializers:
            return self._values.setdefault(name, self._constant(self._initializers[name]))
        if name in self._sparse:
            raise InvalidModel(f"{name!r} is a sparse tensor", where=reader, hint="store it as a dense tensor")
        if self._outer is not None:
            return self._outer.lookup(name, reader)
        raise InvalidModel(f"reads {name!r}, which nothing defines", where=reader, hint=_HINT)

    def _constant(self, tensor: TensorProto) -> Value:
        array = to_array(tensor, self._session.folder)
        if is_narrowed(tensor.data_type):
            self._session.notice(f"{type_name(tensor.data_type)} weights are converted to float32")
        value = self._session.builder.const(array, tensor.name)
        self._session.elements[value] = tensor.data_type
        return value


class Walker:
    """Imports the nodes of a graph and, inlined, of its subgraphs. Collects what is not supported."""

    def __init__(self, session: Session, opsets: dict[str, int]) -> None:
        self.session = session
        self.opsets = opsets
        self.unsupported: list[Unsupported] = []

    def graph(self, graph: GraphProto, scope: Scope, nodes: Sequence[NodeProto], read: set[str], top: bool) -> None:
        """Import `nodes`; `top` marks the model's own graph, whose tensors the reference runtime can show."""
        for node in nodes:
            values = self._node(node, scope, read)
            for name, value in zip(node.output, values, strict=False):
                if not name or name not in read:
                    continue
                scope.define(name, value)
                if top and isinstance(value, Value):
                    self._name(value, name)
            for name in node.output[len(values) :]:
                if name in read:
                    raise InvalidModel(f"has no output {name!r}", where=label(node), hint=_HINT)

    def _name(self, value: Value, tensor: str) -> None:
        """Give an ONNX tensor's name to the value that stands for it, unless it already has another's."""
        extent = self.session.extents.get(value)
        if value.origin is None and (extent is None or extent.zeroed):  # else not all of it is defined
            value.origin = Origin(tensor)
            value.name = self.session.builder.unique(tensor)

    def _node(self, node: NodeProto, scope: Scope, read: set[str]) -> Sequence[Value | Unknown]:
        at = label(node)
        inputs = [scope.lookup(n, at) if n else None for n in node.input]
        flow = CONTROL.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        unknown = any(isinstance(v, Unknown) for v in inputs)
        try:
            if flow:
                return self._flow(flow, node, scope, inputs, read)
            known = [None if isinstance(v, Unknown) else v for v in inputs]
            return self._import(node, at, known, read, only_look=unknown)
        except Refused as e:
            shown = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            self.unsupported.append(Unsupported(at, shown, e.reason, e.hint or _DEFAULT_HINT))
            return [self._declared(scope, name) for name in node.output]

    def _import(
        self, node: NodeProto, at: str, inputs: list[Value | None], read: set[str], only_look: bool
    ) -> Sequence[Value | Unknown]:
        domain = "" if node.domain == "ai.onnx" else node.domain
        key = ("qonnx" if is_qonnx(domain, node.op_type) else domain, node.op_type)
        importer = TABLE.get(key)
        if only_look:
            if importer is None:
                raise Refused("the operator is not supported")
            return [UNKNOWN] * len(node.output)
        opset = self.opsets.get(domain, self.opsets[""])
        wanted = [bool(o) and o in read for o in node.output]
        ctx = Context(self.session, node, opset, inputs, wanted, at)
        constant = all(v is None or v.is_const for v in inputs)
        try:
            if importer is None:
                if constant and domain == "" and inputs:
                    return fold.evaluate(ctx, opset)
                raise Refused("the operator is not supported")
            if domain == "":
                check_schema(ctx, opset)
            result = extents.follow(ctx, importer) if extents.concerned(ctx) else importer(ctx)
            if ctx.attrs.unread():
                raise Refused(f"attribute {ctx.attrs.unread()[0]!r} is not known", "remove it if it changes nothing")
            return [result] if isinstance(result, Value) else result
        except Refused as e:
            expanded = self._expand(ctx, e) if domain in functions.DOMAINS else None
            if expanded is None:
                raise
            return expanded
        except ModelError:
            raise
        except MemoryError as e:
            raise InvalidModel("needs more memory than there is", where=at, hint=_HINT) from e
        except Exception as e:
            types = ", ".join("-" if v is None else str(v.type) for v in inputs)
            reason = f": {str(e).splitlines()[0][:160]}" if str(e) else ""
            raise InvalidModel(
                f"{node.op_type} does not accept its inputs ({types}) or attributes{reason}", where=at, hint=_HINT
            ) from e

    def _expand(self, ctx: Context, refusal: Refused) -> Sequence[Value | Unknown] | None:
        """Import a node by the standard's definition of its operator; None if there is none, or if it holds nodes that
        are refused in turn and an importer has said more to the point why."""
        body = functions.definition(ctx.node, ctx.opset, ctx.inputs, ctx.at)
        if body is None:
            return None
        wanted = [ctx.wanted(i) for i in range(len(body.output))]
        graph = functions.as_graph(body, wanted)
        scope = Scope(self.session, graph)
        for name, value in zip(body.input, ctx.inputs, strict=False):
            if value is not None:
                scope.define(name, value)
        inner = Walker(self.session, {**self.opsets, **opset_table(body.opset_import)})
        nodes, read = live_nodes(graph)
        inner.graph(graph, scope, nodes, read, top=False)
        if inner.unsupported:
            if ("", ctx.node.op_type) in TABLE:
                return None
            first = inner.unsupported[0]
            raise Refused(f"its definition needs {first.op}: {first.reason}", first.hint) from refusal
        return [scope.lookup(n, ctx.at) if w else UNKNOWN for n, w in zip(body.output, wanted, strict=True)]

    def _declared(self, scope: Scope, name: str) -> Value | Unknown:
        """A stand-in for the output of an unsupported node, if the model says its type, so that what follows is
        checked too."""
        info = scope.declared.get(name)
        if info is None or not info.type.HasField("tensor_type") or not info.type.tensor_type.HasField("shape"):
            return UNKNOWN
        dtype = dtype_of(info.type.tensor_type.elem_type)
        dims = [d.dim_value for d in info.type.tensor_type.shape.dim]
        if dtype is None or min(dims, default=1) < 1:
            return UNKNOWN
        return Value(self.session.builder.unique(name), TensorType(tuple(dims), dtype))

    def _flow(
        self, flow: Flow, node: NodeProto, scope: Scope, inputs: Sequence[Value | Unknown | None], read: set[str]
    ) -> Sequence[Value | Unknown]:
        """Import a node that holds subgraphs."""
        at = label(node)
        if any(isinstance(v, Unknown) for v in inputs):
            return [UNKNOWN] * len(node.output)

        def open_(graph: GraphProto, session: Session | None = None) -> Body:
            walker = self if session is None else Walker(session, self.opsets)
            constants = Scope(walker.session, graph, scope)
            nodes, needed = live_nodes(graph)

            def run(*values: Value) -> list[Value]:
                check_inputs(graph, values, at)
                inner = Scope(walker.session, GraphProto(), constants)
                for info, value in zip(graph.input, values, strict=True):
                    inner.define(info.name, value)
                walker.graph(graph, inner, nodes, needed, top=False)
                if walker is not self and walker.unsupported:
                    first = walker.unsupported[0]
                    raise Refused(f"its body needs {first.op}: {first.reason}", first.hint)
                found = [inner.lookup(o.name, at) for o in graph.output]
                known = [v for v in found if isinstance(v, Value)]
                if len(known) < len(found):
                    raise Incomplete
                return known

            return run

        known = [v for v in inputs if not isinstance(v, Unknown)]
        wanted = [bool(o) and o in read for o in node.output]
        ctx = Context(self.session, node, self.opsets[""], known, wanted, at)
        check_schema(ctx, ctx.opset)
        try:
            return flow(ctx, open_)
        except Incomplete:
            return [UNKNOWN] * len(node.output)
        except (Refused, ModelError, RecursionError, MemoryError):
            raise
        except Exception as e:
            raise ctx.invalid(f"{node.op_type} does not accept its inputs, attributes or subgraphs") from e
