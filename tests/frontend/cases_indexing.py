"""Single-node models of indexing, ordering, accumulation and bit operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.frontend.models import floats, ints

I64 = np.int64


def _i64(*values: Any) -> np.ndarray:
    return np.array(values, I64)


def indexing_cases(case: Callable[..., Any]) -> list[Any]:
    x = floats(3, 4, 5)
    at = ints(3, 2, 5, low=-4, high=4, dtype=I64)
    places = np.unique(ints(6, 2, low=0, high=3, dtype=I64), axis=0)
    once = np.array([[[1, 0, 3, 2, 1]]] * 3, I64)
    updates = floats(len(places), 5, seed=1)
    new = {"opsets": (18,)}
    return [
        case("Gather", x, ints(2, 3, low=-4, high=4, dtype=I64), axis=1),
        case("Gather", x, np.array(2, np.int32)),
        case("Gather", x, c=(np.array([[0, -1]], I64),), axis=1),
        case("GatherElements", x, at, axis=1),
        case("GatherElements", x, c=(at,), axis=-2),
        case("GatherND", x, ints(2, 2, low=-3, high=3, dtype=I64)),
        case("GatherND", x, ints(3, 2, 1, low=-4, high=4, dtype=I64), batch_dims=1, opsets=(12,)),
        case("GatherND", x, c=(ints(2, 3, low=-3, high=3, dtype=I64),), batch_dims=0, opsets=(12,)),
        case("Scatter", x, once, floats(3, 1, 5, seed=1), axis=1, opsets=(10,)),
        case("ScatterElements", x, once, floats(3, 1, 5, seed=1), axis=1),
        *[
            case("ScatterElements", x, at, floats(3, 2, 5, seed=1), axis=1, reduction=r, **new)
            for r in ("add", "mul", "max")
        ],
        case(
            "ScatterElements", ints(4, dtype=np.int32), _i64(0, 0, 3), ints(3, dtype=np.int32), reduction="min", **new
        ),
        case("ScatterND", x, places, updates),
        *[
            case(
                "ScatterND", x, np.concatenate([places, places]), floats(2 * len(places), 5, seed=1), reduction=r, **new
            )
            for r in ("add", "mul", "max", "min")
        ],
        case("TopK", x, c=(_i64(3),), outputs=2),
        case("TopK", x, c=(_i64(2),), outputs=2, axis=0, largest=0),
        case("TopK", np.round(x * 2), c=(_i64(4),), outputs=2, axis=1),
        case("TopK", ints(4, 7, dtype=np.int32), c=(_i64(3),), outputs=2),
        case("TopK", x, outputs=2, k=2, opsets=(9,)),
        *[
            case("CumSum", x, c=(np.array(axis, I64),), exclusive=e, reverse=r)
            for axis, e, r in ((0, 0, 0), (1, 1, 0), (-1, 0, 1), (2, 1, 1))
        ],
        case("CumSum", ints(3, 4, dtype=np.int32), c=(np.array(1, I64),)),
        case("ReverseSequence", floats(4, 3, 2), _i64(4, 1, 2)),
        case("ReverseSequence", floats(3, 4), _i64(4, 1, 2), batch_axis=0, time_axis=1),
        case("OneHot", _i64(0, 4, -1, 2), c=(np.array(5, I64), np.array([0.5, 2], np.float32))),
        case("OneHot", ints(2, 3, low=0, high=4, dtype=I64), c=(_i64(4), _i64(3, 8)), axis=1),
        case("Hardmax", x, axis=1),
        case("Hardmax", np.round(x), axis=1, opsets=(11,)),
        *[
            case("Trilu", floats(2, 4, 5), c=c, upper=u, opsets=(14,))
            for u in (0, 1)
            for c in ((), (np.array(-2, I64),))
        ],
        case("Trilu", ints(4, 4, dtype=I64), c=(np.array(1, I64),), opsets=(14,)),
        case("Compress", x, c=(np.array([True, False, True]),), axis=1),
        case("Compress", x, c=(np.array([True, False, True, True]),)),
        *[
            case("BitShift", *(ints(3, 5, low=0, high=h, dtype=d) for h in (200, 8)), direction=way)
            for d in (np.uint8, np.uint32, np.uint64)
            for way in ("LEFT", "RIGHT")
        ],
        *[
            case(f"Bitwise{op}", ints(3, 5, dtype=d), ints(5, seed=1, dtype=d), **new)
            for op in ("And", "Or", "Xor")
            for d in (np.int8, np.uint16, np.int32, np.int64)
        ],
        *[case("BitwiseNot", ints(3, 5, dtype=d), **new) for d in (np.int8, np.uint16, np.int64)],
        *[case(op, floats(3, 50) * 3, opsets=(7, 13)) for op in ("Sin", "Cos", "Tan", "Atan")],
        *[case(op, floats(3, 50) * 3, opsets=(9, 13)) for op in ("Sinh", "Cosh", "Asinh")],
        *[case(op, np.tanh(floats(3, 50)), opsets=(9, 13)) for op in ("Asin", "Acos", "Atanh")],
        case("Acosh", np.abs(floats(3, 50)) + np.float32(1), opsets=(9,)),
        case("Pow", ints(3, 4, low=-5, high=6, dtype=np.int32), ints(4, low=0, high=6, dtype=np.int32)),
        case("Pow", ints(3, 4, low=0, high=9, dtype=np.int64), c=(np.array(7, np.int64),)),
    ]
