"""Product of two computed matrices of float32 in register tiles: some rows by some vectors of columns.

Each sum is made one product at a time, in the order of the inner axis. The last tile of a row or column may overlap the
one before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bitc.ir.dtypes import FLOAT32
from bitc.ir.graph import Node
from bitc.kernels.depthwise_products import LANE_ISAS, LaneIsa
from bitc.kernels.loops import broadcast_strides, index, nest
from bitc.kernels.step import Arg, Step, Variant, first_reason, out
from bitc.ops.linear import MatMul
from bitc.target import Target


@dataclass(frozen=True)
class Sizes:
    """``[m, k]`` times ``[k, n]`` for all of `batch`; where an operand moves by a matrix, its size, else 0."""

    batch: tuple[int, ...]
    m: int
    k: int
    n: int
    steps: tuple[list[int], list[int]]

    @property
    def context(self) -> dict[str, Any]:
        """Of the loops over the batch, and the sizes."""
        dims = nest(self.batch, self.steps)
        return {
            "dims": [d.size for d in dims],
            "a_index": index(dims, 0),
            "b_index": index(dims, 1),
            "m": self.m,
            "k": self.k,
            "n": self.n,
        }


def sizes(node: Node) -> Sizes:
    """Of a MatMul, with vectors as matrices of one row or column."""
    a, b, y = node.input(0), node.input(1), node.output
    left = a.shape if a.type.rank > 1 else (1, *a.shape)
    right = b.shape if b.type.rank > 1 else (*b.shape, 1)
    m, k, n = left[-2], left[-1], right[-1]
    batch = y.shape[: y.type.rank - (a.type.rank > 1) - (b.type.rank > 1)]
    steps = tuple([s * size for s in broadcast_strides(shape, batch)]
                  for shape, size in ((left[:-2], m * k), (right[:-2], k * n)))  # fmt: skip
    return Sizes(batch, m, k, n, (steps[0], steps[1]))


@dataclass(frozen=True)
class Tile:
    """`rows` by `vectors` of an instruction set."""

    isa: LaneIsa
    rows: int
    vectors: int

    @property
    def columns(self) -> int:
        return self.vectors * self.isa.lanes

    def cost(self, s: Sizes) -> float:
        """Instructions for one product of matrices, roughly."""
        tiles = -(-s.m // self.rows) * -(-s.n // self.columns)
        return tiles * (s.k * (2 * self.rows * self.vectors + self.rows + self.vectors + 3) + 10)


def tiles(s: Sizes, target: Target) -> Iterator[Tile]:
    """All that fit in the registers and the matrices."""
    for isa in LANE_ISAS:
        if isa.x is not FLOAT32 or target.isa not in isa.isas or not isa.needs <= target.features:
            continue
        for vectors in range(1, min(s.n // isa.lanes, 8) + 1):
            for rows in range(1, min(s.m, 8) + 1):
                if rows * vectors + vectors + 3 <= min(isa.room, registers(target)):
                    yield Tile(isa, rows, vectors)


def registers(target: Target) -> int:
    """Vector registers, or those of the FPU."""
    return 32 if target.isa != "x86" or "avx512f" in target.features else 16


def accepts(node: Node, target: Target) -> str:
    return first_reason(
        (node.output.type.dtype is FLOAT32, f"of {node.output.type.dtype}, not float32"),
        (node.output.type.size > 0, "no outputs"),
        (any(True for _ in tiles(sizes(node), target)), "no FPU, or fewer columns than lanes"),
    )


def build(node: Node, target: Target) -> tuple[Step, ...]:
    s = sizes(node)
    best = min(tiles(s, target), key=lambda t: t.cost(s))
    context = {**s.context, "tile": best, "f": best.isa.prefix}
    args = (out(node), Arg("a", node.input(0)), Arg("b", node.input(1)))
    return (Step("matmul_tiles", "kernels/matmul_tiles.j2", args, context, ("bitc_defs.h", best.isa.template)),)


def cost(node: Node, target: Target) -> float:
    s = sizes(node)
    many = node.output.type.size / max(s.m * s.n, 1)
    return many * min(t.cost(s) for t in tiles(s, target))


VARIANT = Variant("matmul_tiles", (MatMul,), accepts, build, cost)
