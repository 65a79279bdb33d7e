"""Interned data types. A dtype answers every question about itself; nothing compares names."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class DType:
    """One data type.

    `bits` is the storage per element (per plane for packed types: see `planes`). `carrier` is the numpy type in which
    the oracle holds codes. A packed type has no C type of its own: its tensors are arrays of words (see `Layout`).
    """

    name: str
    bits: int
    carrier: np.dtype = field(repr=False)
    c_type: str = field(repr=False)
    is_float: bool = False
    is_signed: bool = True
    planes: int = 0
    """Bit planes per element of a packed type; 0 for types that are stored one element per C object."""
    is_binary_number: bool = False
    """Whether the planes of a packed type are the digits of a number from 0 on: plane i counts 2**i."""

    @property
    def is_packed(self) -> bool:
        return self.planes > 0

    @property
    def digits(self) -> int:
        """How many binary digits the planes are; 0 for types that are no numbers in planes."""
        return self.planes if self.is_binary_number else 0

    @property
    def is_integer(self) -> bool:
        """Whether codes are exact integers (bits, trits and bool included)."""
        return not self.is_float

    @property
    def is_code(self) -> bool:
        """Whether elements are integers of a numeric meaning: all but floats and bool."""
        return (self.is_integer and self.carrier.kind != "b") or self.is_packed

    @property
    def min(self) -> float:
        return float(-np.inf) if self.is_float else float(_CODE_RANGE[self.name][0])

    @property
    def max(self) -> float:
        return float(np.inf) if self.is_float else float(_CODE_RANGE[self.name][1])

    def __str__(self) -> str:
        return self.name


def _dense(name: str, numpy_type: type, c_type: str) -> DType:
    dt = np.dtype(numpy_type)
    return DType(name, dt.itemsize * 8, dt, c_type, is_float=dt.kind == "f", is_signed=dt.kind in "fi")


BIT1 = DType("bit1", 1, np.dtype(np.bool_), "", is_signed=False, planes=1)
"""A two-valued element. Code 1 means the lower value (-1), code 0 the higher (+1); the oracle holds codes as bool."""
TERN = DType("tern", 2, np.dtype(np.int8), "", planes=2)
"""A three-valued element with codes -1, 0, 1; stored as a sign plane (1 = negative) and a nonzero plane."""
UINT1, UINT2, UINT3, UINT4 = (
    DType(f"uint{n}", n, np.dtype(np.uint8), "", is_signed=False, planes=n, is_binary_number=True) for n in range(1, 5)
)
"""Numbers from 0 to 2**n - 1, stored as n planes, plane i holding the digit that counts 2**i."""
BOOL = DType("bool", 8, np.dtype(np.bool_), "uint8_t", is_signed=False)
INT8 = _dense("int8", np.int8, "int8_t")
UINT8 = _dense("uint8", np.uint8, "uint8_t")
INT16 = _dense("int16", np.int16, "int16_t")
UINT16 = _dense("uint16", np.uint16, "uint16_t")
INT32 = _dense("int32", np.int32, "int32_t")
UINT32 = _dense("uint32", np.uint32, "uint32_t")
INT64 = _dense("int64", np.int64, "int64_t")
UINT64 = _dense("uint64", np.uint64, "uint64_t")
FLOAT32 = _dense("float32", np.float32, "float")
FLOAT64 = _dense("float64", np.float64, "double")
FLOAT16 = _dense("float16", np.float16, "")

ALL = (
    BIT1, TERN, UINT1, UINT2, UINT3, UINT4, BOOL,
    INT8, UINT8, INT16, UINT16, INT32, UINT32, INT64, UINT64, FLOAT32, FLOAT64, FLOAT16,
)  # fmt: skip

_CODE_RANGE: dict[str, tuple[int, int]] = {
    "bit1": (0, 1),
    "tern": (-1, 1),
    **{d.name: (0, 2**d.planes - 1) for d in (UINT1, UINT2, UINT3, UINT4)},
    "bool": (0, 1),
    **{
        d.name: (int(np.iinfo(d.carrier).min), int(np.iinfo(d.carrier).max))
        for d in ALL
        if d.carrier.kind in "iu" and not d.planes
    },
}
_BY_NUMPY = {d.carrier: d for d in ALL if not d.planes}


def few_levels(largest: int) -> DType:
    """The narrowest type of planes that holds 0 ... `largest`, which is at most 15."""
    return next(d for d in (UINT1, UINT2, UINT3, UINT4) if d.max >= largest)


def from_numpy(dtype: np.dtype) -> DType:
    """The dense dtype of a numpy array. Raises KeyError for types the IR does not have (strings, complex)."""
    return _BY_NUMPY[np.dtype(dtype)]
