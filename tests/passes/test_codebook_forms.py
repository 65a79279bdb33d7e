"""Weights that a model takes from a codebook: however it says so, they are stored as indices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto

from bitc.interp import run
from bitc.ops.linear import Conv2D
from bitc.pipeline import compile_model, optimize
from bitc.target import Target
from tests.passes.test_quantized_forms import Net

BOOK = np.linspace(-0.37, 0.41, 16).astype(np.float32) ** 3
INT8 = np.arange(-120, 120, 15).astype(np.int8)
INDEX = np.random.default_rng(0).integers(0, 16, (64, 64, 1, 1))


def flat(n: Net) -> str:
    w = n.op("Gather", n.const(BOOK), n.const(INDEX.reshape(-1), np.int64))
    return n.op("Reshape", w, n.const(INDEX.shape, np.int64))


def small_indices(n: Net) -> str:
    return n.op("Gather", n.const(BOOK), n.op("Cast", n.const(INDEX, np.uint8), to=TensorProto.INT32))


def another_axis(n: Net) -> str:
    w = n.op("Gather", n.const(BOOK.reshape(1, 16)), n.const(INDEX.reshape(-1), np.int32), axis=1)
    return n.op("Reshape", w, n.const((64, 64, 1, 1), np.int64))


def from_the_end(n: Net) -> str:
    return n.op("Gather", n.const(BOOK), n.const(INDEX - 16, np.int64), axis=-1)


def a_row_for_each_pair(n: Net) -> str:
    """A codebook of vectors, as product quantization has it."""
    w = n.op("Gather", n.const(np.stack([BOOK, BOOK[::-1]], axis=1)), n.const(INDEX[::2, :, 0, 0], np.int64))
    return n.op("Reshape", w, n.const((64, 64, 1, 1), np.int64))


def elements(n: Net) -> str:
    book = n.const(np.broadcast_to(BOOK, (64, 16)))
    w = n.op("GatherElements", book, n.const(INDEX.reshape(64, 64), np.int64), axis=1)
    return n.op("Reshape", w, n.const((64, 64, 1, 1), np.int64))


def transposed(n: Net) -> str:
    w = n.op("Gather", n.const(BOOK), n.const(INDEX.transpose(2, 3, 1, 0), np.int64))
    return n.op("Transpose", w, perm=[3, 2, 0, 1])


def codes_gathered(n: Net) -> str:
    """int8 entries; DequantizeLinear behind the Gather."""
    return n.dq(n.op("Gather", n.const(INT8, np.int8), n.const(INDEX, np.int64)), 0.004, 0)


def codes_gathered_and_shaped(n: Net) -> str:
    w = n.op("Gather", n.const(INT8, np.int8), n.const(INDEX.reshape(64, 64), np.int64))
    w = n.dq(w, np.full(64, 0.004), np.zeros(64), axis=0)
    return n.op("Reshape", w, n.const(INDEX.shape, np.int64))


def clustered(n: Net) -> str:
    return n.const(BOOK[INDEX])


FORMS = [
    flat, small_indices, another_axis, from_the_end, a_row_for_each_pair, elements, transposed, clustered,
    codes_gathered, codes_gathered_and_shaped,
]  # fmt: skip


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
def test_codebooks(form: Callable[[Net], str], quantized: bool) -> None:
    n = Net(opset=19)
    w: Any = form(n)
    x = n.qdq("x", 0.05) if quantized else "x"
    y = n.op("Conv", x, n.qdq(w, 0.004, 0) if quantized and not form.__name__.startswith("codes") else w)
    data = n.model(n.qdq(y, 0.2) if quantized else y, (1, 64, 6, 6), TensorProto.FLOAT)
    feeds = {"x": np.random.default_rng(1).normal(size=(1, 64, 6, 6)).astype(np.float32)}
    (want,) = ort.InferenceSession(data).run(None, feeds)
    (got,) = run(optimize(data).graph, feeds).values()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=0.21 if quantized else 1e-4)
    found = compile_model(data, Target.load("cortex-m4"))
    (layer,) = (found.selection[v].name for v in found.graph.nodes if isinstance(v.op, Conv2D))
    assert layer == ("codebook_smlad" if quantized else "conv_codebook")
