"""Call the C compiler, link what runners run, and read sizes."""

from bitc.toolchain.compiler import ZIG, ObjectFile, Objects, Toolchain, compile_sources
from bitc.toolchain.linker import Runnable, archive, build_harness, build_model, link_library, link_runnable

__all__ = [
    "ZIG",
    "ObjectFile",
    "Objects",
    "Runnable",
    "Toolchain",
    "archive",
    "build_harness",
    "build_model",
    "compile_sources",
    "link_library",
    "link_runnable",
]
