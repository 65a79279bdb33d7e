"""The device against the oracle: the same graph, so the same codes after every integer layer, bit for bit.

The generated C repeats the oracle's float operations in their order, so floats should be equal too; a difference is
reported, and fails where it is more than rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bitc import interp
from bitc.ir.graph import Array, Graph, Value

RELATIVE = 1e-5
"""Share of a float tensor's largest magnitude by which the device may differ from the oracle."""


@dataclass
class DeviceResult:
    """`float_exact`: every float was equal to the last bit."""

    failures: list[str] = field(default_factory=list)
    float_exact: bool = True


def check_device(
    graph: Graph,
    samples: Sequence[Mapping[str, Array]],
    outputs: Sequence[Mapping[str, Array]],
    layers: Sequence[Sequence[tuple[Value, Array]]] = (),
    states: Sequence[tuple[str, str]] = (),
) -> DeviceResult:
    """Compare what the device wrote with the oracle's run of `graph`. `outputs`: per sample, by name; `layers`: for the
    first samples, what each layer wrote; `states` pairs inputs with the outputs that they are in the next sample."""
    result = DeviceResult()
    kept = zero_states(graph, states)
    for number, (sample, found) in enumerate(zip(samples, outputs, strict=True)):
        env = interp.evaluate(graph, {**sample, **kept})
        for value, array in layers[number] if number < len(layers) else ():
            _check(result, f"sample {number}: layer {value.name}", array, env[value])
        ours = {v.name: v.array if v.is_const else env[v] for v in graph.outputs}
        kept = {name: ours.pop(output) for name, output in states}
        for name, array in ours.items():
            _check(result, f"sample {number}: output {name}", found[name], array)
    return result


def zero_states(graph: Graph, states: Sequence[tuple[str, str]]) -> dict[str, Array]:
    """The states before the first sample, by input name."""
    types = {v.name: v.type for v in graph.inputs}
    return {name: np.zeros(types[name].shape, types[name].dtype.carrier) for name, _ in states}


def _check(result: DeviceResult, what: str, device: Array, oracle: Array) -> None:
    device = device.reshape(oracle.shape)
    if np.array_equal(device, oracle, equal_nan=oracle.dtype.kind == "f"):
        return
    ours, theirs = device.astype(np.float64), oracle.astype(np.float64)
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(ours - theirs))
    bad = ~same
    if oracle.dtype.kind == "f":
        result.float_exact = False
        bad = ~(gap <= RELATIVE * np.max(np.abs(theirs[np.isfinite(theirs)]), initial=0.0))
    if not bad.any():
        return
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    result.failures.append(
        f"{what} differs from the oracle in {int(bad.sum())} of {bad.size} elements, "
        f"first at {list(index)}: device {ours[index]:.9g}, oracle {theirs[index]:.9g}"
    )
