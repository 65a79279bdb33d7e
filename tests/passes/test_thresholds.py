"""`thresholds.search` against the float chain itself: exhaustively on integers, around the steps on floats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from bitc.ir import BIT1, FLOAT32, INT32, Op, TensorType, Value
from bitc.ir.graph import Array
from bitc.ir.rewrite import Builder
from bitc.ir.types import Quant
from bitc.ops import binary as b
from bitc.ops import unary as u
from bitc.ops.epilogue import Levels
from bitc.ops.pool import MaxPool
from bitc.ops.quantize import Dequantize
from bitc.ops.window import Window
from bitc.passes.chain import Chain, find_chains
from bitc.passes.thresholds import NotAQuantizer, Quantizer, search

C = 4
ODD = [0.0, -0.0, 1.0, -1.0, 0.1, -0.3, 1e-30, -1e30, 3e38, 1e-45, 7.5, -2.5]


@dataclass
class Built:
    """A chain under construction: `value` is its end so far."""

    builder: Builder
    root: Value
    value: Value

    def do(self, op: Op, *consts: object, flip: bool = False) -> Built:
        operands = [c if isinstance(c, Value) else self.const(c) for c in consts]
        ins = [*operands, self.value] if flip else [self.value, *operands]
        self.value = self.builder.emit(op, *ins)
        return self

    def const(self, data: object) -> Value:
        return self.builder.const(np.asarray(data, np.float32))

    def chain(self) -> Chain:
        chains = list(find_chains(self.builder, self.value, lambda value, inside: False))
        return next(c for c in chains if c.root is self.root)


def start(shape: tuple[int, ...] = (1, 1, 1, C), integer: bool = True, scale: tuple[float, ...] = (1.0,)) -> Built:
    builder = Builder()
    if not integer:
        root = Value("x", TensorType(shape, FLOAT32))
        return Built(builder, root, root)
    root = Value("acc", TensorType(shape, INT32))
    return Built(builder, root, builder.emit(Dequantize(Quant(scale)), root))


def decode(q: Quantizer, acc: Array) -> Array:
    codes = q.epilogue.apply(acc, *q.params)
    return q.epilogue.quant.decode(codes)  # type: ignore[attr-defined]


def check(chain: Chain, q: Quantizer, roots: Array) -> None:
    """The epilogue's reals equal the chain's for these roots, in every channel."""
    shape = np.broadcast_shapes((len(roots), 1, 1, 1, C), (1, *chain.varying()))
    x = np.broadcast_to(roots.reshape(-1, 1, 1, 1, 1), shape)
    np.testing.assert_array_equal(decode(q, x), np.broadcast_to(chain(x), shape))


reals = st.one_of(
    st.sampled_from(ODD), st.floats(-100, 100, width=32), st.floats(-0.0009765625, 0.0009765625, width=32)
)
wild = st.one_of(reals, st.sampled_from([np.inf, -np.inf, np.nan]))


def channels(values: st.SearchStrategy[float]) -> st.SearchStrategy[list[float]]:
    return st.lists(values, min_size=C, max_size=C)


@st.composite
def steps(draw: st.DrawFn, chain: Built, values: st.SearchStrategy[float]) -> None:
    """One random step that a model may have between accumulator and quantizer."""
    match draw(st.integers(0, 9)):
        case 0:
            chain.do(b.Mul(), draw(channels(values)), flip=draw(st.booleans()))
        case 1:
            chain.do(b.Add(), draw(channels(values)), flip=draw(st.booleans()))
        case 2:
            chain.do(b.Sub(), draw(channels(values)), flip=draw(st.booleans()))
        case 3:  # batch norm in five nodes
            gamma, beta, mean = (draw(channels(values)) for _ in range(3))
            var = np.abs(np.array(draw(channels(values)), np.float32)) + np.float32(1e-5)
            sigma = b.Pow().compute(var, np.float32(0.5))
            chain.do(b.Sub(), mean).do(b.Div(), sigma).do(b.Mul(), gamma).do(b.Add(), beta)
        case 4:
            chain.do(b.PRelu(), draw(channels(values)))
        case 5:
            lo, hi = sorted((draw(reals), draw(reals)))
            chain.do(u.Clip(lo, hi))
        case 6:
            chain.do(u.Tanh())
        case 7:
            chain.do(u.Neg())
        case 8:
            chain.do(b.Div(), draw(channels(values)))
        case _:
            chain.do(u.Relu())


@st.composite
def ends(draw: st.DrawFn, chain: Built) -> None:
    """One of the quantizers that exporters write."""
    zero = chain.const(0.0)
    match draw(st.integers(0, 7)):
        case 0:
            chain.do(u.Sign())
        case 1:
            chain.do(u.Sign()).do(b.Add(), 0.1).do(u.Sign())
        case 2:
            chain.do(b.Less(), zero).do(b.Where(), -1.0, 1.0)
        case 3:
            chain.do(b.GreaterOrEqual(), zero).do(b.Where(), 1.0, -1.0)
        case 4:
            chain.do(b.Greater(), zero).do(u.Cast(FLOAT32)).do(b.Mul(), 2.0).do(b.Sub(), 1.0)
        case 5:  # {0, alpha}, half to even
            chain.do(b.Div(), 0.7).do(u.Round()).do(u.Clip(0, 1)).do(b.Mul(), 0.7)
        case 6:  # ternary
            x = chain.value
            plus = chain.do(b.Add(), 0.5).do(u.Sign()).value
            chain.value = x
            chain.do(b.Sub(), 0.5).do(u.Sign()).do(b.Add(), plus).do(u.Sign())
        case _:
            t = chain.builder.const(np.array([[0.0]] * C, np.float32))
            chain.do(b.MultiThreshold(2.0, -1.0), t)


def reach(k: int) -> Array:
    return np.arange(-k, k + 1, 2)


@st.composite
def any_chain(draw: st.DrawFn, integer: bool, values: st.SearchStrategy[float]) -> Chain:
    scale = draw(st.sampled_from([(1.0,), (0.3,), (0.1, 0.0, -2.0, 1e-20)])) if integer else (1.0,)
    chain = start(integer=integer, scale=scale)
    for _ in range(draw(st.integers(0, 4))):
        draw(steps(chain, values))
    draw(ends(chain))
    return chain.chain()


def integer_property(chain: Chain, k: int) -> None:
    roots = reach(k)
    try:
        q = search(chain, roots)
    except NotAQuantizer:
        # It may only decline what is no step per channel.
        y = np.broadcast_to(chain(roots.astype(np.int32).reshape(-1, 1, 1, 1, 1)), (len(roots), 1, 1, 1, C))
        points = np.unique(y)
        symmetric = len(points) < 3 or (len(points) == 3 and points[1] == 0 and points[0] == -points[2])
        rises, falls = (np.diff(y, axis=0) > 0).any(0), (np.diff(y, axis=0) < 0).any(0)
        assert (rises & falls).any() or not symmetric or np.isnan(y).any()
        return
    check(chain, q, roots.astype(np.int32))
    zero = (chain(roots.astype(np.int32).reshape(-1, 1, 1, 1, 1)) == 0).any()
    assert q.zero_reachable == zero


@given(any_chain(True, wild), st.integers(1, 70))
@settings(max_examples=150, deadline=None)
def test_integer_roots(chain: Chain, k: int) -> None:
    integer_property(chain, k)


@pytest.mark.full
@given(any_chain(True, wild), st.integers(1, 5000))
@settings(max_examples=3000, deadline=None)
def test_integer_roots_at_length(chain: Chain, k: int) -> None:
    integer_property(chain, k)


@given(any_chain(True, reals), st.integers(1, 70))
@settings(max_examples=100, deadline=None)
def test_bisection_equals_sampling(chain: Chain, k: int) -> None:
    from bitc.passes import thresholds

    few = thresholds._FEW
    try:
        sampled = search(chain, reach(k))
    except NotAQuantizer:
        return
    try:
        thresholds._FEW = 0
        bisected = search(chain, reach(k))
    finally:
        thresholds._FEW = few
    roots = reach(k).astype(np.int32).reshape(-1, 1, 1, 1, 1) + np.zeros(C, np.int32)
    np.testing.assert_array_equal(decode(sampled, roots), decode(bisected, roots))
    assert sampled.zero_reachable == bisected.zero_reachable


def float_property(chain: Chain) -> None:
    try:
        q = search(chain, None)
    except NotAQuantizer:
        return
    special = [0.0, -0.0, 1e-45, -1e-45, 1.0, -1.0, 3.4028235e38, -3.4028235e38]
    if all(np.isfinite(t).all() for t in q.params):  # no channel that never fires: infinity fires it
        special += [np.inf, -np.inf]
    roots = [np.array(special, np.float32)]
    for t in q.params:
        if t.dtype == np.float32:
            around = t[np.isfinite(t)].reshape(-1)
            for _ in range(3):
                around = np.unique(
                    np.concatenate([around, np.nextafter(around, -np.inf), np.nextafter(around, np.inf)])
                )
            roots.append(around.astype(np.float32))
    note("\n".join(map(str, chain.nodes)))
    points = np.concatenate(roots)
    largest = np.full((1, 1, 1, C), np.finfo(np.float32).max, np.float32)
    if any(np.isnan(v).any() for v in chain.evaluate(np.stack([largest, -largest])).values()):
        points = points[np.abs(points) <= 1e6]  # where it overflows into NaN, only moderate roots are promised
    points = points[np.isfinite(points) | np.isin(points, special)]
    x = np.broadcast_to(points.reshape(-1, 1, 1, 1, 1), (len(points), 1, 1, 1, C))
    expected = chain(x)
    # An overflow inside the chain that ends as NaN is garbage in the model.
    mask = ~np.isnan(np.stack([np.broadcast_to(v, x.shape) for v in chain.evaluate(x).values()])).any(0)
    np.testing.assert_array_equal(decode(q, x)[mask], expected[mask])


@given(any_chain(False, reals))
@settings(max_examples=60, deadline=None)
def test_float_roots(chain: Chain) -> None:
    float_property(chain)


@pytest.mark.full
@given(any_chain(False, reals))
@settings(max_examples=2000, deadline=None)
def test_float_roots_at_length(chain: Chain) -> None:
    float_property(chain)


@pytest.mark.parametrize(("op", "nan_low"), [(b.Less(), False), (b.GreaterOrEqual(), True)])
def test_nan_follows_the_comparison(op: Op, nan_low: bool) -> None:
    chain = start(integer=False)
    chain.do(op, 0.0).do(b.Where(), *((-1.0, 1.0) if isinstance(op, b.Less) else (1.0, -1.0)))
    q = search(chain.chain(), None)
    assert q.epilogue.nan_low is nan_low  # type: ignore[attr-defined]
    check(chain.chain(), q, np.array([np.nan, 0.0, -0.0, 1.0, -1.0], np.float32))


def pooled(after: list[float], before: list[float], integer: bool) -> Built:
    """Mul -> MaxPool -> Mul, Add -> sign, on 1 x 2 pixels pooled into one."""
    chain = start((1, 1, 2, C), integer)
    chain.do(b.Mul(), before).do(MaxPool(Window((1, 2)))).do(b.Mul(), after).do(b.Add(), [0.5, -0.5, 1.5, 0.0])
    return chain


@pytest.mark.parametrize("ternary", [False, True])
@pytest.mark.parametrize("integer", [False, True])
@given(before=channels(st.floats(-2, 2, width=32)), after=channels(st.floats(-2, 2, width=32)))
@settings(max_examples=25, deadline=None)
def test_pool_between(integer: bool, ternary: bool, before: list[float], after: list[float]) -> None:
    built = pooled(after, before, integer)
    built.do(u.Sign())
    if not ternary:
        built.do(b.Add(), 0.1).do(u.Sign())
    chain = built.chain()
    roots = np.arange(-6, 7)
    q = search(chain, roots if integer else None)
    (minimum,) = q.minimum
    pairs = np.array([(i, j) for i in roots for j in roots], chain.root.type.dtype.carrier)
    x = np.repeat(pairs[:, None, :, None], C, axis=3)
    codes = q.epilogue.apply(x, *q.params)
    (small,) = MaxPool(Window((1, 2))).reference(codes, minimum)
    env = {chain.root: x}
    for node in chain.nodes:
        (env[node.output],) = node.op.reference(*(v.data if v.is_const else env[v] for v in node.inputs))  # type: ignore[union-attr]
    np.testing.assert_array_equal(q.epilogue.quant.decode(small), env[chain.end])  # type: ignore[attr-defined]


@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize(("low", "high"), [(-1, 2), (0, 15), (-8, 7), (0, 1), (1, 6)])
def test_levels(low: int, high: int, integer: bool) -> None:
    """A threshold per step; channels with a falling function have theirs reversed."""
    gamma = np.array([2.0, -0.3, 0.0, 0.25]).reshape(1, 1, 1, -1)
    chain = (
        start(integer=integer).do(b.Mul(), gamma).do(b.Add(), 0.3).do(u.Round()).do(u.Clip(low, high)).do(b.Mul(), 0.5)
    )
    q = search(chain.chain(), reach(60) if integer else None)
    assert isinstance(q.epilogue, Levels) and q.epilogue.largest == high - low
    check(chain.chain(), q, reach(60) if integer else np.linspace(-60, 60, 121, dtype=np.float32) / 3)


def test_too_many_levels_are_refused() -> None:
    chain = start(integer=False).do(u.Round()).do(u.Clip(-1, 15))
    with pytest.raises(NotAQuantizer, match="more than 16 values"):
        search(chain.chain(), None)


def test_uneven_levels_are_refused() -> None:
    chain = start(integer=False).do(u.Round()).do(u.Clip(1, 3)).do(u.Exp())
    with pytest.raises(NotAQuantizer, match="takes 3 values"):
        search(chain.chain(), None)


def test_hidden_level_is_found() -> None:
    """A level between those at the ends and at zero."""
    chain = start(integer=False)
    chain.do(b.Div(), 3.0).do(u.Round()).do(u.Clip(0, 3)).do(b.MultiThreshold(), chain.const([[1.0, 2.0, 3.0]] * C))
    q = search(chain.chain(), None)
    assert isinstance(q.epilogue, Levels) and q.epilogue.largest == 3


def test_rise_and_fall_is_refused() -> None:
    chain = start().do(u.Abs()).do(b.Sub(), 2.5).do(u.Sign())
    with pytest.raises(NotAQuantizer, match="rises and falls"):
        search(chain.chain(), reach(9))
    with pytest.raises(NotAQuantizer, match="not monotone"):
        search(start(integer=False).do(u.Abs()).do(b.Sub(), 2.5).do(u.Sign()).chain(), None)


def test_zero_is_unreachable_on_odd_lengths() -> None:
    chain = start().do(u.Sign()).chain()
    odd, even = search(chain, reach(27)), search(chain, reach(28))
    assert not odd.zero_reachable and odd.epilogue.infer(TensorType((1,), INT32)).dtype is BIT1
    assert even.zero_reachable


def test_constants_over_pixels() -> None:
    chain = start((1, 1, 3, C)).do(b.Add(), np.arange(-6.5, 5.5).reshape(3, C)).do(u.Sign()).chain()
    q = search(chain, reach(9))
    assert q.params[0].shape == (3, C)
    x = np.broadcast_to(reach(9).astype(np.int32).reshape(-1, 1, 1, 1, 1), (10, 1, 1, 3, C))
    np.testing.assert_array_equal(decode(q, x), chain(x))
