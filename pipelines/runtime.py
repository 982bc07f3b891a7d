"""The device that a pipeline runs on."""

from __future__ import annotations

import torch

from node.domain.errors import Unavailable


def device_of(name: str) -> torch.device:
    """A device that was proved to work.

    Args:
        name: ``cpu``, ``cuda:N``, or ``auto``: the first GPU, else the CPU.

    Raises:
        Unavailable: there is no such device, or it does not answer.
    """
    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise Unavailable(f"device {name!r} cannot be used: {error}") from error
    return device
