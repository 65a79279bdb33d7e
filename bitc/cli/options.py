"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from bitc.errors import UsageError
from bitc.ir.graph import Array
from bitc.kernels import Goal
from bitc.pipeline import Options
from bitc.target import Target
from bitc.toolchain import Toolchain

_Command = Callable[..., Any]
_LEVELS = {Goal.SPEED: "-O3", Goal.BALANCED: "-O3", Goal.SIZE: "-Os"}
"""The C compiler's level for each goal."""


@dataclass(frozen=True)
class Job:
    """What the shared options say."""

    model: Path
    target: Target
    options: Options
    toolchain: Toolchain
    opt: str
    json: bool


def source_options(command: _Command) -> _Command:
    """MODEL and what completes it."""
    for decorate in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else."),
        click.option(
            "--shape", "shapes", multiple=True, metavar="NAME=1x3x32x32", help="Shape of an input with dynamic sizes."
        ),
        click.option(
            "--const",
            "constants",
            multiple=True,
            metavar="NAME=1,3,32 or NAME=FILE.npy",
            help="Value of an input that is known now (a shape, axes, k, ...); it is no input of the C code.",
        ),
        click.argument("model", type=click.Path(path_type=Path)),
    ):
        command = decorate(command)
    return command


def model_options(command: _Command) -> _Command:
    """MODEL and what changes its meaning."""
    for decorate in (
        click.option("--name", default="", help="Prefix of all C names (default: from the file name)."),
        click.option(
            "--sign0",
            type=click.Choice(["+1", "-1"]),
            default=None,
            help="What the sign of zero is. ONNX says 0, which costs a second bit plane where it can occur.",
        ),
        click.option(
            "--snap",
            type=click.FloatRange(0, 0.1),
            default=1e-4,
            show_default=True,
            help="Relative distance from ±alpha within which a weight is two-valued.",
        ),
        click.option(
            "--state",
            "states",
            multiple=True,
            metavar="IN:OUT",
            help="Keep output OUT in the arena and give it back as input IN on the next run; auto: find such by name; "
            "recurrent: keep the states inside RNN, GRU and LSTM layers.",
        ),
    ):
        command = decorate(command)
    return source_options(command)


def target_options(command: _Command) -> _Command:
    """The target and its compiler."""
    for decorate in (
        click.option(
            "--optimize",
            type=click.Choice([goal.value for goal in Goal]),
            default=Goal.BALANCED.value,
            show_default=True,
            help="What kernels are chosen for. speed: any size of weights; balanced: weights at most 5 % over packed.",
        ),
        click.option("--no-sparse", is_flag=True, help="Multiply zero weights too, for comparison."),
        click.option("--cc", default="", help="C compiler to use instead of the bundled one: a name or a path."),
        click.option("--feature", "features", multiple=True, help="Add a feature of the chip, or remove it: -NAME."),
        click.option("--flash", default=None, metavar="SIZE", help="Flash of the chip, e.g. 256k."),
        click.option(
            "--max-overhead",
            type=click.FloatRange(1),
            default=None,
            metavar="FACTOR",
            help="Use the least RAM with at most so many times the multiply-accumulates, e.g. 1.25. Default: the "
            "fewest instructions, as predicted, that fit the RAM.",
        ),
        click.option(
            "--input",
            "given",
            type=click.Choice(["whole", "stream"]),
            default="whole",
            show_default=True,
            help="How the C code takes the input. stream: an image row by row, never whole in RAM.",
        ),
        click.option(
            "--overwrite-input/--keep-input",
            default=False,
            help="Let the input lie in the arena, where its memory is used again. Default: it is only read.",
        ),
        click.option("--ram", default=None, metavar="SIZE", help="RAM of the chip, e.g. 64k."),
        click.option(
            "-t", "--target", default="host", show_default=True, help="A name of `bitc targets`, or a TOML file."
        ),
    ):
        command = decorate(command)
    return command


def make_options(
    shapes: tuple[str, ...],
    constants: tuple[str, ...],
    states: tuple[str, ...] = (),
    snap: float = Options.tolerance,
    sign0: str | None = None,
    name: str = "",
    goal: Goal = Goal.BALANCED,
    sparse: bool = True,
    max_overhead: float | None = None,
    given: str = "whole",
    overwrite_input: bool = False,
) -> Options:
    known = dict(_constant(c) for c in constants)
    sizes = dict(_shape(s) for s in shapes)
    stream = given == "stream"
    if stream and overwrite_input:
        raise UsageError("an input that comes by rows is nowhere to be overwritten", hint="leave out --overwrite-input")
    return Options(
        sizes, known, states, int(sign0 or 0), snap, name, goal, sparse, max_overhead, stream, overwrite_input
    )


def make_job(
    *,
    model: Path,
    shapes: tuple[str, ...],
    constants: tuple[str, ...],
    states: tuple[str, ...],
    snap: float,
    sign0: str | None,
    name: str,
    as_json: bool,
    target: str,
    ram: str | None,
    flash: str | None,
    features: tuple[str, ...],
    cc: str,
    optimize: str,
    no_sparse: bool,
    max_overhead: float | None,
    given: str,
    overwrite_input: bool,
) -> Job:
    """The parsed form of `model_options` and `target_options`."""
    chip = Target.load(target, ram, flash, features)
    toolchain = Toolchain(cc) if cc else Toolchain()
    goal = Goal(optimize)
    sparse = not no_sparse
    options = make_options(
        shapes, constants, states, snap, sign0, name, goal, sparse, max_overhead, given, overwrite_input
    )
    return Job(model, chip, options, toolchain, _LEVELS[goal], as_json)


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, equals, dims = text.rpartition("=")
    try:
        shape = tuple(int(d) for d in dims.replace(",", "x").split("x")) if dims else ()
    except ValueError:
        shape = (-1,)
    if not equals or not name or any(d < 1 for d in shape):
        raise UsageError(f"--shape {text} is not a shape", hint="write --shape NAME=1x3x32x32, sizes from 1")
    return name, shape


def _constant(text: str) -> tuple[str, Array]:
    """The value of an input: numbers, or a file that numpy.save has written."""
    name, equals, value = text.partition("=")
    hint = "write --const NAME=1,3,32, or NAME=FILE.npy"
    if not equals or not name:
        raise UsageError(f"--const {text} is not a value", hint=hint)
    try:
        if value.endswith(".npy"):
            return name, np.asarray(np.load(value, allow_pickle=False))
        numbers = [float(v) if set(v.lower()) & set(".einf") else int(v) for v in value.split(",") if v.strip()]
    except (OSError, ValueError) as e:
        raise UsageError(f"--const {text} is not a value", hint=hint) from e
    return name, np.array(numbers, None if numbers else np.int64)
