"""Files of samples: what they may look like, and what is said of those that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from bitc.errors import UsageError
from bitc.frontend import load
from bitc.ir import BOOL, FLOAT32, INT8, INT64, UINT8, DType, Graph, TensorType, Value
from bitc.verification.inputs import load_inputs, load_labels, random_inputs
from bitc.verification.outputs import save
from tests.frontend.models import model


def graph(**inputs: tuple[DType, tuple[int, ...]]) -> Graph:
    return Graph("g", tuple(Value(n, TensorType(s, d)) for n, (d, s) in inputs.items()), (), ())


IMAGE = graph(x=(FLOAT32, (1, 3, 4, 4)))


def write(path: Path, **arrays: Any) -> Path:
    file = path / "samples.npz"
    np.savez(file, **arrays)
    return file


@pytest.mark.parametrize(
    ("shape", "count"),
    [((1, 3, 4, 4), 1), ((3, 4, 4), 1), ((7, 3, 4, 4), 7), ((5, 1, 3, 4, 4), 5), ((1, 1, 3, 4, 4), 1)],
)
def test_shapes(tmp_path: Path, shape: tuple[int, ...], count: int) -> None:
    data = np.arange(np.prod(shape)).reshape(shape)
    found = load_inputs(write(tmp_path, x=data), IMAGE)
    assert len(found) == count
    assert all(s["x"].shape == (1, 3, 4, 4) and s["x"].dtype == np.float32 for s in found)
    assert (np.stack([s["x"] for s in found]).reshape(-1) == data.reshape(-1)).all()


def test_limit(tmp_path: Path) -> None:
    file = write(tmp_path, x=np.zeros((9, 3, 4, 4)))
    assert len(load_inputs(file, IMAGE, 4)) == 4
    assert len(load_inputs(file, IMAGE, 40)) == 9


def test_a_shared_array_serves_every_sample(tmp_path: Path) -> None:
    two = graph(x=(FLOAT32, (2,)), scale=(FLOAT32, ()))
    found = load_inputs(write(tmp_path, x=np.zeros((3, 2)), scale=np.float64(0.5)), two)
    assert [float(s["scale"]) for s in found] == [0.5] * 3


@pytest.mark.parametrize(
    ("dtype", "array", "message"),
    [
        (UINT8, np.array([0.0, 255.0]), ""),
        (UINT8, np.array([0.5, 1.0]), "holds fractions, the input is uint8"),
        (UINT8, np.array([0.0, 256.0]), "holds 0 to 256, the input is uint8"),
        (UINT8, np.array([-1, 3]), "holds -1 to 3, the input is uint8"),
        (INT8, np.array([np.nan, 3]), "holds fractions"),
        (INT64, np.array([1, 2], np.int8), ""),
        (BOOL, np.array([True, False]), ""),
        (BOOL, np.array([0, 2]), "holds 0 to 2, the input is bool"),
        (FLOAT32, np.array([1, 2]), ""),
        (FLOAT32, np.array([1j, 2]), "holds complex128, not numbers"),
        (FLOAT32, np.array(["a", "b"]), "holds <U1, not numbers"),
    ],
)
def test_conversions(tmp_path: Path, dtype: DType, array: Any, message: str) -> None:
    file = write(tmp_path, x=array)
    one = graph(x=(dtype, (2,)))
    if message:
        with pytest.raises(UsageError, match=message):
            load_inputs(file, one)
        return
    (found,) = load_inputs(file, one)
    assert found["x"].dtype == dtype.carrier and (found["x"] == array).all()


def test_wrong_files(tmp_path: Path) -> None:
    cases: dict[str, bytes] = {"empty": b"", "text": b"hello", "zip": b"PK\x03\x04 broken"}
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UsageError, match="can not be read: it is no NPZ file"):
            load_inputs(tmp_path / name, IMAGE)
    with pytest.raises(UsageError, match="no such file"):
        load_inputs(tmp_path / "absent", IMAGE)
    with pytest.raises(UsageError, match="can not be read"):
        load_inputs(tmp_path, IMAGE)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(UsageError, match="a single array, not an NPZ file"):
        load_inputs(tmp_path / "one.npy", IMAGE)
    np.savez(tmp_path / "objects.npz", x=np.array([{}, None], dtype=object))
    with pytest.raises(UsageError, match="holds Python objects"):
        load_inputs(tmp_path / "objects.npz", IMAGE)
    whole = write(tmp_path, x=np.zeros((1, 3, 4, 4))).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="can not be read"):
        load_inputs(tmp_path / "cut.npz", IMAGE)


def test_wrong_arrays(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no array 'x'; it holds image") as e:
        load_inputs(write(tmp_path, image=np.zeros(3)), IMAGE)
    assert "float32[1, 3, 4, 4]" in e.value.hint
    with pytest.raises(UsageError, match=r"array 'x' has shape \[4, 4, 3\], the input has \[1, 3, 4, 4\]") as e:
        load_inputs(write(tmp_path, x=np.zeros((4, 4, 3))), IMAGE)
    assert e.value.hint == "give [1, 3, 4, 4], or [N, 1, 3, 4, 4] for N samples"
    with pytest.raises(UsageError, match="holds no samples"):
        load_inputs(write(tmp_path, x=np.zeros((0, 3, 4, 4))), IMAGE)
    two = graph(a=(FLOAT32, (2,)), b=(FLOAT32, (2,)))
    with pytest.raises(UsageError, match="different numbers of samples: a 3, b 4"):
        load_inputs(write(tmp_path, a=np.zeros((3, 2)), b=np.zeros((4, 2))), two)


def test_labels(tmp_path: Path) -> None:
    file = write(tmp_path, x=np.zeros((3, 3, 4, 4)), labels=np.array([1, 2, 3], np.uint8))
    found = load_labels(file, 2)
    assert found is not None and found.tolist() == [1, 2]
    assert load_labels(write(tmp_path, x=np.zeros((3, 3, 4, 4)), y=np.zeros(3)), 3) is None
    assert load_labels(write(tmp_path, x=np.zeros((3, 3, 4, 4)), y=np.zeros(2, np.int64)), 3) is None


def test_random_inputs_are_plausible_and_repeat() -> None:
    mixed = graph(f=(FLOAT32, (1000,)), i=(UINT8, (1000,)), n=(INT64, (1000,)), b=(BOOL, (1000,)))
    first, second = random_inputs(mixed, 2, 7)
    assert first["f"].min() < -1 and second["f"].min() >= 0 and second["f"].max() <= 1
    assert (first["i"].min(), first["i"].max()) == (0, 255)
    assert np.abs(first["n"]).max() <= 1 << 15
    assert set(first["b"].tolist()) == {True, False}
    again = random_inputs(mixed, 2, 7)
    assert all((again[0][k] == first[k]).all() and again[0][k].dtype == first[k].dtype for k in first)


def test_outputs_are_read_as_inputs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    outputs = [{"x": rng.random((1, 3, 4, 4), np.float32)} for _ in range(3)]
    save(tmp_path / "y.npz", outputs)
    assert [p.name for p in tmp_path.iterdir()] == ["y.npz"]
    for got, want in zip(load_inputs(tmp_path / "y.npz", IMAGE), outputs, strict=True):
        assert (got["x"] == want["x"]).all()
    with pytest.raises(UsageError, match="can not be written"):
        save(tmp_path / "absent" / "y.npz", outputs)


def test_random_indices_are_inside_what_they_look_up() -> None:
    nodes = [helper.make_node("Cast", ["ids"], ["i"], to=7), helper.make_node("Gather", ["table", "i"], ["y"])]
    m = model(nodes, {"ids": np.zeros((4, 50), np.int32)}, ["y"], {"table": np.zeros((7, 2), np.float32)})
    for sample in random_inputs(load(m.SerializeToString()).graph, 2, 0):
        assert set(np.unique(sample["ids"])) == set(range(7))
