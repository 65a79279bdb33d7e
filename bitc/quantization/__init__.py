"""Post-training quantization, by onnxruntime's own quantizer."""

from bitc.quantization.quantize import METHODS, Quantized, Settings, quantize

__all__ = ["METHODS", "Quantized", "Settings", "quantize"]
