"""What a kernel has to do, in countable terms: how often it steps, reads a tap, puts an output.

A row counts its terms (`Variant.work`); `bitc.kernels.costs` has their prices in instructions, per kind of chip.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from bitc.ir.graph import Node
from bitc.kernels.geometry import Geometry, geometry
from bitc.ops.epilogue import Bases, TernThreshold, Threshold
from bitc.ops.linear import Conv2D

Work = dict[str, float]
"""Terms with their numbers; terms that do not occur are left out or 0."""


@dataclass(frozen=True)
class Windows:
    """The windows of a convolution, counted."""

    pixels: int
    inside: int
    """Pixels whose window lies inside the input."""
    taps: int
    """Taps that lie inside the input, over all pixels."""
    rows: int
    """Rows of windows that lie inside the input, at least in part, over all pixels."""
    empty: int
    """Pixels whose window lies outside the input, as dilated ones of small inputs may."""

    @property
    def border(self) -> int:
        return self.pixels - self.inside


def windows(geo: Geometry) -> Windows:
    """Count the windows of a geometry; the axes are independent."""
    down = taps_inside(geo.oh, geo.sy, geo.pt, geo.kh, geo.dy, geo.h)
    across = taps_inside(geo.ow, geo.sx, geo.pl, geo.kw, geo.dx, geo.w)
    return Windows(
        pixels=geo.pixels,
        inside=geo.n * down.count(geo.kh) * across.count(geo.kw),
        taps=geo.n * sum(down) * sum(across),
        rows=geo.n * sum(down) * geo.ow,
        empty=geo.pixels - geo.n * (geo.oh - down.count(0)) * (geo.ow - across.count(0)),
    )


@lru_cache(maxsize=4096)
def taps_inside(count: int, stride: int, pad: int, kernel: int, dilation: int, size: int) -> tuple[int, ...]:
    """Taps inside the input, for each position along one axis."""
    starts = (i * stride - pad for i in range(count))
    return tuple(sum(0 <= start + t * dilation < size for t in range(kernel)) for start in starts)


def convolution(node: Node) -> tuple[Work, Windows]:
    """The terms that all convolutions have: the call, its pixels, those at the border, and outputs put by epilogue."""
    op, x = node.op, node.input(0)
    assert isinstance(op, Conv2D)
    found = windows(geometry(op.pixels(x.type), op.window, op.planar))
    outputs = found.pixels * node.input(1).shape[0]
    return {"call": 1, "pixels": found.pixels, "border": found.border, put(node): outputs}, found


def put(node: Node) -> str:
    """The term for one accumulator of a node with an epilogue."""
    op = node.op
    assert isinstance(op, Conv2D)
    if op.epilogue is None:
        return "put raw"
    if isinstance(op.epilogue, Bases):  # each accumulator is multiplied by a factor
        return "put raw" if isinstance(op.epilogue.then, Threshold | TernThreshold) else "put affine"
    names = [n for n, v in zip(op.epilogue.param_names, node.inputs[2:], strict=False) if v is not None]
    flips = "flip" in names and node.inputs[2 + names.index("flip")] is not None
    return f"put {type(op.epilogue).__name__.lower()}{' flip' if flips else ''}"
