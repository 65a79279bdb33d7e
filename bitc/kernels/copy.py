"""Copying a tensor as it lies in memory."""

from __future__ import annotations

from bitc.ir.graph import Value
from bitc.ir.program import c_size
from bitc.kernels.step import Arg, Step


def copy_step(x: Value, y: Value) -> Step:
    """y = x, both of the same type."""
    args = (Arg("y", y, written=True), Arg("x", x))
    return Step("copy", "kernels/copy.j2", args, {"size": c_size(x.type)}, ("bitc_defs.h",))


def zero_step(y: Value) -> Step:
    """y = 0, of a dense type."""
    return fill_step(y, "0")


def fill_step(y: Value, value: str) -> Step:
    """Every word of y is the value of a C expression."""
    context = {"size": c_size(y.type), "value": value}
    return Step("fill", "kernels/fill.j2", (Arg("y", y, written=True),), context, ("bitc_defs.h",))
