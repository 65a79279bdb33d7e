"""What groups of operators have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bitc.ir.box import Box
from bitc.ir.graph import Array, Channels, Op, last_axis
from bitc.ir.types import DENSE, TensorType


class Pointwise(Op):
    """Output element i depends only on element i of the inputs, which broadcast as in numpy.

    A chain of pointwise operators with constants is a function of one real per channel: that is what lets a pass
    search thresholds by evaluating the chain.
    """

    def input_window(self, output: Box, index: int) -> Box | None:
        return output

    def on_channels(self, start: int, stop: int, of: int, constants: Sequence[Array | None]) -> Channels | None:
        return Channels(self, last_axis(constants, start, stop, of))

    def direction(self, index: int, *inputs: Array | None) -> Array | None:
        """Whether the output never falls (+1), never rises (-1) or is constant (0) as input `index` grows, all else
        fixed; broadcastable to the output. `inputs` holds the constant operands, None for the others. None: not
        monotone, or not known."""
        return None


def broadcast_type(first: TensorType, *others: TensorType) -> TensorType:
    """The dense type of a pointwise result: dtype of `first`, shape by numpy broadcasting."""
    shape = np.broadcast_shapes(first.shape, *(t.shape for t in others))
    return TensorType(tuple(shape), first.dtype, DENSE)
