"""Mutated models against the importer: whatever comes in, only a BitcError comes out, soon and within memory.

``python -m tests.frontend.fuzz SEED COUNT`` prints every case that breaks this and exits with 1 if there is one. It is
a process of its own, so that a crash or a memory limit does not take the test run with it.
"""

from __future__ import annotations

import random
import resource
import signal
import sys
import time
import traceback
from types import FrameType

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

from bitc.errors import BitcError, InternalError
from bitc.frontend import check
from bitc.frontend.table import TABLE
from tests.frontend.cases import CASES
from tests.frontend.models import floats, model, subgraph
from tests.frontend.test_operators import build

SECONDS, BYTES = 10, 6 << 30
NUMBERS = [0, 1, -1, 2, 3, 7, 64, 127, 128, 255, 1 << 15, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63), -(1 << 31)]
FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, float("inf"), float("-inf"), float("nan")]


class TooSlow(BaseException):
    """Not an Exception, so that no handler of the importer takes it for its own."""


def alarm(_signal: int, _frame: FrameType | None) -> None:
    raise TooSlow


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        if not out:
            break
        at, kind = rng.randrange(len(out)), rng.randrange(5)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind == 2:
            del out[at : at + rng.choice([1, 4, 1000])]
        elif kind == 3:
            out[at:at] = rng.randbytes(rng.choice([1, 4, 16]))
        else:
            out[at:at] = out[at : at + rng.choice([4, 32, 256])]
    return bytes(out)


def mutate_attribute(rng: random.Random, a: AttributeProto) -> None:
    kind = rng.randrange(5)
    if kind == 0:
        a.type = rng.randrange(15)
    elif kind == 1 and a.ints:
        a.ints[rng.randrange(len(a.ints))] = rng.choice(NUMBERS)
    elif kind == 2 and a.ints:
        a.ints.append(rng.choice(NUMBERS))
    elif kind == 3:
        a.name = rng.choice(["axis", "axes", "pads", "to", "kernel_shape", "strides", ""])
    elif a.type == AttributeProto.INT:
        a.i = rng.choice(NUMBERS)
    elif a.type == AttributeProto.FLOAT:
        a.f = rng.choice(FLOATS)
    elif a.type == AttributeProto.STRING:
        a.s = rng.choice([b"", b"SAME_UPPER", b"\xff", b"linear", b"edge"])


def mutate_tensor(rng: random.Random, t: TensorProto) -> None:
    kind = rng.randrange(6)
    if kind == 0 and t.dims:
        t.dims[rng.randrange(len(t.dims))] = rng.choice(NUMBERS)
    elif kind == 1:
        t.data_type = rng.randrange(-1, 27)
    elif kind == 2:
        t.raw_data = t.raw_data[: rng.randrange(len(t.raw_data) + 1)]
    elif kind == 3:
        values = [rng.choice(NUMBERS) for _ in range(rng.choice([0, 1, 2, 4, 8]))]
        t.CopyFrom(helper.make_tensor(t.name, TensorProto.INT64, [len(values)], values))
    elif kind == 4:
        values = [rng.choice(FLOATS) for _ in range(rng.choice([0, 1, 2, 4]))]
        t.CopyFrom(helper.make_tensor(t.name, TensorProto.FLOAT, [len(values)], values))
    else:
        t.dims.append(rng.choice([1, 1, 2, 0]))


def mutate_node(rng: random.Random, n: NodeProto, names: list[str]) -> None:
    kind = rng.randrange(7)
    if kind == 0:
        n.domain, n.op_type = rng.choice(list(TABLE))
    elif kind == 1 and n.input:
        n.input[rng.randrange(len(n.input))] = rng.choice(names)
    elif kind == 2 and n.input:
        del n.input[rng.randrange(len(n.input))]
    elif kind == 3:
        n.input.append(rng.choice(names))
    elif kind == 4:
        n.output.append(rng.choice([*names, "extra"]))
    elif kind == 5 and n.attribute:
        del n.attribute[rng.randrange(len(n.attribute))]
    elif n.attribute:
        mutate_attribute(rng, rng.choice(list(n.attribute)))


def mutate_model(rng: random.Random, m: ModelProto) -> None:
    g = m.graph
    names = [i.name for i in g.input] + [t.name for t in g.initializer] + [o for n in g.node for o in n.output]
    names += ["", "nowhere"]
    kind = rng.randrange(8)
    if kind <= 2 and g.node:
        mutate_node(rng, rng.choice(list(g.node)), names)
    elif kind <= 4 and g.initializer:
        mutate_tensor(rng, rng.choice(list(g.initializer)))
    elif kind == 5 and g.input:
        tensor = rng.choice(list(g.input)).type.tensor_type
        if tensor.shape.dim and rng.random() < 0.7:
            rng.choice(list(tensor.shape.dim)).dim_value = rng.choice(NUMBERS)
        else:
            tensor.elem_type = rng.randrange(27)
    elif kind == 6 and g.node:
        extra = g.node.add()
        extra.CopyFrom(rng.choice(list(g.node)))
        del extra.output[:]
        extra.output.append("added")
        mutate_node(rng, extra, names)
        g.output.add().name = "added"
    else:
        m.opset_import[0].version = rng.choice([*range(5, 30), *NUMBERS]) if m.opset_import else 0


def weights_in_a_branch() -> ModelProto:
    node = helper.make_node
    then = subgraph([node("Sign", ["w"], ["s"]), node("Conv", ["x", "s"], ["a"])], ["a"])
    other = subgraph([node("Conv", ["x", "v"], ["b"])], ["b"], {"v": floats(4, 2, 3, 3)})
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "one"], ["channels"]),
        node("Equal", ["channels", "two"], ["c"]),
        node("If", ["c"], ["f"], then_branch=then, else_branch=other),
        node("BatchNormalization", ["f", "g", "g", "g", "g"], ["n"]),
        node("MaxPool", ["n"], ["p"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        node("Flatten", ["p"], ["flat"]),
        node("Gemm", ["flat", "d"], ["y"], transB=1),
    ]
    constants = {
        "w": floats(4, 2, 3, 3),
        "g": np.abs(floats(4)),
        "d": floats(3, 16),
        "one": np.array(1),
        "two": np.array(2),
    }
    return model(nodes, {"x": floats(1, 2, 6, 6)}, ["y"], constants)


def functions() -> ModelProto:
    node = helper.make_node
    opset = [helper.make_opsetid("", 13), helper.make_opsetid("f", 1)]
    m = model(
        [node("outer", ["x", "w"], ["y"], domain="f", axis=1)],
        {"x": floats(2, 3)},
        ["y"],
        {"w": floats(3)},
        13,
        {"f": 1},
    )
    body = [node("inner", ["a"], ["t"], domain="f"), node("Add", ["t", "b"], ["u"]), node("Softmax", ["u"], ["c"])]
    m.functions.append(helper.make_function("f", "outer", ["a", "b"], ["c"], body, opset, ["axis"]))
    m.functions.append(helper.make_function("f", "inner", ["a"], ["c"], [node("Relu", ["a"], ["c"])], opset))
    return m


def quantizers() -> ModelProto:
    node = helper.make_node
    nodes = [
        node("Quant", ["w", "s", "z", "b"], ["q"], domain="onnx.brevitas", signed=1, narrow=1, rounding_mode="ROUND"),
        node("BipolarQuant", ["x", "s"], ["a"], domain="qonnx.custom_op.general"),
        node("MatMul", ["a", "q"], ["m"]),
        node("MultiThreshold", ["m", "t"], ["y"], domain="qonnx.custom_op.general", out_bias=-1.0),
    ]
    scalars = {"s": np.array(0.5, np.float32), "z": np.array(0, np.float32), "b": np.array(2, np.float32)}
    return model(nodes, {"x": floats(1, 8)}, ["y"], {"w": floats(8, 4), "t": floats(4, 3), **scalars})


def sequences() -> ModelProto:
    """Recurrent layers, a loop, a scan and a choice at run time; and an operator with a definition alone."""
    node = helper.make_node
    step = helper.make_graph(
        [node("Add", ["h", "t"], ["h2"]), node("Identity", ["c"], ["c2"])],
        "step",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in (("i", 7, []), ("c", 9, []), ("h", 1, None))],
        [helper.make_tensor_value_info(n, t, None) for n, t in (("c2", 9), ("h2", 1))],
    )
    scanned = helper.make_graph(
        [node("Mul", ["k", "e"], ["k2"]), node("Tanh", ["k2"], ["o"])],
        "scanned",
        [helper.make_tensor_value_info(n, 1, [2, 1, 3]) for n in ("k", "e")],
        [helper.make_tensor_value_info(n, 1, [2, 1, 3]) for n in ("k2", "o")],
    )
    then, other = (subgraph([node(op, ["l"], [op])], [op]) for op in ("Neg", "Exp"))
    nodes = [
        node("LSTM", ["x", "w", "r", "b"], ["s", "t", "u"], hidden_size=3, direction="bidirectional"),
        node("Loop", ["n", "go", "t"], ["l"], body=step),
        node("ReduceMax", ["l"], ["m"], keepdims=0),
        node("Greater", ["m", "zero"], ["g"]),
        node("If", ["g"], ["f"], then_branch=then, else_branch=other),
        node("Scan", ["f", "s"], ["last", "p"], body=scanned, num_scan_inputs=1),
        node("MeanVarianceNormalization", ["p"], ["y"], axes=[0, 2]),
    ]
    constants = {"w": floats(2, 12, 2), "r": floats(2, 12, 3), "b": floats(2, 24), "zero": np.array(0, np.float32)}
    return model(
        nodes, {"x": floats(4, 1, 2)}, ["y", "last"], {**constants, "n": np.array(3), "go": np.array(True)}, 14
    )


GRAPHS = [weights_in_a_branch, functions, quantizers, sequences]


def case(seed: int) -> bytes:
    """The model of one seed."""
    rng = random.Random(seed)
    if rng.random() < 0.3:
        m = rng.choice(GRAPHS)()
    else:
        c = rng.choice(CASES)
        m, _ = build(c, rng.choice(c.opsets), fold=rng.random() < 0.4)
    if rng.random() < 0.25:
        return mutate_bytes(rng, m.SerializeToString())
    for _ in range(rng.choice([1, 1, 2, 4])):
        try:
            mutate_model(rng, m)
        except (ValueError, TypeError, OverflowError, UnicodeDecodeError):  # protobuf itself refuses the value
            continue
    return m.SerializeToString()


def broken(seed: int) -> str:
    """What is wrong with the importer's answer to one seed; empty if nothing is."""
    data, started = case(seed), time.monotonic()
    signal.alarm(SECONDS)
    try:
        check(data)
    except InternalError as e:
        return f"internal error: {e}"
    except BitcError as e:
        return "" if str(e) and e.hint and "\n" not in str(e) else f"no proper message: {e!r}"
    except TooSlow:
        return f"took more than {SECONDS} s"
    except BaseException:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    return "" if time.monotonic() - started < SECONDS else "slow"


def main(first: int, count: int) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    signal.signal(signal.SIGALRM, alarm)
    found = {seed: why for seed in range(first, first + count) if (why := broken(seed))}
    for seed, why in found.items():
        print(f"seed {seed}: {why}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{count} cases, {len(found)} broken, peak {peak} MiB")
    return 1 if found or peak > BYTES >> 20 else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
