"""Packing bits into words. Element i of a row is bit ``i % word`` of word ``i // word``; rows end in zero bits."""

from __future__ import annotations

import numpy as np

from bitc.ir.dtypes import DType
from bitc.ir.graph import Array
from bitc.ir.types import TensorType

WORDS = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


def pack_bits(bits: Array, word: int) -> Array:
    """Pack the last axis of a 0/1 array ``[..., n]`` into words: ``[..., ceil(n / word)]``."""
    n = bits.shape[-1]
    padded = np.zeros((*bits.shape[:-1], -(-n // word) * word), np.bool_)
    padded[..., :n] = bits != 0
    return as_words(np.packbits(padded, axis=-1, bitorder="little"), word)


def as_words(octets: Array, word: int) -> Array:
    """Bytes ``[..., n]``, n a multiple of the word's bytes, as little-endian words."""
    return np.ascontiguousarray(octets).view(np.dtype(WORDS[word]).newbyteorder("<")).astype(WORDS[word])


def unpack_bits(words: Array, n: int) -> Array:
    """Inverse of `pack_bits`: bool ``[..., n]``."""
    octets = np.ascontiguousarray(words.astype(words.dtype.newbyteorder("<"))).view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little")[..., :n].astype(np.bool_)


def storage(dtype: DType) -> str:
    """How the C reads an element of a type: `dense`, or out of planes as `bit`, `tern` or `digits`."""
    return "digits" if dtype.digits else ("dense", "bit", "tern")[dtype.planes]


def planes(codes: Array, digits: int = 0) -> tuple[Array, ...]:
    """The bit planes of codes: so many binary digits of numbers, lowest first; else bits as they are, or (sign,
    nonzero) of trits."""
    if digits:
        return tuple((codes >> i & 1).astype(np.bool_) for i in range(digits))
    return (codes,) if codes.dtype.kind == "b" else (codes < 0, codes != 0)


def pack_tensor(codes: Array, type: TensorType) -> Array:
    """Codes of a packed type as the flat array of words that lies in memory."""
    rows = codes.reshape(type.rows, type.channels)
    packed = [pack_bits(p, type.layout.word) for p in planes(rows, type.dtype.digits)]
    return np.stack(packed, axis=1).reshape(-1)


def unpack_tensor(words: Array, type: TensorType) -> Array:
    """Inverse of `pack_tensor`."""
    rows = words.reshape(type.rows, type.dtype.planes, type.words_per_plane)
    bits = unpack_bits(rows, type.channels)
    if type.dtype.carrier.kind == "b":
        return bits[:, 0].reshape(type.shape)
    if type.dtype.digits:
        weights = np.left_shift(1, np.arange(type.dtype.digits))
        codes: Array = (bits * weights[:, None]).sum(axis=1).astype(np.uint8)
        return codes.reshape(type.shape)
    sign, nonzero = bits[:, 0], bits[:, 1]
    return np.where(nonzero, np.where(sign, -1, 1), 0).astype(np.int8).reshape(type.shape)
