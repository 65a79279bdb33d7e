"""Jinja2: from kernel functions to C text. The only user of jinja2."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import jinja2

from bitc import resources
from bitc.codegen.tidy import tidy
from bitc.ir.program import Function
from bitc.kernels.literals import c_double, c_float, c_int


@cache
def _environment() -> jinja2.Environment:
    """One for all models, so that a template is parsed once."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.templates()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    env.filters |= {"c_float": c_float, "c_double": c_double, "c_int": c_int}
    return env


_ITSELF = "THIS_FUNCTION"
"""What stands for a function's own name in its template."""


class Renderer:
    """Renders templates; identical functions get one name."""

    def __init__(self) -> None:
        self.env = _environment()
        self._names: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self.texts: list[str] = []
        """Definitions of the functions, in order of first use."""

    def function(self, function: Function) -> str:
        """The C name of a function, which is added to `texts` when it is new."""
        head = f"({', '.join(map(str, function.params))})"
        body = tidy(self.env.get_template(function.template).render(function.context))
        key = head + body
        if key not in self._names:
            index = self._counts.get(function.kernel, 0)
            self._counts[function.kernel] = index + 1
            name = f"{function.kernel}_{index}"
            self._names[key] = name
            text = f"{_wrapped(f'BITC_KERNEL void {name}', head)} {{\n{body}}}"
            self.texts.append(tidy(text.replace(_ITSELF, name)))
        return self._names[key]

    def preludes(self, uses: Iterable[str]) -> list[str]:
        """The ISA primitives that functions use, each once: ``template.j2``, or ``template.j2#part`` for templates of
        which only some parts are used."""
        parts: dict[str, set[str]] = {}
        for use in uses:
            template, _, part = use.partition("#")
            if template.endswith(".j2"):
                parts.setdefault(template, set()).update({part} - {""})
        return [tidy(self.env.get_template(t).render(parts=sorted(parts[t]))) for t in sorted(parts)]

    def file(self, template: str, **context: object) -> str:
        return self.env.get_template(template).render(context)


def _wrapped(start: str, parameters: str) -> str:
    """The head of a function, its parameters on lines of their own where one line is too short."""
    if len(start) + len(parameters) + 2 <= 120:
        return start + parameters
    return start + "(\n" + ",\n".join(f"        {p.strip()}" for p in parameters[1:-1].split(",")) + ")"
