"""ainode: a headless AI node for hospital imaging."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("ainode")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0"
