"""Program + MemoryPlan + Target → {file name: text}. Pure: nothing is read but templates, nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bitc import resources
from bitc.codegen.interface import members
from bitc.codegen.render import Renderer
from bitc.ir.plan import MemoryPlan
from bitc.ir.program import Buffer, Call, Done, Item, Kind, Layer, Loop, NextRow, Place, Program, c_size, walk
from bitc.kernels.literals import Names, identifier, initializer, words
from bitc.target import Target

RUNTIME = ("bitc_defs.h", "bitc_math.h")
"""Headers that ship with every model; others ship where they are used."""


AS_WORDS = 4096
"""Bytes from which on a constant is written as words and not as numbers that can be read."""


@dataclass(frozen=True)
class Options:
    """What the user may choose about the form of the output."""

    banner: str = ""
    """A line for the head of every file, e.g. the version of bitc and the name of the model file."""
    lengths: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Outputs that are as long as the data says: the axis, and the output that holds the length."""


@dataclass(frozen=True)
class _Constant:
    """An array in flash. Large ones are words of 64 bits, whatever they hold: compilers take the fewest numbers
    fastest."""

    name: str
    c_type: str
    size: int
    """Elements."""
    text: str


@dataclass(frozen=True)
class _Statement:
    """One statement as text."""

    text: str
    depth: int
    """Number of enclosing loops."""
    comment: str = ""
    """Set at the first call of a layer."""


def emit(
    program: Program, plan: MemoryPlan, target: Target, name: str, options: Options | None = None
) -> dict[str, str]:
    """Every file of the C project. `name` becomes the prefix of all symbols, in lower case."""
    prefix = identifier(name).lower()
    return _Emitter(program, plan, target, prefix, options or Options()).files()


class _Emitter:
    def __init__(self, program: Program, plan: MemoryPlan, target: Target, prefix: str, options: Options) -> None:
        self.program, self.plan, self.target, self.prefix, self.options = program, plan, target, prefix, options
        self.renderer = Renderer()
        self.names = Names()
        self.described: set[int] = set()
        self.constants: dict[tuple[str, bytes], _Constant] = {}
        self.inputs = members(program.inputs)
        self.outputs = members(program.outputs, options.lengths)
        self.paths = {b: f"in->{m.name}" for b, m in zip(program.inputs, self.inputs, strict=True)}
        self.paths |= {b: f"out->{m.name}" for b, m in zip(program.outputs, self.outputs, strict=True)}
        self.counters: list[str] = []
        """Names of the counters of the loops around what is written."""
        self.waits = 0
        """How many places there are that wait for a row."""
        if program.row:
            self.paths[program.row] = "row"

    def files(self) -> dict[str, str]:
        statements = list(self._statements(self.program.body, 0))
        uses = [u for call in self.program.calls for u in call.function.uses]
        common = {
            "prefix": self.prefix,
            "upper": self.prefix.upper(),
            "options": self.options,
            "target": self.target,
            "constants": list(self.constants.values()),
        }
        headers = sorted({u for u in uses if u.endswith(".h")} | {"bitc_defs.h"})
        files = {
            f"{self.prefix}.h": self._header(common),
            f"{self.prefix}.c": self.renderer.file(
                "model.c.j2",
                **common,
                headers=headers,
                preludes=self.renderer.preludes(uses),
                functions=self.renderer.texts,
                statements=statements,
                inputs=self.inputs,
                outputs=self.outputs,
                checks=self.target.c_checks,
                state_bytes=self.plan.state_bytes,
                stream=self._stream(),
                input_offset=self._input_offset,
                input_size=self.program.input.type.nbytes if self.program.input else None,
            ),
            f"{self.prefix}_weights.c": self.renderer.file("weights.c.j2", **common),
            "CMakeLists.txt": self.renderer.file("CMakeLists.txt.j2", **common),
        }
        shipped = [*RUNTIME, *(h for h in headers if h not in RUNTIME)]
        return files | {h: (resources.runtime_c() / h).read_text(encoding="utf-8") for h in shipped}

    def _header(self, common: dict[str, object]) -> str:
        return self.renderer.file(
            "model.h.j2",
            **common,
            inputs=self.inputs,
            outputs=self.outputs,
            arena_bytes=self.plan.arena_bytes,
            arena_align=self.plan.arena_align,
            weights_bytes=self.program.weights_bytes,
            input_offset=self._input_offset,
            states=[f"{b.name}: {b.type}".replace("*/", "* /") for b in self.program.states],
            state_bytes=self.plan.state_bytes,
            stream=self._stream(),
        )

    def _stream(self) -> dict[str, object] | None:
        """What the templates need to know of an input that comes by rows."""
        p = self.program
        if p.row is None or p.progress is None:
            return None
        _, height, width, channels = p.inputs[0].type.shape
        member, at = self.inputs[0], self.plan.offset(p.progress)
        size = c_size(p.row.type)
        return {"m": member, "rows": height, "width": width, "channels": channels, "size": size, "at": at}

    @property
    def _input_offset(self) -> int | None:
        """Where the inputs lie in the arena, if they do."""
        return self.plan.offset(self.program.input) if self.program.input else None

    def _statements(self, items: Sequence[Item], depth: int) -> Iterator[_Statement]:
        for item in items:
            if isinstance(item, Loop):
                resumed = any(isinstance(j, NextRow) for j in walk(item.body))
                i = f"at[{depth + 1}]" if resumed else f"i{depth}"
                self.counters.append(i)
                more = f" && *{self._pointer(item.condition, 'uint8_t', True)}" if item.condition else ""
                head = f"for ({'' if resumed else 'int '}{i} = 0; {i} < {item.count}{more}; {i}++) {{"
                yield _Statement(head, depth)
                yield from self._statements(item.body, depth + 1)
                yield _Statement("}", depth)
                self.counters.pop()
            elif isinstance(item, NextRow):
                self.waits += 1
                yield _Statement(f"NEXT_ROW({self.waits});", depth)
            elif isinstance(item, Done):
                data = self._pointer(Place(item.buffer), "void", is_const=True)
                size = 0 if item.apart else item.buffer.type.nbytes
                yield _Statement(f"LAYER_DONE({item.layer}, {data}, {size}ul);", depth)
            else:
                yield self._call(item, depth)

    def _call(self, call: Call, depth: int) -> _Statement:
        new = call.layer not in self.described
        self.described.add(call.layer)
        function = call.function
        shared = {i for pair in self._sharing(call) for i in pair}
        if shared:
            params = (replace(p, restrict=False) if i in shared else p for i, p in enumerate(function.params))
            function = replace(function, params=tuple(params))
        pointers = (self._pointer(place, p.c_type, p.is_const)
                    for place, p in zip(call.args, function.params, strict=True))  # fmt: skip
        comment = _describe(call.layer, self.program.layers[call.layer]) if new else ""
        return _Statement(f"{self.renderer.function(function)}({', '.join(pointers)});", depth, comment)

    def _sharing(self, call: Call) -> Iterator[tuple[int, int]]:
        """The arguments of which one is written where the other lies."""
        kinds = (Kind.ARENA, Kind.STATE)
        for w in call.writes:
            for i, place in enumerate(call.args):
                y, x = call.args[w].within, place.within
                if i != w and y.root.kind in kinds and x.root.kind in kinds and self.plan.overlap(y, x):
                    yield w, i

    def _pointer(self, place: Place, c_type: str, is_const: bool) -> str:
        root, const = place.buffer.root, "const " if is_const else ""
        pointer, steps = (
            f"({const}{c_type} *)",
            "".join(_step(self.counters[i], s) for i, s in enumerate(place.steps) if s),
        )
        if root.kind in (Kind.ARENA, Kind.STATE):
            offset = self.plan.offset(place.buffer) + place.offset
            at = f"mem + {offset}{steps}" if offset else f"mem{steps}"
            return at if c_type == "void" else f"{pointer}(void *)({at})"
        if root.kind is Kind.CONST:
            constant = self._constant(root)
            text, stored = constant.name, constant.c_type
        else:
            text, stored = self.paths[root], root.c_type
        offset = place.buffer.start + place.offset
        if offset or steps:
            offset_text = f" + {offset}" if offset else ""
            return f"{pointer}({const}void *)(({const}unsigned char *){text}{offset_text}{steps})"
        return text if c_type in (stored, "void") else f"{pointer}({const}void *){text}"

    def _constant(self, b: Buffer) -> _Constant:
        """The array that holds a buffer's data: one for all buffers with the same bytes."""
        data = b.array.tobytes()
        large = len(data) >= AS_WORDS
        key = ("uint64_t" if large else b.c_type, data)
        if key not in self.constants:
            name = self.names.unique(f"{self.prefix}_{b.name}")
            text, size = (words(data), -(-len(data) // 8)) if large else (initializer(b.array), max(c_size(b.type), 1))
            self.constants[key] = _Constant(name, key[0], size, text)
        return self.constants[key]


def _step(counter: str, step: int) -> str:
    """What a loop adds to a pointer."""
    return f" {'+' if step > 0 else '-'} {counter} * {abs(step)}"


def _describe(index: int, layer: Layer) -> str:
    """The comment above a layer."""
    parts = [f"{index}: {layer.op} {layer.name}".replace("*/", "* /").replace("/*", "/ *"), layer.text, layer.kernel]
    if layer.macs:
        parts.append(f"{layer.macs} {layer.kind} MACs")
    if layer.weights_bytes:
        parts.append(f"{layer.weights_bytes} bytes of constants")
    return "; ".join(p for p in parts if p)
