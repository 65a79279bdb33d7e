"""The window of one output pixel as runs of adjacent elements, and the order in which a kernel takes their products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bitc.ir.graph import Array, Node
from bitc.kernels.geometry import Geometry, geometry
from bitc.ops.linear import Conv2D

GROUP = 4
"""Elements that are loaded as one word."""


@dataclass(frozen=True)
class Runs:
    """Runs of `length` adjacent elements of x. There is one for each kernel row, for each tap where taps are apart
    (`split`: dilation, groups, rows of x that lie apart), and for each channel and row of planar images. `whole` words
    of four elements of each run come first, run after run, then what is left of the runs."""

    count: int
    length: int
    split: bool
    whole: int
    index: tuple[int, ...]
    """Of each element of each run: its index among the weights ``[kh, kw, C]`` of an output."""

    @property
    def rest(self) -> int:
        """Elements of each run that fill no word."""
        return self.length - GROUP * self.whole

    @property
    def elements(self) -> int:
        return self.count * self.length

    def order(self, step: int, within: tuple[int, ...] = tuple(range(GROUP))) -> Array:
        """Indices of weights in the order of the products, -1 for none: words with their elements in the order
        `within`, then the rest, up to a multiple of `step`."""
        at = np.array(self.index).reshape(self.count, self.length)
        words = at[:, : GROUP * self.whole].reshape(-1, GROUP)[:, list(within)]
        found = np.concatenate([words.reshape(-1), at[:, GROUP * self.whole :].reshape(-1)])
        return np.concatenate([found, np.full(-len(found) % step, -1)])


def runs(node: Node) -> tuple[Geometry, Runs]:
    """Of a convolution with constant weights."""
    op, x, w = node.op, node.input(0), node.input(1)
    assert isinstance(op, Conv2D)
    geo = geometry(op.pixels(x.type), op.window, op.planar)
    kh, kw, channels = w.shape[1:]
    at = np.arange(kh * kw * channels).reshape(kh, kw, channels)
    if op.planar:
        split = geo.dx > 1
        at = at.transpose(2, 0, 1)  # channels, rows, columns
        length = 1 if split else kw
        return geo, Runs(at.size // length, length, split, 0, tuple(at.reshape(-1).tolist()))
    split = geo.dx > 1 or op.group > 1 or (x.type.layout.pitch > 0 and kw > 1)
    length = channels if split else kw * channels
    return geo, Runs(at.size // length, length, split, length // GROUP, tuple(at.reshape(-1).tolist()))


def in_one_run(node: Node, geo: Geometry, found: Runs) -> bool:
    """Whether the window of a pixel is what lies in x, from the pixel's first element on."""
    x = node.input(0).type
    whole = found.elements == x.size // geo.pixels and found.index == tuple(range(found.elements))
    return whole and not geo.border and (not x.layout.pitch or geo.taps == 1)


def numbers(node: Node, geo: Geometry, found: Runs) -> dict[str, Any]:
    """The context of templates/kernels/window.j2."""
    op, x = node.op, node.input(0).type
    assert isinstance(op, Conv2D)
    channels = op.pixels(x).channels
    x_row = 1 if op.planar else x.row_step
    return {
        **geo.context,
        "runs": found,
        "planar": op.planar,
        "x_row": x_row,
        "x_plane": geo.h * geo.w,
        "x_image": geo.h * geo.w * (channels if op.planar else x_row),
        "channels": channels // op.group,
    }
