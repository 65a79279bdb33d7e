"""Samples: from an NPZ file with one array per graph input, or random."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from bitc.errors import UsageError
from bitc.ir.dtypes import DType
from bitc.ir.graph import Array, Graph, Value
from bitc.ops.indexing import GatherElements, Take
from bitc.ops.movement import Reshape, Transpose
from bitc.ops.unary import Cast

Sample = dict[str, Array]
LABELS = ("labels", "label", "y")
"""Arrays of an inputs file that hold the true class of each sample."""
_WIDE = 1 << 15
"""Random integers of more than 16 bits stay within ±this: they are counts and indices, not noise."""


def load_inputs(path: str | Path, graph: Graph, limit: int | None = None) -> list[Sample]:
    """Samples from an NPZ file: one array per graph input, by its ONNX name, of the input's shape or with one more
    leading axis for samples. A batch axis of 1 may count the samples instead, or be left out. An array without a
    sample axis serves every sample. At most `limit` samples.

    Raises UsageError: unreadable file, missing array, wrong shape, values that the input's type can not hold.
    """
    arrays = _read(Path(path))
    where = str(path)
    columns: dict[str, Array] = {}
    for v in graph.inputs:
        if v.name not in arrays:
            found = ", ".join(sorted(arrays)) or "nothing"
            raise UsageError(f"has no array {v.name!r}; it holds {found}", where=where, hint=_hint(graph))
        columns[v.name] = convert(_samples(arrays[v.name], v, where), v.type.dtype, f"{where}: {v.name}")
    counts = {name: len(c) for name, c in columns.items() if len(c) != 1}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name} {n}" for name, n in counts.items())
        raise UsageError(f"arrays hold different numbers of samples: {shown}", where=where, hint=_hint(graph))
    count = max(counts.values(), default=1)
    if count == 0:
        raise UsageError("holds no samples", where=where, hint=_hint(graph))
    count = count if limit is None else min(count, limit)
    return [{name: c[i if len(c) > 1 else 0] for name, c in columns.items()} for i in range(count)]


def load_labels(path: str | Path, count: int, of: int | None = None) -> Array | None:
    """The true class of each of the first `count` samples, if the file holds integers named `labels`, `label` or
    `y`. Raises UsageError for `labels` that are something else, or not as many as the samples that there are, if `of`
    says how many."""
    arrays = _read(Path(path))
    for name in LABELS:
        found = arrays.get(name)
        if found is None:
            continue
        flat = found.reshape(-1)
        classes = found.size == max(found.shape, default=1) and found.size >= count and found.size == (of or found.size)
        if classes and found.dtype.kind == "f" and name == "labels" and bool((flat == np.rint(flat)).all()):
            flat = flat.astype(np.int64)
        if classes and flat.dtype.kind in "iu":
            return np.asarray(flat[:count].astype(np.int64))
        if name == "labels":
            shape = f"{found.dtype}{list(found.shape)}"
            hint = f"save one class as an integer for each of {of or count} samples, or leave `labels` out"
            raise UsageError(f"array 'labels' is {shape}, not classes", where=str(path), hint=hint)
    return None


def _read(path: Path) -> dict[str, Array]:
    hint = "write it with numpy.savez(path, name=array)"
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise UsageError("is a single array, not an NPZ file", where=str(path), hint=hint)
        with file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError as e:
        raise UsageError("no such file", where=str(path), hint="check the path") from e
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as e:
        reason = "holds Python objects" if "pickle" in str(e).lower() and zipfile.is_zipfile(path) else "is no NPZ file"
        raise UsageError(f"can not be read: it {reason}", where=str(path), hint=hint) from e


def _hint(graph: Graph) -> str:
    return "the model takes " + "; ".join(f"{v.name}: {v.type.dtype}{list(v.shape)}" for v in graph.inputs)


def _samples(array: Array, v: Value, where: str) -> Array:
    """The array with a leading axis for samples."""
    shape, given = v.shape, tuple(array.shape)
    batch = bool(shape) and shape[0] == 1
    if given[1:] == shape and given:
        return array
    if given == shape or (batch and given[1:] == shape[1:] and given) or (batch and given == shape[1:]):
        return array.reshape(-1, *shape) if array.size else array.reshape(0, *shape)
    raise UsageError(
        f"array {v.name!r} has shape {list(given)}, the input has {list(shape)}",
        where=where,
        hint=f"give {list(shape)}, or {['N', *shape]} for N samples".replace("'", ""),
    )


def convert(array: Array, dtype: DType, where: str) -> Array:
    """The array in the carrier of `dtype`; integers become floats, floats become integers only if they are whole.
    Raises UsageError for values that change."""
    carrier = dtype.carrier
    if array.dtype.kind not in "fiub":
        raise UsageError(f"holds {array.dtype}, not numbers", where=where, hint=f"save it as {carrier}")
    if carrier.kind == "f":
        return array.astype(carrier)
    if array.dtype.kind == "b" or not array.size:
        return array.astype(carrier)
    low, high = array.min(), array.max()
    whole = array.dtype.kind in "iu" or bool((np.isfinite(array) & (array == np.rint(array))).all())
    if not whole:
        raise UsageError(f"holds fractions, the input is {dtype}", where=where, hint="quantize or round it first")
    if int(low) < dtype.min or int(high) > dtype.max:
        raise UsageError(
            f"holds {int(low)} to {int(high)}, the input is {dtype}", where=where, hint=f"save values of {dtype}"
        )
    return array.astype(carrier)


def random_inputs(graph: Graph, count: int, seed: int) -> list[Sample]:
    """Samples of plausible ranges: floats from N(0, 1) and U(0, 1) in turn, integers from their whole range (wider
    than 16 bits: ±32768), indices inside what they look up."""
    rng, lengths = np.random.default_rng(seed), _looked_up(graph)
    return [{v.name: _random(v, rng, number, lengths.get(v)) for v in graph.inputs} for number in range(count)]


def _looked_up(graph: Graph) -> dict[Value, int]:
    """Values that are indices, with the length of what they look up."""
    lengths: dict[Value, int] = {}
    for node in reversed(graph.nodes):
        if isinstance(node.op, Take | GatherElements):
            at, length = node.input(1), node.input(0).shape[node.op.axis]
            lengths[at] = min(length, lengths.get(at, length))
        elif isinstance(node.op, Cast | Reshape | Transpose) and node.output in lengths:
            lengths[node.input(0)] = lengths[node.output]
    return lengths


def _random(v: Value, rng: np.random.Generator, number: int, length: int | None) -> Array:
    dtype, carrier = v.type.dtype, v.type.dtype.carrier
    if carrier.kind == "f":
        return (rng.random(v.shape) if number % 2 else rng.standard_normal(v.shape)).astype(carrier)
    low, high = max(int(dtype.min), -_WIDE), min(int(dtype.max), _WIDE if dtype.bits > 16 else int(dtype.max))
    if length is not None:
        low, high = 0, min(high, length - 1)
    return rng.integers(low, high, v.shape, endpoint=True).astype(carrier)
