"""ONNX in, `Graph` out. The only user of the onnx package."""

from bitc.frontend.load import Checked, Imported, Ragged, check, load

__all__ = ["Checked", "Imported", "Ragged", "check", "load"]
