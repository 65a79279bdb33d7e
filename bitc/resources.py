"""Where templates/, runtime_c/ and targets/ are: the only code that knows.

In a checkout they are siblings of the package; in a wheel they lie in ``bitc/_data`` (see ``pyproject.toml``).
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_DATA = _PACKAGE / "_data"


def root() -> Path:
    """The folder that holds ``templates``, ``runtime_c`` and ``targets``."""
    return _DATA if _DATA.is_dir() else _PACKAGE.parent


def templates() -> Path:
    return root() / "templates"


def runtime_c() -> Path:
    return root() / "runtime_c"


def targets() -> Path:
    return root() / "targets"
