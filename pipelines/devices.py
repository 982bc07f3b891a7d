"""Which device ``auto`` is, in the process that loaded it. Imports no framework."""

from __future__ import annotations

import sys


def real_device(wanted: str) -> str:
    """The name of the device behind ``auto``; a process without torch has used none but the CPU."""
    if wanted != "auto":
        return wanted
    torch = sys.modules.get("torch")
    return "cuda:0" if torch is not None and torch.cuda.is_available() else "cpu"
