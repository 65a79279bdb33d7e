"""Single-node models of recurrent layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.frontend.models import floats

T, B, N, H = 5, 3, 4, 6
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def layer(
    op: str,
    make: Any,
    directions: int = 1,
    given: str = "xwrb",
    wanted: int = 2,
    batch_first: bool = False,
    **more: Any,
) -> Any:
    """A layer of random weights; `given` lists the inputs it has: x, w, r, b, l(engths), h, c, p."""
    g = GATES[op] * H
    arrays = {
        "w": floats(directions, g, N, seed=1),
        "r": floats(directions, g, H, seed=2) / np.float32(2),
        "b": floats(directions, 2 * g, seed=3),
        "l": np.array([5, 2, 4][:B], np.int32),
        "h": floats(directions, B, H, seed=4),
        "c": floats(directions, B, H, seed=5),
        "p": floats(directions, 3 * H, seed=6),
    }
    x = floats(T, B, N)
    if batch_first:
        x, arrays["h"], arrays["c"] = (a.swapaxes(0, 1) for a in (x, arrays["h"], arrays["c"]))
    names = "wrblh" + ("cp" if op == "LSTM" else "")
    constants = tuple(arrays[n] if n in given else None for n in names)
    while constants[-1] is None:
        constants = constants[:-1]
    attributes: dict[str, Any] = {"hidden_size": H, "direction": {1: "forward", 2: "bidirectional"}[directions], **more}
    if batch_first:
        attributes["layout"] = 1
    return make(op, x, c=constants, outputs=wanted, opsets=(14,), tolerance=1e-5, **attributes)


def recurrent_cases(make: Any) -> list[Any]:
    """`make` is `cases.case`."""
    return [
        *[layer(op, make, given=g, directions=d) for op in GATES for g in ("xwr", "xwrbh") for d in (1, 2)],
        *[layer(op, make, given="xwrblh", directions=2) for op in GATES],
        *[layer(op, make, direction="reverse") for op in GATES],
        layer("GRU", make, directions=2, linear_before_reset=1),
        layer("GRU", make, given="xwr", linear_before_reset=1),
        layer("GRU", make, given="xwrbl", linear_before_reset=1, direction="reverse"),
        layer("LSTM", make, directions=2, given="xwrbhcp", wanted=3),
        layer("LSTM", make, given="xwrbp", input_forget=1),
        layer("LSTM", make, given="xwrblhc", wanted=3, direction="reverse"),
        layer("RNN", make, activations=["Relu"], clip=0.7),
        layer("GRU", make, activations=["HardSigmoid", "Softsign"], activation_alpha=[0.3], activation_beta=[0.4]),
        layer("LSTM", make, clip=0.4, given="xwrb"),
        layer("LSTM", make, directions=2, activations=["Sigmoid", "Relu", "Softplus", "Sigmoid", "Elu", "LeakyRelu"]),
        *[
            layer("RNN", make, activations=[a], activation_alpha=[0.5], activation_beta=[0.25])
            for a in ("Affine", "ThresholdedRelu", "ScaledTanh")
        ],
    ]
