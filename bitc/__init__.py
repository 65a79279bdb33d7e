"""bitc: the ahead-of-time compiler for binary neural networks."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("bitc")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0.0.0"
