"""The overlay: a series of single-frame RGB secondary captures that scrolls beside its source (PS3.3 A.8.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from dicom_sr import codes
from dicom_sr.header import Plane
from dicom_sr.provenance import result_uid
from node.domain.finding import Findings, Region
from node.domain.job import Provenance
from node.domain.model import Qualification
from node.domain.profile import FULL, Profile

BANNER = (255, 220, 90)  # colour of the burned-in banner, sRGB
_FILL = 0.35  # opacity of a region that is painted rather than outlined
_SMALLEST_FONT = 11  # pixels; below, letters of a 256² image run together
_VEIL = 0.65  # opacity of the ground behind burned-in text


def build(
    provenance: Provenance,
    findings: Findings,
    headers: Sequence[Dataset],
    planes: Sequence[Plane | None],
    *,
    series_number: int,
    finish: Callable[[Dataset], None],
    profile: Profile = FULL,
) -> Iterator[Dataset]:
    """One secondary capture per slice, in the order of the volume.

    Args:
        finish: completes what all of them have in common.
        headers: normalised, one per slice of the volume.
        planes: where each slice lies.
        series_number: SeriesNumber (0020,0011) of the results.
    """
    text = _text(provenance, findings)
    shell = _shell(provenance, profile, series_number=series_number)
    _, shell.Rows, shell.Columns = findings.volume.shape
    finish(shell)
    for k, (header, place) in enumerate(zip(headers, planes, strict=True)):
        capture = Dataset()
        capture.update(shell)
        capture.file_meta = shell.file_meta
        capture.SOPInstanceUID = result_uid(provenance, profile, "SC", str(k + 1))
        capture.InstanceNumber = k + 1
        _place(capture, header, place, findings.volume.sources[k].frame_number)
        pixels = _burn(_paint(findings, k), text)
        capture.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
        yield capture


def _shell(provenance: Provenance, profile: Profile, *, series_number: int) -> Dataset:
    """What all captures have in common: SC Equipment, SC Image and Image Pixel modules (PS3.3 C.8.6, C.7.6.3)."""
    capture = Dataset()
    capture.file_meta = FileMetaDataset()
    capture.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    capture.SOPClassUID = SecondaryCaptureImageStorage
    capture.SeriesInstanceUID = result_uid(provenance, profile, "SC", "series")
    capture.SeriesNumber = series_number
    capture.DerivationDescription = f"Overlay of {provenance.model.label}"[:1024]
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
    return capture


def _place(capture: Dataset, header: Dataset, place: Plane | None, frame_number: int | None) -> None:
    """Tie ``capture`` to its source: the instance, its frame of reference and its plane, so that viewers link them."""
    source = Dataset()
    source.ReferencedSOPClassUID = header.SOPClassUID
    source.ReferencedSOPInstanceUID = header.SOPInstanceUID
    if frame_number is not None:
        source.ReferencedFrameNumber = frame_number
    source.PurposeOfReferenceCodeSequence = [codes.item(codes.SOURCE_FOR_PROCESSING)]
    capture.SourceImageSequence = [source]
    if header.get("BodyPartExamined"):
        capture.BodyPartExamined = header.BodyPartExamined
    else:
        capture.Laterality = ""  # type 2C: nobody knows whether the body part is a paired one (PS3.3 C.7.3.1)
    capture.PatientOrientation = ""
    if place is None:
        return
    capture.FrameOfReferenceUID = header.FrameOfReferenceUID
    capture.PositionReferenceIndicator = header.get("PositionReferenceIndicator", "")
    capture.ImagePositionPatient = [f"{v:.10g}" for v in place.position]
    capture.ImageOrientationPatient = [f"{v:.10g}" for v in place.orientation]
    capture.PixelSpacing = [f"{v:.10g}" for v in place.pixel_spacing]
    capture.SliceThickness = header.SliceThickness


def _paint(findings: Findings, k: int) -> NDArray[np.uint8]:
    """Slice ``k`` as RGB (rows, columns, 3): windowed, regions of findings filled, anatomy outlined."""
    centre, width = findings.window
    grey = np.clip((findings.volume.voxels[k] - (centre - width / 2)) * (255 / width), 0, 255)
    picture = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    regions = [region for region in findings.regions if region.in_segmentation]
    for region in sorted(regions, key=outlined):
        mask = region.mask[k]
        if not mask.any():
            continue
        colour = np.array(region.colour, np.float32)
        if outlined(region):
            picture[_edge(mask)] = colour
        else:
            picture[mask] = picture[mask] * (1 - _FILL) + colour * _FILL
    return picture


def outlined(region: Region) -> bool:
    """Whether ``region`` is drawn as an outline. What is no anatomical structure is scattered: it is painted."""
    return region.type.value == region.site.value


def _edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of ``mask`` (rows, columns) with a neighbour, up, down, left or right, outside of it."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


@dataclass(frozen=True, eq=False)
class _Text:
    """Burned-in text: its pixels (rows, columns), and for each its colour times its opacity, and what shows through."""

    where: NDArray[np.bool_]
    ink: NDArray[np.float32]
    transparency: NDArray[np.float32]


def _text(provenance: Provenance, findings: Findings) -> _Text:
    """Banner and legend, the same on every slice."""
    _, rows, columns = findings.volume.shape
    layer = Image.new("RGBA", (columns, rows))
    draw = ImageDraw.Draw(layer)
    size = max(_SMALLEST_FONT, round(min(rows, columns) / 36))
    font = ImageFont.load_default(size)
    line = round(size * 1.35)
    model = f"AI {provenance.model.name} {provenance.model.version}"
    banner = [model]
    if provenance.qualification is not Qualification.PRODUCT:
        banner.insert(0, f"{provenance.qualification} - not for diagnostic use")
    draw.rectangle((0, 0, columns, line * len(banner) + 3), fill=(0, 0, 0, round(255 * _VEIL)))
    for n, text in enumerate(banner):
        draw.text((4, 2 + n * line), text, font=font, fill=(*BANNER, 255))
    regions = [region for region in findings.regions if region.in_segmentation]
    top = rows - line * len(regions) - 3
    for n, region in enumerate(regions):
        y = top + n * line
        draw.rectangle((3, y + 2, 3 + size * 0.7, y + 2 + size * 0.7), fill=(*region.colour, 255))
        draw.text(
            (6 + size, y), region.label, font=font, fill=(255, 255, 255, 255), stroke_width=1, stroke_fill="black"
        )
    rgba = np.asarray(layer, np.float32)
    where = rgba[..., 3] > 0
    opacity = rgba[where][:, 3:] / np.float32(255)
    return _Text(where, rgba[where][:, :3] * opacity, np.float32(1) - opacity)


def _burn(picture: NDArray[np.uint8], text: _Text) -> NDArray[np.uint8]:
    """``picture`` (rows, columns, 3) with ``text`` over it."""
    picture[text.where] = picture[text.where] * text.transparency + text.ink
    return picture
