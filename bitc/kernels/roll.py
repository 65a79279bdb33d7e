"""Moving what is still needed: to the start of its buffer, or to another one."""

from __future__ import annotations

from functools import cache

from bitc.ir.program import Function, Param

WORDS = (4, 2, 1)
"""Bytes that are moved at once, where everything is a multiple of them."""


@cache
def roll(size: int, shift: int) -> Function:
    """The function that moves `size` bytes from byte `shift` to the start. Its only argument is the buffer, aligned to
    four bytes."""
    word = next(w for w in WORDS if size % w == shift % w == 0)
    t = "uint8_t" if word == 1 else f"bitc_u{8 * word}"
    context = {"size": size // word, "shift": shift // word}
    return Function("roll", "kernels/roll.j2", (Param("x", t, False, False),), context, ("bitc_defs.h",))


@cache
def move(size: int, multiple: int) -> Function:
    """The function that copies `size` bytes from one buffer to another; both places are multiples of `multiple` bytes
    from where a buffer starts, aligned to four."""
    word = next(w for w in WORDS if size % w == multiple % w == 0)
    t = "uint8_t" if word == 1 else f"bitc_u{8 * word}"
    params = (Param("y", t, False), Param("x", t))
    return Function("move", "kernels/copy.j2", params, {"size": size // word}, ("bitc_defs.h",))
