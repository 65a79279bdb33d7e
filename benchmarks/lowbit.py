"""Layers beyond bits by bits: every kind of weights against every kind of activations, on emulated targets.

A layer is a 3x3 convolution of 64 channels to 64 at 16 x 16 pixels; its output is one bit, unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.fit import roomy
from benchmarks.instructions import has_vectors, markdown
from benchmarks.measure import graph_of, measure
from benchmarks.results import Committed
from bitc import runners
from bitc.ir.dtypes import BIT1, FLOAT32, INT8, TERN, UINT1, UINT2, UINT4, UINT8, DType
from bitc.ir.graph import Node, Value, constant
from bitc.ir.types import Quant, TensorType
from bitc.ops.epilogue import Affine, Bases, Epilogue, Levels, Threshold
from bitc.ops.linear import Conv2D
from bitc.ops.window import Window
from bitc.target import Target

RESULTS = Committed("lowbit.json")
TARGETS = ("cortex-m0plus", "cortex-m4", "aarch64", "wasm32-simd128")
SIZE, CHANNELS = 16, 64
MACS = SIZE * SIZE * CHANNELS * CHANNELS * 9
LAYERS: tuple[tuple[str, DType, DType, Sequence[float], DType], ...] = (
    ("bits by bits", BIT1, BIT1, (), BIT1),
    ("bits by two bases of bits", BIT1, BIT1, (1.0, 0.4), BIT1),
    ("bits by trits", BIT1, TERN, (-1, 0, 1), BIT1),
    ("trits by trits", TERN, TERN, (-1, 0, 1), BIT1),
    ("bits by 2-bit weights", BIT1, INT8, (-3, -1, 1, 3), BIT1),
    ("bits by 10 % int8 weights", BIT1, INT8, (), FLOAT32),
    ("{0, 1} by bits", UINT1, BIT1, (), UINT1),
    ("2 bits by bits", UINT2, BIT1, (), UINT2),
    ("2 bits by trits", UINT2, TERN, (-1, 0, 1), UINT2),
    ("2 bits by 2-bit weights", UINT2, INT8, (-2, -1, 0, 1), UINT2),
    ("4 bits by bits", UINT4, BIT1, (), UINT4),
    ("4 bits by 4-bit weights", UINT4, INT8, tuple(range(-8, 8)), UINT4),
    ("4 bits as bytes by 4-bit weights", UINT8, INT8, tuple(range(-8, 8)), UINT8),
    ("bytes by trits", UINT8, TERN, (-1, 0, 1), BIT1),
    ("reals by trits", FLOAT32, TERN, (-1, 0, 1), BIT1),
)
"""Name, types of activations and weights, values of the weights (factors of the bases, of bits), type of the output."""


def node(name: str, x: DType, w: DType, values: Sequence[float], y: DType) -> Node:
    """One layer."""
    rng = np.random.default_rng(0)
    count = max(len(values), 1) if w is BIT1 else 1
    shape = (count * CHANNELS, 3, 3, CHANNELS)
    if w is BIT1:
        codes = rng.random(shape) < 0.5
    elif values:
        codes = rng.choice(np.array(values, np.int8), shape)
    else:
        codes = np.where(rng.random(shape) < 0.1, rng.integers(-127, 128, shape), 0).astype(np.int8)
    ints = not x.is_float
    steps = 1 if y is BIT1 else 15 if y is UINT8 else int(y.max) if y.digits else 2
    t = (np.arange(1, steps + 1)[:, None] * 20 + rng.integers(-9, 9, CHANNELS)).astype(np.int32 if ints else np.float32)
    epilogue: Epilogue = Threshold(Quant.two_valued(-1, 1)) if y is BIT1 else Levels(Quant(), y, steps)
    if y is FLOAT32:
        epilogue, t = Affine(), rng.normal(size=(2, CHANNELS)).astype(np.float32)
    params = list(t)
    if count > 1:
        factor = np.rint(np.reshape(values, (-1, 1)) * rng.uniform(0.8, 1.0, (count, CHANNELS)) * 2**30)
        epilogue = Bases(count, Threshold(Quant.two_valued(-1, 1)))
        params = [factor.astype(np.int32), t[0].astype(np.int64) * 2**30]
    data = Value(f"x {name}", TensorType((1, SIZE, SIZE, CHANNELS), x))
    weights = Value("w", TensorType(shape, w), codes)
    op = Conv2D(Window((3, 3), pads=(1, 1, 1, 1)), epilogue=epilogue)
    consts = [constant("p", p) for p in params]
    (kind,) = op.infer(data.type, weights.type, *(p.type for p in consts))
    return Node(op, (data, weights, *consts), (Value(name, kind),), name)


def run(names: Sequence[str] = TARGETS) -> dict[str, dict[str, dict[str, Any]]]:
    """Row and instructions of each layer on the targets that run here."""
    found = {}
    for name in names:
        if runners.available(Target.load(name)):
            continue
        rows = measure(graph_of([node(*layer) for layer in LAYERS]), roomy(name))
        found[name] = {m.node.origin: {"row": m.row.name, "instructions": m.cost} for m in rows}
    return found


def table(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Markdown: instructions per 32 products, per 128 on vector units, and the row."""
    rows = []
    for name, *_ in LAYERS:
        cells = []
        for target, found in results.items():
            per = 128 if has_vectors(target) else 32
            cells.append(f"{per * found[name]['instructions'] / MACS:.1f} {found[name]['row']}")
        rows.append([name, *cells])
    head = [f"{n}, per {128 if has_vectors(n) else 32}" for n in results]
    return markdown(["3x3 64-64 @16", *head], rows)
