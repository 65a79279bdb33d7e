"""The folder in which bitc keeps what is slow to make and the same for every model."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bitc.errors import ToolchainError


def folder() -> Path:
    """`$BITC_CACHE`, else `$XDG_CACHE_HOME/bitc`, else `~/.cache/bitc`. Created if it is missing."""
    chosen = os.environ.get("BITC_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(chosen) if chosen else Path(base) / "bitc"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolchainError(
            f"can not create the cache folder: {error}", hint="set BITC_CACHE to a writable folder"
        ) from error
    return path


def file(name: str, make: Callable[[Path], None]) -> Path:
    """The cached file `name`; `make(path)` writes it where it is missing.

    Processes that need it at the same time wait for the first. The rename is atomic, so nobody sees half a file.
    """
    target = folder() / name
    if not target.is_file():
        with _lock(target.with_suffix(".lock")), tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            if not target.is_file():
                made = Path(scratch) / target.name
                make(made)
                made.replace(target)
    return target


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a file lock; where there is none (Windows), racing processes do the work twice."""
    with path.open("w") as handle:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
