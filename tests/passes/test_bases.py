"""Sums of binary convolutions of one input become one convolution, however they are written."""

from __future__ import annotations

import numpy as np
import pytest

from bitc.ir.dtypes import BIT1, INT32, INT64, TERN
from bitc.ops.binary import Add, Sub
from bitc.ops.epilogue import Affine, Bases, TernThreshold, Threshold
from bitc.ops.linear import Conv2D
from bitc.passes.weights import residual
from bitc.pipeline import compile_model
from bitc.target import Target
from tests.passes.nets import Net, Result, check
from tests.passes.test_forms import larq_ternary, where_less

C = 8


def scaled(n: Net, x: str, k: int, low: float = 0.3) -> str:
    """``a * conv(x, B)`` with an a per channel, of either sign where `low` is negative."""
    a = n.rng.uniform(low, 1.0, (C, 1, 1)).astype(np.float32)
    return n.op("Mul", n.conv(x, C, C, pads=[1] * 4), (a * 2.0**-k).astype(np.float32))


def sums(r: Result) -> list[Bases]:
    return [c.op.epilogue for c in r.convs if isinstance(c.op, Conv2D) and isinstance(c.op.epilogue, Bases)]


def start(n: Net) -> str:
    return where_less(n, n.bn(n.first(C), C))


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("kind", ["Add", "Sub"])
def test_written_as_several_convolutions(count: int, kind: str) -> None:
    n = Net(seed=count)
    x = start(n)
    y = scaled(n, x, 0)
    for k in range(1, count):
        y = n.op(kind, y, scaled(n, x, k, -0.9))
    r = check(n, n.op("Clip", n.bn(y, C), -1.0, 1.0))
    (found,) = sums(r)
    assert found == Bases(count, Affine(-1.0, 1.0)) and r.count(Add) == r.count(Sub) == 0
    assert r.convs[-1].input(1).type.dtype is BIT1 and r.convs[-1].input(1).shape[0] == count * C


@pytest.mark.parametrize(("count", "inputs"), [(3, 8), (4, 8), (4, 5)])
def test_weights_that_are_sums(count: int, inputs: int) -> None:
    """Of all their levels, or most of them: 45 weights have not always all 16."""
    n = Net(seed=count)
    x = where_less(n, n.bn(n.first(inputs), inputs))
    w = sum(n.signs(C, inputs, 3, 3) * n.alphas(C) / 2**k for k in range(count))
    w[0] = np.where(n.signs(inputs, 3, 3) > 0, 0.5, -0.25)  # fewer bases will do
    r = check(n, n.op("Conv", x, w, n.reals(C), kernel_shape=[3, 3], pads=[1] * 4), tolerance=1e-5)
    (found,) = sums(r)
    assert found.bases == count and r.convs[-1].input(1).type.dtype is BIT1


def test_any_few_numbers_are_no_sum() -> None:
    rng = np.random.default_rng(0)
    assert residual(rng.choice([0.9, 0.5, 0.23, -0.9, -0.5], (4, 64)), 1e-4) is None
    assert residual(rng.choice([0.9, 0.7, 0.5, 0.23, 0.11], (4, 64)), 1e-4) is None


def test_thresholds_are_decided_in_integers() -> None:
    n = Net()
    x = start(n)
    w = n.signs(C, C, 3, 3) * n.alphas(C) + n.signs(C, C, 3, 3) * n.alphas(C) / 3
    y = n.op("Conv", x, w, n.reals(C), kernel_shape=[3, 3], pads=[1] * 4)
    bits = where_less(n, n.bn(y, C))
    trits = larq_ternary(n, n.bn(n.op("Sub", scaled(n, bits, 0), scaled(n, bits, 1)), C))
    r = check(n, n.conv(trits, 5, C), samples=20)
    assert [type(s.then) for s in sums(r)] == [Threshold, TernThreshold]
    for conv in r.convs[1:3]:
        factor, t = conv.input(2), conv.input(3)
        assert factor.type.dtype is INT32 and factor.shape == (2, C) and t.type.dtype is INT64
        assert (factor.array.max(axis=0) >= 2**30).all(), "as precise as can be"
    assert r.convs[-1].input(0).type.dtype is TERN


def test_channels_of_one_base() -> None:
    n = Net()
    w = n.signs(C, C, 3, 3) * 0.5 + n.signs(C, C, 3, 3) * np.array([0.0, 0.2137] * 4).reshape(C, 1, 1, 1)
    x = n.op("Conv", start(n), w, kernel_shape=[3, 3])
    r = check(n, n.conv(where_less(n, n.bn(x, C)), 5, C), samples=20)
    (conv,) = (c for c in r.convs if isinstance(c.op, Conv2D) and isinstance(c.op.epilogue, Bases))
    assert (conv.input(2).array[1, ::2] == 0).all()


def test_what_is_read_elsewhere_stays() -> None:
    n = Net()
    x = start(n)
    one, two = scaled(n, x, 0), scaled(n, x, 1)
    r = check(n, n.op("Mul", n.op("Add", one, two), one))
    assert not sums(r) and len(r.convs) == 3


def test_other_windows_stay() -> None:
    n = Net()
    x = start(n)
    small = n.op("Mul", n.conv(x, C, C, k=1), n.alphas(C).reshape(C, 1, 1))
    r = check(n, n.op("Add", scaled(n, x, 0), small))
    assert not sums(r) and len(r.convs) == 3


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("target", ["cortex-m4", "aarch64"])
def test_activations_of_a_few_bits_have_a_kernel(bits: int, target: str) -> None:
    n, most = Net(), 2.0**bits - 1
    x = n.op("Mul", n.op("Round", n.op("Mul", n.op("Clip", n.first(C), 0.0, 1.0), most)), 1 / most)
    y = n.op("Add", scaled(n, x, 0), scaled(n, x, 1))
    model = n.model(n.conv(where_less(n, n.bn(y, C)), 5, C))
    graph = compile_model(model, Target.load(target)).graph
    found = [c.op.epilogue for c in graph.nodes if isinstance(c.op, Conv2D) and isinstance(c.op.epilogue, Bases)]
    assert len(found) == (bits <= 2)
