"""How long a model takes to become C, and that C to become objects, in seconds of processor time of this computer.

Models are given by their paths; one with 5 MB of weights is made here: five dense layers of 1024 x 1024 int8 weights.
"""

from __future__ import annotations

import json
import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from benchmarks.fit import roomy
from benchmarks.instructions import markdown
from bitc.errors import BitcError
from bitc.pipeline import Compiled, compile_model
from bitc.toolchain import Toolchain, compile_sources

RESULTS = Path(__file__).with_name("compile.json")
TARGET = "cortex-m7"
COMPILERS = ("zig", "arm-none-eabi-gcc")
LARGE = "dense_5mb_int8"
LAYERS, WIDTH = 5, 1024


def large() -> bytes:
    """The model of 5 MB."""
    rng = np.random.default_rng(0)
    constants = {"scale": np.float32(0.05), "small": np.float32(0.002), "zero": np.int8(0)}
    nodes = [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q0"])]
    for i in range(LAYERS):
        constants[f"w{i}"] = rng.integers(-127, 128, (WIDTH, WIDTH), dtype=np.int8)
        nodes += [
            helper.make_node("DequantizeLinear", [f"q{i}", "scale", "zero"], [f"x{i}"]),
            helper.make_node("DequantizeLinear", [f"w{i}", "small", "zero"], [f"v{i}"]),
            helper.make_node("MatMul", [f"x{i}", f"v{i}"], [f"y{i}"]),
            helper.make_node("QuantizeLinear", [f"y{i}", "scale", "zero"], [f"q{i + 1}"]),
        ]
    nodes.append(helper.make_node("DequantizeLinear", [f"q{LAYERS}", "scale", "zero"], ["y"]))
    ends = [helper.make_tensor_value_info(n, 1, [1, WIDTH]) for n in ("x", "y")]
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, LARGE, ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def run(models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Seconds and bytes per model; those that are refused are left out and told on the way."""
    found = {}
    for name, source in [(LARGE, large()), *((Path(p).stem, Path(p)) for p in models)]:
        try:
            start = time.process_time()
            compiled = compile_model(source, roomy(TARGET))
            seconds = time.process_time() - start
            found[name] = {
                "weights_bytes": compiled.program.weights_bytes,
                "c_bytes": sum(len(text) for text in compiled.files.values()),
                "generate": round(seconds, 2),
                **{cc: _compile(compiled, cc) for cc in COMPILERS if cc == "zig" or shutil.which(cc)},
            }
        except BitcError as error:
            print(f"{name}: {error}")
    return found


def _compile(compiled: Compiled, cc: str) -> float:
    """Seconds that the C compiler takes, at -O3."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, text in compiled.files.items():
            (folder / path).write_text(text, encoding="utf-8")
        start = _spent()
        compile_sources(
            compiled.target, sorted(folder.glob("*.c")), [folder], folder / "o", toolchain=Toolchain(cc), warnings=False
        )
        return round(_spent() - start, 2)


def _spent() -> float:
    """Processor time of the programs that ran so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown, one model per line."""
    head = ["model", "weights", "C text", "to C, s", *(f"{cc}, s" for cc in COMPILERS)]
    rows = [
        [name, f"{r['weights_bytes']:,}", f"{r['c_bytes']:,}", f"{r['generate']:.1f}"]
        + [f"{r[cc]:.1f}" if cc in r else "-" for cc in COMPILERS]
        for name, r in results.items()
    ]
    return markdown(head, rows)


def write(results: dict[str, dict[str, Any]]) -> None:
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
