"""GSPS: outlines, marks and their names over the source images themselves (PS3.3 A.33.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from highdicom.color import CIELabColor
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, GrayscaleSoftcopyPresentationStateStorage

from dicom_sr.capture import common_to_series
from dicom_sr.keys import areas, key_slices, slices_of
from dicom_sr.lettering import YELLOW, Colour
from dicom_sr.painter import named
from dicom_sr.provenance import result_uid
from dicom_sr.words import Words, words
from node.domain.finding import Findings, Mark, Region, Shape
from node.domain.job import Provenance
from node.domain.profile import Captures, Profile

_Points = NDArray[np.float64]  # (n, 2): (column, row) from the upper left corner of the upper left pixel
_BANNER_BOX = ([0.02, 0.01], [0.98, 0.06])  # shares of the displayed area
_MODALITY_LUT = ("RescaleIntercept", "RescaleSlope", "RescaleType")


@dataclass(frozen=True)
class _Part:
    """What is drawn of one finding on one slice."""

    layer: str
    lines: list[_Points]
    name: str
    colour: Colour
    point: bool = False


def build(
    provenance: Provenance,
    findings: Findings,
    headers: Sequence[Dataset],
    *,
    profile: Profile,
    series_number: int,
    at: datetime,
) -> list[Dataset]:
    """Presentation states of the slices on which something is drawn; still without patient and study.

    There is one for all slices that have the same modality LUT, as a presentation state holds but one: one for a CT,
    one for each slice of a PET. None where nothing is drawn, or where the images are in colour.

    Args:
        headers: of the source as they were received, one per slice of the volume: a presentation state repeats their
            modality LUT.
        profile: its ``captures`` KEY takes the key slices alone.
        series_number: SeriesNumber (0020,0011) of the result.
        at: when the analysis began, in the zone of the study.
    """
    drawn = _drawn(findings, words(profile.language))
    if profile.captures is Captures.KEY:
        keys = set(key_slices(findings))
        drawn = {k: parts for k, parts in drawn.items() if k in keys}
    groups: dict[tuple[str, ...], list[int]] = {}
    for k in sorted(drawn):
        if headers[k].get("SamplesPerPixel", 1) == 1:
            groups.setdefault(_modality_lut(headers[k], findings.volume.sources[k].frame_number), []).append(k)
    states = []
    for number, (modality_lut, slices) in enumerate(groups.items(), 1):
        state = _shell(provenance, findings, profile, number, series_number=series_number, at=at)
        common_to_series(state, headers[slices[0]], None)
        _relate(state, findings, headers, slices)
        _show(state, findings, headers, slices, modality_lut)
        _annotate(state, findings, headers, {k: drawn[k] for k in slices}, provenance, words(profile.language))
        states.append(state)
    return states


def _drawn(findings: Findings, language: Words) -> dict[int, list[_Part]]:
    """What is drawn, by slice."""
    area = areas(findings)
    found: dict[int, list[_Part]] = {}
    for n, region in enumerate(findings.regions, 1):
        if region.in_segmentation:
            for slice_number in np.flatnonzero(area[n - 1]):
                k = int(slice_number)
                found.setdefault(k, []).append(_Part(f"R{n}", list(outlines(region, k)), region.label, region.colour))
    for n, mark in enumerate(findings.marks, 1):
        part = _Part(f"M{n}", [_mark_points(mark)], named(mark, language), mark.colour, mark.shape is Shape.POINT)
        for k in slices_of(mark, findings.volume.shape[0]):
            found.setdefault(k, []).append(part)
    return found


def outlines(region: Region, k: int) -> Iterator[_Points]:
    """The outlines of ``region`` on slice ``k``, closed, those of its holes too, along the edges of pixels.

    Only corners are given. The corners of one row, sorted by column, are pairwise the ends of horizontal edges, and
    those of one column those of vertical ones; where two pixels touch at a corner there are two corners in one place.
    """
    mask = region.mask[k]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = rows[0], columns[0]
    part = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1).astype(np.int8)
    a, b, c, d = part[:-1, :-1], part[:-1, 1:], part[1:, :-1], part[1:, 1:]
    twice = (a == d) & (b == c) & (a != b)
    where = np.concatenate([np.argwhere((a + b + c + d) % 2), *[np.argwhere(twice)] * 2])
    along_row = _partners(np.lexsort((where[:, 1], where[:, 0])))
    along_column = _partners(np.lexsort((where[:, 0], where[:, 1])))
    points = (where + np.array((top, left)))[:, ::-1].astype(np.float64)
    left_over = set(range(len(where)))
    while left_over:
        line = [left_over.pop()]
        while (corner := along_row[line[-1]]) in left_over or len(line) == 1:
            line += [corner, along_column[corner]]
            left_over -= set(line[-2:])
        yield points[line]


def _partners(order: NDArray[np.intp]) -> list[int]:
    """For each corner the other end of its edge: corners in ``order`` are pairwise the ends of edges."""
    partner = np.empty_like(order)
    partner[order[::2]], partner[order[1::2]] = order[1::2], order[::2]
    found: list[int] = partner.tolist()
    return found


def _mark_points(mark: Mark) -> _Points:
    points: _Points = mark.points[:, :0:-1] + 0.5
    if mark.shape is Shape.BOX:
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)])
    return np.concatenate([points, points[:1]]) if mark.shape is Shape.POLYGON else points


def _modality_lut(header: Dataset, frame_number: int | None) -> tuple[str, ...]:
    """RescaleIntercept, RescaleSlope and RescaleType of an image or frame; empty where it has none."""
    places = [header]
    if frame_number is not None and "PerFrameFunctionalGroupsSequence" in header:
        groups = (header.PerFrameFunctionalGroupsSequence[frame_number - 1], *header.SharedFunctionalGroupsSequence)
        places += [item for group in groups for item in group.get("PixelValueTransformationSequence", [])]
    for place in places:
        if place.get("RescaleSlope") is not None and place.get("RescaleIntercept") is not None:
            intercept, slope, kind = (place.get(keyword) for keyword in _MODALITY_LUT)
            return str(intercept), str(slope), str(kind or "US")
    return ()


def _shell(
    provenance: Provenance,
    findings: Findings,
    profile: Profile,
    number: int,
    *,
    series_number: int,
    at: datetime,
) -> Dataset:
    state = Dataset()
    state.file_meta = FileMetaDataset()
    state.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    state.SOPClassUID = GrayscaleSoftcopyPresentationStateStorage
    state.SOPInstanceUID = result_uid(provenance, profile, "PR", str(number))
    state.SeriesInstanceUID = result_uid(provenance, profile, "PR", "series")
    state.Modality, state.SeriesNumber, state.InstanceNumber = "PR", series_number, number
    state.ContentLabel = "AI_FINDINGS"
    state.ContentDescription = (findings.title or provenance.model.name)[:64]
    state.ContentCreatorName = ""
    state.PresentationCreationDate, state.PresentationCreationTime = at.strftime("%Y%m%d"), at.strftime("%H%M%S")
    return state


def _image(findings: Findings, header: Dataset, k: int) -> Dataset:
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    frame_number = findings.volume.sources[k].frame_number
    if frame_number is not None:
        image.ReferencedFrameNumber = frame_number
    return image


def _relate(state: Dataset, findings: Findings, headers: Sequence[Dataset], slices: Sequence[int]) -> None:
    """The images of the state, those of one multi-frame object as one (PS3.3 C.11.11)."""
    images: dict[str, Dataset] = {}
    for k in slices:
        image = _image(findings, headers[k], k)
        known = images.setdefault(str(headers[k].SOPInstanceUID), image)
        if known is not image:
            frames = known.ReferencedFrameNumber
            known.ReferencedFrameNumber = [
                *([frames] if isinstance(frames, int) else frames),
                image.ReferencedFrameNumber,
            ]
    series = Dataset()
    series.SeriesInstanceUID = headers[slices[0]].SeriesInstanceUID
    series.ReferencedImageSequence = list(images.values())
    state.ReferencedSeriesSequence = [series]


def _show(
    state: Dataset,
    findings: Findings,
    headers: Sequence[Dataset],
    slices: Sequence[int],
    modality_lut: Sequence[str],
) -> None:
    """Displayed area, modality LUT, window and presentation LUT (PS3.3 C.10.4, C.11.1, C.11.8, C.11.6)."""
    _, rows, columns = findings.volume.shape
    area, window = Dataset(), Dataset()
    area.PresentationSizeMode = "SCALE TO FIT"
    area.DisplayedAreaTopLeftHandCorner, area.DisplayedAreaBottomRightHandCorner = [1, 1], [columns, rows]
    _, y, x = findings.volume.spacing
    if findings.volume.in_patient:
        area.PresentationPixelSpacing = [f"{y:.10g}", f"{x:.10g}"]
    else:
        area.PresentationPixelAspectRatio = [1, 1]
    state.DisplayedAreaSelectionSequence = [area]
    if modality_lut:
        for keyword, value in zip(_MODALITY_LUT, modality_lut, strict=True):
            setattr(state, keyword, value)
    centre, width = findings.window
    window.WindowCenter, window.WindowWidth = f"{centre:.10g}", f"{width:.10g}"
    state.SoftcopyVOILUTSequence = [window]
    inverse = headers[slices[0]].get("PhotometricInterpretation") == "MONOCHROME1"
    state.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"


def _annotate(
    state: Dataset,
    findings: Findings,
    headers: Sequence[Dataset],
    drawn: dict[int, list[_Part]],
    provenance: Provenance,
    language: Words,
) -> None:
    """Graphic annotations and their layers, one for each finding, in its colour (PS3.3 C.10.5, C.10.7)."""
    layers: dict[str, tuple[str, Colour]] = {}
    annotations = []
    for k, parts in drawn.items():
        for part in parts:
            layers[part.layer] = part.name, part.colour
            annotation = Dataset()
            annotation.ReferencedImageSequence = [_image(findings, headers[k], k)]
            annotation.GraphicLayer = part.layer
            annotation.GraphicObjectSequence = [_graphic(line, point=part.point) for line in part.lines]
            if part.name:
                annotation.TextObjectSequence = [_name(part.name, max(part.lines, key=len))]
            annotations.append(annotation)
    warning = language.banner(provenance.qualification)
    if warning is not None:
        layers["BANNER"] = warning, YELLOW
        annotation = Dataset()
        annotation.GraphicLayer = "BANNER"
        annotation.TextObjectSequence = [_banner(f"{warning}: AI {provenance.model.name} {provenance.model.version}")]
        annotations.append(annotation)
    state.GraphicAnnotationSequence = annotations
    state.GraphicLayerSequence = [_layer(n, *item) for n, item in enumerate(layers.items(), 1)]


def _graphic(line: _Points, *, point: bool) -> Dataset:
    graphic = Dataset()
    graphic.GraphicAnnotationUnits, graphic.GraphicDimensions = "PIXEL", 2
    graphic.NumberOfGraphicPoints = len(line)
    graphic.GraphicData = line.reshape(-1).round(3).tolist()
    graphic.GraphicType = "POINT" if point else "POLYLINE"
    if not point:
        graphic.GraphicFilled = "N"
    return graphic


def _name(name: str, line: _Points) -> Dataset:
    """The name of a finding, anchored at the upper right of its outline."""
    text = Dataset()
    text.UnformattedTextValue = name[:1024]
    text.AnchorPointAnnotationUnits = "PIXEL"
    text.AnchorPoint = [round(float(line[:, 0].max()), 3), round(float(line[:, 1].min()), 3)]
    text.AnchorPointVisibility = "N"
    return text


def _banner(words_of_it: str) -> Dataset:
    text = Dataset()
    text.UnformattedTextValue = words_of_it
    text.BoundingBoxAnnotationUnits = "DISPLAY"
    text.BoundingBoxTopLeftHandCorner, text.BoundingBoxBottomRightHandCorner = _BANNER_BOX
    text.BoundingBoxTextHorizontalJustification = "LEFT"
    return text


def _layer(order: int, layer: str, says: tuple[str, Colour]) -> Dataset:
    dataset = Dataset()
    name, colour = says
    dataset.GraphicLayer, dataset.GraphicLayerOrder = layer, order
    dataset.GraphicLayerRecommendedDisplayCIELabValue = list(CIELabColor.from_rgb(*colour).value)
    dataset.GraphicLayerDescription = name[:64]
    return dataset
