"""What ``metadata.json`` says of the image that a bundle takes and of what it gives, as far as the node asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.bundle.sidefile import Kind


@dataclass(frozen=True)
class DataFormat:
    """``network_data_format``.

    ``channels`` and ``spatial_dims`` are those of the image; ``output`` is the key of the result, and ``meanings`` are
    the names of its channels or labels, by number. ``kind`` is None where the result is of no kind that is reported, as
    points are.
    """

    input: str
    channels: int
    spatial_dims: int
    output: str
    kind: Kind | None
    meanings: Mapping[int, str]


def data_format(metadata: Mapping[str, Any]) -> DataFormat:
    """Read ``network_data_format`` leniently: what is missing is what bundles have as a rule."""
    described = _mapping(metadata.get("network_data_format"))
    inputs, outputs = _mapping(described.get("inputs")), _mapping(described.get("outputs"))
    name_in, name_out = next(iter(inputs), "image"), next(iter(outputs), "pred")
    image, result = _mapping(inputs.get(name_in)), _mapping(outputs.get(name_out))
    shape = image.get("spatial_shape")
    channels = image.get("num_channels", 1)
    named = _mapping(result.get("channel_def")) or _mapping(result.get("label_def"))
    return DataFormat(
        input=name_in,
        channels=channels if isinstance(channels, int) else 1,
        spatial_dims=len(shape) if isinstance(shape, list) and len(shape) in (2, 3) else 3,
        output=name_out,
        kind=_kind(result),
        meanings={int(n): str(name) for n, name in named.items() if str(n).isdigit()},
    )


def _kind(result: Mapping[str, Any]) -> Kind | None:
    words = f"{result.get('type')} {result.get('format')}".lower()
    if "point" in words or "tuple" in words:
        return None
    if "object" in words or "box" in words:
        return Kind.DETECTION
    # One number for each class, whatever it is called.
    if "probabilities" in words or "class" in words or result.get("spatial_shape") == [1, result.get("num_channels")]:
        return Kind.CLASSIFICATION
    return Kind.SEGMENTATION


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
