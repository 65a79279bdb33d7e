"""Trigonometric and hyperbolic functions of float32."""

from __future__ import annotations

from dataclasses import dataclass

from bitc.ir.graph import Array
from bitc.ops import trig32
from bitc.ops.unary import Unary


class Trigonometric(Unary):
    """Base: functions of ``bitc_trig.h``."""


@dataclass(frozen=True)
class Sin(Trigonometric):
    def compute(self, x: Array) -> Array:
        return trig32.sin(x)


@dataclass(frozen=True)
class Cos(Trigonometric):
    def compute(self, x: Array) -> Array:
        return trig32.cos(x)


@dataclass(frozen=True)
class Tan(Trigonometric):
    def compute(self, x: Array) -> Array:
        return trig32.tan(x)


@dataclass(frozen=True)
class Asin(Trigonometric):
    """NaN outside -1 to 1, hence no direction."""

    def compute(self, x: Array) -> Array:
        return trig32.asin(x)


@dataclass(frozen=True)
class Acos(Trigonometric):
    """NaN outside -1 to 1, hence no direction."""

    def compute(self, x: Array) -> Array:
        return trig32.acos(x)


@dataclass(frozen=True)
class Atan(Trigonometric):
    def compute(self, x: Array) -> Array:
        return trig32.atan(x)


@dataclass(frozen=True)
class Sinh(Trigonometric):
    def compute(self, x: Array) -> Array:
        return trig32.sinh(x)


@dataclass(frozen=True)
class Cosh(Trigonometric):
    def compute(self, x: Array) -> Array:
        return trig32.cosh(x)


@dataclass(frozen=True)
class Asinh(Trigonometric):
    def compute(self, x: Array) -> Array:
        return trig32.asinh(x)


@dataclass(frozen=True)
class Acosh(Trigonometric):
    """NaN below 1, hence no direction."""

    def compute(self, x: Array) -> Array:
        return trig32.acosh(x)


@dataclass(frozen=True)
class Atanh(Trigonometric):
    """NaN outside -1 to 1, hence no direction."""

    def compute(self, x: Array) -> Array:
        return trig32.atanh(x)
