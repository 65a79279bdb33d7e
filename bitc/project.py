"""Writing the C project: all of it or nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bitc.errors import UsageError

REPORT = "report.json"


def write_file(path: Path, data: bytes) -> None:
    """Write a file, all of it or nothing. Raises UsageError."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)  # noqa: PTH105  (one name, on every system)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise _explained(path, error) from None


def write_project(folder: Path, files: Mapping[str, bytes], *, force: bool = False) -> None:
    """Write `files` (paths relative to `folder`) so that a failure leaves the folder as it was.

    A folder that exists must be empty, hold an earlier project of ours, or `force` is given. Raises UsageError.
    """
    folder = folder.absolute()
    try:
        _check(folder, files, force)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as staging:
            made = Path(staging) / "project"
            for name, data in files.items():
                path = made / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            _move(made, folder, files)
    except OSError as error:
        raise _explained(folder, error) from None


def _check(folder: Path, files: Mapping[str, bytes], force: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError("the output is a file, not a folder", where=str(folder), hint="give -o another folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "not writable", str(folder))
    ours = set(files) | _earlier(folder)
    foreign = sorted(p.name for p in folder.iterdir() if p.name not in {n.split("/")[0] for n in ours})
    if foreign and not force:
        shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise UsageError(
            f"the output folder holds other files: {shown}",
            where=str(folder),
            hint="give -o an empty folder, or --force to write beside them",
        )


def _earlier(folder: Path) -> set[str]:
    """Files of the project that an earlier run has written here."""
    try:
        names = json.loads((folder / REPORT).read_text(encoding="utf-8"))["files"]
        return {str(n) for n in names}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _move(made: Path, folder: Path, files: Mapping[str, bytes]) -> None:
    """Put the finished files in place; the report last, since it says that the project is complete."""
    if not folder.exists():
        made.rename(folder)
        return
    for stale in _earlier(folder) - set(files):
        (folder / stale).unlink(missing_ok=True)
    for name in sorted(files, key=lambda n: n == REPORT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).replace(folder / name)
    shutil.rmtree(made, ignore_errors=True)


def _explained(folder: Path, error: OSError) -> UsageError:
    reason = error.strerror or str(error)
    hint = (
        "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "give -o a folder that you can write to"
    )
    return UsageError(f"can not write the output: {reason}", where=str(folder), hint=hint)
