"""Rounding bounds, against brute force: float32 evaluations in random orders stay within them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

import numpy as np
import pytest

import bitc.ops
from bitc.ir import BOOL, INT8, INT32
from bitc.ir.graph import Array, Op
from bitc.ops import binary as b
from bitc.ops import movement as m
from bitc.ops import pool, reduce
from bitc.ops import unary as u
from bitc.ops.linear import Conv2D, MatMul
from bitc.ops.quantize import Dequantize
from bitc.ops.window import Window
from bitc.verification.bounded import Bounded, U, bounded, exact, folded, grid
from bitc.verification.rules import Site, rule_for, straight_through

AFTER_IMPORT = {
    "Requantize",
    "Repack",
    "Crop",
    "AddRequant",
    "MulRequant",
    "Lookup",
    "Rows",
    "AddPixels",
    "AddProducts",
    "MaxPixels",
}
"""Operators that only passes make: the analysis runs on the imported graph."""


def _concrete() -> list[type[Op]]:
    for module in pkgutil.iter_modules(bitc.ops.__path__):
        importlib.import_module(f"bitc.ops.{module.name}")
    found: list[type[Op]] = []
    pending: list[type[Op]] = [Op]
    while pending:
        for c in pending.pop().__subclasses__():
            pending.append(c)
            if (
                c.__module__.startswith("bitc.ops")
                and "__dataclass_params__" in vars(c)
                and not c.__name__.startswith("_")
            ):
                found.append(c)
    return [c for c in found if c is not reduce.Reduce and c.__name__ not in AFTER_IMPORT]


@pytest.mark.parametrize("op", _concrete(), ids=lambda c: c.__name__)
def test_every_operator_has_a_rule(op: type[Op]) -> None:
    assert rule_for(object.__new__(op)) is not None


REALS = (3, 4, 5)
WINDOW = Window((2, 3), (1, 2), (1, 1, 0, 1))


def _normal(*shape: int, low: float = -np.inf) -> Callable[[np.random.Generator], Array]:
    def make(rng: np.random.Generator) -> Array:
        x = rng.standard_normal(shape) * 10.0 ** rng.integers(-2, 2, shape)
        return np.maximum(x, low).astype(np.float32)

    return make


X = _normal(*REALS)
POSITIVE = _normal(*REALS, low=1e-3)
CASES: list[tuple[Op, list[Callable[[np.random.Generator], Array]]]] = [
    (b.Add(), [X, X]), (b.Sub(), [X, X]), (b.Mul(), [X, X]), (b.Div(), [X, POSITIVE]), (b.Min(), [X, X]),
    (b.Max(), [X, X]), (b.PRelu(), [X, X]), (b.Less(), [X, X]), (b.GreaterOrEqual(), [X, X]), (b.Equal(), [X, X]),
    (b.Pow(), [X, lambda rng: np.float32(2)]), (b.Pow(), [POSITIVE, lambda rng: np.float32(0.5)]),
    (b.Mod(), [X, POSITIVE]), (b.MultiThreshold(0.5, -1.0), [X, _normal(5, 3)]),
    (u.Neg(), [X]), (u.Abs(), [X]), (u.Sign(), [X]), (u.Relu(), [X]), (u.Clip(-0.1, 0.1), [X]), (u.Floor(), [X]),
    (u.Ceil(), [X]), (u.Trunc(), [X]), (u.Round(), [X]), (u.LeakyRelu(0.1), [X]), (u.Elu(0.7), [X]), (u.Selu(), [X]),
    (u.Line(-0.7, 0.3), [X]),
    (u.ThresholdedRelu(0.5), [X]), (u.Narrow(3, -6, 448.0, "top"), [X]), (u.HardSigmoid(), [X]),
    (u.HardSwish(), [X]), (u.Softsign(), [X]), (u.Softplus(), [X]), (u.Exp(), [X]),
    (u.Log(), [POSITIVE]), (u.Sqrt(), [POSITIVE]), (u.Reciprocal(), [POSITIVE]), (u.Tanh(), [X]), (u.Sigmoid(), [X]),
    (u.Erf(), [X]), (u.Cast(INT32), [X]), (u.Cast(BOOL), [X]), (u.IsNaN(), [X]), (u.Cast(INT8), [X]),
    (Conv2D(WINDOW), [_normal(1, 5, 6, 8), _normal(4, 2, 3, 8)]),
    (Conv2D(WINDOW, 2), [_normal(1, 5, 6, 8), _normal(4, 2, 3, 4)]), (MatMul(), [_normal(3, 40), _normal(40, 5)]),
    (pool.MaxPool(WINDOW), [_normal(1, 5, 6, 8)]), (pool.AveragePool(WINDOW), [_normal(1, 5, 6, 8)]),
    (reduce.ReduceSum((1, 2)), [X]), (reduce.ReduceMean((0, 2), False), [X]), (reduce.ReduceProd((2,)), [X]),
    (reduce.ReduceMax((1,)), [X]), (reduce.ReduceMin((1,)), [X]), (reduce.ArgMax(1), [X]),
    (reduce.ArgMin(2, False), [X]), (reduce.Softmax(2), [X]), (reduce.LogSoftmax(1), [X]),
    (m.Reshape((12, 5)), [X]), (m.Transpose((2, 0, 1)), [X]), (m.Concat(1), [X, X]), (m.Tile((1, 2, 1)), [X]),
    (m.Pad((0, 1, 0), (1, 0, 0), 7.0), [X]), (m.Slice((0, 3, 0), (3, 0, 5), (2, -1, 1)), [X]),
    (m.Expand((2, 3, 4, 5)), [X]),
]  # fmt: skip
"""Operators with what makes their operands."""


def _evaluate(op: Op, operands: list[Array]) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(op.reference(*operands)[0])


def _reordered(op: Op, operands: list[Array], rng: np.random.Generator) -> Array:
    """Another float32 evaluation: of sums, in a random order."""
    if isinstance(op, MatMul):
        order = rng.permutation(operands[0].shape[-1])
        return _evaluate(op, [operands[0][..., order], operands[1][order]])
    if isinstance(op, Conv2D) and op.group == 1:
        order = rng.permutation(operands[0].shape[-1])
        return _evaluate(op, [o[..., order] for o in operands])
    if isinstance(op, reduce.ReduceSum):
        return _evaluate(op, [operands[0][:, rng.permutation(4)][:, :, rng.permutation(5)]])
    return _evaluate(op, operands)


def _within(found: Array, bound: Bounded) -> None:
    gap = np.abs(found.astype(np.float64) - bound.value.astype(np.float64))
    same = (found == bound.value) | (np.isnan(found.astype(np.float64)) & np.isnan(bound.value.astype(np.float64)))
    assert found.shape == bound.value.shape == bound.err.shape
    worst = np.where(same, 0.0, gap - bound.err)
    assert (worst <= 0).all(), f"{worst.max()} beyond a bound of {bound.err.reshape(-1)[worst.argmax()]}"


@pytest.mark.parametrize(("op", "makers"), CASES, ids=[str(c[0])[:40] for c in CASES])
def test_float32_stays_within_the_bound(op: Op, makers: list[Callable[[np.random.Generator], Array]]) -> None:
    rule = rule_for(op)
    assert rule is not None
    for seed in range(12):
        rng = np.random.default_rng(seed)
        operands = [np.asarray(make(rng)) for make in makers]
        with np.errstate(all="ignore"):
            plain = rule(Site(op), *(exact(o) for o in operands))
        _within(_reordered(op, operands, rng), plain)
        # The same with operands that are already off: any float32 near the exact value may stand in its place.
        size = 10.0 ** rng.integers(-7, -1)
        exponent_is_exact = isinstance(op, b.Pow | b.MultiThreshold)
        errs = [np.abs(o) * size * (not (exponent_is_exact and i)) for i, o in enumerate(operands)]
        with np.errstate(all="ignore"):
            bound = rule(Site(op), *(bounded(o.astype(np.float64), e) for o, e in zip(operands, errs, strict=True)))
        for _ in range(3):
            shift = [
                rng.choice([-1.0, 0.0, 1.0, 0.5], o.shape) * e * (1 - 1e-6) for o, e in zip(operands, errs, strict=True)
            ]
            off = [(o + s).astype(np.float32) for o, s in zip(operands, shift, strict=True)]
            off = [
                np.where(np.abs(n.astype(np.float64) - o) <= e, n, o)
                for n, o, e in zip(off, operands, errs, strict=True)
            ]
            _within(_reordered(op, off, rng), bound)


@pytest.mark.parametrize(("op", "makers"), CASES, ids=[str(c[0])[:40] for c in CASES])
def test_bounds_are_not_vacuous(op: Op, makers: list[Callable[[np.random.Generator], Array]]) -> None:
    """On exact operands nothing explains more than a few roundings, and no step is in doubt."""
    rule = rule_for(op)
    assert rule is not None
    operands = [exact(np.asarray(make(np.random.default_rng(1)))) for make in makers]
    found = rule(Site(op), *operands)
    if found.value.dtype.kind == "f":
        assert np.median(found.err) <= 1e-4 * max(1.0, float(np.abs(found.value).max()))
    else:
        assert not found.err.any()


def test_a_sign_is_in_doubt_only_near_zero() -> None:
    x = bounded(np.array([0.5, 1e-6, -1e-6, 0.0, -0.5]), 2e-6)
    (rule,) = [rule_for(u.Sign())]
    assert rule is not None
    assert rule(Site(u.Sign()), x).err.tolist() == [0, 2, 2, 1, 0]


def test_a_comparison_is_in_doubt_only_near_equality() -> None:
    rule = rule_for(b.Less())
    assert rule is not None
    x = bounded(np.array([1.0, 1.0 + 1e-6, 2.0]), 1e-5)
    assert rule(Site(b.Less()), x, exact(np.ones(3))).err.tolist() == [1, 1, 0]
    assert not rule(Site(b.Less()), exact(np.ones(3)), exact(np.ones(3))).err.any()


def test_where_follows_a_condition_in_doubt() -> None:
    rule = rule_for(b.Where())
    assert rule is not None
    condition = bounded(np.array([True, False, True]), np.array([1.0, 0.0, 0.0]))
    found = rule(Site(b.Where()), condition, exact(np.full(3, 1.0)), exact(np.full(3, -1.0)))
    assert found.err.tolist() == [2, 0, 0]


def test_sums_of_small_integers_are_exact_unless_scaled_later() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.choice([-1.0, 1.0], (2, 300)), rng.choice([-0.5, 0.5], (300, 4))
    rule = rule_for(MatMul())
    assert rule is not None
    assert not rule(Site(MatMul()), exact(x), exact(w)).err.any()
    assert rule(Site(MatMul(), folds=True), exact(x), exact(w)).err.all()
    assert rule(Site(MatMul()), exact(x), exact(w * np.float32(0.3))).err.all()


def test_snapped_weights_count_as_an_error() -> None:
    rule = rule_for(MatMul())
    assert rule is not None
    x, w = exact(np.ones((1, 8))), exact(np.ones((8, 1)))
    found = rule(Site(MatMul(), deviation=np.full((8, 1), 1e-3)), x, w)
    assert 8e-3 <= found.err[0, 0] < 8.1e-3


def test_straight_through_cancels_its_surrogate() -> None:
    a = exact(np.array([1.0, -1.0]))
    t = bounded(np.array([0.3, -0.9]), 1e-3)
    found = straight_through(a, t)
    assert found.value.tolist() == [1, -1]
    assert (found.err < 4 * U).all()


def test_constants_of_few_bits_are_taken_as_written() -> None:
    c = Bounded(np.array([2.0, -1.25, float(np.float32(0.1))]), np.zeros(3), constant=True)
    assert (folded(c).err > 0).tolist() == [False, False, True]


def test_grid() -> None:
    assert grid(np.array([3.0, 0.5, 0.0])) == 0.5
    assert grid(np.array([12.0, -8.0])) == 4
    assert grid(np.array([1.0, 1 + 2.0**-30])) == 0


def test_dequantize_scales_errors() -> None:
    from bitc.ir.types import Quant

    op = Dequantize(Quant((0.5,), (1.0,)))
    rule = rule_for(op)
    assert rule is not None
    found = rule(Site(op), bounded(np.array([3, 4], np.int8), 1.0))
    assert found.value.tolist() == [2.5, 3.0]
    assert np.allclose(found.err, 0.5, atol=1e-5)
