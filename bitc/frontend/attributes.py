"""Attributes of an ONNX node, read with a type and a default, so that what nobody read can be refused."""

from __future__ import annotations

from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

from bitc.errors import InvalidModel


class Attributes:
    """The attributes of one node. Each reader raises InvalidModel if the attribute has another type."""

    def __init__(self, node: NodeProto, where: str) -> None:
        self._where = where
        self._all: dict[str, AttributeProto] = {a.name: a for a in node.attribute}
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._all

    def _get(self, name: str, *kinds: int) -> AttributeProto | None:
        self._read.add(name)
        attribute = self._all.get(name)
        if attribute is None:
            return None
        if attribute.ref_attr_name or attribute.type not in (*kinds, AttributeProto.UNDEFINED):
            raise self.invalid(f"attribute {name!r} has the wrong type")
        return attribute

    def invalid(self, what: str) -> InvalidModel:
        return InvalidModel(what, where=self._where, hint="the node is malformed; export the model again")

    def int_(self, name: str, default: int | None = None) -> int:
        """An integer; required if there is no default."""
        a = self._get(name, AttributeProto.INT)
        if a is None:
            if default is None:
                raise self.invalid(f"attribute {name!r} is missing")
            return default
        return int(a.i)

    def flag(self, name: str, default: bool = False) -> bool:
        """An integer that stands for a bool: 0 or 1."""
        value = self.int_(name, int(default))
        if value not in (0, 1):
            raise self.invalid(f"attribute {name!r} is {value}, neither 0 nor 1")
        return value == 1

    def float_(self, name: str, default: float | None = None) -> float:
        a = self._get(name, AttributeProto.FLOAT, AttributeProto.INT)
        if a is None:
            if default is None:
                raise self.invalid(f"attribute {name!r} is missing")
            return default
        return float(a.i if a.type == AttributeProto.INT else a.f)

    def str_(self, name: str, default: str = "") -> str:
        a = self._get(name, AttributeProto.STRING)
        return default if a is None else a.s.decode("utf-8", "replace")

    def ints(self, name: str) -> tuple[int, ...] | None:
        a = self._get(name, AttributeProto.INTS)
        return None if a is None else tuple(int(i) for i in a.ints)

    def floats(self, name: str) -> tuple[float, ...] | None:
        a = self._get(name, AttributeProto.FLOATS)
        return None if a is None else tuple(float(f) for f in a.floats)

    def strs(self, name: str) -> tuple[str, ...] | None:
        a = self._get(name, AttributeProto.STRINGS)
        return None if a is None else tuple(s.decode("utf-8", "replace") for s in a.strings)

    def tensor(self, name: str) -> TensorProto | None:
        a = self._get(name, AttributeProto.TENSOR)
        return None if a is None else a.t

    def graph(self, name: str) -> GraphProto:
        a = self._get(name, AttributeProto.GRAPH)
        if a is None:
            raise self.invalid(f"attribute {name!r} is missing")
        return a.g

    def ignore(self, *names: str) -> None:
        """Accept attributes that do not change the result."""
        self._read.update(names)

    def unread(self) -> list[str]:
        """Attributes that no reader asked for; names that start with an underscore are annotations of exporters."""
        return sorted(n for n in self._all if n not in self._read and not n.startswith("_"))
