"""Labels that are tied together, by union-find, and those that stay."""

from __future__ import annotations

import numpy as np

from bitc.ir.graph import Array

PINNED = 0
"""The label of what always stays."""


class Labels:
    """Labels are the integers from 0 on; those tied together have one root."""

    def __init__(self) -> None:
        self._parent = [PINNED]
        self._needed = [PINNED]

    def new(self, shape: tuple[int, ...]) -> Array:
        """Labels that are tied to no other."""
        first = len(self._parent)
        self._parent.extend(range(first, first + int(np.prod(shape))))
        return np.arange(first, len(self._parent)).reshape(shape)

    def tie(self, a: Array, b: Array) -> None:
        """Tie the labels of two arrays of one shape, element by element."""
        for x, y in np.unique(np.stack([a.reshape(-1), b.reshape(-1)], axis=1), axis=0):
            self._parent[self._root(int(x))] = self._root(int(y))

    def need(self, labels: Array) -> None:
        """These stay, and what is tied to them."""
        self._needed.extend(int(i) for i in np.unique(labels))

    def roots(self) -> Array:
        """The root of each label."""
        return np.array([self._root(i) for i in range(len(self._parent))])

    def live(self) -> Array:
        """Whether each label stays."""
        roots = self.roots()
        return np.asarray(np.isin(roots, roots[self._needed]))

    def _root(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i
