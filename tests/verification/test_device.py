"""A device must repeat the oracle: codes exactly, floats up to rounding, and says so."""

from __future__ import annotations

import numpy as np

from bitc import interp
from bitc.ir import BIT1, FLOAT32, Graph, Quant, TensorType, Value
from bitc.ir.rewrite import Builder
from bitc.ops.epilogue import Threshold
from bitc.ops.quantize import Dequantize, Requantize
from bitc.verification.device import check_device

ONES = Quant.two_valued(-1, 1)


def _graph() -> Graph:
    x = Value("x", TensorType((1, 8), FLOAT32))
    builder = Builder()
    bits = builder.emit(Requantize(Threshold(ONES)), x, builder.const(np.zeros(8, np.float32)), name="bits")
    y = builder.emit(Dequantize(ONES), bits, name="y")
    return Graph("g", (x,), (y, bits), tuple(builder.nodes))


GRAPH = _graph()
X = {"x": np.array([[1, -1, 2, -2, 3, -3, 4, -4]], np.float32)}


def _outputs() -> dict[str, np.ndarray]:
    return {k: v.copy() for k, v in interp.run(GRAPH, X).items()}


def test_equal_outputs_pass() -> None:
    found = check_device(GRAPH, [X, X], [_outputs(), _outputs()])
    assert (found.failures, found.float_exact) == ([], True)


def test_a_wrong_bit_fails() -> None:
    wrong = _outputs()
    wrong["bits"][0, 3] ^= True
    found = check_device(GRAPH, [X], [wrong])
    assert found.failures == [
        "sample 0: output bits differs from the oracle in 1 of 8 elements, first at [0, 3]: device 0, oracle 1"
    ]


def test_a_wrong_layer_fails_even_if_outputs_are_right() -> None:
    bits = GRAPH.nodes[0].output
    assert bits.type.dtype is BIT1
    array = _outputs()["bits"]
    right = check_device(GRAPH, [X], [_outputs()], [[(bits, array)]])
    assert not right.failures
    wrong = check_device(GRAPH, [X], [_outputs()], [[(bits, ~array)]])
    assert wrong.failures[0].startswith("sample 0: layer bits differs from the oracle in 8 of 8")


def test_float_bits_are_reported_and_larger_errors_fail() -> None:
    near, far = _outputs(), _outputs()
    near["y"][0, 0] = np.nextafter(np.float32(1), np.float32(2))
    far["y"][0, 0] = 1.001
    found = check_device(GRAPH, [X], [near])
    assert (found.failures, found.float_exact) == ([], False)
    found = check_device(GRAPH, [X], [far])
    assert len(found.failures) == 1 and not found.float_exact


def test_nan_equals_nan() -> None:
    x = {"x": np.full((1, 8), np.nan, np.float32)}
    outputs = interp.run(GRAPH, x)
    assert not check_device(GRAPH, [x], [outputs]).failures
    y = Value("z", TensorType((2,), FLOAT32))
    plain = Graph("h", (y,), (y,), ())
    nan = np.array([np.nan, np.inf], np.float32)
    assert check_device(plain, [{"z": nan}], [{"z": nan.copy()}]).float_exact
    assert check_device(plain, [{"z": nan}], [{"z": np.zeros(2, np.float32)}]).failures
