"""A float model and calibration data in, an int8 model in QDQ form out.

onnxruntime.quantization does the work. What is chosen here is what this compiler makes integer kernels of without loss:
QDQ, int8 weights per output channel and symmetric, int8 activations per tensor with a zero point, int32 biases.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime import quantization as ort

from bitc.errors import InvalidModel, ModelError
from bitc.frontend.upgrade import LEAST_OPSET, few_valued, node_names, operators, upgraded
from bitc.ir.graph import Array
from bitc.verification.reference import OnnxRuntime
from bitc.verification.verify import label_agreement

Sample = Mapping[str, Array]

METHODS = {
    "minmax": ort.CalibrationMethod.MinMax,
    "entropy": ort.CalibrationMethod.Entropy,
    "percentile": ort.CalibrationMethod.Percentile,
}
"""How the range of a tensor is found from its values."""


CODEBOOK = 16
"""Weights of at most so many values are from a codebook: with one scale for all of them they stay so few as codes."""
_ONE_SCALE = {"quant_type": ort.QuantType.QInt8, "symmetric": True}


@dataclass(frozen=True)
class Settings:
    """`method`: one of `METHODS`. `symmetric`: activations without zero points."""

    method: str = "minmax"
    symmetric: bool = False


@dataclass(frozen=True)
class Quantized:
    """The model, and how far it is from the float model on the samples: errors of the first output, the share of
    samples with the same label, and, where true labels are known, the accuracy of both."""

    model: bytes
    samples: int
    max_abs_error: float
    mean_abs_error: float
    argmax_agreement: float
    accuracy_before: float | None
    accuracy_after: float | None


class _Reader(ort.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self, samples: Sequence[Sample]) -> None:
        self._left: Iterator[Sample] = iter(samples)

    def get_next(self) -> dict[str, Array] | None:
        found = next(self._left, None)
        return None if found is None else dict(found)


def quantize(
    model: bytes,
    calibration: Sequence[Sample],
    test: Sequence[Sample] | None = None,
    labels: Array | None = None,
    settings: Settings = Settings(),
) -> Quantized:
    """Quantize a float model (`Imported.reference`) with the ranges that its tensors have on `calibration`, and
    compare both on `test` (the calibration samples if None), of which `labels` are the true classes.

    Raises ModelError: quantized already, or refused by onnxruntime.
    """
    made = to_int8(model, calibration, settings)
    return _compared(model, made, calibration if test is None else test, labels)


def to_int8(
    model: bytes, calibration: Sequence[Sample], settings: Settings = Settings(), keep: Collection[str] = ()
) -> bytes:
    """The model on int8, but for the nodes called `keep`. Raises ModelError as `quantize` does."""
    present = operators(model)
    if present & {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}:
        raise ModelError("is quantized already", where="model", hint="give the float model")
    if not present & set(ort.registry.QDQRegistry):
        raise ModelError("has no operator that can be quantized", where="model", hint="compile it as it is")
    base = upgraded(model)
    if base is None:
        hint = f"export with opset {LEAST_OPSET} or newer"
        raise ModelError(f"can not be brought to opset {LEAST_OPSET}", where="model", hint=hint)
    return _quantized(base, calibration, settings, keep)


def _quantized(model: bytes, calibration: Sequence[Sample], settings: Settings, keep: Collection[str]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="bitc-") as name, _quiet():
        folder = Path(name)
        source, plain, result = (folder / f"{stem}.onnx" for stem in ("source", "plain", "result"))
        source.write_bytes(model)
        try:
            _simplify(source, plain)
            ort.quantize_static(
                str(plain),
                str(result),
                _Reader(calibration),
                quant_format=ort.QuantFormat.QDQ,
                per_channel=True,
                activation_type=ort.QuantType.QInt8,
                weight_type=ort.QuantType.QInt8,
                calibrate_method=METHODS[settings.method],
                # MatMul and Add have become one node, called MATMUL/MatMulAddFusion
                nodes_to_exclude=[n for n in node_names(plain.read_bytes()) if {n, n.rpartition("/")[0]} & set(keep)],
                extra_options={
                    "ActivationSymmetric": settings.symmetric,
                    "WeightSymmetric": True,
                    "TensorQuantOverrides": {w: [_ONE_SCALE] for w in few_valued(plain.read_bytes(), CODEBOOK)},
                },
            )
        except Exception as e:  # whatever onnxruntime and numpy raise
            said = (str(e).strip().splitlines() or [type(e).__name__])[0][:200]
            raise InvalidModel(
                f"onnxruntime can not quantize it: {said}", where="model", hint="simplify it before export"
            ) from e
        return result.read_bytes()


def _simplify(source: Path, to: Path) -> None:
    """Fold constants and batch norms, as the quantizer wants it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(to)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer prints its progress, and warns about what is done here on purpose."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _compared(before: bytes, after: bytes, samples: Sequence[Sample], labels: Array | None) -> Quantized:
    plain, codes = OnnxRuntime(before), OnnxRuntime(after)
    agreed = hits_before = hits_after = 0.0
    largest = total = 0.0
    for number, feeds in enumerate(samples):
        wanted, found = (np.asarray(next(iter(m.run(feeds).values()))) for m in (plain, codes))
        agreed += label_agreement(found, wanted)
        gap = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
        largest, total = max(largest, float(np.max(gap, initial=0.0))), total + float(np.mean(gap))
        if labels is not None:
            hits_before += _label(wanted) == int(labels[number])
            hits_after += _label(found) == int(labels[number])
    count = len(samples)
    return Quantized(
        after,
        count,
        largest,
        total / count,
        agreed / count,
        hits_before / count if labels is not None else None,
        hits_after / count if labels is not None else None,
    )


def _label(output: Array) -> int:
    return int(np.argmax(output.reshape(-1)))
