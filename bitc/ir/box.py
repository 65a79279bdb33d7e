"""Windows of pixels: rectangles of an ``[N, H, W, C]`` tensor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """Rows ``top <= y < bottom`` and columns ``left <= x < right``. It may reach over the edges of a tensor."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left

    def inside(self, size: tuple[int, int]) -> Box:
        """The part inside a tensor of `size` rows and columns; empty at its edge if there is none."""
        top, left = min(max(self.top, 0), size[0]), min(max(self.left, 0), size[1])
        bottom, right = min(max(self.bottom, top), size[0]), min(max(self.right, left), size[1])
        return Box(top, bottom, left, right)

    def beyond(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """How far it reaches over the (top, left, bottom, right) edges of a tensor of `size`: the pads of a window."""
        part = self.inside(size)
        return part.top - self.top, part.left - self.left, self.bottom - part.bottom, self.right - part.right

    def __or__(self, other: Box) -> Box:
        """The smallest box that holds both."""
        return Box(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )
