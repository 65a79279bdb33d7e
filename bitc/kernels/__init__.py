"""Kernel rows, layouts and selection: from a node to the C function that computes it."""

from bitc.kernels.few_bits import choose_few_bits
from bitc.kernels.layout import assign_layouts
from bitc.kernels.select import Choice, Goal, Selection, choose, select
from bitc.kernels.step import Variant

__all__ = ["Choice", "Goal", "Selection", "Variant", "assign_layouts", "choose", "choose_few_bits", "select"]
