"""What came out of a bundle, in the words of its side file: labels, boxes and classes become Findings."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from node.domain.errors import InvalidModel
from node.domain.finding import Code, Evaluation, Findings, Mark, Region, Shape
from node.domain.mask import LabelMap, Mask
from node.domain.volume import Volume
from pipelines.bundle.measure import measure
from pipelines.bundle.metadata import DataFormat
from pipelines.bundle.sidefile import Label, Measure, SideFile

_SCHEME = "99AINODE"
_GENERIC_SITE = Code("38866009", "SCT", "Body part")
_SOFT_TISSUE = 40.0, 400.0
_NO_LENGTHS = "The image says no spacing: lengths and areas are not measured."
_CLASS = Code("CLASS", _SCHEME, "Classification")
# Neighbouring numbers get hues far apart: the golden ratio of the colour wheel.
_HUE_STEP = 0.618034


def segmentation(result: NDArray[np.float32], volume: Volume, side: SideFile, data: DataFormat) -> Findings:
    """Regions of a label map (one channel) or of a multi-channel mask.

    Args:
        result: (channels, slices, rows, columns) on the grid of ``volume``.

    Raises:
        InvalidModel: the values are no labels, or one of them has no meaning.
    """
    labels = {label.index: label for label in meanings(side, data)}
    named = [(index, mask) for index, mask in _masks(result, side) if index not in side.ignore]
    unknown = sorted(index for index, _ in named if index not in labels)
    if unknown and side.unlisted == "refuse":
        raise InvalidModel(
            "ainode.yaml: labels",
            f"the network gave {', '.join(map(str, unknown[:5]))}, which has no entry",
            "Add an entry, or add the number to ignore",
        )
    found = {index: mask for index, mask in named if index in labels}
    regions = [_region(label, found[index], volume, side) for index, label in labels.items() if index in found]
    missing = [label.name for index, label in labels.items() if index not in found]
    notes = [f"Not found: {', '.join(missing)}."] if missing else []
    return _findings(volume, side, regions, notes=notes)


def detection(boxes: Iterable[tuple[int, float, NDArray[np.float64]]], volume: Volume, side: SideFile) -> Findings:
    """Marks of boxes: (label, score, (2, 3) corners in the index of ``volume``), highest score first."""
    labels = {label.index: label for label in side.labels}
    marks = []
    for number, (index, score, corners) in enumerate(boxes, start=1):
        label = labels.get(index)
        if label is None:
            fix = "Add an entry with this label"
            raise InvalidModel("ainode.yaml: labels", f"the detector gave {index}, which has no entry", fix)
        # What a label is measured by default is that of an outline; the voxels of a box are measured where it is asked.
        wanted = label.measure or ()
        marks.append(
            Mark(
                key=f"{label.key}_{number}",
                label=f"{label.name} {number}",
                shape=Shape.BOX,
                points=corners,
                type=label.type,
                site=_site(label),
                laterality=label.laterality,
                category=label.category,
                confidence=score,
                colour=label.colour or _colour(label.index),
                measurements=tuple(measure(wanted, _inside(corners, volume), volume)) if wanted else (),
            )
        )
    notes = []
    if not marks:
        notes.append(f"Nothing was found with a score of at least {side.min_score:g}.")
    return replace(_findings(volume, side, [], notes=notes), marks=tuple(marks))


def _inside(corners: NDArray[np.float64], volume: Volume) -> NDArray[np.bool_]:
    """The voxels whose centres lie in a box; the nearest one where none does."""
    last = np.array(volume.shape) - 1
    low, high = np.ceil(np.maximum(corners[0], 0)).astype(int), np.floor(np.minimum(corners[1], last)).astype(int)
    middle = np.clip(np.rint(corners.mean(axis=0)).astype(int), 0, last)
    none = low > high
    low, high = np.where(none, middle, low), np.where(none, middle, high)
    mask = np.zeros(volume.shape, np.bool_)
    mask[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))] = True
    return mask


def classification(scores: NDArray[np.float32], volume: Volume, side: SideFile, data: DataFormat) -> Findings:
    """Evaluations of class scores, (classes,): each class at or above the threshold, else the highest."""
    labels = {label.index: label for label in meanings(side, data)}
    threshold = 0.5 if side.threshold is None else side.threshold
    chosen = [int(n) for n in np.flatnonzero(scores >= threshold)] or [int(scores.argmax())]
    question = side.question or _CLASS
    evaluations = [Evaluation(question, labels[n].type) for n in chosen if n in labels]
    fractional = not np.isin(scores, (0.0, 1.0)).all()
    notes = [f"{labels[n].name}: score {scores[n]:.2f}." for n in chosen if n in labels and fractional]
    if not evaluations:
        notes.append("No class of those that are reported was found.")
    return _findings(volume, side, [], evaluations=evaluations, notes=notes)


def meanings(side: SideFile, data: DataFormat) -> list[Label]:
    """The labels of the side file; with ``unlisted: generic`` also the others that ``metadata.json`` names."""
    if side.unlisted != "generic":
        return list(side.labels)
    taken = {label.index for label in side.labels} | set(side.ignore)
    channels = side.labels[0].label is None
    generic = [
        Label(
            label=None if channels else index,
            channel=index if channels else None,
            key=f"output_{index}",
            name=f"{name[:50]} (not coded)",
            type=Code(f"OUTPUT-{index}", _SCHEME, name[:64]),
        )
        for index, name in sorted(data.meanings.items())
        if index not in taken
    ]
    return [*side.labels, *generic]


def _masks(result: NDArray[np.float32], side: SideFile) -> Iterator[tuple[int, Mask]]:
    """(number, mask) of every label or channel that has voxels."""
    whole = bool((result == np.rint(result)).all())
    if side.threshold is None and not whole:
        raise InvalidModel(
            "ainode.yaml: threshold",
            f"the post-processing leaves fractions from {result.min():.3g} to {result.max():.3g}",
            "Write the threshold from which a voxel belongs to its channel",
        )
    if side.labels[0].channel is None:
        if len(result) != 1:
            fix = "Write channel instead of label"
            raise InvalidModel("ainode.yaml: labels", f"the result has {len(result)} channels, no label map", fix)
        yield from _labels(result[0])
        return
    for n, channel in enumerate(result):
        mask = channel >= (0.5 if side.threshold is None else side.threshold)
        if mask.any():
            yield n, mask


def _labels(result: NDArray[np.float32]) -> Iterator[tuple[int, Mask]]:
    """The masks of a label map, all of them one array as long as their numbers are those of one."""
    numbers = [int(n) for n in np.unique(result) if n != 0]
    if not numbers or numbers[0] < 0 or numbers[-1] > np.iinfo(np.uint16).max:
        yield from ((n, result == n) for n in numbers)
        return
    labels = LabelMap(result.astype(np.uint8) if numbers[-1] < 256 else result.astype(np.uint16))
    yield from ((n, labels.mask(n)) for n in numbers)


def _site(label: Label) -> Code:
    return label.site or (label.type if label.type.scheme == "SCT" else _GENERIC_SITE)


def _region(label: Label, mask: Mask, volume: Volume, side: SideFile) -> Region:
    default = (Measure.VOLUME,) if len(volume.sources) > 1 and volume.in_patient else (Measure.AREA,)
    wanted = next(each for each in (label.measure, side.measure, default) if each is not None)
    return Region(
        key=label.key,
        label=label.name,
        mask=mask,
        category=label.category,
        type=label.type,
        site=_site(label),
        laterality=label.laterality,
        colour=label.colour or _colour(label.index),
        measurements=tuple(measure(wanted, mask, volume)),
    )


def _colour(index: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(index * _HUE_STEP % 1.0, 0.65, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _findings(
    volume: Volume,
    side: SideFile,
    regions: Sequence[Region],
    *,
    evaluations: Sequence[Evaluation] = (),
    notes: Sequence[str],
) -> Findings:
    return Findings(
        volume=volume,
        procedure=side.procedure,
        regions=tuple(regions),
        evaluations=tuple(evaluations),
        window=side.window or (_SOFT_TISSUE if volume.unit == "HU" else _most_of(volume)),
        title=side.title,
        notes=(*side.notes, *notes, *([] if volume.in_mm or not regions else [_NO_LENGTHS])),
    )


def _most_of(volume: Volume) -> tuple[float, float]:
    """Centre and width of a window over all but the extreme hundredths of the values."""
    low, high = (float(value) for value in np.percentile(volume.voxels, (1, 99)))
    return (low + high) / 2, max(high - low, 1.0)
