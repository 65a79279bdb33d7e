"""Rows whose results are as long as the data says, against the reference, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitc.ir.dtypes import BOOL, FLOAT32, INT8, INT32, INT64, UINT64, DType
from bitc.ir.graph import Graph
from bitc.ir.types import TensorType
from bitc.ops.dynamic import FillTail, NonMaxSuppression, NonZero, Unique
from bitc.target import Target
from tests.kernels.harness import check, merge, portable, single

TARGETS = {"host": lambda: Target.load("host"), "portable": portable}
RNG = np.random.default_rng(7)


def t(*shape: int, dtype: DType = FLOAT32) -> TensorType:
    return TensorType(shape, dtype)


def boxes(n: int, count: int, crowd: float, center: bool) -> np.ndarray:
    """Boxes on a grid, so that equal ones and equal overlaps occur; some corners swapped, some without an area."""
    corner, size = RNG.integers(0, int(crowd * 8), (n, count, 2)) / 8, RNG.integers(0, 9, (n, count, 2)) / 8
    if center:
        return np.concatenate([corner, size], -1).astype(np.float32)
    pair = np.concatenate([corner, corner + size], -1)
    pair[:, ::3] = pair[:, ::3, [2, 1, 0, 3]]
    return pair.astype(np.float32)


def suppressions() -> tuple[list[Graph], list[list[np.ndarray]]]:
    graphs, feeds = [], []
    for n, c, b, limit in ((1, 1, 1, 1), (1, 1, 33, 7), (2, 3, 17, 17), (1, 2, 65, 5)):
        for center in (False, True):
            for most, overlap, least in ((None, None, None), (3, 0.5, None), (limit + 4, 0.25, 0.4), (0, 0.3, 0.1)):
                values = [
                    boxes(n, b, 2, center),
                    (RNG.integers(0, 9, (n, c, b)) / 8).astype(np.float32),
                    None if most is None else np.array([most]),
                    None if overlap is None else np.array([overlap], np.float32),
                    None if least is None else np.array([least], np.float32),
                ]
                values[1].flat[b // 2] = np.nan
                given = [v for v in values if v is not None]
                types = [None if v is None else TensorType(v.shape, INT64 if i == 2 else FLOAT32)
                         for i, v in enumerate(values)]  # fmt: skip
                graphs.append(single(NonMaxSuppression(limit, center), *types))
                feeds.append(given)
    return graphs, feeds


def others() -> tuple[list[Graph], list[list[np.ndarray]]]:
    graphs, feeds = [], []

    def add(op: object, *given: np.ndarray, dtypes: tuple[DType, ...]) -> None:
        graphs.append(single(op, *(TensorType(g.shape, d) for g, d in zip(given, dtypes, strict=True))))  # type: ignore[arg-type]  # any operator
        feeds.append(list(given))

    for d in (FLOAT32, INT8, BOOL, INT64, UINT64):
        for shape in ((1,), (33,), (3, 5), (2, 3, 4)):
            x = RNG.integers(0, 3, shape).astype(d.carrier)
            add(NonZero(), x, dtypes=(d,))
            for axis in range(len(shape)):
                y = x.copy()
                if d is FLOAT32:
                    y.flat[::4] = np.nan
                for ordered in (False, True):
                    add(Unique(axis, ordered), y, dtypes=(d,))
                for count in (0, 1, shape[axis], 99):
                    fill = 7 if d is not BOOL else 1
                    add(FillTail(axis, fill), x, np.array(count, np.int32), dtypes=(d, INT32))
    add(FillTail(0, np.nan), np.ones(4, np.float32), np.array(2, np.int32), dtypes=(FLOAT32, INT32))
    for nothing in (np.zeros((3, 3), np.float32), np.ones((3, 3), np.float32)):
        add(NonZero(), nothing, dtypes=(FLOAT32,))
    return graphs, feeds


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("group", [suppressions, others], ids=lambda f: f.__name__)
def test_group(target: str, group: object, tmp_path: Path) -> None:
    graphs, given = group()  # type: ignore[operator]  # one of the two above
    graph = merge(graphs)
    feeds = {v.name: a for g, arrays in zip(graphs, given, strict=True) for v, a in zip(g.inputs, arrays, strict=True)}
    check(graph, TARGETS[target](), tmp_path, feeds)
