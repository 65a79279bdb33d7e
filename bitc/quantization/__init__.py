"""Post-training quantization, by onnxruntime's own quantizer."""

from bitc.quantization.quantize import METHODS, Quantized, Settings, quantize, to_int8

__all__ = ["METHODS", "Quantized", "Settings", "quantize", "to_int8"]
