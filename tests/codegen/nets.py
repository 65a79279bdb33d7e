"""Small whole networks on codes, as they leave the passes."""

from __future__ import annotations

import numpy as np

from bitc.ir.dtypes import FLOAT32, UINT8
from bitc.ir.graph import Graph, Value
from bitc.ir.rewrite import Builder
from bitc.ir.types import Quant, TensorType
from bitc.ops.binary import Add
from bitc.ops.epilogue import Affine, Epilogue, TernThreshold, Threshold
from bitc.ops.linear import Conv2D
from bitc.ops.movement import Reshape
from bitc.ops.pool import MaxPool
from bitc.ops.quantize import Requantize
from bitc.ops.reduce import Softmax
from bitc.ops.window import Window
from tests.kernels.harness import bits

SAME = Window((3, 3), pads=(1, 1, 1, 1))
PM = Threshold(Quant.two_valued(-1, 1))


class _Net(Builder):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = np.random.default_rng(seed)

    def conv(self, x: Value, outputs: int, window: Window, epilogue: Epilogue | None, *params: np.ndarray) -> Value:
        w = bits(self.rng, outputs, *window.kernel, x.shape[3])
        w.name = self.unique("weights")
        values = (self.const(p, "param") for p in params)
        return self.emit(Conv2D(window, 1, epilogue), x, w, *values, at=f"Conv_{len(self.nodes)}")

    def reals(self, n: int) -> np.ndarray:
        return np.round(self.rng.normal(size=n) * 8).astype(np.float32) / 8

    def integers(self, n: int) -> np.ndarray:
        return self.rng.integers(-9, 9, n).astype(np.int32)


def cnn(name: str = "cnn") -> Graph:
    """Float image, bits and trits inside, ten probabilities."""
    b = _Net(0)
    x = Value("image", TensorType((1, 10, 10, 3), FLOAT32))
    v = b.conv(x, 32, SAME, PM, b.reals(32))
    v = b.conv(v, 33, SAME, PM, b.integers(33))
    v = b.emit(MaxPool(Window((2, 2), (2, 2))), v, at="Pool")
    v = b.conv(v, 64, SAME, PM, b.integers(64))
    low = b.integers(64)
    v = b.conv(v, 64, Window((2, 2)), TernThreshold(Quant()), low, low + 9)
    v = b.conv(v, 16, Window((4, 4)), PM, b.integers(16))
    v = b.emit(Reshape((1, 1, 1, 16)), v, at="Flatten")
    v = b.conv(v, 10, Window(), Affine(), b.reals(10), b.reals(10))
    v = b.emit(Softmax(3), v, at="Softmax", name="probabilities")
    return Graph(name, (x,), (v,), tuple(b.nodes))


def mlp(name: str = "mlp") -> Graph:
    """Bytes in, three dense layers, raw sums out."""
    b = _Net(1)
    x = Value("x", TensorType((1, 1, 1, 20), UINT8, quant=Quant((0.5,), (-1.0,))))
    v = b.conv(x, 24, Window(), PM, b.integers(24))
    v = b.conv(v, 24, Window(), PM, b.integers(24))
    v = b.conv(v, 4, Window(), None)
    return Graph(name, (x,), (v,), tuple(b.nodes))


def residual(name: str = "residual") -> Graph:
    """Two residual blocks whose sums are float32."""
    b = _Net(2)
    x = Value("x", TensorType((1, 6, 6, 16), FLOAT32))
    v = x
    for _ in range(2):
        t = b.emit(Requantize(PM), v, b.const(b.reals(16)), at="Sign")
        t = b.conv(t, 16, SAME, Affine(), b.reals(16), b.reals(16))
        v = b.emit(Add(), v, t, at="Add")
    return Graph(name, (x,), (v,), tuple(b.nodes))


NETS = {"cnn": cnn, "mlp": mlp, "residual": residual}
