"""How results look on a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.table import Table

_NOTES = Console(stderr=True, highlight=False)


def _results() -> Console:
    # Made per call: click's test runner swaps stdout. A pipe gets tables wide enough not to break words.
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def emit_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2))


def notices(lines: Iterable[str]) -> None:
    """Things the user should know, on stderr."""
    for line in lines:
        click.echo(f"note: {line}", err=True)


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[int] = ()) -> None:
    """A table on stdout, if it has rows; the columns `right` are aligned to the right."""
    rows, numbers = list(rows), set(right)
    if not rows:
        return
    shown = Table(box=None, pad_edge=False)
    for i, name in enumerate(header):
        shown.add_column(name, justify="right" if i in numbers else "left", overflow="fold")
    for row in rows:
        shown.add_row(*("" if c is None else count(c) if type(c) is int else str(c) for c in row))
    console = _results()
    if title:
        console.print(f"\n{title}", style="bold")
    console.print(shown)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Lines of name and value on stdout; absent values are left out."""
    known = [
        (k, count(v) if isinstance(v, int) and not isinstance(v, bool) else str(v)) for k, v in pairs if v is not None
    ]
    width = max((len(k) for k, _ in known), default=0)
    for key, value in known:
        click.echo(f"{key:<{width}}  {value}")


def count(value: int) -> str:
    return f"{value:,}"


@contextmanager
def progress(what: str) -> Iterator[None]:
    """A spinner on a terminal; nothing in a pipe or in CI."""
    if not _NOTES.is_terminal:
        yield
        return
    with _NOTES.status(what):
        yield
