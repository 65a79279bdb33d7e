"""Completeness: every operator has a kernel row, every row a test's worth of meaning."""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np
import pytest

import bitc.ops
from bitc.errors import NoKernel
from bitc.ir.dtypes import BIT1, TERN
from bitc.ir.graph import Op
from bitc.ir.types import Layout, TensorType
from bitc.kernels import select
from bitc.kernels.layout import word_for
from bitc.kernels.pack import pack_bits, pack_tensor, unpack_bits, unpack_tensor
from bitc.kernels.pointwise_rows import ROWS
from bitc.kernels.variants import VARIANTS
from bitc.ops.base import Pointwise
from bitc.ops.pool import AveragePool
from bitc.ops.window import Window
from bitc.target import Target
from tests.kernels.harness import portable, random_array, single

COMPILE_TIME_ONLY: set[str] = set()
"""Operators that no graph has after the passes."""


def operators() -> list[type[Op]]:
    found: set[type[Op]] = set()
    for module in pkgutil.iter_modules(bitc.ops.__path__):
        for value in vars(importlib.import_module(f"bitc.ops.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Op) and "__dataclass_fields__" in vars(value):
                found.add(value)
    bases = {base for op in found for base in op.__mro__[1:]}
    return sorted(found - {b for b in bases if b in found and b.reference is Op.reference}, key=lambda o: o.__name__)


@pytest.mark.parametrize("op", operators(), ids=lambda o: o.__name__)
def test_every_operator_has_a_row(op: type[Op]) -> None:
    rows = [v for v in VARIANTS if issubclass(op, v.ops) and not (v.name == "pointwise" and op not in ROWS)]
    abstract = any(issubclass(other, op) for other in operators() if other is not op)
    assert rows or abstract or op.__name__ in COMPILE_TIME_ONLY


def test_pointwise_rows_are_pointwise() -> None:
    assert all(issubclass(op, Pointwise) for op in ROWS)


def test_row_names_are_unique() -> None:
    assert len({v.name for v in VARIANTS}) == len(VARIANTS)


def test_no_kernel_lists_every_reason() -> None:
    from bitc.ir.dtypes import INT8

    graph = single(AveragePool(Window((2, 2))), TensorType((1, 4, 4, 3), INT8))
    with pytest.raises(NoKernel) as error:
        select(graph, Target.load("x86-64"))
    assert "average_pool: not float" in error.value.detail


@pytest.mark.parametrize("word", [8, 16, 32, 64])
@pytest.mark.parametrize("n", [1, 7, 8, 31, 32, 33, 63, 64, 65])
def test_packing_round_trip(word: int, n: int) -> None:
    rng = np.random.default_rng(n)
    flat = rng.random((3, n)) < 0.5
    assert (unpack_bits(pack_bits(flat, word), n) == flat).all()
    for dtype in (BIT1, TERN):
        t = TensorType((2, 3, n), dtype, Layout(word))
        codes = random_array(t, rng)
        packed = pack_tensor(codes, t)
        assert packed.nbytes == t.nbytes
        assert (unpack_tensor(packed, t) == codes).all()


@pytest.mark.parametrize(
    ("channels", "bits", "word"),
    [(64, 64, 64), (64, 32, 32), (96, 64, 32), (48, 64, 16), (40, 32, 8), (33, 32, 32), (20, 64, 32), (3, 32, 8),
     (12, 32, 16), (1000, 64, 64), (784, 64, 32), (784, 32, 32)],
)  # fmt: skip
def test_words(channels: int, bits: int, word: int) -> None:
    assert word_for(channels, bits) == word


def test_portable_target_has_no_features() -> None:
    assert not portable().features
