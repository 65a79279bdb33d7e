"""The binary forms that exporters write, through the whole pipeline: found, and computed as imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper

from bitc.ir import BIT1, FLOAT32, TERN
from bitc.ir.dtypes import UINT1
from bitc.ops.epilogue import Threshold
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Transpose
from bitc.ops.pool import MaxPool
from bitc.ops.quantize import Requantize
from bitc.ops.unary import Sign
from bitc.pipeline import Options
from tests.passes.nets import Net, Result, check

C = 8
Quantizer = Callable[[Net, str], str]


# Activations


def sign_sign(n: Net, x: str) -> str:
    return n.op("Sign", n.op("Add", n.op("Sign", x), 0.1))


def where_less(n: Net, x: str) -> str:
    return n.op("Where", n.op("Less", x, 0.0), -1.0, 1.0)


def where_greater_or_equal(n: Net, x: str) -> str:
    return n.op("Where", n.op("GreaterOrEqual", x, 0.0), 1.0, -1.0)


def where_ones_like(n: Net, x: str) -> str:
    return n.op("Where", n.op("Greater", x, 0.0), np.ones((1, C, 6, 6)), -np.ones((1, C, 6, 6)))


def constant_on_the_left(n: Net, x: str) -> str:
    return n.op("Where", n.op("Greater", 0.0, x), -1.0, 1.0)


def cast_times_two(n: Net, x: str) -> str:
    return n.op("Sub", n.op("Mul", 2.0, n.op("Cast", n.op("GreaterOrEqual", x, 0.0), to=1)), 1.0)


def bipolar_quant(n: Net, x: str) -> str:
    return n.op("BipolarQuant", x, [1.0], domain="onnx.brevitas")


def bipolar_quant_scaled(n: Net, x: str) -> str:
    return n.op("BipolarQuant", x, 0.25, domain="qonnx.custom_op.general")


def quant_one_bit(n: Net, x: str) -> str:
    attributes = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"}
    return n.op("Quant", x, 0.5, 0.0, 1.0, domain="qonnx.custom_op.general", **attributes)


def multi_threshold(n: Net, x: str) -> str:
    attributes = {"out_scale": 2.0, "out_bias": -1.0, "out_dtype": "BIPOLAR", "data_layout": "NCHW"}
    return n.op("MultiThreshold", x, n.reals(C, 1), domain="finn.custom_op.general", **attributes)


def ste_clip(n: Net, x: str) -> str:
    surrogate = n.op("Clip", x, -1.0, 1.0)
    return n.op("Add", n.op("Sub", where_less(n, x), surrogate), surrogate)


def ste_min_max(n: Net, x: str) -> str:
    surrogate = n.op("Min", n.op("Max", x, -1.0), 1.0)
    return n.op("Add", surrogate, n.op("Sub", where_less(n, x), surrogate))


def ste_polynomial(n: Net, x: str) -> str:
    """Bi-Real Net's: four masks and two parabolas."""

    def mask(bound: float) -> str:
        return n.op("Cast", n.op("Less", x, bound), to=1)

    square = n.op("Mul", x, x)
    rise, fall = n.op("Add", square, n.op("Mul", x, 2.0)), n.op("Sub", n.op("Mul", x, 2.0), square)
    total = n.op("Neg", mask(-1.0))
    m0, m1 = mask(0.0), mask(1.0)
    total = n.op("Add", n.op("Mul", m0, rise), n.op("Mul", n.op("Sub", 1.0, m0), total))
    total = n.op("Add", n.op("Mul", m1, total), n.op("Mul", n.op("Sub", 1.0, m1), fall))
    return n.op("Add", n.op("Sub", where_less(n, x), total), total)


def ste_of_latent(n: Net, x: str) -> str:
    return n.op("Add", x, n.op("Sub", where_less(n, x), x))


def ste_recomputed(n: Net, x: str) -> str:
    """The exporter wrote the surrogate twice."""
    difference = n.op("Sub", where_less(n, x), n.op("Clip", x, -1.0, 1.0))
    return n.op("Add", difference, n.op("Clip", x, -1.0, 1.0))


def scaled_by_alpha(n: Net, x: str) -> str:
    return n.op("Mul", where_less(n, x), 0.37)


def negated(n: Net, x: str) -> str:
    return n.op("Neg", where_less(n, x))


def rsign(n: Net, x: str) -> str:
    return where_less(n, n.op("Add", x, n.reals(1, C, 1, 1)))


def after_rprelu(n: Net, x: str) -> str:
    y = n.op("PRelu", n.op("Add", x, n.reals(1, C, 1, 1)), np.abs(n.reals(1, C, 1, 1)))
    return where_less(n, n.op("Add", y, n.reals(1, C, 1, 1)))


def after_relu(n: Net, x: str) -> str:
    return where_less(n, n.op("Sub", n.op("Relu", x), np.abs(n.reals(1, C, 1, 1))))


def after_hardtanh(n: Net, x: str) -> str:
    return where_less(n, n.op("Clip", x, -1.0, 1.0))


def decomposed_bn(n: Net, x: str) -> str:
    sigma = n.op("Pow", n.op("Add", np.abs(n.reals(1, C, 1, 1)), 1e-5), 0.5)
    y = n.op("Div", n.op("Sub", x, n.reals(1, C, 1, 1)), sigma)
    return where_less(n, n.op("Add", n.op("Mul", y, n.reals(1, C, 1, 1)), n.reals(1, C, 1, 1)))


def neutral_elements(n: Net, x: str) -> str:
    y = n.op("Identity", n.op("Mul", n.op("Add", x, 0.0), 1.0))
    return n.op("Cast", n.op("Cast", where_less(n, n.op("Div", y, 1.0)), to=11), to=1)


BIPOLAR: list[Quantizer] = [
    sign_sign, where_less, where_greater_or_equal, where_ones_like, constant_on_the_left, cast_times_two,
    bipolar_quant, bipolar_quant_scaled, quant_one_bit, multi_threshold, ste_clip, ste_min_max, ste_polynomial,
    ste_of_latent, ste_recomputed, scaled_by_alpha, negated, rsign, after_rprelu, after_relu, after_hardtanh,
    decomposed_bn, neutral_elements,
]  # fmt: skip


def heaviside(n: Net, x: str) -> str:
    return n.op("Sign", n.op("Relu", x))


def bit_unsigned(n: Net, x: str) -> str:
    return n.op("Mul", n.op("Clip", n.op("Round", n.op("Div", x, 0.6)), 0.0, 1.0), 0.6)


def multi_threshold_01(n: Net, x: str) -> str:
    return n.op("MultiThreshold", x, n.reals(C, 1), domain="finn.custom_op.general", out_dtype="BINARY")


def larq_ternary(n: Net, x: str) -> str:
    plus, minus = n.op("Sign", n.op("Add", x, 0.4)), n.op("Sign", n.op("Sub", x, 0.4))
    return n.op("Sign", n.op("Add", plus, minus))


WITH_ZERO = {heaviside: UINT1, bit_unsigned: UINT1, multi_threshold_01: UINT1, larq_ternary: TERN}
"""Quantizers one of whose values is 0, and the type of their codes."""


def name_of(value: Any) -> str:
    return getattr(value, "__name__", str(value))


def two_layers(n: Net, quantizer: Quantizer, pads: int = 1) -> Result:
    """Real conv -> BN -> quantizer -> binary conv -> BN -> quantizer -> binary conv."""
    edge = {"pads": [pads] * 4}
    x = quantizer(n, n.bn(n.first(C), C))
    x = n.conv(x, C, C, **edge)
    x = n.conv(quantizer(n, n.bn(x, C)), C, C, alpha=n.alphas(C), **edge)
    return check(n, x)


@pytest.mark.parametrize("quantizer", BIPOLAR, ids=name_of)
def test_bipolar(quantizer: Quantizer) -> None:
    r = two_layers(Net(), quantizer)
    assert r.on_bits == [False, True, True], r.findings
    first, middle, _ = r.convs
    assert [c.input(0).type.dtype for c in r.convs] == [FLOAT32, BIT1, BIT1]
    for c in (first, middle):
        assert isinstance(c.op, Conv2D) and isinstance(c.op.epilogue, Threshold), "the threshold is part of the kernel"
    assert not any("Sign" in t for t in r.findings.notices)


@pytest.mark.parametrize("quantizer", WITH_ZERO, ids=name_of)
def test_values_with_zero(quantizer: Quantizer) -> None:
    r = two_layers(Net(), quantizer)
    assert r.on_bits == [False, True, True], r.findings
    assert [c.input(0).type.dtype for c in r.convs] == [FLOAT32, WITH_ZERO[quantizer], WITH_ZERO[quantizer]]
    assert not r.findings.notices


# Sign of zero


def test_sign_of_zero_is_kept_and_named() -> None:
    n = Net()
    x = n.conv(where_less(n, n.bn(n.first(C), C)), C, C)
    x = n.conv(n.op("Sign", x), C, C, pads=[1] * 4)
    r = check(n, x)
    assert r.convs[2].input(0).type.dtype is TERN
    (notice,) = r.findings.notices
    assert notice.startswith("sign") and "--sign0" in notice


def test_sign_of_zero_is_unreachable_on_odd_k() -> None:
    n = Net()
    x = n.conv(where_less(n, n.bn(n.first(7), 7)), 9, 7)
    r = check(n, n.conv(n.op("Sign", x), C, 9))
    assert r.convs[2].input(0).type.dtype is BIT1 and not r.findings.notices


@pytest.mark.parametrize("value", [-1, 1])
def test_sign0_makes_one_bit(value: int) -> None:
    n = Net()
    x = n.conv(where_less(n, n.bn(n.first(C), C)), C, C)
    x = n.conv(n.op("Sign", x), C, C, pads=[1] * 4)
    from bitc.pipeline import optimize

    model = optimize(n.model(x), Options(sign0=value))
    r = Result(model.graph, model.findings)
    assert r.convs[2].input(0).type.dtype is BIT1
    assert any("Sign(0) is" in t for t in r.findings.notices)
    heavy = Net()
    x = heavy.conv(heaviside(heavy, heavy.bn(heavy.first(C), C)), C, C)
    assert not check(heavy, x, Options(sign0=value)).findings.notices, "a step function means its zero"


# Larq


def test_larq_transposes_and_pool_before_batch_norm() -> None:
    """NHWC batch norm between Transposes; the pool becomes a minimum where gamma is negative."""
    n = Net()
    x = n.conv(where_less(n, n.bn(n.first(C, 12), C)), C, C)
    x = n.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = n.op("Transpose", x, perm=[0, 2, 3, 1])
    x = n.op("Add", n.op("Mul", x, n.reals(C)), n.reals(C))
    x = n.op("Transpose", sign_sign(n, x), perm=[0, 3, 1, 2])
    r = check(n, n.conv(x, C, C, alpha=n.alphas(C)))
    assert r.on_bits == [False, True, True]
    (pool,) = [m for m in r.graph.nodes if isinstance(m.op, MaxPool)]
    assert pool.output.type.dtype is BIT1 and 0 < pool.input(1).array.sum() < C
    assert r.count(Transpose) <= 2, "only at the borders of the model"


def test_larq_weights_with_batch_norm_folded() -> None:
    n = Net()
    x = where_less(n, n.bn(n.first(C), C))
    w = n.signs(C, C, 3, 3) * n.reals(C, 1, 1, 1)
    x = n.op("Conv", x, w, n.reals(C), kernel_shape=[3, 3])
    r = check(n, n.conv(where_less(n, x), C, C))
    assert r.on_bits == [False, True, True]


def test_larq_dense_after_flatten_in_nhwc_order() -> None:
    n = Net()
    x = n.conv(where_less(n, n.bn(n.first(C), C)), C, C)
    x = n.op("Transpose", sign_sign(n, n.bn(x, C)), perm=[0, 2, 3, 1])
    x = n.op("Reshape", x, n.const([1, 4 * 4 * C], np.int64))
    x = n.op("MatMul", x, n.signs(4 * 4 * C, 16))
    x = where_less(n, n.op("Add", n.op("Mul", x, n.reals(16)), n.reals(16)))
    r = check(n, n.op("MatMul", x, n.signs(16, 5)))
    assert r.on_bits == [False, True, True, True]
    assert not any(isinstance(m.op, Transpose) and m.output.type.dtype is BIT1 for m in r.graph.nodes)


def test_flatten_in_nchw_order_permutes_the_weights() -> None:
    n = Net()
    x = n.conv(where_less(n, n.bn(n.first(C), C)), C, C)
    x = n.op("Flatten", where_less(n, n.bn(x, C)))
    r = check(n, n.op("Gemm", x, n.signs(10, 4 * 4 * C), n.reals(10), transB=1))
    assert r.on_bits == [False, True, True]


def test_one_padding() -> None:
    n = Net()
    x = where_less(n, n.bn(n.first(C), C))
    x = n.op("Pad", x, n.const([0, 0, 1, 1, 0, 0, 1, 1], np.int64), 1.0)
    r = check(n, n.conv(x, C, C))
    assert r.on_bits == [False, True]


def test_zero_pad_node() -> None:
    n = Net()
    x = where_less(n, n.bn(n.first(C), C))
    x = n.op("Pad", x, n.const([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    r = check(n, n.conv(x, C, C))
    assert r.on_bits == [False, True] and r.convs[1].input(0).type.dtype is BIT1


# PyTorch


def test_f_pad_from_torchscript() -> None:
    """F.pad as its chain of shape nodes."""
    n = Net()
    x = where_less(n, n.bn(n.first(C), C))
    zeros = n.op("ConstantOfShape", n.const([4], np.int64), value=_tensor([0]))
    pads = n.op("Concat", n.const([1, 1, 1, 1], np.int64), zeros, axis=0)
    pads = n.op("Reshape", pads, n.const([-1, 2], np.int64))
    ends = [n.const([v], np.int64) for v in (-1, -(2**63) + 1, 0, -1)]
    pads = n.op("Transpose", n.op("Slice", pads, *ends), perm=[1, 0])
    pads = n.op("Cast", n.op("Reshape", pads, n.const([-1], np.int64)), to=7)
    r = check(n, n.conv(n.op("Pad", x, pads, 0.0, mode="constant"), C, C))
    assert r.on_bits == [False, True]


def _tensor(values: list[int]) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array(values, np.int64))


def test_weight_subgraph() -> None:
    """Sign, Abs, ReduceMean and Mul of latent weights, plus the straight-through sum."""
    n = Net()
    x = where_less(n, n.bn(n.first(C), C))
    w = n.const(n.reals(C, C, 3, 3))
    alpha = n.op("ReduceMean", n.op("Abs", w), axes=[1, 2, 3], keepdims=1)
    binary = n.op("Mul", n.op("Sign", w), alpha)
    clipped = n.op("Clip", w, -1.0, 1.0)
    w = n.op("Add", n.op("Sub", binary, clipped), clipped)
    r = check(n, n.op("Conv", x, w, kernel_shape=[3, 3]))
    assert r.on_bits == [False, True]


def test_weights_off_by_rounding() -> None:
    n = Net()
    x = where_less(n, n.bn(n.first(C), C))
    w = n.signs(C, C, 3, 3) * n.alphas(C)
    w = w * (1 + n.rng.uniform(-5e-6, 5e-6, w.shape))
    r = check(n, n.op("Conv", x, w.astype(np.float32), kernel_shape=[3, 3]))
    assert r.on_bits == [False, True]


def test_dynamo_folds_batch_norm_with_either_sign() -> None:
    n = Net()
    x = where_less(n, n.first(C))
    for _ in range(3):
        w = n.signs(C, C, 3, 3) * n.reals(C, 1, 1, 1)
        x = where_less(n, n.op("Conv", x, w, n.reals(C), kernel_shape=[3, 3], pads=[0, 1, 1, 1]))
    r = check(n, n.conv(x, C, C, k=1))
    assert r.on_bits == [False, True, True, True, True]


def test_reactnet_residual() -> None:
    """x is read by the sign and by the sum: it is computed once, in floats."""
    n = Net()
    x = n.bn(n.first(C), C)
    for _ in range(2):
        y = n.conv(n.op("Sign", n.op("Add", x, n.reals(1, C, 1, 1))), C, C, alpha=n.alphas(C), pads=[1] * 4)
        x = n.op("Add", n.bn(y, C), x)
        x = n.op("Add", n.op("PRelu", n.op("Add", x, n.reals(1, C, 1, 1)), n.reals(C, 1, 1)), n.reals(1, C, 1, 1))
    r = check(n, x)
    assert r.on_bits == [False, True, True]
    assert len(r.convs) == 3


def test_residual_of_signs_reads_the_bits() -> None:
    """The sign itself is part of a float sum: its bits are computed once and read by both."""
    n = Net()
    s = where_less(n, n.bn(n.conv(where_less(n, n.bn(n.first(C), C)), C, C, pads=[1] * 4), C))
    y = n.op("Add", n.bn(n.conv(s, C, C, pads=[1] * 4), C), s)
    r = check(n, n.conv(where_less(n, y), C, C))
    assert r.on_bits == [False, True, True, True]
    assert isinstance(r.convs[1].op, Conv2D) and isinstance(r.convs[1].op.epilogue, Threshold)


def test_xnor_net_activation_scale() -> None:
    """K = mean|x| filtered by a box, multiplied behind the convolution, at run time."""
    n = Net()
    x = n.bn(n.first(C), C)
    k = n.op("ReduceMean", n.op("Abs", x), axes=[1], keepdims=1)
    k = n.op("Conv", k, np.full((1, 1, 3, 3), 1 / 9), kernel_shape=[3, 3], pads=[1] * 4)
    y = n.op("Mul", n.conv(where_less(n, x), C, C, alpha=n.alphas(C), pads=[1] * 4), k)
    r = check(n, n.conv(where_less(n, n.bn(y, C)), C, C))
    assert sorted(r.on_bits) == [False, False, True, True]
    assert r.count(Transpose) <= 2


def test_run_time_scale_before_the_convolution() -> None:
    """sign(x) * mean|x|: the scalar moves behind the convolution."""
    n = Net()
    x = n.bn(n.first(C), C)
    s = n.op("ReduceMean", n.op("Abs", x), axes=[1, 2, 3], keepdims=1)
    y = n.conv(n.op("Mul", where_less(n, x), s), C, C, alpha=n.alphas(C), pads=[1] * 4)
    y = n.op("Flatten", where_less(n, n.bn(y, C)))
    s = n.op("ReduceMean", n.op("Abs", y), axes=[1], keepdims=1)
    r = check(n, n.op("Gemm", n.op("Mul", s, y), n.signs(6 * 6 * C, 5)))
    assert r.on_bits == [False, True, True]


def test_asymmetric_values_without_padding() -> None:
    n = Net()
    x = n.op("Where", n.op("Less", n.bn(n.first(C), C), 0.0), -0.25, 1.5)
    r = check(n, n.bn(n.conv(x, C, C, alpha=n.alphas(C)), C))
    assert r.on_bits == [False, True] and r.convs[1].input(0).type.dtype is BIT1


def test_asymmetric_values_with_padding_decline() -> None:
    n = Net()
    x = n.op("Where", n.op("Less", n.bn(n.first(C), C), 0.0), -0.25, 1.5)
    r = check(n, n.conv(x, C, C, pads=[1] * 4))
    assert r.on_bits == [False, False]
    assert "padding adds a third" in r.findings.not_binary[-1].why


def test_scale_per_channel_declines() -> None:
    n = Net()
    x = n.op("Mul", where_less(n, n.bn(n.first(C), C)), n.reals(1, C, 1, 1))
    r = check(n, n.conv(x, C, C))
    assert r.on_bits == [False, False]
    assert r.findings.not_binary[-1].why.count("values")


# Structure


def test_depthwise_and_grouped() -> None:
    n = Net()
    x = where_less(n, n.bn(n.first(16), 16))
    x = where_less(n, n.bn(n.conv(x, 16, 16, group=16, pads=[1] * 4), 16))
    x = where_less(n, n.bn(n.conv(x, 16, 16, k=1, group=2), 16))
    r = check(n, n.conv(x, C, 16, k=1, group=4))
    assert r.on_bits == [False, True, True, False], "four products per output do not pay"
    assert "4 products" in r.findings.not_binary[-1].why


def test_depthwise_1x1_is_no_binary_layer() -> None:
    n = Net()
    x = n.op("Conv", where_less(n, n.bn(n.first(C), C)), n.reals(C, 1, 1, 1), kernel_shape=[1, 1], group=C)
    r = check(n, n.conv(n.bn(x, C), C, C))
    assert r.on_bits == [False, False, False]
    assert any("1 product per output" in d.why for d in r.findings.not_binary)


def test_concat_of_bits() -> None:
    n = Net()
    x = n.bn(n.first(C), C)
    a = where_less(n, n.bn(n.conv(where_less(n, x), C, C, pads=[1] * 4), C))
    b = where_less(n, n.bn(n.conv(where_less(n, x), C, C, pads=[1] * 4), C))
    r = check(n, n.conv(n.op("Concat", a, b, axis=1), C, 2 * C))
    assert r.on_bits == [False, True, True, True]
    assert r.count(Requantize) == 0 and len(r.convs) == 4, "x is quantized once, in the first kernel"


def test_channel_shuffle_of_bits() -> None:
    n = Net()
    x = where_less(n, n.bn(n.conv(where_less(n, n.bn(n.first(C), C)), C, C, pads=[1] * 4), C))
    x = n.op("Reshape", x, n.const([1, 2, C // 2, 6, 6], np.int64))
    x = n.op("Transpose", x, perm=[0, 2, 1, 3, 4])
    x = n.op("Reshape", x, n.const([1, C, 6, 6], np.int64))
    r = check(n, n.conv(x, C, C, group=2))
    assert r.on_bits == [False, True, True]
    moves = [m for m in r.graph.nodes if isinstance(m.op, Transpose) and m.output.type.dtype is BIT1]
    assert len(moves) <= 1, "one movement of bits"


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_of_bits(mode: str) -> None:
    n = Net()
    x = where_less(n, n.bn(n.conv(where_less(n, n.bn(n.first(C), C)), 4 * C, C), 4 * C))
    x = n.op("DepthToSpace", x, blocksize=2, mode=mode)
    r = check(n, n.conv(x, C, C))
    assert r.on_bits == [False, True, True]
    moves = [m for m in r.graph.nodes if isinstance(m.op, Transpose) and m.output.type.dtype is BIT1]
    assert len(moves) <= 1


@pytest.mark.parametrize("quantizer", [where_less, larq_ternary], ids=name_of)
@pytest.mark.parametrize("before", [False, True], ids=["pool after", "pool before"])
def test_pools(quantizer: Quantizer, before: bool) -> None:
    n = Net()
    x = n.bn(n.conv(where_less(n, n.bn(n.first(C, 8), C)), C, C), C)
    pool = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
    x = quantizer(n, n.bn(n.op("MaxPool", x, **pool), C)) if before else n.op("MaxPool", quantizer(n, x), **pool)
    r = check(n, n.conv(x, C, C))
    assert r.on_bits == [False, True, True]
    (node,) = [m for m in r.graph.nodes if isinstance(m.op, MaxPool)]
    assert node.input(0).type.dtype.is_packed


def test_two_pools_with_batch_norms_between() -> None:
    n = Net()
    x = n.conv(where_less(n, n.bn(n.first(C, 12), C)), C, C, pads=[1] * 4)
    for _ in range(2):
        x = n.bn(n.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), C)
    r = check(n, n.conv(where_less(n, x), C, C))
    assert r.on_bits == [False, True, True] and r.count(MaxPool) == 2


def test_constant_matrix_on_the_left() -> None:
    n = Net()
    x = n.input(12, 5)
    x = where_less(n, n.op("MatMul", n.reals(16, 12), x))
    r = check(n, n.op("MatMul", n.signs(9, 16), x))
    assert r.on_bits == [False, True]


def test_batch_of_two() -> None:
    n = Net()
    x = n.input(2, 3, 6, 6)
    x = n.op("Conv", x, n.reals(C, 3, 3, 3), kernel_shape=[3, 3], pads=[1] * 4)
    x = n.conv(where_less(n, n.bn(x, C)), C, C)
    x = n.op("Flatten", where_less(n, n.bn(x, C)))
    x = n.op("Gemm", x, n.signs(5, 4 * 4 * C), transB=1)
    r = check(n, x)
    assert r.on_bits == [False, True, True]


def test_constants_that_vary_over_the_batch() -> None:
    n = Net()
    x = n.input(2, 3, 6, 6)
    x = n.op("Conv", x, n.reals(C, 3, 3, 3), kernel_shape=[3, 3], pads=[1] * 4)
    x = where_less(n, n.op("Add", x, n.reals(2, C, 1, 1)))
    check(n, n.conv(x, C, C))


def test_zero_kernels_and_equal_kernels() -> None:
    n = Net()
    x = where_less(n, n.bn(n.first(C), C))
    w = n.signs(C, C, 3, 3)
    w[1], w[2], w[3], w[4] = 0.0, -0.0, 1.0, -2.0
    x = n.op("Conv", x, w, kernel_shape=[3, 3], pads=[1] * 4)
    r = check(n, n.conv(where_less(n, n.bn(x, C)), C, C))
    assert r.on_bits == [False, True, True]


def test_real_weights_on_bits_stay_real() -> None:
    n = Net()
    x = where_less(n, n.bn(n.first(C), C))
    r = check(n, n.op("Conv", x, n.reals(C, C, 3, 3), kernel_shape=[3, 3]))
    assert r.on_bits == [False, False]
    assert "not two-valued" in r.findings.not_binary[-1].why


def test_weight_bits_with_real_input() -> None:
    n = Net()
    x = n.bn(n.first(C), C)
    r = check(n, n.conv(x, C, C, alpha=n.alphas(C)))
    assert r.convs[1].input(1).type.dtype is BIT1 and r.convs[1].input(0).type.dtype is FLOAT32


def test_uint8_image_times_bits() -> None:
    n = Net()
    q = n.op("QuantizeLinear", n.input(1, 3, 6, 6), 0.05, n.const(0, np.uint8))
    x = n.op("DequantizeLinear", q, 0.05, n.const(0, np.uint8))
    r = check(n, n.conv(x, C, 3, alpha=n.alphas(C), pads=[1] * 4))
    assert r.on_bits == [True]


def test_sign_appears_nowhere_in_floats() -> None:
    """A sign that only binary layers read is not computed in floats beside its bits."""
    n = Net()
    x = sign_sign(n, n.bn(n.first(C), C))
    r = check(n, n.op("Add", n.conv(x, C, C, pads=[1] * 4), n.conv(x, C, C, k=1)))
    assert r.count(Sign) == 0


def test_conv_over_time() -> None:
    n = Net()
    x = n.op("Conv", n.input(1, 3, 20), n.reals(C, 3, 3), kernel_shape=[3])
    for _ in range(2):
        x = n.op("Add", n.op("Mul", x, n.reals(C, 1)), n.reals(C, 1))
        x = n.op("Conv", where_less(n, x), n.signs(C, C, 3), kernel_shape=[3])
    r = check(n, x)
    assert r.on_bits == [False, True, True] and r.count(Transpose) <= 2


@pytest.mark.parametrize("stride", [1, 2])
def test_transposed_convolution(stride: int) -> None:
    """With a stride, zeros stand between the signs."""
    n = Net()
    x = where_less(n, n.bn(n.first(C), C))
    x = n.op("ConvTranspose", x, n.signs(C, C, 4, 4), kernel_shape=[4, 4], strides=[stride] * 2, pads=[1] * 4)
    r = check(n, n.conv(where_less(n, n.bn(x, C)), C, C))
    assert r.on_bits == [False, stride == 1, True]
    assert stride == 1 or "padded with 0" in r.findings.not_binary[-1].why


def test_gate_does_not_hold_up_transposes() -> None:
    """Squeeze and excitation: the gate is small and is moved, not the image."""
    n = Net()
    x = n.bn(n.first(C), C)
    g = n.op("GlobalAveragePool", x)
    g = n.op("Sigmoid", n.op("Conv", g, n.reals(C, C, 1, 1), kernel_shape=[1, 1]))
    x = n.op("Add", n.op("Mul", x, g), n.bn(n.conv(where_less(n, x), C, C, pads=[1] * 4), C))
    r = check(n, n.conv(where_less(n, x), C, C))
    assert sorted(r.on_bits) == [False, False, True, True] and r.count(Transpose) <= 2


def test_gate_from_a_dense_layer() -> None:
    n = Net()
    x = n.bn(n.first(C), C)
    g = n.op("Flatten", n.op("GlobalAveragePool", x))
    g = n.op("Reshape", n.op("Sigmoid", n.op("MatMul", g, n.reals(C, C))), n.const([1, C, 1, 1], np.int64))
    r = check(n, n.conv(where_less(n, n.op("Sub", n.op("Mul", x, g), 0.1)), C, C))
    assert sorted(r.on_bits) == [False, False, True] and r.count(Transpose) <= 2


def test_upsampled_bits() -> None:
    n = Net()
    x = where_less(n, n.bn(n.first(C), C))
    sizes = n.const([1, 1, 2, 2])
    x = n.op("Resize", x, "", sizes, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    r = check(n, n.conv(x, C, C))
    assert r.on_bits == [False, True]


def test_split_bits() -> None:
    n = Net()
    x = where_less(n, n.bn(n.first(2 * C), 2 * C))
    n.nodes.append(helper.make_node("Split", [x, n.const([C, C], np.int64)], ["left", "right"], name="split", axis=1))
    y = n.op("Add", n.conv("left", C, C), n.conv("right", C, C))
    r = check(n, y)
    assert r.on_bits == [False, True, True]


def test_average_pool_reads_the_bits() -> None:
    n = Net()
    x = where_less(n, n.bn(n.conv(where_less(n, n.bn(n.first(C), C)), C, C), C))
    y = n.op("Flatten", n.op("GlobalAveragePool", x))
    z = n.op("Flatten", n.op("GlobalAveragePool", n.conv(x, C, C)))
    r = check(n, n.op("Add", y, z))
    assert r.on_bits == [False, True, True]
    assert isinstance(r.convs[1].op, Conv2D) and isinstance(r.convs[1].op.epilogue, Threshold)
