"""Bad input: one line, the right class, and a hint; never a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from bitc.errors import BitcError, DynamicShape, InvalidModel, UnsupportedOp, UsageError
from bitc.frontend import check, context, load
from tests.frontend.models import floats, model

node = helper.make_node


def relu(*shape: int) -> ModelProto:
    return model([node("Relu", ["x"], ["y"])], {"x": np.zeros(shape or (1, 3), np.float32)}, ["y"])


def fails(kind: type[BitcError], m: ModelProto | bytes | str | Path, *words: str, **options: Any) -> BitcError:
    """Loading raises exactly this class with one line of reason that holds the words, and a hint."""
    with pytest.raises(BitcError) as caught:
        load(m.SerializeToString() if isinstance(m, ModelProto) else m, **options)
    e = caught.value
    assert type(e) is kind, repr(e)
    text = f"{e} {e.hint} {e.detail}"
    assert all(w in text for w in words), text
    assert e.hint and "\n" not in str(e)
    return e


def test_files(tmp_path: Path) -> None:
    data = relu().SerializeToString()
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "text.onnx").write_bytes(b"this is not a model")
    (tmp_path / "cut.onnx").write_bytes(data[: len(data) // 2])
    fails(UsageError, tmp_path / "none.onnx", "no such file")
    fails(UsageError, tmp_path, "folder")
    fails(UsageError, "bad\0name")
    fails(InvalidModel, tmp_path / "empty.onnx", "empty")
    fails(InvalidModel, tmp_path / "text.onnx")
    fails(InvalidModel, tmp_path / "cut.onnx")
    fails(InvalidModel, b"")
    fails(InvalidModel, ModelProto().SerializeToString() + b"\x08\x07")


def test_opsets() -> None:
    for version in (5, 99):
        m = relu()
        m.opset_import[0].version = version
        fails(InvalidModel, m, f"opset {version}")
    m = relu()
    del m.opset_import[:]
    fails(InvalidModel, m, "opset")


def test_shapes() -> None:
    m = relu(1, 3, 8, 8)
    dim = m.graph.input[0].type.tensor_type.shape.dim
    dim[2].dim_param = "height"
    e = fails(DynamicShape, m, "input x", "dimension 2", "height", "--shape x=1x3xNx8")
    assert e.exit_code == 3
    fails(UsageError, m, "'z'", shapes={"z": (1,)})
    fails(UsageError, m, "does not fit", shapes={"x": (1, 3, 8)})
    fails(UsageError, m, "does not fit", shapes={"x": (1, 4, 8, 8)})
    fails(UsageError, m, "below 1", shapes={"x": (1, 3, 0, 8)})
    assert load(m.SerializeToString(), {"x": (1, 3, 5, 8)}).graph.outputs[0].shape == (1, 3, 5, 8)
    m.graph.input[0].type.tensor_type.ClearField("shape")
    fails(DynamicShape, m, "--shape x=")
    m = relu()
    m.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1 << 40
    fails(InvalidModel, m, "512 MiB")
    grid = node("AffineGrid", ["x", "size"], ["y"])
    fails(
        InvalidModel,
        model([grid], {"x": floats(1, 2, 3)}, ["y"], {"size": np.array([1, 1, 1 << 16, 1 << 15])}, 20),
        "512 MiB",
    )


def test_graphs() -> None:
    x = {"x": floats(2, 3)}
    fails(InvalidModel, model([node("Add", ["x", "nowhere"], ["y"])], x, ["y"]), "nowhere")
    fails(InvalidModel, model([node("Relu", ["x"], ["y"])], x, ["z"]), "'z'")
    fails(InvalidModel, model([node("Relu", ["x"], ["y"])], x, []), "no outputs")
    fails(InvalidModel, model([node("Relu", ["x"], ["y"])], x, ["y", "y"]), "same name")
    fails(InvalidModel, model([node("Relu", ["x"], ["y"])], x, [""]), "no name")
    fails(InvalidModel, model([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"])], x, ["b"]), "cycle")
    fails(InvalidModel, model([node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["y"])], x, ["y"]), "twice")
    fails(InvalidModel, model([node("Relu", ["x"], ["x"])], x, ["x"]), "twice")
    fails(InvalidModel, model([node("Relu", ["x"], ["y"])], x, ["y"], {"w": floats(1)} | {"y": floats(1)}), "twice")


def test_nodes() -> None:
    x = {"x": floats(2, 3)}
    image = {"x": floats(1, 3, 8, 8)}

    def one(op: str, feeds: Any = x, constants: Any = None, **attributes: Any) -> ModelProto:
        names = [*feeds, *(constants or {})]
        return model([node(op, names, ["y"], name="here", **attributes)], feeds, ["y"], constants)

    fails(InvalidModel, one("Relu", {}), "here", "0 inputs")
    fails(InvalidModel, one("Add", {**x, "b": floats(4)}), "here", "float32[2x3]")
    fails(InvalidModel, one("Add", {**x, "b": np.zeros(3, np.int64)}), "here", "int64")
    fails(InvalidModel, one("Conv", x, {"w": floats(4, 3, 3, 3)}), "here")
    fails(InvalidModel, one("Conv", image, {"w": floats(4, 2, 3, 3)}), "groups")
    fails(InvalidModel, one("Conv", image, {"w": floats(4, 3, 9, 9)}), "does not fit")
    fails(InvalidModel, one("Conv", image, {"w": floats(4, 3, 3, 3)}, strides=[0, 1]), "strides")
    fails(InvalidModel, one("Conv", image, {"w": floats(4, 3, 3, 3)}, pads=[1, 1]), "pads")
    fails(InvalidModel, one("MaxPool", image, kernel_shape=[2**30, 2**30]), "here")
    fails(InvalidModel, one("MatMul", {**x, "b": floats(4, 5)}), "here")
    fails(InvalidModel, one("Reshape", x, {"s": np.array([4, 2])}), "here")
    fails(InvalidModel, one("Reshape", x, {"s": np.array([1 << 40])}), "here")
    fails(InvalidModel, one("Transpose", perm=[0, 0]), "here")
    fails(InvalidModel, one("Transpose", perm="no"), "wrong type")
    fails(InvalidModel, one("Softmax", axis=5), "axis 5")
    fails(InvalidModel, one("Gather", x, {"i": np.array([9])}), "outside")
    fails(InvalidModel, one("Cast"), "'to' is missing")
    fails(UnsupportedOp, one("Split", axis=1, num_outputs=2), "num_outputs")
    fails(UnsupportedOp, one("Relu", surprise=1), "surprise")
    fails(UnsupportedOp, one("Cast", to=TensorProto.STRING), "string")
    fails(UnsupportedOp, one("Dropout", x, {"r": np.array(0.5, np.float32), "t": np.array(True)}), "training")
    fails(UnsupportedOp, one("Reshape", {**x, "s": np.array([3, 2])}), "--const s")


@pytest.mark.parametrize("count", [1 << 40, 1 << 28])
def test_absurd_sizes(count: int) -> None:
    size = {"s": np.array([count])}
    fails(InvalidModel, model([node("ConstantOfShape", ["s"], ["y"])], {}, ["y"], size))
    fails(InvalidModel, model([node("Expand", ["x", "s"], ["y"])], {"x": floats(1)}, ["y"], size))
    fails(InvalidModel, model([node("Expand", ["w", "s"], ["y"])], {}, ["y"], {**size, "w": floats(1)}))
    fails(InvalidModel, model([node("Tile", ["x", "s"], ["y"])], {"x": floats(1)}, ["y"], size))
    pads = {"p": np.array([0, count])}
    fails(InvalidModel, model([node("Pad", ["x", "p"], ["y"])], {"x": floats(1)}, ["y"], pads))
    bounds = {"a": np.array(0), "b": np.array(count), "c": np.array(1)}
    fails(InvalidModel, model([node("Range", ["a", "b", "c"], ["y"])], {}, ["y"], bounds))
    scales = {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 9e5, 9e5], np.float32)}
    fails(InvalidModel, model([node("Resize", ["x", "r", "s"], ["y"])], {"x": floats(1, 1, 2, 2)}, ["y"], scales))
    outer = {"a": floats(1 << 15, 1), "b": floats(1, 1 << 15)}
    fails(InvalidModel, model([node("MatMul", ["a", "b"], ["y"])], {}, ["y"], outer))


def test_many_large_constants_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each within the limit, together beyond reason."""
    monkeypatch.setattr(context, "FOLD_BYTES", 1 << 24)
    nodes = [node("ConstantOfShape", ["s"], [f"c{i}"]) for i in range(30)]
    m = model([*nodes, node("Sum", [f"c{i}" for i in range(30)], ["y"])], {}, ["y"], {"s": np.array([1 << 18])})
    fails(InvalidModel, m, "constant subgraphs")


def test_tensors() -> None:
    def constant(t: TensorProto) -> ModelProto:
        m = model([node("Add", ["x", "w"], ["y"])], {"x": floats(2)}, ["y"])
        t.name = "w"
        m.graph.initializer.append(t)
        return m

    good = onnx.numpy_helper.from_array(floats(2))
    short = TensorProto(data_type=1, dims=[2], raw_data=b"abc")
    fails(InvalidModel, constant(short), "'w'")
    fails(InvalidModel, constant(TensorProto(data_type=1, dims=[-2], raw_data=good.raw_data)), "negative")
    fails(InvalidModel, constant(TensorProto(data_type=1, dims=[1 << 40])), "elements")
    fails(InvalidModel, constant(TensorProto(data_type=0, dims=[2], raw_data=good.raw_data)))
    fails(InvalidModel, constant(TensorProto(data_type=999, dims=[2], raw_data=good.raw_data)))
    fails(InvalidModel, constant(helper.make_tensor("w", TensorProto.STRING, [2], [b"a", b"b"])), "string")
    fails(InvalidModel, constant(helper.make_tensor("w", TensorProto.COMPLEX64, [2], [1j, 2j])))
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("w", 1, [1], [1.0]), helper.make_tensor("i", 7, [1], [0]), [2]
    )
    m = model([node("Add", ["x", "w"], ["y"])], {"x": floats(2)}, ["y"])
    m.graph.sparse_initializer.append(sparse)
    fails(InvalidModel, m, "sparse")


def test_inputs() -> None:
    m = relu()
    m.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    fails(InvalidModel, m, "string")
    m.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [2])))
    fails(InvalidModel, m, "not a tensor")


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "missing.bin", "", "a\0b", "."])
def test_external_data(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(64))
    m = model([node("Add", ["x", "w"], ["y"])], {"x": floats(2)}, ["y"], {"w": floats(2)})
    w = m.graph.initializer[0]
    w.ClearField("raw_data")
    w.data_location = TensorProto.EXTERNAL
    w.external_data.add(key="location", value=location)
    (folder / "m.onnx").write_bytes(m.SerializeToString())
    fails(InvalidModel, folder / "m.onnx", "'w'")
    fails(InvalidModel, m, "bytes")
    (folder / "good.bin").write_bytes(bytes(4))
    w.external_data[0].value = "good.bin"
    (folder / "m.onnx").write_bytes(m.SerializeToString())
    fails(InvalidModel, folder / "m.onnx", "'w'")


def test_every_unsupported_node_is_listed_once() -> None:
    nodes = [
        node("RandomNormalLike", ["x"], ["h"], name="random"),
        node("Relu", ["h"], ["a"], name="follows"),
        node("Mystery", ["a"], ["b"], domain="com.acme", name="custom"),
        node("RandomUniformLike", ["x"], ["n"], name="random too"),
        node("Shape", ["b"], ["s"], name="shape of unknown"),
        node("Reshape", ["n", "s"], ["y"], name="follows too"),
    ]
    m = model(nodes, {"x": floats(1, 1, 3)}, ["y"], domains={"com.acme": 1})
    e = fails(UnsupportedOp, m, "random", "com.acme.Mystery")
    assert isinstance(e, UnsupportedOp)
    assert [n.node for n in e.nodes] == ["random", "custom", "random too"]
    assert all(n.reason and n.hint for n in e.nodes)
    checked = check(m.SerializeToString())
    assert checked.imported is None and checked.unsupported == tuple(e.nodes) and checked.nodes == 6


def test_declared_types_let_the_rest_be_checked() -> None:
    nodes = [
        node("Mystery", ["x"], ["a"], domain="com.acme", name="first"),
        node("RandomUniformLike", ["a"], ["y"], name="second"),
    ]
    m = model(nodes, {"x": floats(1, 2, 4, 4)}, ["y"], domains={"com.acme": 1})
    m.graph.value_info.append(helper.make_tensor_value_info("a", 1, [1, 2, 4, 4]))
    assert [n.node for n in check(m.SerializeToString()).unsupported] == ["first", "second"]


def test_function_bombs_are_refused() -> None:
    """Forty functions, each calling the next twice; and one that calls itself."""
    m = model([node("f0", ["x"], ["y"], domain="f")], {"x": floats(2)}, ["y"], domains={"f": 1})
    opset = [helper.make_opsetid("", 13), helper.make_opsetid("f", 1)]
    for i in range(40):
        calls = [node(f"f{i + 1}", ["a"], ["b"], domain="f"), node(f"f{i + 1}", ["b"], ["c"], domain="f")]
        m.functions.append(helper.make_function("f", f"f{i}", ["a"], ["c"], calls, opset))
    m.functions.append(helper.make_function("f", "f40", ["a"], ["c"], [node("Relu", ["a"], ["c"])], opset))
    fails(InvalidModel, m, "functions")
    del m.functions[:]
    m.functions.append(helper.make_function("f", "f0", ["a"], ["c"], [node("f0", ["a"], ["c"], domain="f")], opset))
    fails(InvalidModel, m, "functions")
