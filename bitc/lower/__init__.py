"""From a graph with chosen kernels to a program."""

from bitc.lower.lower import lower
from bitc.lower.parts import Apart, ways
from bitc.lower.stages import RowCache

__all__ = ["Apart", "RowCache", "lower", "ways"]
