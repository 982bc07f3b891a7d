"""The weights of a bundle into its network: as data, never as code."""

from __future__ import annotations

import _codecs
import pickle
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct

from node.domain.errors import InvalidModel

_SAFE = "Publish the weights as safetensors, or as a state dict that torch.load(..., weights_only=True) reads"
_CONTAINERS = ("state_dict", "model", "network", "net")


# What an array of numbers is pickled by, of NumPy 1 and 2. None of it calls anything that a file names.
_ARRAYS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"},
    _reconstruct,
    (_reconstruct, "numpy.core.multiarray._reconstruct"),
    _codecs.encode,
]


def plain_data() -> AbstractContextManager[Any]:
    """While it lasts, torch.load(..., weights_only=True) reads arrays of numbers too, not only tensors."""
    return torch.serialization.safe_globals(_ARRAYS)


def weights_file(bundle: Path, named: str | None) -> Path | None:
    """The file to load: what the configuration names, else ``models/model``; safetensors where both are there."""
    path = bundle / named if named else bundle / "models" / "model.pt"
    for candidate in (path.with_suffix(".safetensors"), path):
        if candidate.is_file():
            if not candidate.resolve().is_relative_to(bundle.resolve()):
                raise InvalidModel(f"bundle: {candidate}", "lies outside of the bundle", "Put the weights into models/")
            return candidate
    return None


def load_into(network: torch.nn.Module, path: Path, *, key: str, strict: bool) -> None:
    """Load a state dict, bare or below ``key`` as ignite's checkpoints have it.

    Raises:
        InvalidModel: the file holds anything but tensors and plain containers (nothing of it was run), or does not fit
            the network.
    """
    name = f"bundle/models/{path.name}"
    state = _state(read_tensors(path), key)
    try:
        network.load_state_dict(state, strict=strict)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise InvalidModel(
            name, f"does not fit the network: {_brief(error)}", "Give the weights of this network"
        ) from error


def read_tensors(path: Path) -> Any:
    """The content of a ``.safetensors`` or ``.pt`` file, on the CPU. Raises ``InvalidModel`` as `load_into` does."""
    name = f"bundle/models/{path.name}"
    try:
        if path.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                return load_file(path)
            except SafetensorError as error:
                raise InvalidModel(name, f"is no safetensors file: {error}", _SAFE) from error
        with plain_data():
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InvalidModel(name, f"holds more than weights, and was not loaded: {_brief(error)}", _SAFE) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InvalidModel(name, f"cannot be read: {_brief(error)}", _SAFE) from error


def _state(content: Any, key: str) -> Any:
    for name in (key, *_CONTAINERS):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            return content[name]
    return content


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
