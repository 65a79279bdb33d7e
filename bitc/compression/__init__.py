"""Fewer bits, fewer weights: steps that change an ONNX model, layer by layer, on calibration data."""

from bitc.compression.calibration import Calibration, Score
from bitc.compression.compress import Compressed, compress
from bitc.compression.report import Request, compress_file, search_file
from bitc.compression.steps import STEPS, Step, parse, parse_on
from bitc.compression.work import Choice, Outcome

__all__ = [
    "STEPS",
    "Calibration",
    "Choice",
    "Compressed",
    "Outcome",
    "Request",
    "Score",
    "Step",
    "compress",
    "compress_file",
    "parse",
    "parse_on",
    "search_file",
]
