"""Single-node models, at least one for every importer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.frontend.cases_attention import attention_cases
from tests.frontend.cases_indexing import indexing_cases
from tests.frontend.cases_recurrent import recurrent_cases
from tests.frontend.cases_spatial import spatial_cases
from tests.frontend.models import Array, floats, ints

F, B = floats, np.array


@dataclass(frozen=True)
class Case:
    """One node: inputs fed at run time, then constants (None: absent)."""

    op: str
    feeds: tuple[Array, ...] = ()
    constants: tuple[Array | None, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    opsets: tuple[int, ...] = (13,)
    outputs: int = 1
    domain: str = ""
    tolerance: float = 2e-6

    def __str__(self) -> str:
        shapes = "_".join("x".join(map(str, a.shape)) or "s" for a in self.feeds)
        options = "_".join(f"{k}={v}".replace(" ", "") for k, v in self.attributes.items())
        return f"{self.op}-{shapes}-{options}"


def case(op: str, *feeds: Array, c: tuple[Array | None, ...] = (), opsets: Any = (13,), **attributes: Any) -> Case:
    extra = {k: attributes.pop(k) for k in ("outputs", "domain", "tolerance") if k in attributes}
    return Case(op, feeds, c, attributes, opsets, **extra)


X = F(2, 3, 5, 7)
I64 = np.int64
IMAGE, SIGNAL = F(2, 4, 9, 8), F(2, 4, 9)
BN = (*tuple(F(4, seed=i) for i in range(3)), np.abs(F(4, seed=4)) + np.float32(0.1))


def i64(*values: int) -> Array:
    return B(values, I64)


def f32(*values: float) -> Array:
    return B(values, np.float32)


Q8, U8 = ints(2, 4, 6, 5, low=-128, high=128, dtype=np.int8), ints(2, 4, 6, 5, low=0, high=256, dtype=np.uint8)
Z6 = B([0] * 6, np.int8)
W8, S, Z = ints(6, 4, 3, 3, low=-60, high=60, dtype=np.int8), B(0.04, np.float32), B(5, np.int8)
SZ, MS = (S, Z), {"domain": "com.microsoft"}
OLD_UNARY = ["Neg", "Abs", "Relu", "LeakyRelu", "Elu", "Selu", "HardSigmoid", "Sigmoid", "Tanh", "Exp", "Floor"]
OLD_UNARY += ["Ceil", "Softplus", "Softsign", "Identity"]
NEW_UNARY = ["Sign", "Round", "Erf", "Celu", "ThresholdedRelu", "Shrink", "IsNaN", "IsInf"]
UNARY = [case(op, X * 3, opsets=(7, 13)) for op in OLD_UNARY]
UNARY += [case(op, np.abs(X) + 0.1) for op in ["Log", "Sqrt", "Reciprocal"]]
UNARY += [case(op, X * 3, opsets=(13, 20)) for op in NEW_UNARY]
UNARY += [
    case("Round", B([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32), opsets=(11,)),
    case("Sign", ints(4, 5)),
    case("Abs", ints(4, 5, dtype=np.int8)),
    case("Neg", ints(4, 5, dtype=I64)),
    case("Relu", ints(4, 5), opsets=(14,)),
    case("HardSwish", X * 3, opsets=(14,)),
    case("Gelu", X, opsets=(20,)),
    case("Gelu", X, opsets=(20,), approximate="tanh"),
    case("Gelu", X, **MS),
    case("FastGelu", X, F(7), **MS),
    case("Mish", X, opsets=(18,)),
    case("Swish", X, opsets=(24,), alpha=1.5),
    case("LeakyRelu", X, alpha=0.3),
    case("Elu", X, alpha=0.5),
    case("Selu", X, alpha=2.0, gamma=0.5),
    case("Celu", X, alpha=2.0),
    case("Shrink", X, bias=0.2, lambd=0.4),
    case("ThresholdedRelu", X, alpha=0.3),
    case("HardSigmoid", X, alpha=0.3, beta=0.4),
    case("IsNaN", B([1, np.nan, np.inf], np.float32)),
    case("IsInf", B([1, np.nan, np.inf, -np.inf], np.float32), detect_negative=0),
    case("Not", ints(3, 4, low=0, high=2, dtype=np.bool_)),
    case("Clip", X, min=-0.5, max=0.25, opsets=(7,)),
    case("Clip", X, c=(B(-0.5, np.float32), B(0.25, np.float32)), opsets=(11, 13)),
    case("Clip", X, c=(None, B(0.25, np.float32))),
    case("Clip", X, B(-0.5, np.float32), B(0.25, np.float32)),
    case("Clip", ints(9), c=(B(-3, np.int32), B(2**31 - 1, np.int32))),
    case("Clip", ints(9, dtype=I64), c=(B(0, I64), B(2**63 - 1, I64))),
    case("Dropout", X, ratio=0.5, opsets=(7, 10)),
    case("Dropout", X, c=(B(0.5, np.float32), B(False)), opsets=(12, 13)),
    *[case("Cast", X * 40, to=to) for to in (1, 3, 5, 6, 7, 9)],
    case("Cast", np.abs(X) * 40, to=2),
    case("Cast", ints(5, 5, low=-999, high=999), to=3),
    case("Cast", ints(5, 5, dtype=np.bool_), to=1),
    case("CastLike", X, ints(1), opsets=(15,)),
]
BINARY = [case(op, X, F(3, 1, 7, seed=2), opsets=(7, 13, 14)) for op in ["Add", "Sub", "Mul", "Div"]]
BINARY += [case(op, ints(4, 5), ints(5, low=1, high=5, seed=1)) for op in ["Add", "Sub", "Mul", "Div"]]
BINARY += [case(op, X, F(5, 7, seed=2), F(1, seed=3), opsets=(8, 13)) for op in ["Min", "Max", "Sum", "Mean"]]
BINARY += [case(op, np.round(X), np.round(F(5, 7, seed=2)), opsets=(9, 13)) for op in ["Less", "Greater"]]
BINARY += [case(op, np.round(X), np.round(F(5, 7)), opsets=(12, 16)) for op in ("LessOrEqual", "GreaterOrEqual")]
BINARY += [
    case(op, *(ints(4, 5, low=0, high=2, dtype=np.bool_, seed=s) for s in (0, 1))) for op in ["And", "Or", "Xor"]
]
BINARY += [
    case("Div", B([-7, 7, -7, 7], np.int32), B([2, 2, -2, -2], np.int32)),
    case("Equal", np.round(X), np.round(F(5, 7)), opsets=(11, 13)),
    case("Equal", ints(9), ints(9, seed=1)),
    case("Pow", np.abs(X) + 0.1, F(5, 7, seed=2), opsets=(7, 13), tolerance=1e-5),
    *[case("Pow", np.abs(X), c=(B(e, np.float32),)) for e in (0.5, 1, 2, 3, -1.5)],
    case("Pow", X, c=(B([2], I64),)),
    case("Mod", ints(4, 5), ints(4, 5, low=1, high=5, seed=1), opsets=(10, 13)),
    case("Mod", ints(4, 5), ints(4, 5, low=1, high=5, seed=1), fmod=1),
    case("Mod", X, F(5, 7, seed=1), fmod=1),
    case("PRelu", X, c=(F(3, 1, 1, seed=3),), opsets=(9, 16)),
    case("Where", ints(2, 3, 1, 7, low=0, high=2, dtype=np.bool_), X, F(7, seed=2), opsets=(9, 16)),
]
MOVEMENT = [
    case("Reshape", X, c=(i64(2, 0, -1),), opsets=(7, 13, 21)),
    case("Reshape", X, c=(i64(2, 15, 7),), allowzero=1, opsets=(14,)),
    *[case("Flatten", X, axis=a, opsets=(9, 13)) for a in (0, 1, 3, 4)],
    case("Flatten", X, axis=-1),
    case("Squeeze", F(1, 3, 1), axes=[0, 2], opsets=(7, 11)),
    case("Squeeze", F(1, 3, 1), c=(i64(-1),)),
    case("Squeeze", F(1, 3, 1), opsets=(11, 13)),
    case("Unsqueeze", F(3, 4), axes=[0, 3], opsets=(7, 11)),
    case("Unsqueeze", F(3, 4), c=(i64(-1, 0),)),
    case("Transpose", X),
    case("Transpose", X, perm=[2, 0, 3, 1]),
    case("Concat", X, F(2, 4, 5, 7), axis=1),
    case("Concat", X, F(2, 3, 5, 1), X, axis=-1),
    case("Slice", X, starts=[0, -3], ends=[1, 100], axes=[0, 3], opsets=(7,)),
    case("Slice", X, c=(i64(1, -100), i64(3, -1), i64(1, 3), i64(1, 2)), opsets=(10, 13)),
    case("Slice", X, c=(i64(-1, 3), i64(-100, 0), i64(3, 2), i64(-2, -1)), opsets=(10, 13)),
    case("Slice", X, c=(i64(1), i64(2))),
    case("Split", X, axis=3, split=[2, 4, 1], outputs=3, opsets=(7, 11)),
    case("Split", X, c=(i64(2, 4, 1),), axis=-1, outputs=3),
    case("Split", F(2, 6), axis=1, outputs=3),
    case("Split", F(2, 7), axis=1, num_outputs=3, outputs=3, opsets=(18,)),
    case("Pad", X, pads=[0, 0, 1, 2, 0, 1, 3, 0], value=1.5, opsets=(7,)),
    case("Pad", X, c=(i64(0, 0, 1, 2, 0, 1, 3, 0), B(1.5, np.float32)), opsets=(11, 13)),
    case("Pad", X, c=(i64(0, 0, 1, -2, 0, 1, 3, 0),)),
    case("Pad", X, c=(i64(1, 2, 2, 1), None, i64(2, -1)), opsets=(18,)),
    case("Pad", X, c=(i64(0, 0, 1, 2, 0, 0, 3, 0),), mode="edge"),
    case("Pad", X, c=(i64(0, 0, 1, 2, 0, 0, 3, 0),), mode="reflect"),
    case("Pad", X, c=(i64(0, 0, 1, 2, 0, 0, 3, 0),), mode="wrap", opsets=(19,)),
    case("Expand", F(3, 1), c=(i64(2, 1, 6),), opsets=(8, 13)),
    case("Expand", F(3, 1), c=(i64(1, 3, 1),)),
    case("Tile", F(2, 3), c=(i64(2, 3),), opsets=(7, 13)),
    case("Gather", X, c=(i64(-1, 0, 2),), axis=2, opsets=(7, 13)),
    case("Gather", X, c=(B(1, I64),), axis=1),
    case("Gather", X, c=(B([[0, 1], [2, 0]], np.int32),), axis=-3),
    case("DepthToSpace", F(2, 12, 3, 4), blocksize=2, opsets=(7, 11)),
    case("DepthToSpace", F(2, 12, 3, 4), blocksize=2, mode="CRD"),
    case("SpaceToDepth", F(2, 3, 4, 6), blocksize=2),
    case("Shape", X, opsets=(7, 13)),
    case("Shape", X, start=1, end=-1, opsets=(15,)),
    case("Size", X),
    case("EyeLike", F(3, 4), k=1),
    case("Constant", value_floats=[1.0, 2.0]),
    case("Constant", value_int=3),
    case("ConstantOfShape", c=(i64(2, 3),)),
    case("Range", c=(B(3.0, np.float32), B(-4.0, np.float32), B(-2.0, np.float32))),
]
REDUCERS = ["ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2"]
REDUCERS += ["ReduceSumSquare", "ReduceLogSumExp"]
REDUCTIONS = [
    case(op, X, axes=[1, -1], keepdims=k, opsets=(7, 11))
    for op in [
        "ReduceMean",
        "ReduceProd",
        "ReduceMax",
        "ReduceMin",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
        "ReduceLogSumExp",
    ]
    for k in (0, 1)
]
REDUCTIONS += [
    case(op, X, c=(i64(2, 0),), keepdims=0, opsets=(18,))
    for op in [
        "ReduceMean",
        "ReduceProd",
        "ReduceMax",
        "ReduceMin",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
        "ReduceLogSumExp",
    ]
]
REDUCTIONS += [
    case("ReduceSum", X, axes=[2, 3], opsets=(7, 11)),
    case("ReduceSum", X, c=(i64(3),), keepdims=0),
    case("ReduceSum", X),
    case("ReduceSum", X, noop_with_empty_axes=1),
    case("ReduceSum", ints(4, 5), c=(i64(1),)),
    case("ReduceMax", ints(4, 5), axes=[0]),
    case("ReduceMin", ints(4, 5, dtype=np.int8), axes=[1]),
    case("ReduceLogSum", np.abs(X), axes=[1]),
    case("ReduceMean", X),
    *[case(op, np.round(X), axis=2, opsets=(11, 13)) for op in ("ArgMax", "ArgMin")],
    case("ArgMax", np.round(X), axis=-1, keepdims=0, select_last_index=1),
    *[case(op, X, axis=a, opsets=(7, 11, 13)) for op in ("Softmax", "LogSoftmax") for a in (1, 2, 3)],
    case("Softmax", X, opsets=(11, 13)),
    case("GlobalAveragePool", X),
    case("GlobalMaxPool", F(2, 3, 6)),
]
WEIGHTS = F(6, 4, 3, 3, seed=1)
LINEAR = [
    case("Conv", IMAGE, c=(WEIGHTS,), opsets=(7, 11, 13)),
    case("Conv", IMAGE, c=(WEIGHTS, F(6)), pads=[1, 2, 0, 1], strides=[2, 1], kernel_shape=[3, 3]),
    case("Conv", IMAGE, c=(WEIGHTS,), dilations=[2, 3], pads=[2, 2, 2, 2]),
    case("Conv", IMAGE, c=(F(6, 2, 3, 2), F(6)), group=2),
    case("Conv", IMAGE, c=(F(4, 1, 3, 3), F(4)), group=4, strides=[2, 2]),
    *[case("Conv", IMAGE, c=(WEIGHTS,), auto_pad=a, strides=[2, 3]) for a in ("SAME_UPPER", "SAME_LOWER", "VALID")],
    case("Conv", IMAGE, WEIGHTS, F(6)),
    case("Conv", SIGNAL, c=(F(6, 4, 3), F(6)), pads=[1, 0], strides=[2]),
    case("MaxPool", IMAGE, kernel_shape=[2, 3], opsets=(7, 8, 12)),
    case("MaxPool", IMAGE, kernel_shape=[3, 3], pads=[1, 0, 1, 2], strides=[2, 2]),
    case("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, opsets=(10, 12)),
    case("MaxPool", F(1, 2, 6, 6), kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1, pads=[0, 0, 1, 1]),
    case("MaxPool", IMAGE, kernel_shape=[2, 2], dilations=[2, 3]),
    case("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    case("MaxPool", SIGNAL, kernel_shape=[3], strides=[2], ceil_mode=1),
    case("AveragePool", IMAGE, kernel_shape=[3, 3], opsets=(7, 11)),
    case("AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
    case("AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2], count_include_pad=1),
    case("AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, opsets=(11, 19)),
    case(
        "AveragePool",
        IMAGE,
        kernel_shape=[3, 2],
        pads=[1, 1, 1, 1],
        strides=[3, 3],
        ceil_mode=1,
        count_include_pad=1,
        opsets=(19,),
    ),
    case("AveragePool", SIGNAL, kernel_shape=[4], pads=[1, 2], count_include_pad=1),
    case("AveragePool", SIGNAL, kernel_shape=[4], auto_pad="SAME_LOWER"),
    case("MatMul", F(3, 4), F(4, 5)),
    case("MatMul", F(2, 3, 4), c=(F(4, 5),)),
    case("MatMul", F(2, 1, 3, 4), F(5, 4, 2)),
    case("MatMul", F(4), F(4, 2)),
    case("MatMul", F(3, 4), F(4)),
    case("MatMul", ints(3, 4), ints(4, 2)),
    case("Gemm", F(3, 4), c=(F(4, 5), F(5)), opsets=(7, 11, 13)),
    case("Gemm", F(4, 3), c=(F(5, 4), F(3, 1)), transA=1, transB=1, alpha=0.5, beta=2.0),
    case("Gemm", F(3, 4), F(4, 5)),
    case("Gemm", F(3, 4), F(4, 5), F(1), beta=0.0),
    case("BatchNormalization", IMAGE, c=BN, opsets=(7, 9, 14, 15), epsilon=0.01),
    case("BatchNormalization", F(3, 4), c=BN),
    case("BatchNormalization", SIGNAL, *BN),
]
MORE = [
    *[case("ConvTranspose", IMAGE, c=(F(4, 3, 3, 2), F(3)), strides=s, pads=[1, 0, 0, 1]) for s in ([1, 1], [2, 3])],
    case("ConvTranspose", IMAGE, c=(F(4, 3, 3, 2),), group=2, dilations=[2, 1], output_padding=[1, 0], strides=[2, 2]),
    case("ConvTranspose", IMAGE, c=(F(4, 3, 3, 3),), strides=[2, 2], output_shape=[18, 15]),
    case("ConvTranspose", IMAGE, c=(F(4, 3, 4, 4),), strides=[2, 2], auto_pad="SAME_UPPER"),
    case("ConvTranspose", IMAGE, c=(F(4, 3, 3, 3),), strides=[2, 2], auto_pad="SAME_LOWER"),
    case("ConvTranspose", IMAGE, c=(F(4, 3, 1, 1),), pads=[2, 1, 0, 1]),
    case("ConvTranspose", SIGNAL, c=(F(4, 3, 3), F(3)), strides=[2], pads=[1, 1], output_padding=[1]),
    case("LayerNormalization", X, c=(F(5, 7), F(5, 7)), axis=2, opsets=(17,)),
    case("LayerNormalization", X, F(7), opsets=(17,)),
    case("RMSNormalization", X, c=(F(7),), opsets=(23,)),
    case("InstanceNormalization", IMAGE, c=BN[:2]),
    case("GroupNormalization", IMAGE, c=(F(2), F(2)), num_groups=2, opsets=(18,), tolerance=1e-5),
    case("GroupNormalization", IMAGE, c=(F(4), F(4)), num_groups=2, opsets=(21,), tolerance=1e-5),
    case("Upsample", IMAGE, scales=[1.0, 1.0, 2.0, 3.0], opsets=(7,)),
    case("Upsample", IMAGE, c=(f32(1, 1, 2, 2),), mode="linear", opsets=(9,)),
    case("Resize", IMAGE, c=(f32(1, 1, 2, 1.5),), opsets=(10,)),
    *[
        case(
            "Resize",
            IMAGE,
            c=(f32(), scales),
            mode=mode,
            coordinate_transformation_mode=w,
            opsets=(11, 13),
        )
        for mode in ("nearest", "linear")
        for w, scales in (
            ("half_pixel", f32(1, 1, 1.7, 0.6)),
            ("pytorch_half_pixel", f32(1, 1, 1.7, 0.6)),
            ("asymmetric", f32(1, 1, 1.7, 0.6)),
            ("align_corners", f32(1, 1, 3, 0.5)),
        )
    ],
    *[
        case("Resize", IMAGE, c=(None, None, i64(2, 4, 21, 3)), nearest_mode=how)
        for how in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ],
    case("Resize", IMAGE, c=(None, None, i64(5, 6)), axes=[2, 3], mode="linear", opsets=(18,)),
    case("QuantizeLinear", X, c=(B(0.02, np.float32), B(3, np.int8)), opsets=(10, 13)),
    case("QuantizeLinear", X, c=(B(0.02, np.float32),)),
    case("QuantizeLinear", X, c=(f32(0.02, 0.03, 0.5), B([3, 128, 9], np.uint8)), axis=1),
    case("DequantizeLinear", Q8, c=(f32(0.02, 0.03, 0.5, 0.25), B([3, -12, 9, 0], np.int8)), axis=1),
    case("DequantizeLinear", Q8, c=(B(0.02, np.float32),)),
    case("QuantizeLinear", X, c=(B(0.02, np.float32), B(3, np.uint16)), **MS),
    case("DequantizeLinear", Q8, c=(B(0.02, np.float32), B(3, np.int8)), **MS),
    case("DynamicQuantizeLinear", X, outputs=3, opsets=(11,)),
    case("ConvInteger", U8, c=(W8, B(7, np.uint8)), pads=[1, 1, 1, 1], opsets=(10,)),
    case("MatMulInteger", ints(3, 4, dtype=np.int8), c=(ints(4, 5, dtype=np.int8), B(2, np.int8)), opsets=(10,)),
    case(
        "QLinearConv",
        U8,
        c=(S, B(7, np.uint8), W8, f32(*[0.02] * 6), Z6, S * 4, B(100, np.uint8), ints(6)),
    ),
    case("QLinearMatMul", ints(3, 4, dtype=np.int8), c=(*SZ, ints(4, 5, dtype=np.int8), *SZ, *SZ)),
    *[case(op, Q8, c=(*SZ, Q8[:1], S * 1.3, Z, S * 2.7, Z), **MS) for op in ("QLinearAdd", "QLinearMul")],
    case("QLinearLeakyRelu", Q8, c=(*SZ, S * 1.3, Z), alpha=0.1, **MS),
    case("QLinearConcat", S * 1.3, Z, Q8, c=(*SZ, Q8[:, :2], S * 0.7, Z), axis=1, **MS),
    case("QGemm", ints(3, 4, dtype=np.int8), c=(*SZ, ints(4, 5, dtype=np.int8), *SZ, ints(5), S * 4, Z), **MS),
    case("QLinearSigmoid", Q8, c=(*SZ, f32(1 / 256)[0], B(-128, np.int8)), **MS),
    case("QLinearSoftmax", Q8, c=(*SZ, f32(1 / 256)[0], B(-128, np.int8)), **MS, opset=13, axis=-1),
    case("QLinearAveragePool", Q8, c=(*SZ, S * 1.37, Z), **MS, kernel_shape=[3, 3], pads=[1, 1, 0, 0]),
    case("QLinearGlobalAveragePool", Q8, c=(*SZ, *SZ), **MS, channels_last=0),
]
CASES = (
    UNARY
    + BINARY
    + MOVEMENT
    + REDUCTIONS
    + LINEAR
    + MORE
    + recurrent_cases(case)
    + attention_cases(case)
    + indexing_cases(case)
    + spatial_cases(case)
)


FOLDED = [
    case("MeanVarianceNormalization", c=(F(2, 3, 4, 5),)),
]
