"""From a graph with chosen kernels to a program."""

from bitc.lower.lower import lower
from bitc.lower.stages import RowCache

__all__ = ["RowCache", "lower"]
