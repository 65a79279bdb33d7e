"""From a program and its memory plan to C text."""

from bitc.codegen.emit import Options, emit

__all__ = ["Options", "emit"]
