"""Activations of two to four bits: the quantizers that exporters write, through the whole pipeline."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from bitc.ir import FLOAT32, INT8
from bitc.ir.dtypes import UINT1, UINT2, UINT3, UINT4, DType
from bitc.ops.epilogue import Levels
from bitc.ops.linear import Conv2D
from bitc.ops.pool import MaxPool
from bitc.ops.quantize import Requantize
from bitc.ops.unary import Round
from tests.passes.nets import Net, check
from tests.passes.test_few_levels import ternary

C = 8
Quantizer = Callable[[Net, str], str]


def dorefa(bits: int, n: Net, x: str) -> str:
    """``round(clip(x, 0, 1) * n) / n``."""
    top = float(2**bits - 1)
    return n.op("Div", n.op("Round", n.op("Mul", n.op("Clip", x, 0.0, 1.0), top)), top)


def pact(bits: int, n: Net, x: str) -> str:
    """A clipping level that was learnt, and a straight-through estimator."""
    alpha, top = 1.7, float(2**bits - 1)
    clipped = n.op("Min", n.op("Relu", x), alpha)
    q = n.op("Mul", n.op("Round", n.op("Mul", clipped, top / alpha)), alpha / top)
    return n.op("Add", n.op("Sub", q, clipped), clipped)


def lsq(bits: int, n: Net, x: str) -> str:
    """Signed: ``clip(x / s, -2**(b-1), 2**(b-1) - 1)``, rounded half up."""
    low, high = -float(2 ** (bits - 1)), float(2 ** (bits - 1) - 1)
    q = n.op("Floor", n.op("Add", n.op("Clip", n.op("Div", x, 0.4), low, high), 0.5))
    return n.op("Mul", q, 0.4)


def quant(bits: int, signed: int, narrow: int, n: Net, x: str) -> str:
    attributes = {"signed": signed, "narrow": narrow, "rounding_mode": "ROUND"}
    return n.op("Quant", x, 0.3, 0.0, float(bits), domain="qonnx.custom_op.general", **attributes)


def multi_threshold(steps: int, bias: float, n: Net, x: str) -> str:
    attributes = {"out_scale": 0.5, "out_bias": bias, "data_layout": "NCHW"}
    steps_ = np.sort(n.reals(C, steps), axis=1)
    return n.op("MultiThreshold", x, steps_, domain="finn.custom_op.general", **attributes)


def qdq(bits: int, signed: bool, n: Net, x: str) -> str:
    """8-bit quantization behind a Clip that leaves few codes."""
    zero = n.const(128 if not signed else 0, np.int8 if signed else np.uint8)
    low = -float(2 ** (bits - 1)) if signed else 0.0
    x = n.op("Clip", x, low * 0.25, (low + 2**bits - 1) * 0.25)
    return n.op("DequantizeLinear", n.op("QuantizeLinear", x, 0.25, zero), 0.25, zero)


def sum_of_steps(n: Net, x: str) -> str:
    """``sign(x + 1) + sign(x) + sign(x - 1)`` with bits: values -3, -1, 1, 3."""
    parts = [n.op("Where", n.op("Less", x, t), -1.0, 1.0) for t in (-1.0, 0.0, 1.0)]
    return n.op("Add", n.op("Add", parts[0], parts[1]), parts[2])


def heaviside(n: Net, x: str) -> str:
    return n.op("Cast", n.op("Greater", x, 0.0), to=1)


FORMS: list[tuple[Quantizer, DType, int]] = [
    *((partial(dorefa, b), d, 0) for b, d in ((2, UINT2), (3, UINT3), (4, UINT4))),
    (partial(pact, 4), UINT4, 0),
    (partial(lsq, 2), UINT2, 2),
    (partial(lsq, 4), UINT4, 8),
    (partial(quant, 2, 0, 0), UINT2, 0),
    (partial(quant, 3, 1, 0), UINT3, 4),
    (partial(quant, 3, 1, 1), UINT3, 3),
    (partial(quant, 4, 0, 1), UINT4, 0),
    (partial(multi_threshold, 3, 0.0), UINT2, 0),
    (partial(multi_threshold, 15, -4.0), UINT4, 8),
    (partial(multi_threshold, 4, -0.5), UINT3, 1),
    (partial(qdq, 4, False), UINT4, 0),
    (partial(qdq, 3, True), UINT3, 4),
    (heaviside, UINT1, 0),
]
BINARY, TERNARY, FEW, WIDE = "binary", "ternary", "few", "wide"


def weights(n: Net, kind: str, *shape: int) -> np.ndarray:
    if kind == TERNARY:
        return ternary(n, *shape)
    codes = {BINARY: [-1, 1], FEW: np.arange(-8, 8), WIDE: np.arange(-100, 101)}[kind]
    w: np.ndarray = n.rng.choice(codes, shape).astype(np.float32) * n.alphas(shape[0])
    return w


@pytest.mark.parametrize("pads", [0, 1])
@pytest.mark.parametrize(("quantizer", "dtype", "zero"), FORMS)
def test_activations_become_planes(quantizer: Quantizer, dtype: DType, zero: int, pads: int) -> None:
    """Real convolution, quantizer, binary convolution, batch norm, quantizer, ternary convolution."""
    n = Net()
    x = quantizer(n, n.bn(n.first(C), C))
    x = n.op("Conv", x, weights(n, BINARY, C, C, 3, 3), kernel_shape=[3, 3], pads=[pads] * 4)
    x = quantizer(n, n.bn(x, C))
    r = check(n, n.op("Conv", x, weights(n, TERNARY, 5, C, 3, 3), n.reals(5), kernel_shape=[3, 3], pads=[pads] * 4))
    assert [c.input(0).type.dtype for c in r.convs] == [FLOAT32, dtype, dtype]
    for conv in r.convs[:2]:
        assert isinstance(conv.op, Conv2D) and isinstance(conv.op.epilogue, Levels), "its steps are part of the kernel"
    assert isinstance(r.convs[1].op, Conv2D) and r.convs[1].op.x_zero == zero
    assert r.count(Requantize) == r.count(Round) == 0
    assert len(r.findings.binary) == 2 and str(dtype) in r.findings.binary[0].form


@pytest.mark.parametrize("kind", [BINARY, TERNARY, FEW, WIDE])
@pytest.mark.parametrize("group", [1, 2])
def test_weights_against_planes(kind: str, group: int) -> None:
    n = Net()
    x = lsq(4, n, n.bn(n.first(C), C))
    for _ in range(2):
        x = n.op("Conv", x, weights(n, kind, C, C // group, 3, 3), kernel_shape=[3, 3], pads=[1] * 4, group=group)
        x = dorefa(2, n, n.bn(x, C))
    r = check(n, n.op("Conv", x, weights(n, kind, 3, C, 3, 3), kernel_shape=[3, 3]))
    assert [c.input(0).type.dtype for c in r.convs] == [FLOAT32, UINT4, UINT2, UINT2]
    assert kind != WIDE or r.convs[-1].input(1).type.dtype is INT8
    assert all(r.on_bits[1:])


def test_falling_channels_negate_their_weights() -> None:
    n = Net()
    x = dorefa(2, n, n.bn(n.first(C), C))
    x = n.op("Conv", x, weights(n, FEW, C, C, 3, 3), kernel_shape=[3, 3], pads=[1] * 4)
    x = dorefa(3, n, n.bn(x, C, gamma=-np.abs(n.reals(C))))
    r = check(n, n.op("Conv", x, weights(n, BINARY, 5, C, 3, 3), kernel_shape=[3, 3]))
    assert r.count(Requantize) == 0 and r.convs[1].inputs[-1] is not None


@pytest.mark.parametrize("before", [False, True], ids=["pool after", "pool before"])
def test_pools_of_planes(before: bool) -> None:
    n = Net()
    x = n.op("Conv", dorefa(2, n, n.bn(n.first(C, 8), C)), weights(n, BINARY, C, C, 3, 3), kernel_shape=[3, 3])
    pool = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
    q = partial(quant, 3, 1, 0)
    x = q(n, n.op("MaxPool", n.bn(x, C), **pool)) if not before else q(n, n.bn(n.op("MaxPool", x, **pool), C))
    r = check(n, n.op("Conv", x, weights(n, TERNARY, C, C, 3, 3), kernel_shape=[3, 3], pads=[1] * 4))
    (node,) = [m for m in r.graph.nodes if isinstance(m.op, MaxPool)]
    assert node.output.type.dtype is UINT3 and all(r.on_bits[1:])


def test_movement_and_padding_of_planes() -> None:
    n = Net()
    x = lsq(3, n, n.bn(n.first(C), C))
    x = n.op("Pad", x, n.const([0, 0, 1, 2, 0, 0, 1, 0], np.int64), 0.4)
    x = n.op("Concat", x, n.op("Transpose", x, perm=[0, 1, 2, 3]), axis=1)
    r = check(n, n.op("Flatten", n.op("Conv", x, weights(n, BINARY, C, 2 * C, 3, 3), kernel_shape=[3, 3])))
    assert r.on_bits == [False, True]


def test_values_without_zero() -> None:
    """-3, -1, 1, 3: without padding exact; with padding, zero is a fifth value."""
    for pads in (0, 1):
        n = Net()
        x = sum_of_steps(n, n.bn(n.first(C), C))
        r = check(n, n.op("Conv", x, weights(n, BINARY, C, C, 3, 3), kernel_shape=[3, 3], pads=[pads] * 4))
        assert r.on_bits == [False, not pads]
        assert not pads or "padding adds another" in r.findings.not_binary[-1].why


def test_real_weights_stay_real() -> None:
    n = Net()
    x = dorefa(2, n, n.bn(n.first(C), C))
    r = check(n, n.op("Conv", x, n.reals(C, C, 3, 3), kernel_shape=[3, 3]))
    assert r.on_bits == [False, False] and "not two-valued" in r.findings.not_binary[-1].why


def test_too_many_values_become_bytes() -> None:
    n = Net()
    x = dorefa(5, n, n.bn(n.first(C), C))
    r = check(n, n.op("Conv", x, weights(n, FEW, C, C, 3, 3), kernel_shape=[3, 3]))
    assert r.on_bits == [False, True] and not r.convs[1].input(0).type.dtype.is_packed


def test_dense_layers() -> None:
    n = Net()
    x = pact(2, n, n.op("Gemm", n.input(1, 20), n.reals(33, 20), n.reals(33), transB=1))
    x = pact(2, n, n.op("Gemm", x, weights(n, FEW, 65, 33, 1, 1).reshape(65, 33), n.reals(65), transB=1))
    r = check(n, n.op("MatMul", x, n.signs(65, 7)))
    assert r.on_bits == [False, True, True]
    assert [c.input(0).type.dtype for c in r.convs] == [FLOAT32, UINT2, UINT2]
