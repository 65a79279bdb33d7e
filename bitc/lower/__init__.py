"""From a graph with chosen kernels to a program."""

from bitc.lower.lower import lower

__all__ = ["lower"]
