"""Outputs, saved as inputs are read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bitc.errors import UsageError
from bitc.ir.graph import Array


def save(path: str | Path, outputs: Sequence[dict[str, Array]]) -> None:
    """Write an NPZ file with one array per output, by its ONNX name, with a leading axis for samples. Raises
    UsageError; never leaves a half-written file."""
    path = Path(path)
    names = list(outputs[0]) if outputs else []
    arrays = {name: np.stack([sample[name] for sample in outputs]) for name in names}
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(partial, path)  # noqa: PTH105  (one name, on every system)
    except OSError as e:
        partial.unlink(missing_ok=True)
        raise UsageError(f"can not be written: {e.strerror}", where=str(path), hint="check the folder") from e
