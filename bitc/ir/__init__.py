"""The graph IR: dtypes, tensor types, values, nodes, graphs, and the tools that rebuild and check them."""

from bitc.ir.dtypes import (
    BIT1,
    BOOL,
    FLOAT32,
    INT8,
    INT16,
    INT32,
    INT64,
    TERN,
    UINT8,
    DType,
)
from bitc.ir.graph import Graph, Node, Op, Origin, Value
from bitc.ir.types import DENSE, Layout, Quant, TensorType

__all__ = [
    "BIT1",
    "BOOL",
    "DENSE",
    "FLOAT32",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "TERN",
    "UINT8",
    "DType",
    "Graph",
    "Layout",
    "Node",
    "Op",
    "Origin",
    "Quant",
    "TensorType",
    "Value",
]
