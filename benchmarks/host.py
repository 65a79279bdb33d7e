"""The layer suite on this computer against onnxruntime, one thread, everything measured in turns in one process."""

from __future__ import annotations

import ctypes
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks import numbers
from benchmarks.bits import NAME, build, build_graph
from benchmarks.instructions import markdown
from benchmarks.peers import chain, float_model, int8_model
from benchmarks.suite import SUITE, Layer
from bitc import runners
from bitc.target import Target
from bitc.toolchain import Runnable, compile_sources, link_library

RESULTS = Path(__file__).with_name("host.md")
TARGETS = ("x86-64-v4", "x86-64-v3")
LAYERS = tuple(layer for layer in SUITE if layer.takes == "bits" and layer.gives == "bits" and layer.group == 1)
ROUNDS, TURN = 30, 0.004
"""Turns of each contender, and seconds of a turn."""


@dataclass
class Contender:
    """Something that does a layer `layers` times per call."""

    name: str
    call: Callable[[int], object]
    """Does so many calls."""
    layers: int = 1
    note: str = ""
    seconds: list[float] = field(default_factory=list)
    """Per layer, of each turn."""
    repeat: int = 1

    def turn(self) -> None:
        start = time.perf_counter()
        self.call(self.repeat)
        taken = time.perf_counter() - start
        self.seconds.append(taken / self.repeat / self.layers)
        self.repeat = max(1, round(self.repeat * TURN / taken))

    @property
    def best(self) -> float:
        return min(self.seconds[2:])

    @property
    def spread(self) -> float:
        """How far the median is above the best, relative."""
        return statistics.median(self.seconds[2:]) / self.best - 1


def run(names: Sequence[str] = TARGETS, layers: Sequence[Layer] = LAYERS) -> str:
    """Measure, and give the table."""
    targets = _ready(names)
    rows = []
    with tempfile.TemporaryDirectory(prefix="bitc-") as name:
        limits = [_limit(t, Path(name)) for t in targets]
        for i, layer in enumerate(layers):
            built = [_bits(layer, t, Path(name) / str(i)) for t in targets]
            peers = [peer("int8", int8_model(layer), layer), peer("fp32", float_model(layer), layer)]
            for _ in range(ROUNDS):
                for contender in (*built, *peers, *limits):
                    contender.turn()
            rows.append(_row(layer, built, peers, limits))
    head = ["layer", *(f"{p} GMAC/s" for p in ("int8", "fp32"))]
    for t in targets:
        head += [f"{t.name} GMAC/s", "/ int8", "/ fp32", "of limit", "kernel, spread"]
    speeds = ", ".join(f"{t.name} {1e-9 / limit.best:.0f}" for t, limit in zip(targets, limits, strict=True))
    return f"{markdown(head, rows)}\n\nRegister-only limits in the same run, GMAC/s: {speeds}."


def readme() -> str:
    """The README's table, as last measured."""
    return RESULTS.read_text(encoding="utf-8")


def _ready(names: Sequence[str]) -> list[Target]:
    """Targets that run here, this process being on one CPU: the last that it may use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return [Target.load(name) for name in names if not runners.available(Target.load(name))]


def run_numbers(names: Sequence[str] = TARGETS, layers: Sequence[Layer] = numbers.LAYERS) -> str:
    """The same for layers of numbers: float32 beside float32, and codes of 8 bits beside such."""
    targets, rows = _ready(names), []
    with tempfile.TemporaryDirectory(prefix="bitc-") as name:
        for i, (layer, kind) in enumerate(product(layers, numbers.PEERS)):
            built = []
            for t in targets:
                made, kernel = build_graph(numbers.graph(layer, kind), t, Path(name) / f"{i}-{t.name}")
                built.append(contender(made, kernel, t, 1))
            theirs = peer(kind, numbers.PEERS[kind](layer), layer)
            for _ in range(ROUNDS):
                for c in (theirs, *built):
                    c.turn()
            row = [f"{layer.name}, {kind}", f"{layer.macs / theirs.best / 1e9:.1f}"]
            for b in built:
                row += [f"{layer.macs / b.best / 1e9:.1f}", f"{theirs.best / b.best:.2f}", b.note]
            rows.append(row)
    head = ["layer", "onnxruntime GMAC/s"]
    for t in targets:
        head += [f"{t.name} GMAC/s", "ratio", "kernel"]
    return markdown(head, rows)


def _row(layer: Layer, built: list[Contender], peers: list[Contender], limits: list[Contender]) -> list[str]:
    macs = layer.macs / layer.depth
    row = [layer.name, *(f"{macs / p.best / 1e9:.1f}" for p in peers)]
    for b, limit in zip(built, limits, strict=True):
        share = macs / b.best * limit.best
        row += [f"{macs / b.best / 1e9:.0f}", *(f"{p.best / b.best:.1f}" for p in peers), f"{share:.0%}"]
        row.append(f"{b.note}, {b.spread:.0%}")
    return row


def _bits(layer: Layer, target: Target, folder: Path) -> Contender:
    made, kernel = build(layer, target, folder / target.name)
    return contender(made, kernel, target, layer.depth)


def contender(made: Runnable, kernel: str, target: Target, layers: int) -> Contender:
    """A built model, run in this process."""
    library = ctypes.CDLL(str(made.path))
    library.bitc_repeat.restype = ctypes.c_int64
    clock = ctypes.cast(ctypes.CDLL(None).clock_gettime, ctypes.c_void_p)
    ctypes.c_void_p.in_dll(library, "bitc_clock").value = clock.value
    return Contender(f"{NAME} {target.name}", library.bitc_repeat, layers, kernel)


def peer(name: str, model: Any, layer: Layer) -> Contender:
    """A model in onnxruntime, on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kind = np.uint8 if "uint8" in session.get_inputs()[0].type else np.float32
    binding = session.io_binding()
    binding.bind_cpu_input("x", np.random.default_rng(0).integers(0, 255, layer.shape).astype(kind))
    binding.bind_output(session.get_outputs()[0].name)

    def call(times: int) -> None:
        for _ in range(times):
            session.run_with_iobinding(binding)

    return Contender(name, call, chain(layer))


def _limit(target: Target, folder: Path) -> Contender:
    """`layers` are products here."""
    source = Path(__file__).with_name("limit.c")
    objects = compile_sources(target, [source], [], folder / f"limit-{target.name}", "-O3", warnings=False)
    path = folder / f"limit-{target.name}.so"
    link_library(objects, path)
    library = ctypes.CDLL(str(path))
    bits = ctypes.c_int32.in_dll(library, "bitc_limit_bits").value
    return Contender(f"limit {target.name}", lambda times: library.bitc_limit(1000 * times), 1000 * bits)
