"""Movement, reductions and softmax: shapes, corners, and the order of summation that C repeats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitc.ir.graph import Op
from bitc.ir.types import type_of
from bitc.ops import movement as m
from bitc.ops import reduce as r
from bitc.ops.linear import MatMul

X = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)


def evaluate(op: Op, *arrays: np.ndarray) -> np.ndarray:
    """Reference output, checked against the inferred type."""
    (y,) = op.reference(*arrays)
    (inferred,) = op.infer(*(type_of(a) for a in arrays))
    assert type_of(np.asarray(y)) == inferred
    return np.asarray(y)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 7), st.data())
def test_slice_is_a_range(size: int, data: st.DataObject) -> None:
    x = np.arange(size)
    start, step = data.draw(st.integers(0, size - 1)), data.draw(st.sampled_from([-3, -1, 1, 2]))
    stop = data.draw(st.integers(-1 if step < 0 else 0, size))
    want = [x[i] for i in range(start, stop, step)]
    np.testing.assert_array_equal(evaluate(m.Slice((start,), (stop,), (step,)), x), want)


def test_movement() -> None:
    np.testing.assert_array_equal(evaluate(m.Transpose((3, 0, 2, 1)), X), X.transpose(3, 0, 2, 1))
    np.testing.assert_array_equal(evaluate(m.Reshape((6, 20)), X), X.reshape(6, 20))
    np.testing.assert_array_equal(evaluate(m.Concat(1), X, X[:, :1]), np.concatenate([X, X[:, :1]], 1))
    np.testing.assert_array_equal(evaluate(m.Expand((4, 3)), X[0, 0, 0, :3]), [X[0, 0, 0, :3]] * 4)
    np.testing.assert_array_equal(evaluate(m.Tile((1, 2, 1, 3)), X), np.tile(X, (1, 2, 1, 3)))
    np.testing.assert_array_equal(evaluate(m.Gather(2), X, np.array([[3, 0]])), X[:, :, [[3, 0]]])
    padded = evaluate(m.Pad((0, 1, 0, 2), (0, 0, 0, 1), 7.0), X)
    np.testing.assert_array_equal(padded, np.pad(X, ((0, 0), (1, 0), (0, 0), (2, 1)), constant_values=7))


@pytest.mark.parametrize(
    "op",
    [
        m.Reshape((7,)),
        m.Transpose((0, 0, 1, 2)),
        m.Slice((0,) * 4, (2, 3, 4, 9), (1,) * 4),
        m.Pad((0, 0, 0, -1), (0,) * 4),
        m.Expand((5,)),
        m.Tile((1,)),
        r.ReduceSum((4,)),
        r.Softmax(4),
        r.ArgMax(-1),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(op: Op) -> None:
    with pytest.raises((AssertionError, ValueError)):
        op.infer(type_of(X))


def one_by_one(values: np.ndarray) -> np.float32:
    total = np.float32(0)
    for v in values.reshape(-1):
        total = np.float32(total + v)
    return total


@pytest.mark.parametrize("axes", [(0,), (3,), (1, 2), (0, 3), (0, 1, 2, 3), ()])
@pytest.mark.parametrize("keepdims", [True, False])
def test_sums_run_in_order(axes: tuple[int, ...], keepdims: bool) -> None:
    """Row-major over the reduced elements, rounding each time: sensitive to order, hence the wild magnitudes."""
    x = (X * np.float32(10) ** np.random.default_rng(1).integers(-6, 7, X.shape)).astype(np.float32)
    got = evaluate(r.ReduceSum(axes, keepdims), x)
    kept = [a for a in range(4) if a not in axes]
    for index in np.ndindex(*(x.shape[a] for a in kept)):
        at: list[object] = [slice(None)] * 4
        for a, i in zip(kept, index, strict=True):
            at[a] = i
        assert got.reshape([x.shape[a] for a in kept])[index] == one_by_one(x[tuple(at)])


def test_long_sums_run_in_order() -> None:
    x = np.random.default_rng(2).normal(size=(3, 100_003)).astype(np.float32)
    got = evaluate(r.ReduceSum((1,)), x)
    assert [g[0] for g in got] == [one_by_one(row) for row in x]


def test_other_reductions() -> None:
    np.testing.assert_allclose(evaluate(r.ReduceMean((1, 3)), X), X.mean((1, 3), keepdims=True), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(evaluate(r.ReduceMax((2,), False), X), X.max(2))
    np.testing.assert_array_equal(evaluate(r.ReduceMin((2,), False), X), X.min(2))
    np.testing.assert_allclose(evaluate(r.ReduceProd((2,), False), X), X.prod(2), rtol=1e-5)
    codes = np.array([[3, -128, 127], [1, 1, -7]], np.int8)
    np.testing.assert_array_equal(evaluate(r.ReduceMax((1,), False), codes), [127, 1])
    np.testing.assert_array_equal(evaluate(r.ReduceMin((1,), False), codes.astype(np.int64)), [-128, -7])
    np.testing.assert_array_equal(evaluate(r.ReduceMean((1,), False), np.array([[-3, 0], [3, 0]], np.int32)), [-1, 1])
    assert evaluate(r.ReduceMax((0,), False), np.array([np.nan, 1, np.nan], np.float32)) == 1


def test_arg_of_equal_elements() -> None:
    x = np.array([[1, 5, 5, 0], [2, 2, 2, 2]], np.float32)
    np.testing.assert_array_equal(evaluate(r.ArgMax(1, False), x), [1, 0])
    np.testing.assert_array_equal(evaluate(r.ArgMax(1, False, last=True), x), [2, 3])
    np.testing.assert_array_equal(evaluate(r.ArgMin(1, True), x), [[3], [0]])


@pytest.mark.parametrize("axis", range(4))
def test_softmax(axis: int) -> None:
    y = evaluate(r.Softmax(axis), X * 30)
    np.testing.assert_allclose(y.sum(axis), 1, rtol=1e-5)
    np.testing.assert_allclose(
        evaluate(r.LogSoftmax(axis), X), np.log(evaluate(r.Softmax(axis), X)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("a", "b"), [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((5, 1, 2, 3), (4, 3, 2)), ((2, 3), (6, 3, 1))]
)
def test_matmul_shapes(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    x, y = np.ones(a, np.float32), np.ones(b, np.float32)
    np.testing.assert_array_equal(evaluate(MatMul(), x, y), np.matmul(x, y))
