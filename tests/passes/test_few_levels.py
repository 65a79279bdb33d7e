"""Weights beyond ±alpha: ternary, of two to four bits, residual; through the whole pipeline."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from bitc.interp import run
from bitc.ir import BIT1, FLOAT32, INT8, TERN, UINT8
from bitc.ops.epilogue import Affine, Bases, Threshold
from bitc.ops.linear import Conv2D
from bitc.passes.weights import GridWeights, ResidualWeights, on_grid, partial, residual
from bitc.pipeline import Options, optimize
from tests.passes.nets import Net, check
from tests.passes.test_forms import Quantizer, heaviside, larq_ternary, name_of, where_less

C = 8


def ternary(n: Net, *shape: int) -> np.ndarray:
    """Weights {-s, 0, s} per channel, as a straight-through estimator leaves them: w + (q - w)."""
    s, latent = np.abs(n.reals(shape[0], *(1,) * (len(shape) - 1))) + np.float32(0.1), n.reals(*shape)
    q = s * np.sign(latent) * (np.abs(latent) > 0.5)
    return latent + (q - latent)


@pytest.mark.parametrize("pads", [0, 1])
@pytest.mark.parametrize("quantizer", [where_less, heaviside, larq_ternary], ids=name_of)
def test_ternary(quantizer: Quantizer, pads: int) -> None:
    n = Net()
    w = ternary(n, C, C, 3, 3)
    assert len(np.unique(w[0])) > 3, "not exactly three-valued"
    x = quantizer(n, n.bn(n.first(C), C))
    x = n.op("Conv", x, w, kernel_shape=[3, 3], pads=[pads] * 4)
    x = n.op("Conv", where_less(n, n.bn(x, C)), ternary(n, 5, C, 3, 3), kernel_shape=[3, 3])
    r = check(n, x)
    _, middle, last = r.convs
    assert middle.input(1).type.dtype is last.input(1).type.dtype is TERN
    assert isinstance(middle.op, Conv2D) and isinstance(middle.op.epilogue, Threshold)
    assert {f.form.split(" x ")[1] for f in r.findings.binary} == {"weights {-s, 0, s} per channel"}


def test_ternary_against_bytes_and_reals() -> None:
    n = Net()
    image = n.input(1, 4, 6, 6)
    w = np.sign(np.round(n.reals(C, 4, 3, 3)))
    y = n.op("Conv", image, w, kernel_shape=[3, 3])
    r = check(n, y)
    assert r.convs[-1].input(0).type.dtype is FLOAT32 and r.convs[-1].input(1).type.dtype is TERN
    assert "three-valued, stored as trits" in r.findings.not_binary[-1].why

    for few, dtype in ((w, TERN), (w * 3, TERN), (w * 2 + 1, INT8)):
        graph = helper.make_graph(
            [
                helper.make_node("Cast", ["x"], ["real"], to=1),
                helper.make_node("Mul", ["real", "s"], ["scaled"]),
                helper.make_node("Conv", ["scaled", "w"], ["y"], name="conv", kernel_shape=[3, 3], pads=[1] * 4),
            ],
            "bytes",
            [helper.make_tensor_value_info("x", 2, (1, 4, 6, 6))],
            [helper.make_empty_tensor_value_info("y")],
            [
                helper.make_tensor("s", 1, [], [1 / 255]),
                helper.make_tensor("w", 1, few.shape, few.astype(np.float32).ravel()),
            ],
        )
        found = optimize(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]).SerializeToString())
        (conv,) = [m for m in found.graph.nodes if isinstance(m.op, Conv2D)]
        assert conv.input(0).type.dtype is UINT8
        assert conv.input(1).type.dtype is dtype
        feeds = {"x": np.random.default_rng(0).integers(0, 256, (1, 4, 6, 6)).astype(np.uint8)}
        want, got = run(found.imported.graph, feeds)["y"], run(found.graph, feeds)["y"]
        np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("levels", [[-3, -1, 1, 3], [-2, -1, 0, 1], [-7, -5, -3, -1, 1, 3, 5, 7], list(range(-7, 8))])
def test_few_bits(levels: list[int]) -> None:
    n = Net()
    x = where_less(n, n.bn(n.first(C), C))
    for outputs in (C, 5):
        w = n.rng.choice(np.array(levels, np.float32), (outputs, C, 3, 3)) * n.alphas(outputs)
        x = n.op("Conv", x, w.astype(np.float32), kernel_shape=[3, 3], pads=[1] * 4)
        x = where_less(n, n.bn(x, outputs)) if outputs == C else x
    r = check(n, x)
    assert r.on_bits == [False, True, True]
    assert [c.input(1).type.dtype for c in r.convs[1:]] == [INT8, INT8]
    assert isinstance(r.convs[1].op, Conv2D) and isinstance(r.convs[1].op.epilogue, Threshold)
    assert "per channel" in r.findings.binary[0].form


@pytest.mark.parametrize("quantizer", [where_less, larq_ternary], ids=name_of)
def test_residual(quantizer: Quantizer) -> None:
    n = Net()
    x = quantizer(n, n.bn(n.first(C), C))
    w = n.signs(C, C, 3, 3) * n.alphas(C) + n.signs(C, C, 3, 3) * n.alphas(C) / 3
    r = check(n, n.bn(n.op("Conv", x, w, n.reals(C), kernel_shape=[3, 3], pads=[1] * 4), C))
    assert r.on_bits == [False, True]
    conv = r.convs[1]
    assert isinstance(conv.op, Conv2D) and conv.op.epilogue == Bases(2, Affine()), "two binary convolutions in one"
    assert conv.input(1).type.dtype is BIT1 and conv.input(1).shape[0] == 2 * C
    assert r.findings.binary[0].form.endswith("weights ±a ± b per channel")


def two_bits(n: Net, x: str) -> str:
    """``round(clip(x, 0, 1) * 3) / 3``."""
    return n.op("Div", n.op("Round", n.op("Mul", n.op("Clip", x, 0.0, 1.0), 3.0)), 3.0)


def salient(n: Net, share: float, *shape: int) -> np.ndarray:
    """Weights ±alpha per channel, of which some are int8 times a scale per channel."""
    alpha, beta = (n.alphas(shape[0]).reshape(-1, *(1,) * (len(shape) - 1)) / s for s in (1, 40))
    q = n.rng.integers(-127, 128, shape)
    w: np.ndarray = np.where(n.rng.random(shape) < share, q * beta, n.signs(*shape) * alpha).astype(np.float32)
    return w


@pytest.mark.parametrize("pads", [0, 1])
@pytest.mark.parametrize("quantizer", [where_less, larq_ternary, two_bits], ids=name_of)
def test_partially_binary(quantizer: Quantizer, pads: int) -> None:
    n = Net()
    x = quantizer(n, n.bn(n.first(C), C))
    x = n.bn(n.op("Conv", x, salient(n, 0.1, C, C, 3, 3), n.reals(C), kernel_shape=[3, 3], pads=[pads] * 4), C)
    r = check(n, n.conv(where_less(n, x), C, C))
    assert r.on_bits == [False, True, True, True], "a ternary convolution and a sparse one"
    assert [c.input(1).type.dtype for c in r.convs[1:3]] == [TERN, INT8]
    assert "% of them int8" in r.findings.binary[0].form


def test_too_many_salient_weights() -> None:
    n = Net()
    x = where_less(n, n.bn(n.first(C), C))
    r = check(n, n.op("Conv", x, salient(n, 0.5, C, C, 3, 3), kernel_shape=[3, 3]))
    assert r.on_bits == [False, False]


def test_partial_weights() -> None:
    n = Net()
    w = salient(n, 0.1, 6, 300)
    w[2] = np.where(w[2] < 0, -1, 1)
    found = partial(w, 1e-4, 0.25)
    assert found is not None and not found.rest.codes[2].any()
    assert not (found.bits.codes * found.rest.codes).any()
    total = found.bits.codes * found.bits.alpha[:, None] + found.rest.codes * found.rest.alpha[:, None]
    np.testing.assert_allclose(total, w, rtol=1e-5, atol=1e-6)
    assert partial(n.reals(6, 300), 1e-4, 0.25) is None


def test_zero_is_proved_unreachable_by_the_number_of_nonzero_weights() -> None:
    """Every channel has an odd number of nonzero weights, so no sum of ±1 is 0."""
    n = Net()
    w = n.signs(C, C, 3, 3)
    w[:, 0, 0, 0] = 0
    x = n.op("Conv", where_less(n, n.bn(n.first(C), C)), w, kernel_shape=[3, 3])
    r = check(n, n.conv(n.op("Sign", x), C, C))
    assert r.convs[2].input(0).type.dtype is BIT1 and not r.findings.notices
    w[:, 1, 0, 0] = 0
    x = n.op("Conv", where_less(n, n.bn(n.first(C), C)), w, kernel_shape=[3, 3])
    r = check(n, n.conv(n.op("Sign", x), C, C), Options())
    assert r.convs[-1].input(0).type.dtype is TERN and r.findings.notices


def test_too_few_products_for_planes() -> None:
    n = Net()
    x = where_less(n, n.bn(n.first(C), C))
    w = n.rng.choice(np.array([-3, -1, 1, 3], np.float32), (C, C, 1, 1))
    r = check(n, n.op("Conv", x, w, kernel_shape=[1, 1]))
    assert r.on_bits == [False, False] and "not two-valued" in r.findings.not_binary[-1].why


# Weights alone


def test_on_grid() -> None:
    w = np.array([[1, -1, 0], [0.5, 0.5, 0.25], [0, 0, 0], [3, -1.00001, 2]], np.float32)
    found = on_grid(w, 1e-4, 7)
    assert isinstance(found, GridWeights) and found.levels == 3
    np.testing.assert_array_equal(found.codes, [[1, -1, 0], [2, 2, 1], [0, 0, 0], [3, -1, 2]])
    np.testing.assert_allclose(found.alpha, [1, 0.25, 0, 1], rtol=1e-5)
    assert found.alpha[1] == np.float32(0.25)
    assert on_grid(w, 1e-4, 2) is None
    assert on_grid(np.array([[1, 0.49, 0.1]], np.float32), 1e-4, 7) is None


def test_on_grid_snaps_what_straight_through_estimators_leave() -> None:
    w = ternary(Net(), 64, 300)
    found = on_grid(w, 1e-4, 1)
    assert found is not None
    np.testing.assert_allclose(found.codes * found.alpha[:, None], w, atol=1e-5)


def test_residual_weights() -> None:
    n = Net()
    a, b = n.alphas(5).reshape(5, 1), n.alphas(5).reshape(5, 1) / 4
    b[2] = 0
    w = n.signs(5, 40) * a + n.signs(5, 40) * b
    found = residual(w, 1e-4)
    assert isinstance(found, ResidualWeights)
    parts = [p.alpha[:, None] * (1 - 2 * p.bits) for p in found.bases]
    np.testing.assert_allclose(parts[0] + parts[1], w, rtol=1e-5, atol=1e-6)
    assert found.bases[1].alpha[2] == 0
    assert residual(n.reals(5, 40), 1e-4) is None
