"""What pointwise operators promise: their direction, and the corners of their arithmetic."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from bitc.ir import FLOAT32, INT8, INT64, TensorType
from bitc.ir.dtypes import UINT8
from bitc.ir.types import type_of
from bitc.ops import binary as b
from bitc.ops import unary as u
from bitc.ops.base import Pointwise

rng = np.random.default_rng(0)
X = np.sort(np.concatenate([rng.normal(size=400) * 3, [0.0, -0.0, 1.0, -1.0, 1e-30, 40.0, -40.0]])).astype(np.float32)
C = np.array([0.5, -2.0, 0.0, 3.0], np.float32)[:, None]
BITS, TRUE = X > 0, np.ones((4, 1), np.bool_)

UNARY = [u.Neg(), u.Abs(), u.Sign(), u.Relu(), u.LeakyRelu(), u.LeakyRelu(-0.5), u.Elu(), u.Elu(-1.0), u.Selu()]
UNARY += [u.HardSigmoid(), u.HardSigmoid(-0.2), u.HardSwish(), u.Exp(), u.Log(), u.Tanh(), u.Sigmoid(), u.Erf()]
UNARY += [u.Softplus(), u.Softsign(), u.Sqrt(), u.Reciprocal(), u.Floor(), u.Ceil(), u.Trunc(), u.Round(), u.IsNaN()]
UNARY += [u.ThresholdedRelu(), u.ThresholdedRelu(-0.5), u.Line(-2.0), u.Line(0.5, 0.25)]
UNARY += [u.Narrow(3, -6, 448.0, "top"), u.Narrow(10, -14, 65504.0, "inf"), u.Narrow(3, -7, 2.0, "nan")]
UNARY += [u.Cast(INT8), u.Cast(FLOAT32), u.Clip(-1.0, 0.5), u.Clip()]
CASES: list[tuple[Pointwise, tuple[np.ndarray | None, ...]]] = [
    *[(op, (X,)) for op in UNARY],
    (u.Not(), (BITS,)),
    *[
        (op, pair)
        for op in [b.Add(), b.Sub(), b.Mul(), b.Div(), b.Pow(), b.Min(), b.Max(), b.Mod(True), b.PRelu(), b.Less()]
        for pair in [(X + 0 * C, C), (C, X + 0 * C)]
        if op != b.PRelu() or pair[1] is C
    ],
    (b.Div(), (X, np.array([-2.0], np.float32))),
    (b.Pow(), (X, np.array([3.0], np.float32))),
    (b.PRelu(), (X, np.array([0.25], np.float32))),
    *[(op, pair) for op in [b.LessOrEqual(), b.Greater(), b.GreaterOrEqual(), b.Equal()] for pair in [(X, C), (C, X)]],
    *[(op, (BITS, TRUE)) for op in [b.And(), b.Or(), b.Xor()]],
    (b.Where(), (BITS, C, -C)),
    (b.MultiThreshold(2.0, -3.0), (X[:, None], np.array([[-1.0, 0.0, 2.0]], np.float32))),
    (b.MultiThreshold(-1.0), (X[:, None], np.array([[-1.0, 0.0, 2.0]], np.float32))),
]


@pytest.mark.parametrize(("op", "arrays"), CASES, ids=str)
def test_direction_holds(op: Pointwise, arrays: tuple[np.ndarray, ...]) -> None:
    """Over the sorted operand the output never moves against the claimed direction."""
    with np.errstate(all="ignore"):
        (y,) = op.reference(*arrays)
    assert type_of(np.asarray(y)) == op.infer(*(type_of(a) for a in arrays))[0]
    for index, x in enumerate(arrays):
        if x.size < len(X):
            continue
        others = [None if i == index else a for i, a in enumerate(arrays)]
        claim = op.direction(index, *others)
        if claim is None:
            continue
        axis = int(np.argmax(np.asarray(y).shape))
        steps = np.diff(np.asarray(y, np.float64), axis=axis)
        sign = np.broadcast_to(claim, y.shape)
        sign = np.delete(sign, 0, axis)
        assert (steps * sign >= 0).all() and (steps[sign == 0] == 0).all()


def test_every_pointwise_operator_is_tried() -> None:
    tried = {type(op) for op, _ in CASES}
    bases = {Pointwise, u.Unary, u.Rising, b.Binary, b.Comparison}
    known = {
        c
        for module in (u, b)
        for _, c in inspect.getmembers(module, inspect.isclass)
        if issubclass(c, Pointwise) and c not in bases
    }
    assert known == tried


@pytest.mark.parametrize("op", [op for op, arrays in CASES if len(arrays) == 1], ids=str)
def test_scalars_stay_scalars(op: Pointwise) -> None:
    x = np.array(op == u.Not() or 0.5, np.bool_ if op == u.Not() else np.float32)
    (y,) = op.reference(x)
    assert np.shape(y) == ()


def test_integers_divide_towards_zero_and_by_zero_give_zero() -> None:
    a, d = np.array([-7, 7, -7, 7, 5, -128], np.int8), np.array([2, 2, -2, -2, 0, -1], np.int8)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(b.Div().reference(a, d)[0], np.array([-3, 3, 3, -3, 0, -128], np.int8))
    np.testing.assert_array_equal(b.Mod().reference(a[:5], d[:5])[0], [1, 1, -1, -1, 0])
    np.testing.assert_array_equal(b.Mod(fmod=True).reference(a[:5], d[:5])[0], [-1, 1, -1, 1, 0])


def test_float_to_integer_saturates() -> None:
    x = np.array([1.9, -1.9, 300, -300, np.inf, -np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(u.Cast(INT8).reference(x)[0], [1, -1, 127, -128, 127, -128, 0])
    np.testing.assert_array_equal(u.Cast(UINT8).reference(x)[0], [1, 0, 255, 0, 255, 0, 0])
    (wide,) = u.Cast(INT64).reference(np.array([1e19, -1e19], np.float32))
    np.testing.assert_array_equal(wide, [2**63 - 1, -(2**63)])


def test_nan() -> None:
    nan = np.array([np.nan], np.float32)
    assert np.isnan(u.Relu().reference(nan)[0]) and np.isnan(u.Clip(-1.0, 1.0).reference(nan)[0])
    assert u.Sign().reference(nan)[0] == 0


def test_operands_of_two_types_are_refused() -> None:
    with pytest.raises(AssertionError):
        b.Add().infer(TensorType((2,), FLOAT32), TensorType((2,), INT8))
