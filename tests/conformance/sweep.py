"""Compile the cases, run them, and say what became of each.

Many cases share a shared library, so that a sweep takes a minute or two. Libraries run in a child process: a crash is
the result of one case.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import re
import signal
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitc import device, resources
from bitc.errors import BitcError, ToolchainError, UnsupportedOp
from bitc.ir.dtypes import DType
from bitc.pipeline import Compiled, Options, compile_model
from bitc.target import Target
from bitc.toolchain import Toolchain, compile_sources, link_library
from tests.conformance.cases import Case, load_cases, out_of_scope
from tests.kernels.harness import host_compiler

PASSED, REFUSED, OUT_OF_SCOPE = "passed", "refused", "out of scope"
WRONG, CRASHED, NO_C, BROKEN = "wrong", "crashed", "C does not compile", "compiler fault"
BUGS = (WRONG, CRASHED, NO_C, BROKEN)
"""What must not happen."""

_BATCH = 24
_SECONDS = 60
_GUARD = 64
_CONSTANT = re.compile(r"--const (\S+)=VALUE")


@dataclass(frozen=True)
class Result:
    """What became of a case, and why if it did not pass; `constants` are the inputs that were given at compile time."""

    status: str
    reason: str = ""
    constants: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Ready:
    """A case as C: what it takes and what it should give."""

    case: Case
    compiled: Compiled
    constants: tuple[str, ...]


def prepare(case: Case, target: Target, name: str) -> Ready | Result:
    """Compile a case to C. Inputs that the compiler asks for get their value from the case's data, as a user would give
    them by the option that the message names."""
    if what := out_of_scope(case):
        return Result(OUT_OF_SCOPE, what)
    if not case.samples:
        return Result(OUT_OF_SCOPE, "no test data")
    feeds = case.feeds()
    data, shapes = case.model.SerializeToString(), _shapes(case)
    known = {n: np.asarray(a) for n, a in feeds.items() if np.size(a) == 0}  # nothing to wait for
    while True:
        try:
            open_shapes = {n: s for n, s in shapes.items() if n not in known}
            with np.errstate(all="ignore"):
                compiled = compile_model(data, target, Options(open_shapes, known, name=name))
            ready = Ready(case, compiled, tuple(known))
            return ready if _fits(ready) else Result(OUT_OF_SCOPE, "data beyond the range of float32")
        except UnsupportedOp as e:
            asked = {n for u in e.nodes for n in _CONSTANT.findall(u.hint)} - set(known)
            if not asked:
                return Result(REFUSED, _reason(e), tuple(known))
            known |= {n: np.asarray(feeds[n]) for n in sorted(asked)}
        except BitcError as e:
            return Result(BROKEN if e.exit_code == 70 else REFUSED, _reason(e), tuple(known))
        except Exception as e:  # whatever it is, it is a bug
            return Result(BROKEN, f"{type(e).__name__}: {e}"[:200], tuple(known))


def _shapes(case: Case) -> dict[str, tuple[int, ...]]:
    """The shapes of the data, for inputs whose declared shape is open."""
    feeds, open_shapes = case.feeds(), {}
    for info in case.model.graph.input:
        dims = info.type.tensor_type.shape.dim
        declared = info.type.tensor_type.HasField("shape")
        if info.name in feeds and (not declared or any(d.dim_value <= 0 for d in dims)):
            open_shapes[info.name] = tuple(np.shape(feeds[info.name]))
    return open_shapes


def _reason(error: BitcError) -> str:
    if isinstance(error, UnsupportedOp):
        return "; ".join(dict.fromkeys(f"{n.op}: {n.reason}" for n in error.nodes))
    lines = error.detail.splitlines()
    return f"{error.what}: {lines[0]}" if lines else error.what


_EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
"""One unit in the last place of the types that bitc computes in float32 and rounds once: onnx's expected values were
rounded at every step."""


def difference(expected: Any, got: np.ndarray, rtol: float, atol: float) -> str:
    """How two outputs differ, or an empty text: the rule of onnx's own runner, but 16-bit floats may differ by
    two units in the last place."""
    want = np.asarray(expected)
    if want.dtype.name in ("int4", "int2", "uint4", "uint2"):
        want = want.astype(np.uint8 if want.dtype.name.startswith("u") else np.int8)
    if want.shape != got.shape:
        return f"shape {list(got.shape)} for {list(want.shape)}"
    if want.dtype.kind not in "iub":  # ml_dtypes have kind V
        want = want.astype(np.float64) if want.dtype.kind == "f" else want.astype(np.float32).astype(np.float64)
        if got.dtype.kind in "iub":
            return f"{got.dtype} for {np.asarray(expected).dtype}"
        rtol = max(rtol, 2 * _EPSILON.get(np.asarray(expected).dtype.name, 0.0))
        close = np.isclose(got.astype(np.float64), want, rtol, atol, equal_nan=True)
        with np.errstate(invalid="ignore"):
            worst = np.abs(got.astype(np.float64) - want)[~close]
        return f"{(~close).sum()} of {close.size} elements differ, by up to {worst.max():g}" if worst.size else ""
    if got.dtype.kind == "f":
        return f"{got.dtype} for {want.dtype}"
    unequal = want.astype(got.dtype) != got
    return f"{unequal.sum()} of {unequal.size} elements differ" if unequal.any() else ""


def judge(ready: Ready, outputs: Sequence[dict[str, np.ndarray]]) -> Result:
    """Compare the outputs of all samples with what the case expects."""
    case = ready.case
    names = [o.name for o in case.model.graph.output]
    for sample, (_, expected) in enumerate(case.samples):
        for name, want in zip(names, expected, strict=False):
            got = _there(ready, outputs[sample], name)
            if found := difference(want, got, case.rtol, case.atol):
                return Result(WRONG, f"{name}: {found}", ready.constants)
    return Result(PASSED, "", ready.constants)


def _there(ready: Ready, outputs: dict[str, np.ndarray], name: str) -> np.ndarray:
    """An output, cut to what its count says where it has one."""
    ragged = ready.compiled.model.imported.ragged.get(name)
    if ragged is None:
        return outputs[name]
    return np.take(outputs[name], np.arange(int(outputs[ragged.count])), axis=ragged.axis)


def feeds_of(ready: Ready, sample: int) -> dict[str, np.ndarray]:
    """Inputs of the C code for a sample, in the types in which it holds them."""
    feeds = ready.case.feeds(sample)
    return {v.name: _carried(feeds[v.name], v.type.dtype) for v in ready.compiled.graph.inputs}


def _carried(array: Any, dtype: DType) -> np.ndarray:
    found = np.asarray(array)
    with np.errstate(over="ignore"):
        return (found if found.dtype.kind in "iubf" else found.astype(np.float32)).astype(dtype.carrier)


def _fits(ready: Ready) -> bool:
    """Whether the types in which the C code takes its inputs hold the data."""
    for i in range(len(ready.case.samples)):
        feeds = ready.case.feeds(i)
        for name, array in feeds_of(ready, i).items():
            if array.dtype.kind == "f" and (np.isinf(array) & np.isfinite(np.asarray(feeds[name], np.float64))).any():
                return False
    return True


# Running


def _images(ready: Ready) -> list[bytes]:
    inputs = ready.compiled.program.inputs
    return [device.pack_struct(inputs, feeds_of(ready, i)) for i in range(len(ready.case.samples))]


def _output_bytes(ready: Ready) -> int:
    return device.struct_bytes(ready.compiled.program.outputs)


def _guarded(size: int, align: int = 64) -> tuple[Any, int]:
    """Memory with a guard zone on both sides, and the address between them."""
    block = ctypes.create_string_buffer(b"\xa5" * (size + 2 * _GUARD + align), size + 2 * _GUARD + align)
    at = -(-(ctypes.addressof(block) + _GUARD) // align) * align
    return block, at


def _call(library: Any, ready: Ready) -> list[bytes]:
    """The output struct for each sample. Raises RuntimeError if it writes outside its memory."""
    out_bytes, plan = _output_bytes(ready), ready.compiled.plan
    results = []
    for image in _images(ready):
        sizes = (max(plan.arena_bytes, 1), max(len(image), 1), out_bytes)
        blocks = [_guarded(s, max(plan.arena_align, 16)) for s in sizes]
        ctypes.memmove(blocks[1][1], image, len(image))
        status = library[f"{ready.compiled.name}_run"](*(ctypes.c_void_p(at) for _, at in blocks))
        if status:
            raise RuntimeError(f"returned {status}")
        for (_, at), size in zip(blocks, sizes, strict=True):
            edges = ctypes.string_at(at - _GUARD, _GUARD), ctypes.string_at(at + size, _GUARD)
            if any(edge.strip(b"\xa5") for edge in edges):
                raise RuntimeError("wrote outside its memory")
        if ctypes.string_at(blocks[1][1], len(image)) != image:
            raise RuntimeError("wrote to its input")
        results.append(ctypes.string_at(blocks[2][1], out_bytes))
    return results


def _run_library(path: Path, group: Sequence[Ready]) -> list[Result]:
    """Run each case of a library in child processes, one as long as none crashes."""
    results: list[Result] = []
    while len(results) < len(group):
        results += _child(path, group[len(results) :])
    return results


def _child(path: Path, group: Sequence[Ready]) -> list[Result]:
    """Results up to the first crash, which is included."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        with os.fdopen(writer, "wb") as pipe:
            library = ctypes.CDLL(str(path))
            for ready in group:
                signal.alarm(_SECONDS)
                try:
                    found: Any = _call(library, ready)
                except Exception as e:
                    found = str(e)
                pickle.dump(found, pipe)
                pipe.flush()
        os._exit(0)
    os.close(writer)
    results: list[Result] = []
    with os.fdopen(reader, "rb") as pipe:
        for ready in group:
            try:
                found = pickle.load(pipe)
            except EOFError:
                break
            results.append(_judged(ready, found))
    _, status = os.waitpid(pid, 0)
    if len(results) < len(group):
        ready = group[len(results)]
        results.append(Result(CRASHED, f"signal {os.WTERMSIG(status)}", ready.constants))
    return results


def _judged(ready: Ready, found: list[bytes] | str) -> Result:
    if isinstance(found, str):
        return Result(CRASHED, found, ready.constants)
    outputs = [device.unpack_struct(ready.compiled.program.outputs, image) for image in found]
    return judge(ready, outputs)


def _build(group: Sequence[Ready], target: Target, folder: Path, toolchain: Toolchain) -> Path:
    """All cases of a group in one library. Raises ToolchainError."""
    folder.mkdir()
    sources = [resources.runtime_c() / "harness" / "mem.c"]
    for ready in group:
        for name, text in ready.compiled.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        one = folder / f"one_{ready.compiled.name}.c"
        one.write_text(f'#include "{ready.compiled.name}.c"\n#include "{ready.compiled.name}_weights.c"\n')
        sources.append(one)
    objects = compile_sources(target, sources, [folder], folder / "objects", "-O1", toolchain=toolchain)
    return link_library(objects, folder / "group.so")


def _run_group(group: Sequence[Ready], target: Target, folder: Path, toolchain: Toolchain) -> list[Result]:
    try:
        library = _build(group, target, folder, toolchain)
    except ToolchainError as e:
        if len(group) == 1:
            line = next((x for x in e.detail.splitlines() if "error" in x), e.what)
            return [Result(NO_C, line[-200:], group[0].constants)]
        return [r for i, x in enumerate(group) for r in _run_group([x], target, folder / f"alone{i}", toolchain)]
    return _run_library(library, group)


_CASES: dict[str, Case] = {}


def _batch(names: Sequence[str]) -> dict[str, Result]:
    """Results of some cases; runs in a worker process, which inherits `_CASES`."""
    target, toolchain = Target.load("host"), host_compiler()
    results: dict[str, Result] = {}
    group: list[Ready] = []
    for i, name in enumerate(names):
        found = prepare(_CASES[name], target, f"c{i}")
        if isinstance(found, Result):
            results[name] = found
        else:
            group.append(found)
    if group:
        with tempfile.TemporaryDirectory(prefix="bitc-conformance-") as scratch:
            ran = _run_group(group, target, Path(scratch) / "group", toolchain)
        results |= {ready.case.name: r for ready, r in zip(group, ran, strict=True)}
    return results


def sweep(cases: Sequence[Case], workers: int = 2) -> Iterator[tuple[Case, Result]]:
    """Results of the cases on the host, as they come."""
    _CASES.update({c.name: c for c in cases})
    names = [c.name for c in cases]
    # every n-th: the cases of one operator lie side by side, and some are slow
    count = max(1, -(-len(names) // _BATCH))
    batches = [names[i::count] for i in range(count)]
    with ProcessPoolExecutor(workers) as pool:  # forks, so that workers have the cases
        for results in pool.map(_batch, batches):
            for name, result in results.items():
                yield _CASES[name], result


__all__ = ["Case", "Ready", "Result", "load_cases", "prepare", "sweep"]
