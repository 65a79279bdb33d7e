"""Small layers of every form that the priced rows take, to which the cost model is fitted. The suite is not among them:
it is what the fit is judged by."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np

from bitc.ir.dtypes import BIT1, FLOAT32, INT8, TERN, UINT8, DType
from bitc.ir.graph import Node, Value, constant
from bitc.ir.types import Quant, TensorType
from bitc.ops.epilogue import Affine, Epilogue, Requant, TernThreshold, Threshold
from bitc.ops.linear import Conv2D
from bitc.ops.window import Window

Array = np.ndarray[Any, Any]
_PM = Quant.two_valued(-1, 1)
_SAME = {1: (0, 0, 0, 0), 2: (0, 0, 1, 1), 3: (1, 1, 1, 1), 5: (2, 2, 2, 2)}


class _Layers:
    def __init__(self) -> None:
        self.rng = np.random.default_rng(7)
        self.nodes: list[Node] = []

    def add(
        self,
        x: DType,
        w: DType,
        channels: int,
        outputs: int,
        size: int,
        kernel: int,
        *,
        stride: int = 1,
        group: int = 1,
        pad: bool = True,
        gives: str = "bits",
        planar: bool = False,
        zero: int = 0,
        zeros: float = 0.0,
        pairs: bool = False,
        rows: int = 1,
        entries: int = 0,
    ) -> None:
        """`zeros`: share of weights that are 0; `pairs`: two of every four that are; `rows`: outputs in which
        zeros lie together; `entries`: how many different ones
        there are, if not any."""
        window = Window((kernel, kernel), (stride, stride), _SAME[kernel] if pad else (0, 0, 0, 0))
        shape = (outputs, kernel, kernel, channels // group)
        codes = self._codes(w, shape)
        if entries:
            codes = self.rng.choice(codes.reshape(-1)[:entries], shape)
        if zeros:
            groups = (-(-outputs // rows), *shape[1:])
            codes[np.repeat(self.rng.random(groups) < zeros, rows, axis=0)[:outputs]] = 0
        if pairs:
            for four in codes.reshape(-1, 4):
                four[self.rng.permutation(4)[:2]] = 0
        weights = Value("w", TensorType(shape, w), codes)
        dims = (1, channels, size, size) if planar else (1, size, size, channels)
        data = Value(f"x{len(self.nodes)}", TensorType(dims, x))
        epilogue, params = self._epilogue(gives, outputs)
        op = Conv2D(window, group, epilogue, planar, zero)
        values = [constant(f"p{i}", p) for i, p in enumerate(params)]
        types = op.infer(data.type, weights.type, *(v.type for v in values))
        name = f"y{len(self.nodes)}"
        self.nodes.append(Node(op, (data, weights, *values), (Value(name, types[0]),), name))

    def _codes(self, dtype: DType, shape: tuple[int, ...]) -> Array:
        if dtype is BIT1:
            return self.rng.random(shape) < 0.5
        if dtype is FLOAT32:
            return self.rng.normal(size=shape).astype(np.float32)
        bound = 1 if dtype is TERN else 100
        return self.rng.integers(-bound, bound + 1, shape).astype(np.int8)

    def _epilogue(self, gives: str, outputs: int) -> tuple[Epilogue | None, list[Array]]:
        reals = [self.rng.normal(size=outputs).astype(np.float32) for _ in range(2)]
        t = self.rng.integers(-5, 5, outputs).astype(np.int32)
        forms: dict[str, tuple[Epilogue | None, list[Array]]] = {
            "bits": (Threshold(_PM), [t]),
            "flips": (Threshold(_PM), [t, self.rng.random(outputs) < 0.5]),
            "trits": (TernThreshold(Quant()), [t, t + 3]),
            "float": (Affine(), reals),
            "sums": (None, []),
            "codes": (
                Requant(INT8, -3, -128, 127),
                [t, self.rng.integers(2**23, 2**24, outputs).astype(np.int32), np.full(1, 33, np.int32)],
            ),
        }
        return forms[gives]


def layers() -> list[Node]:
    """Nodes without layouts, each with an input of its own."""
    b = _Layers()
    outputs = ("bits", "float", "bits", "sums", "flips", "bits", "trits")
    kinds = cycle(outputs)
    for channels, count in (
        (16, 16), (24, 32), (32, 32), (33, 17), (40, 31), (48, 64), (64, 64), (64, 33), (65, 9), (96, 64), (128, 128),
        (160, 40), (192, 64), (256, 128), (320, 65), (384, 32), (512, 256),
    ):  # fmt: skip
        b.add(BIT1, BIT1, channels, count, 9 if channels < 200 else 5, 3, gives=next(kinds))
        b.add(BIT1, BIT1, channels, count, 6, 3, pad=False, stride=2, gives=next(kinds))
        b.add(BIT1, BIT1, channels, count, 6, 1, gives=next(kinds))
    for channels, count, size, kernel, stride in (
        (64, 64, 8, 3, 1), (64, 32, 12, 3, 1), (32, 96, 14, 3, 1), (96, 64, 10, 3, 1), (128, 64, 7, 3, 1),
        (48, 80, 11, 3, 1), (40, 64, 13, 3, 1), (128, 48, 12, 3, 2), (64, 96, 14, 3, 2), (100, 72, 9, 3, 2),
        (128, 128, 12, 1, 1), (64, 96, 16, 1, 1), (256, 160, 7, 1, 1), (32, 32, 10, 5, 1), (64, 40, 9, 5, 1),
        (200, 64, 5, 3, 1), (256, 96, 4, 3, 1), (320, 32, 6, 3, 1), (64, 64, 30, 3, 1), (33, 48, 18, 3, 1),
    ):  # fmt: skip
        b.add(BIT1, BIT1, channels, count, size, kernel, stride=stride, gives="bits")
    for channels in (32, 64, 96):
        b.add(BIT1, BIT1, channels, 48, 8, 5, gives=next(kinds))
        b.add(BIT1, BIT1, channels, 48, 6, 2, gives=next(kinds))
        b.add(BIT1, BIT1, 2 * channels, 64, 6, 3, group=2, gives=next(kinds))
        b.add(BIT1, BIT1, 2 * channels, 32, 6, 3, group=4, gives=next(kinds))
        b.add(BIT1, BIT1, 2 * channels, 128, 9, 3, group=2, gives="bits")
        b.add(BIT1, BIT1, channels, 64, 8, 3, group=2, gives=next(kinds))
    for k, count in ((64, 10), (160, 160), (300, 100), (512, 64), (784, 160), (1024, 256), (2048, 64), (3136, 128)):
        b.add(BIT1, BIT1, k, count, 1, 1, gives=next(kinds))
    for channels in (8, 16, 24, 32, 40, 48, 64, 96, 128, 160, 192, 256):
        b.add(BIT1, BIT1, channels, channels, 8, 3, group=channels, gives=next(kinds))
        b.add(BIT1, BIT1, channels, channels, 8, 5, group=channels, stride=2, gives=next(kinds))
        b.add(BIT1, BIT1, channels, channels, 7, 3, group=channels, pad=False, gives="bits")
        b.add(BIT1, BIT1, channels, channels, 20, 3, group=channels, gives="bits")
    for channels, count in ((32, 32), (64, 40), (96, 64), (200, 33)):
        for x, w in ((TERN, BIT1), (BIT1, TERN), (TERN, TERN)):
            b.add(x, w, channels, count, 7, 3, gives=next(kinds))
            b.add(x, w, channels, count, 6, 1, gives=next(kinds))
            b.add(x, w, 4 * channels, count, 1, 1, gives=next(kinds))
    for channels, count, size, kernel in (
        (3, 32, 12, 3), (1, 16, 14, 3), (4, 20, 10, 5), (3, 64, 10, 1), (16, 24, 8, 3), (3, 48, 9, 3), (1, 36, 9, 5),
        (2, 64, 8, 3), (8, 32, 6, 3), (24, 64, 5, 1), (32, 32, 5, 3),
    ):  # fmt: skip
        for x, w in ((FLOAT32, BIT1), (UINT8, BIT1), (INT8, BIT1), (FLOAT32, FLOAT32), (INT8, INT8)):
            b.add(x, w, channels, count, size, kernel, gives=next(kinds))
            b.add(x, w, channels, count, size, kernel, pad=False, stride=2, gives=next(kinds))
    for channels, count, size, kernel, stride in (
        (3, 32, 12, 3, 1), (3, 64, 10, 3, 1), (3, 48, 13, 5, 2), (1, 32, 14, 3, 1), (1, 24, 9, 5, 1), (2, 40, 9, 3, 2),
        (3, 48, 26, 3, 1),
    ):  # fmt: skip
        for x in (FLOAT32, UINT8, INT8):
            b.add(x, BIT1, channels, count, size, kernel, stride=stride, planar=True, gives=next(kinds))
        b.add(FLOAT32, FLOAT32, channels, count, size, kernel, stride=stride, planar=True, gives=next(kinds))
    for k, count in ((64, 10), (200, 48), (513, 32)):
        for x, w in ((FLOAT32, BIT1), (INT8, BIT1), (UINT8, BIT1), (FLOAT32, FLOAT32)):
            b.add(x, w, k, count, 1, 1, gives=next(kinds))
    _int8(b)
    _sparse(b)
    _blocks(b)
    _float_channels(b)
    return b.nodes


def _sparse(b: _Layers) -> None:
    """Many weights are zero."""
    gives = iter(("codes", "codes", "codes", "sums", "codes", "float") * 20)
    for channels, count, size, kernel, zeros in (
        (64, 64, 8, 1, 0.9), (32, 48, 9, 1, 0.8), (128, 40, 6, 1, 0.95), (96, 32, 7, 1, 0.6), (16, 24, 12, 1, 0.75),
        (256, 64, 4, 1, 0.9), (33, 17, 7, 1, 0.7), (24, 32, 8, 3, 0.9), (16, 16, 9, 3, 0.7), (40, 24, 5, 3, 0.97),
    ):  # fmt: skip
        b.add(INT8, INT8, channels, count, size, kernel, gives=next(gives), zero=-5, zeros=zeros)
        b.add(UINT8, INT8, channels, count, size, kernel, stride=2, gives=next(gives), zero=120, zeros=zeros)
        b.add(FLOAT32, FLOAT32, channels, count, size, kernel, gives="float", zeros=zeros)
        b.add(FLOAT32, FLOAT32, channels, count, size, kernel, stride=2, gives="sums", zeros=zeros)
    for channels, count, size, kernel in (
        (64, 64, 8, 1),
        (128, 32, 7, 1),
        (32, 48, 9, 3),
        (16, 24, 12, 1),
        (48, 9, 6, 3),
    ):
        b.add(INT8, INT8, channels, count, size, kernel, gives=next(gives), zero=-5, pairs=True)
        b.add(UINT8, INT8, channels, count, size, kernel, gives=next(gives), zero=120, pairs=True)


def _blocks(b: _Layers) -> None:
    """Zeros lie in blocks of outputs."""
    gives = iter(("codes", "codes", "codes", "sums", "codes", "float") * 20)
    for channels, count, size, kernel, zeros, rows in (
        (64, 64, 8, 1, 0.9, 4), (32, 48, 9, 1, 0.8, 2), (128, 40, 6, 1, 0.95, 8), (96, 32, 7, 1, 0.6, 4),
        (256, 64, 4, 1, 0.9, 4), (33, 17, 7, 1, 0.7, 4), (24, 32, 8, 3, 0.9, 4), (16, 24, 9, 3, 0.7, 8),
        (40, 24, 5, 3, 0.97, 2), (300, 64, 1, 1, 0.8, 4), (128, 100, 1, 1, 0.9, 2), (16, 64, 16, 1, 0.75, 4),
    ):  # fmt: skip
        b.add(INT8, INT8, channels, count, size, kernel, gives=next(gives), zero=-5, zeros=zeros, rows=rows)
        b.add(UINT8, INT8, channels, count, size, kernel, gives=next(gives), zero=120, zeros=zeros, rows=rows)
        b.add(FLOAT32, FLOAT32, channels, count, size, kernel, gives="float", zeros=zeros, rows=rows)
        b.add(FLOAT32, FLOAT32, channels, count, size, kernel, gives="sums", zeros=zeros, rows=rows)


def _int8(b: _Layers) -> None:
    """Codes in, mostly codes out."""
    gives = iter(("codes", "codes", "bits", "codes", "sums", "codes", "float") * 20)
    for channels, count, size, kernel, stride in (
        (64, 32, 8, 3, 1), (16, 16, 12, 3, 1), (3, 16, 14, 3, 1), (48, 40, 10, 1, 1), (32, 64, 9, 3, 2),
        (8, 8, 9, 5, 1), (24, 17, 7, 3, 1), (1, 32, 13, 3, 2), (128, 20, 6, 1, 1), (33, 10, 7, 1, 1),
        (16, 30, 11, 1, 1), (6, 9, 8, 3, 1), (64, 96, 5, 3, 1), (96, 48, 7, 1, 1), (40, 24, 6, 5, 2), (2, 12, 12, 3, 1),
    ):  # fmt: skip
        b.add(INT8, INT8, channels, count, size, kernel, stride=stride, gives="codes", zero=-5)
        b.add(INT8, INT8, channels, count, size, kernel, stride=stride, pad=False, gives=next(gives))
        b.add(UINT8, INT8, channels, count, size, kernel, stride=stride, gives=next(gives), zero=128)
    for channels, count, size in ((3, 16, 14), (3, 24, 9), (1, 8, 16)):
        b.add(INT8, INT8, channels, count, size, 3, stride=2, gives="codes", planar=True, zero=3)
        b.add(UINT8, INT8, channels, count, size, 3, gives="codes", planar=True)
    for k, count in ((64, 10), (640, 32), (250, 64), (400, 120), (1024, 40), (63, 9), (128, 128)):
        b.add(INT8, INT8, k, count, 1, 1, gives="codes", zero=-128)
        b.add(INT8, INT8, k, count, 1, 1, gives=next(gives))
    for channels, size, kernel, stride in (
        (8, 24, 3, 1), (32, 10, 3, 1), (64, 6, 3, 2), (16, 13, 3, 2), (48, 5, 3, 1), (24, 8, 5, 1), (12, 17, 3, 1),
        (80, 5, 5, 1), (36, 9, 5, 2), (128, 4, 3, 1),
    ):  # fmt: skip
        b.add(INT8, INT8, channels, channels, size, kernel, stride=stride, group=channels, gives="codes", zero=4)
        b.add(UINT8, INT8, channels, channels, size, kernel, group=channels, pad=False, gives="codes")
        b.add(INT8, INT8, channels, channels, size, kernel, stride=stride, group=channels, gives="float")
    for channels, count in ((16, 32), (48, 48)):
        b.add(INT8, INT8, channels, count, 8, 3, group=4, gives="codes", zero=4)
    for channels, count, size, kernel in (
        (64, 64, 8, 1),
        (96, 40, 5, 1),
        (32, 32, 6, 3),
        (48, 48, 7, 1),
        (16, 64, 9, 3),
    ):
        for entries in (4, 16):
            b.add(INT8, INT8, channels, count, size, kernel, gives="codes", zero=-5, entries=entries)


def _float_channels(b: _Layers) -> None:
    """Each channel by itself, in float32."""
    for channels, size, kernel, stride in (
        (8, 24, 3, 1), (32, 10, 3, 1), (64, 6, 3, 2), (16, 13, 3, 2), (48, 5, 3, 1), (24, 8, 2, 1), (12, 17, 3, 1),
        (3, 30, 3, 2), (36, 9, 2, 2), (128, 6, 3, 1),
    ):  # fmt: skip
        b.add(FLOAT32, FLOAT32, channels, channels, size, kernel, stride=stride, group=channels, gives="float")
        b.add(
            FLOAT32, FLOAT32, channels, channels, size, kernel, stride=stride, group=channels, gives="sums", pad=False
        )
