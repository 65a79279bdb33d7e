"""Is what runs on the device what the model means? The only user of onnxruntime."""

from bitc.verification.inputs import load_inputs, load_labels, random_inputs
from bitc.verification.verify import VerifyReport, verify, verify_outputs

__all__ = ["VerifyReport", "load_inputs", "load_labels", "random_inputs", "verify", "verify_outputs"]
