"""MONAI bundles, unedited, as pipelines. Importing this brings neither torch nor MONAI."""

from __future__ import annotations

from pathlib import Path

from pipelines.bundle.check import problems
from pipelines.bundle.pipeline import BundlePipeline
from pipelines.contract import Pipeline

__all__ = ["open_version", "problems"]


def open_version(directory: Path, *, trust_code: bool) -> Pipeline:
    """The registered version in ``directory`` as a pipeline. Verifies nothing: the caller did.

    Args:
        directory: holds ``bundle/``, ``ainode.yaml`` and ``version.json``.
        trust_code: whether the bundle's own Python, and TorchScript, may run: its version is signed, or explicitly
            trusted.

    Raises:
        InvalidModel: the side file, the configuration or the manifest is wrong.
    """
    return BundlePipeline(directory, trust_code=trust_code)
