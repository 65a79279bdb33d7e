"""Every kernel row. To add a variant, write its row and name it here."""

from __future__ import annotations

from bitc.kernels import (
    conv_bits,
    conv_bytes,
    conv_codebook,
    conv_computed,
    conv_dense,
    conv_listed,
    conv_lut,
    conv_mve,
    conv_nibbles,
    conv_pairs,
    conv_planes,
    conv_products,
    conv_sliced,
    conv_smlad,
    conv_sparse,
    conv_sparse_bits,
    conv_sparse_blocks,
    conv_sparse_codes,
    conv_sparse_dsp,
    conv_sparse_fpu,
    conv_sparse_lanes,
    conv_sparse_mve,
    conv_tiles,
    depthwise,
    depthwise_channels,
    depthwise_floats,
    depthwise_int8,
    depthwise_mve,
    depthwise_products,
    pool,
    requant,
)
from bitc.kernels.adding import adding
from bitc.kernels.dynamic import DYNAMIC
from bitc.kernels.indexing import INDEXING
from bitc.kernels.misc import MISC
from bitc.kernels.movement import MOVEMENT
from bitc.kernels.pointwise import POINTWISE
from bitc.kernels.quantized import QUANTIZED
from bitc.kernels.recurrent import RECURRENT
from bitc.kernels.reduce import REDUCTIONS
from bitc.kernels.step import Variant

VARIANTS: tuple[Variant, ...] = (
    conv_bits.VARIANT,
    conv_sliced.VARIANT,
    conv_listed.VARIANT,
    conv_tiles.VARIANT,
    conv_planes.VARIANT,
    conv_products.VARIANT,
    conv_codebook.VARIANT,
    conv_codebook.PAIRS,
    conv_mve.VARIANT,
    conv_bytes.VARIANT,
    conv_smlad.VARIANT,
    conv_sparse.VARIANT,
    conv_sparse_lanes.VARIANT,
    conv_sparse_codes.VARIANT,
    conv_sparse_dsp.VARIANT,
    conv_sparse_fpu.VARIANT,
    conv_sparse_mve.VARIANT,
    conv_sparse_blocks.FLOATS,
    conv_sparse_blocks.CODES,
    conv_pairs.VARIANT,
    conv_sparse_bits.VARIANT,
    conv_dense.VARIANT,
    conv_nibbles.VARIANT,
    conv_computed.VARIANT,
    conv_lut.VARIANT,
    *(adding(m.VARIANT) for m in (conv_bits, conv_tiles, conv_products, conv_mve, conv_bytes, conv_smlad, conv_dense)),
    depthwise.BITS,
    depthwise_int8.VARIANT,
    depthwise_mve.VARIANT,
    depthwise_channels.VARIANT,
    depthwise_floats.VARIANT,
    depthwise_products.VARIANT,
    pool.MAX,
    pool.MAX_WORDS,
    pool.ARG,
    pool.AVERAGE,
    pool.AVERAGE_CODES,
    requant.REQUANTIZE,
    requant.DEQUANTIZE,
    POINTWISE,
    *QUANTIZED,
    *MOVEMENT,
    *REDUCTIONS,
    *INDEXING,
    *DYNAMIC,
    *MISC,
    RECURRENT,
)

ZEROS_SKIPPED = (
    *(m.VARIANT.name for m in (conv_sparse, conv_sparse_lanes, conv_sparse_codes, conv_sparse_dsp, conv_sparse_fpu)),
    *(m.VARIANT.name for m in (conv_sparse_mve, conv_pairs)),
    conv_sparse_blocks.FLOATS.name,
    conv_sparse_blocks.CODES.name,
)
"""Rows that leave out zero weights."""
