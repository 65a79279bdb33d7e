"""Single-node models of convolutions and pools over three axes, other pools, resizing, and Fourier transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.frontend.models import floats, ints


def _i64(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


def spatial_cases(case: Callable[..., Any]) -> list[Any]:
    volume, image, signal = floats(2, 4, 5, 6, 7), floats(2, 3, 8, 9), floats(2, 3, 9)
    none = np.zeros(0, np.float32)
    window = np.hanning(8).astype(np.float32)
    grid = floats(2, 4, 5, 2, seed=1) * np.float32(0.9)
    rois = np.array([[0, 0, 9, 12], [3, 2, 15, 7], [8, 8, 10, 20]], np.float32)
    loose = {"tolerance": 1e-5}
    pool = {"kernel_shape": [3, 2, 3], "strides": [2, 1, 2], "pads": [1, 0, 1, 0, 1, 1]}
    return [
        case("Conv", volume, c=(floats(6, 4, 3, 2, 3), floats(6)), pads=[1, 0, 1, 0, 1, 1], strides=[2, 1, 2], **loose),
        case("Conv", volume, c=(floats(8, 2, 2, 3, 1),), group=2, dilations=[2, 1, 1], **loose),
        case("Conv", volume, c=(floats(4, 1, 3, 3, 3),), group=4, auto_pad="SAME_UPPER", **loose),
        case("Conv", image, floats(4, 3, 3, 2), floats(4), pads=[1, 0, 1, 1], **loose),
        case("Conv", image, floats(6, 1, 3, 3), group=3, **loose),
        case("ConvTranspose", volume, c=(floats(4, 3, 3, 2, 3), floats(3)), strides=[2, 1, 3], **loose),
        case("ConvTranspose", volume, floats(4, 2, 2, 2, 2), group=2, pads=[1, 0, 0, 0, 1, 0], **loose),
        case("MaxPool", volume, **pool),
        case("MaxPool", volume, kernel_shape=[2, 2, 2], ceil_mode=1, strides=[2, 2, 2], dilations=[1, 2, 1]),
        *[case("AveragePool", volume, **pool, count_include_pad=i, opsets=(11,)) for i in (0, 1)],
        case("MaxPool", image, kernel_shape=[3, 3], pads=[1, 1, 1, 1], outputs=2),
        case("MaxPool", image, kernel_shape=[2, 3], strides=[2, 2], storage_order=1, outputs=2),
        case("MaxPool", signal, kernel_shape=[3], strides=[2], outputs=2),
        case("MaxUnpool", floats(1, 2, 2, 2), ints(1, 2, 2, 2, low=0, high=32, dtype=np.int64), **_UNPOOL),
        *[case("LpPool", image, kernel_shape=[3, 2], pads=[1, 0, 1, 1], p=p, opsets=(11,), **loose) for p in (1, 2, 3)],
        case("GlobalLpPool", image, p=2, **loose),
        case("GlobalLpPool", signal, p=3, **loose),
        case("LRN", floats(2, 7, 4, 5), size=3, alpha=0.1, **loose),
        case("LRN", floats(2, 7, 4, 3), size=5, beta=0.5, bias=2.0, **loose),
        *[case("LpNormalization", image, p=p, axis=a, **loose) for p in (1, 2) for a in (1, -1)],
        *[
            case("Resize", image, c=(none, scales), mode="cubic", coordinate_transformation_mode=w, **more, **loose)
            for scales in (np.array([1, 1, 1.7, 0.6], np.float32), np.array([1, 1, 3, 2], np.float32))
            for w in ("half_pixel", "asymmetric")
            for more in ({}, {"cubic_coeff_a": -0.5}, {"exclude_outside": 1})
        ],
        *[
            case("Resize", image, c=(none, none, _i64(2, 3, 5, 4)), mode=m, antialias=1, opsets=(18,), tolerance=1e-4)
            for m in ("linear",)
        ],
        case(
            "Resize", image, c=(np.array([0, 0, 0.2, -0.1, 1, 1, 0.9, 1.2], np.float32), none, _i64(2, 3, 5, 7)),
            mode="linear", coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=7.0, **loose,
        ),
        *[
            case("Einsum", *operands, equation=e, opsets=(12,), **loose)
            for e, *operands in (
                ("bij,bjk->bik", floats(2, 3, 4), floats(2, 4, 5)), ("ij,jk", floats(3, 4), floats(4, 5)),
                ("i,j->ij", floats(3), floats(4)), ("ij->ji", floats(3, 4)), ("ij->", floats(3, 4)),
                ("bhqd,bhkd->bhqk", floats(2, 2, 3, 4), floats(2, 2, 5, 4)),
                ("...ij,...kj->...ik", floats(2, 3, 4), floats(2, 5, 4)),
                ("ii->i", floats(4, 4)), ("ij,jk,kl->il", floats(2, 3), floats(3, 4), floats(4, 5)),
            )
        ],
        *[
            case("DFT", floats(2, 6, parts), axis=1, inverse=inverse, onesided=onesided, opsets=(17,), **loose)
            for parts, inverse, onesided in ((1, 0, 0), (1, 0, 1), (2, 0, 0), (2, 1, 0))
        ],
        *[
            case("GridSample", image, grid, mode=m, padding_mode=p, align_corners=a, opsets=(20,), **loose)
            for m in ("nearest", "linear", "cubic")
            for p in ("zeros", "border", "reflection")
            for a in (0, 1)
        ],
        *[
            case("GridSample", volume, floats(2, 3, 2, 4, 3), mode="linear", padding_mode=p, opsets=(20,), **loose)
            for p in ("zeros", "border", "reflection")
        ],
        *[
            case("AffineGrid", floats(n, dims, dims + 1), c=(_i64(n, 2, *size),), align_corners=a, opsets=(20,))
            for n, dims, size in ((1, 2, (4, 5)), (2, 2, (3, 4)), (1, 3, (2, 3, 4)))
            for a in (0, 1)
        ],
        *[
            case("RoiAlign", image, rois, _i64(0, 1, 1), mode="avg", sampling_ratio=2, output_height=3, output_width=2,
                 spatial_scale=0.5, coordinate_transformation_mode=m, opsets=(16,), **loose)
            for m in ("half_pixel", "output_half_pixel")
        ],
        case("DFT", floats(2, 6, 5, 2), c=(np.array(8, np.int64),), axis=2, opsets=(17,), **loose),
        case("STFT", floats(1, 32, 1), c=(np.array(4, np.int64), window), opsets=(17,), **loose),
    ]  # fmt: skip


_UNPOOL = {"kernel_shape": [2, 2], "strides": [2, 2], "opsets": (11,)}
