"""Run a tool, and turn its failure into a ToolchainError that holds what it said."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from bitc.errors import ToolchainError


def run(
    command: Sequence[str],
    what: str,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seconds: float = 600.0,
    hint: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run to the end. `what` says, in an error, what could not be done. Raises ToolchainError."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            cwd=cwd,
            env={**os.environ, **env} if env else None,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise ToolchainError(f"{what}: no program {command[0]}", hint=hint or "install it or check the path") from error
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(f"{what}: no end after {seconds:g} s", hint=hint) from error
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip()
        raise ToolchainError(f"{what}: exit code {done.returncode}", hint=hint, detail=said)
    return done


@cache
def zig() -> Path:
    """The zig program of the `ziglang` wheel. Raises ToolchainError if it is not installed."""
    try:
        import ziglang
    except ImportError as error:
        raise ToolchainError("the ziglang package is missing", hint="pip install ziglang==0.17.0") from error
    base = Path(ziglang.__file__).parent
    return next((p for p in (base / "zig", base / "zig.exe") if p.is_file()), base / "zig")


@cache
def zig_version() -> str:
    return run([str(zig()), "version"], "asking zig for its version").stdout.strip()


def program(name: str, hint: str) -> str:
    """The path of an installed program. Raises ToolchainError with the hint if there is none."""
    path = shutil.which(name)
    if path is None:
        raise ToolchainError(f"{name} is not installed", hint=hint)
    return path
