"""The overlay: RGB secondary captures that scroll beside their source, a summary page first (PS3.3 A.8.1, A.8.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import (
    ExplicitVRLittleEndian,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from dicom_sr import codes
from dicom_sr.header import Plane
from dicom_sr.keys import key_slices
from dicom_sr.page import pages
from dicom_sr.painter import Painter
from dicom_sr.provenance import result_uid
from dicom_sr.sheet import Sheet, summary
from dicom_sr.words import Words, words
from node.domain.finding import Findings
from node.domain.job import Provenance
from node.domain.profile import Captures, Profile

SUMMARY = "SUMMARY"  # third value of ImageType of a summary page, which lies in no plane
_PAGE_SIDES = 512, 2048  # pixels: the shorter side at least, the longer at most


def build(
    provenance: Provenance,
    findings: Findings,
    headers: Sequence[Dataset],
    planes: Sequence[Plane | None],
    *,
    profile: Profile,
    series_number: int,
    at: datetime,
    finish: Callable[[Dataset], None],
) -> Iterator[Dataset]:
    """The secondary captures that ``profile`` asks for: the summary, then slices in the order of the volume.

    Args:
        at: when the analysis began, in the zone of the study.
        finish: completes what all of them have in common.
        headers: normalised, one per slice of the volume.
        planes: where each slice lies; None where the volume is not ``in_patient``.
        series_number: SeriesNumber (0020,0011) of the results.
    """
    if profile.captures is Captures.NONE and not profile.summary:
        return
    language = words(profile.language)
    painter = painted(provenance, findings, language)
    keys = key_slices(findings, painter.area)
    every = range(findings.volume.shape[0])
    shown = {Captures.NONE: [], Captures.KEY: keys, Captures.EVERY: list(every)}[profile.captures]
    shell = shell_of(provenance, profile, language, series_number=series_number)
    finish(shell)

    drawn: list[Image.Image] = []
    if profile.summary:
        drawn = _summary_pages(provenance, painter, language, at, keys, [] if profile.multiframe else shown)
    for number, page in enumerate(drawn, 1):
        capture = instance_of(shell, result_uid(provenance, profile, "SC", f"page {number}"), number)
        # Added anew: elements of the shell are those of every capture.
        capture.add_new("ImageType", "CS", ["DERIVED", "SECONDARY", SUMMARY])
        common_to_series(capture, headers[0], planes[0])
        _refer(capture, findings, headers, keys)
        set_pixels(capture, np.asarray(page))
        yield capture
    if profile.multiframe and shown:
        capture = instance_of(shell, result_uid(provenance, profile, "SC", "frames"), len(drawn) + 1)
        _frames(capture, painter, headers, planes, shown)
        yield capture
        return
    for number, k in enumerate(shown, len(drawn) + 1):
        capture = instance_of(shell, result_uid(provenance, profile, "SC", str(k + 1)), number)
        common_to_series(capture, headers[k], planes[k])
        _refer(capture, findings, headers, [k])
        _place(capture, planes[k], headers[k])
        set_pixels(capture, painter.capture(k))
        yield capture


def painted(provenance: Provenance, findings: Findings, language: Words) -> Painter:
    """A painter whose banner names the model, and says where it is no product."""
    warning = language.banner(provenance.qualification)
    model = f"AI {provenance.model.name} {provenance.model.version}"
    return Painter(findings, [model] if warning is None else [warning, model], language)


def _summary_pages(
    provenance: Provenance, painter: Painter, language: Words, at: datetime, keys: Sequence[int], shown: Sequence[int]
) -> list[Image.Image]:
    """Pages as large as the slices, within bounds. Their pictures are named by the InstanceNumbers after the pages."""
    least, most = _PAGE_SIDES
    size = min(max(painter.columns, least), most), min(max(painter.rows, least), most)

    def sheet(before: int) -> Sheet:
        numbers = {k: n for n, k in enumerate(shown, before + 1)}
        return summary(provenance, painter, language, at, keys, numbers)

    drawn = pages(sheet(1), size, language)
    return drawn if len(drawn) == 1 else pages(sheet(len(drawn)), size, language)


def shell_of(provenance: Provenance, profile: Profile, language: Words, *, series_number: int) -> Dataset:
    """What all captures have in common: SC Equipment, SC Image and Image Pixel modules (PS3.3 C.8.6, C.7.6.3)."""
    capture = Dataset()
    capture.file_meta = FileMetaDataset()
    capture.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    capture.SOPClassUID = SecondaryCaptureImageStorage
    capture.SeriesInstanceUID = result_uid(provenance, profile, "SC", "series")
    capture.SeriesNumber = series_number
    capture.DerivationDescription = f"{language.overlay}: {provenance.model.label}"[:1024]
    capture.Modality = "OT"
    capture.ConversionType = "WSD"
    capture.ImageType = ["DERIVED", "SECONDARY"]
    capture.BurnedInAnnotation = "YES"
    capture.SamplesPerPixel = 3
    capture.PhotometricInterpretation = "RGB"
    capture.PlanarConfiguration = 0
    capture.BitsAllocated = capture.BitsStored = 8
    capture.HighBit = 7
    capture.PixelRepresentation = 0
    capture.PatientOrientation = ""
    return capture


def instance_of(shell: Dataset, uid: str, number: int) -> Dataset:
    capture = Dataset()
    capture.update(shell)
    capture.file_meta = shell.file_meta
    capture.SOPInstanceUID = uid
    capture.InstanceNumber = number
    return capture


def common_to_series(capture: Dataset, header: Dataset, place: Plane | None) -> None:
    """Body part, and the frame of reference, which a page without a plane shares as its series has but one."""
    if header.get("BodyPartExamined"):
        capture.BodyPartExamined = header.BodyPartExamined
    else:
        capture.Laterality = ""  # type 2C: nobody knows whether the body part is a paired one (PS3.3 C.7.3.1)
    if place is not None:
        capture.FrameOfReferenceUID = header.FrameOfReferenceUID
        capture.PositionReferenceIndicator = header.get("PositionReferenceIndicator", "")


def _source(findings: Findings, header: Dataset, k: int) -> Dataset:
    """The image, and frame, behind slice ``k``, with what it was to the picture."""
    source = Dataset()
    source.ReferencedSOPClassUID = header.SOPClassUID
    source.ReferencedSOPInstanceUID = header.SOPInstanceUID
    frame_number = findings.volume.sources[k].frame_number
    if frame_number is not None:
        source.ReferencedFrameNumber = frame_number
    source.PurposeOfReferenceCodeSequence = [codes.item(codes.SOURCE_FOR_PROCESSING)]
    return source


def _refer(capture: Dataset, findings: Findings, headers: Sequence[Dataset], slices: Sequence[int]) -> None:
    capture.SourceImageSequence = [_source(findings, headers[k], k) for k in slices]


def _place(capture: Dataset, place: Plane | None, header: Dataset) -> None:
    """The plane of its source, so that viewers link them."""
    if place is None:
        return
    capture.ImagePositionPatient = [f"{v:.10g}" for v in place.position]
    capture.ImageOrientationPatient = [f"{v:.10g}" for v in place.orientation]
    capture.PixelSpacing = [f"{v:.10g}" for v in place.pixel_spacing]
    capture.SliceThickness = header.SliceThickness


def set_pixels(capture: Dataset, picture: NDArray[np.uint8]) -> None:
    capture.Rows, capture.Columns = picture.shape[-3:-1]
    capture.PixelData = picture.tobytes() + b"\0" * (picture.size % 2)


def _frames(
    capture: Dataset, painter: Painter, headers: Sequence[Dataset], planes: Sequence[Plane | None], shown: Sequence[int]
) -> None:
    """Make ``capture`` a Multi-frame True Color one, a slice a frame, each with its plane (PS3.3 A.8.5.4)."""
    first = shown[0]
    capture.add_new("SOPClassUID", "UI", MultiFrameTrueColorSecondaryCaptureImageStorage)
    common_to_series(capture, headers[first], planes[first])
    picture = np.empty((len(shown), painter.rows, painter.columns, 3), np.uint8)
    for frame, k in zip(picture, shown, strict=True):
        frame[...] = painter.capture(k)
    _refer(capture, painter.findings, headers, shown)
    places = [place for k in shown if (place := planes[k]) is not None]
    if places:
        capture.SharedFunctionalGroupsSequence = [_shared_groups(places[0], headers[first])]
        capture.PerFrameFunctionalGroupsSequence = [_frame_groups(place) for place in places]
    capture.NumberOfFrames = len(shown)
    if len(shown) > 1:
        # Pages in their order: the planes are in the functional groups, which older readers do not look at.
        capture.FrameIncrementPointer = Tag("PageNumberVector")
        capture.PageNumberVector = list(range(1, len(shown) + 1))
    set_pixels(capture, picture)


def _shared_groups(place: Plane, header: Dataset) -> Dataset:
    """What all frames have in common: their orientation and pixels."""
    orientation, measures, groups = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [f"{v:.10g}" for v in place.orientation]
    measures.PixelSpacing = [f"{v:.10g}" for v in place.pixel_spacing]
    measures.SliceThickness = header.SliceThickness
    groups.PlaneOrientationSequence, groups.PixelMeasuresSequence = [orientation], [measures]
    return groups


def _frame_groups(place: Plane) -> Dataset:
    """The position of a frame."""
    position, groups = Dataset(), Dataset()
    position.ImagePositionPatient = [f"{v:.10g}" for v in place.position]
    groups.PlanePositionSequence = [position]
    return groups
