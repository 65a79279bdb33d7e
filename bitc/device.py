"""A compiled model on its target: built, run, and its memory read back as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bitc import runners
from bitc.errors import ToolchainError
from bitc.ir.graph import Array
from bitc.ir.program import Buffer, Program, struct_layout
from bitc.ir.types import TensorType
from bitc.kernels.pack import WORDS, unpack_tensor
from bitc.runners import RunRequest, RunResult
from bitc.toolchain import Runnable

Sample = Mapping[str, Array]


@dataclass(frozen=True)
class DeviceRun:
    """`outputs`: per sample the graph outputs by name. `layers`: per sample what each layer wrote, as (buffer, decoded
    array), in order; empty unless recorded."""

    outputs: list[dict[str, Array]]
    result: RunResult
    layers: list[list[tuple[Buffer, Array]]] = field(default_factory=list)


def run(
    build: Runnable, program: Program, samples: Sequence[Sample], runner: str | None = None, record: bool = False
) -> DeviceRun:
    """Run samples (arrays by input name). Raises ToolchainError on a fault, TargetError without a runner."""
    images = [pack_struct(program.inputs, s) for s in samples]
    result = runners.open_runner(build.target, runner).run(RunRequest(build, images, hooks=record))
    failed = [c for c in result.codes if c != 0]
    if failed:
        raise ToolchainError(
            f"{build.name}_run returned {failed[0]}", where=build.target.name, hint="report this model"
        )
    outputs = [unpack_struct(program.outputs, image) for image in result.outputs]
    written = {done.layer: done.buffer for done in program.finished if not done.apart}
    layers = [
        [(written[r.layer], decode(written[r.layer].type, r.data)) for r in records if r.layer in written]
        for records in result.layers
    ]
    return DeviceRun(outputs, result, layers)


def decode(t: TensorType, data: bytes) -> Array:
    """Memory of a tensor as an array of its shape: codes for packed types."""
    if t.layout.word:
        return unpack_tensor(np.frombuffer(data, WORDS[t.layout.word]), t)
    return np.frombuffer(data, t.dtype.carrier).reshape(t.shape)


def struct_bytes(buffers: Sequence[Buffer]) -> int:
    """Bytes of the input or output struct of these buffers."""
    return struct_layout([b.type for b in buffers])[1]


def pack_struct(buffers: Sequence[Buffer], sample: Sample) -> bytes:
    """The image of the input struct."""
    offsets, size, _ = struct_layout([b.type for b in buffers])
    image = bytearray(size)
    for b, offset in zip(buffers, offsets, strict=True):
        data = np.ascontiguousarray(sample[b.name], b.type.dtype.carrier).tobytes()
        image[offset : offset + len(data)] = data
    return bytes(image)


def unpack_struct(buffers: Sequence[Buffer], image: bytes) -> dict[str, Array]:
    """Arrays of the output struct, by name."""
    offsets = struct_layout([b.type for b in buffers])[0]
    return {
        b.name: decode(b.type, image[offset : offset + b.type.nbytes])
        for b, offset in zip(buffers, offsets, strict=True)
    }
