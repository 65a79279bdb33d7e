"""ONNX tensors and element types as numpy arrays and bitc dtypes."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from bitc.errors import InvalidModel
from bitc.ir import dtypes
from bitc.ir.dtypes import DType
from bitc.ir.graph import Array
from bitc.ops.unary import Narrow

LIMIT_BYTES = 512 << 20
"""No tensor of a model for microcontrollers comes near this; what does is a broken or hostile file."""

_DTYPES: dict[int, DType] = {
    TensorProto.FLOAT: dtypes.FLOAT32,
    TensorProto.UINT8: dtypes.UINT8,
    TensorProto.INT8: dtypes.INT8,
    TensorProto.UINT16: dtypes.UINT16,
    TensorProto.INT16: dtypes.INT16,
    TensorProto.INT32: dtypes.INT32,
    TensorProto.INT64: dtypes.INT64,
    TensorProto.BOOL: dtypes.BOOL,
    TensorProto.UINT32: dtypes.UINT32,
    TensorProto.UINT64: dtypes.UINT64,
}
_INF, _TOP, _NAN = "inf", "top", "nan"
_NARROW = {
    "FLOAT16": (Narrow(10, -14, 65504.0, _INF), _INF),
    "BFLOAT16": (Narrow(7, -126, 255.0 * 2.0**120, _INF), _INF),
    "FLOAT8E4M3FN": (Narrow(3, -6, 448.0, _TOP), _NAN),
    "FLOAT8E4M3FNUZ": (Narrow(3, -7, 240.0, _TOP), _NAN),
    "FLOAT8E5M2": (Narrow(2, -14, 57344.0, _TOP), _INF),
    "FLOAT8E5M2FNUZ": (Narrow(2, -15, 57344.0, _TOP), _NAN),
    "FLOAT4E2M1": (Narrow(1, 0, 6.0, _TOP), _TOP),
}
"""What rounds to each narrow float type, and where numbers out of range go instead if the cast does not saturate."""
_FORMATS = {e: f for name, f in _NARROW.items() if (e := getattr(TensorProto, name, None)) is not None}
_AS_FLOAT32 = (TensorProto.DOUBLE, *_FORMATS)
_INT_BITS = {e: (int(name[-1]), name[0] == "I") for name in ("INT4", "UINT4", "INT2", "UINT2")
             if (e := getattr(TensorProto, name, None)) is not None}  # fmt: skip
"""Bits of narrow integer types, and whether they are signed."""


def type_name(elem_type: int) -> str:
    """The ONNX name of an element type, e.g. "float16"."""
    names: dict[int, str] = {v: k for k, v in TensorProto.DataType.items()}
    return names.get(elem_type, f"type {elem_type}").lower()


def dtype_of(elem_type: int) -> DType | None:
    """The dtype in which bitc holds an ONNX element type: floats become float32, narrow integers int8 or uint8; None
    for strings, complex numbers and the like."""
    if elem_type in _AS_FLOAT32:
        return dtypes.FLOAT32
    if elem_type in _INT_BITS:
        return dtypes.INT8 if _INT_BITS[elem_type][1] else dtypes.UINT8
    return _DTYPES.get(elem_type)


def is_narrowed(elem_type: int) -> bool:
    """Whether `dtype_of` changes how numbers of this type round."""
    return elem_type in _AS_FLOAT32


def narrowing(elem_type: int, saturate: bool = True) -> Narrow | None:
    """What rounds float32 to a narrower float type, which bitc holds in float32; None for other types."""
    if elem_type not in _FORMATS:
        return None
    op, otherwise = _FORMATS[elem_type]
    return op if saturate else replace(op, overflow=otherwise)


def has_nan(elem_type: int) -> bool:
    """Whether a float type has a NaN; without one it becomes 0."""
    return elem_type != getattr(TensorProto, "FLOAT4E2M1", None)


def narrow_bits(elem_type: int) -> tuple[int, bool] | None:
    """Bits of an integer type of less than 8 bits, and whether it is signed; None for other types."""
    return _INT_BITS.get(elem_type)


def carried(array: Array) -> Array:
    """An array in the dtype in which bitc holds it (see `dtype_of`). Raises KeyError for types that it does not."""
    kind = array.dtype.kind
    if kind == "f":
        return array.astype(np.float32, copy=False)
    if kind in "iub":
        return array
    name = array.dtype.name
    if "float" in name:  # bfloat16 and float8, from ml_dtypes
        return array.astype(np.float32)
    if name.startswith(("int", "uint")):
        return array.astype(np.int8 if name.startswith("int") else np.uint8)
    raise KeyError(name)


def to_array(tensor: TensorProto, folder: Path | None) -> Array:
    """The data of a tensor; external data lies in `folder`.

    Raises InvalidModel if the tensor is malformed, too large, or of a type that bitc does not hold.
    """
    where = f"tensor {tensor.name!r}" if tensor.name else "constant"
    if tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        raise InvalidModel(f"has elements of {type_name(tensor.data_type)}", where=where, hint="use numeric tensors")
    if any(d < 0 for d in tensor.dims):
        raise InvalidModel(f"has a negative dimension: {list(tensor.dims)}", where=where, hint="export the model again")
    if prod(tensor.dims) * 4 > 2 * LIMIT_BYTES:
        raise InvalidModel(f"has {prod(tensor.dims)} elements", where=where, hint="the limit is 512 MiB per tensor")
    tensor = with_data(tensor, folder)
    try:
        array = np.asarray(numpy_helper.to_array(tensor))
        return carried(array)
    except Exception as e:
        raise InvalidModel(
            f"its data does not fit {type_name(tensor.data_type)}{list(tensor.dims)}",
            where=where,
            hint="the file is damaged, or uses a type that bitc does not know",
        ) from e


def with_data(tensor: TensorProto, folder: Path | None) -> TensorProto:
    """The tensor with external data read into it. Raises InvalidModel if the data is missing or outside `folder`."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return tensor
    where = f"tensor {tensor.name!r}"
    hint = "keep the data files beside the model and pass the model's path"
    if folder is None:
        raise InvalidModel("its data is in another file, but the model was given as bytes", where=where, hint=hint)
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    root = folder.resolve()
    try:
        path = (root / location).resolve()
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
    except (TypeError, ValueError, OSError) as e:
        raise InvalidModel(f"malformed reference to external data {location!r}", where=where, hint=hint) from e
    if not location or not path.is_relative_to(root):
        raise InvalidModel(f"external data {location!r} lies outside the model's folder", where=where, hint=hint)
    if not path.is_file():
        raise InvalidModel(f"external data file {location!r} is missing", where=where, hint=hint)
    available = path.stat().st_size - offset
    length = available if length < 0 else length
    if offset < 0 or length > available or length > LIMIT_BYTES:
        raise InvalidModel(f"external data file {location!r} is too short or too large", where=where, hint=hint)
    with path.open("rb") as f:
        f.seek(offset)
        raw = f.read(length)
    loaded = onnx.TensorProto()
    loaded.CopyFrom(tensor)
    loaded.raw_data = raw
    del loaded.external_data[:]
    loaded.data_location = TensorProto.DEFAULT
    return loaded
