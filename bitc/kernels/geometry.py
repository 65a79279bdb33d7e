"""Sliding windows as the numbers that a loop skeleton needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bitc.ir.types import TensorType
from bitc.ops.window import Window


@dataclass(frozen=True)
class Geometry:
    """Loop bounds of a window over ``[n, h, w, c]``. Windows of one element at stride 1 run over one long row."""

    n: int
    h: int
    w: int
    oh: int
    ow: int
    kh: int
    kw: int
    sy: int
    sx: int
    pt: int
    pl: int
    dy: int
    dx: int
    border: bool
    """Whether some window reaches over the edge."""

    @property
    def taps(self) -> int:
        return self.kh * self.kw

    @property
    def pixels(self) -> int:
        return self.n * self.oh * self.ow

    @property
    def context(self) -> dict[str, Any]:
        return {**asdict(self), "taps": self.taps}


def geometry(x: TensorType, window: Window, planar: bool = False) -> Geometry:
    """The loops of `window` over x, given as pixels even if it lies in planes."""
    n, h, w = x.shape[:3]
    oh, ow = window.out_size((h, w))
    (kh, kw), (sy, sx), (dy, dx) = window.kernel, window.strides, window.dilations
    pt, pl = window.pads[:2]
    bottom, right = (oh - 1) * sy - pt + (kh - 1) * dy, (ow - 1) * sx - pl + (kw - 1) * dx
    border = pt > 0 or pl > 0 or bottom >= h or right >= w
    if (kh, kw, sy, sx) == (1, 1, 1, 1) and not border and not planar:
        return Geometry(1, 1, n * h * w, 1, n * h * w, 1, 1, 1, 1, 0, 0, 1, 1, False)
    return Geometry(n, h, w, oh, ow, kh, kw, sy, sx, pt, pl, dy, dx, border)
