"""Images that need no place in the patient, each to a `Volume` of its own: radiographs, angiograms, single slices."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from node.domain.errors import Refused
from node.domain.study import SeriesContent
from node.domain.volume import SliceSource, Volume
from pipelines.read.contents import check
from pipelines.read.crew import fill_volume
from pipelines.read.frames import MULTI_FRAME, SINGLE_FRAME, Elements, class_name, frames_of, rescale_of, spacing_of
from pipelines.read.groups import Values
from pipelines.read.header import Header
from pipelines.read.lut import modality_lut
from pipelines.read.series import read_headers
from pipelines.read.slices import PADDING_HU, Slice, padding_range

# Storage SOP classes (PS3.4 B.5) of images in shades of grey, below 1.2.840.10008.5.1.4.1.1.
_CLASSES = """
    1 1.1 1.1.1 1.2 1.2.1 1.3 1.3.1 3.1 6.1 7 7.2 7.3 12.1 12.1.1 12.2 12.2.1 13.1.3 13.1.4 13.1.5 20 77.1.5.1 77.1.5.2
    481.1
"""
IMAGES = frozenset(f"1.2.840.10008.5.1.4.1.1.{number}" for number in _CLASSES.split()) | {*SINGLE_FRAME, *MULTI_FRAME}
# In this order: at the patient where somebody calibrated it, else at the detector, else on the film (PS3.3 10.7.1.3).
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_LAST = 1 << 31


def read_images(series: SeriesContent) -> tuple[Volume, ...]:
    """Read every instance of a series as an image by itself, in the order of InstanceNumber; its frames are slices.

    Values are those of the Modality LUT or rescale (PS3.3 C.11.1); HU for CT, else without a unit. Without a unit,
    MONOCHROME1 is turned over within its range, so that more is always brighter; padding is as dark as the darkest
    pixel. The affine leads to mm from the centre of the top left pixel, ``x`` along the row, ``y`` down the column and
    ``z`` by frame; a slice of CT, MR or PET that says where it lies keeps its place in the patient.

    Raises:
        Refused: an instance is no image in shades of grey, or cannot be read; the reason names it.
        InvalidInstance: a stored file is damaged.
    """
    try:
        headers = sorted(read_headers(series), key=_order)
        if not headers:
            raise Refused("no-image", "the series holds no instance")
        if len({header.text("SOPInstanceUID") for header in headers}) != len(headers):
            raise Refused("duplicate-slices", "several instances of the series have one SOPInstanceUID")
        return tuple(map(_image, headers))
    except Refused:
        # A damaged file may look like anything: that it is damaged is then the better answer.
        for instance in series.instances:
            check(instance)
        raise


def _order(header: Header) -> tuple[int, str]:
    number = header.text("InstanceNumber")
    return int(number) if number.lstrip("+-").isdigit() else _LAST, header.text("SOPInstanceUID")


def _image(header: Header) -> Volume:
    whole = Elements(header.elements, header.name)
    sop_class = header.text("SOPClassUID")
    if sop_class not in IMAGES:
        raise Refused("not-an-image", f"{header.name} is no image that is read but {class_name(sop_class)}")
    samples, interpretation = header.text("SamplesPerPixel"), header.text("PhotometricInterpretation")
    if samples != "1" or interpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise Refused(
            "not-monochrome",
            f"{header.name} has PhotometricInterpretation {interpretation or '(missing)'} and {samples or 'no'} "
            f"samples per pixel; images of one monochrome sample are read",
        )
    slices, unit = _slices(header, inverted=interpretation == "MONOCHROME1")
    voxels = fill_volume(slices, [partial(check, header.file)] if header.shared else [])
    placed = sop_class in SINGLE_FRAME and not header.shared and _has_place(header)
    affine, in_mm = (_place(header), True) if placed else _grid(header)
    return Volume(
        voxels=voxels,
        affine=affine,
        sources=tuple(each.source for each in slices),
        series_uid=whole.required("SeriesInstanceUID"),
        frame_of_reference_uid=header.text("FrameOfReferenceUID") if placed else "",
        unit=unit,
        in_patient=placed,
        in_mm=in_mm,
    )


def _slices(header: Header, *, inverted: bool) -> tuple[list[Slice], str]:
    """How each frame is read, and the unit of its values."""
    pixel, spans = header.image_pixel(), header.spans()
    whole = Elements(header.elements, header.name)
    uid, sop_class = whole.required("SOPInstanceUID"), header.text("SOPClassUID")
    table = modality_lut(header, inverted=inverted) if "ModalityLUTSequence" in header.elements else None
    padding = header.shorts("PixelPaddingValue") + header.shorts("PixelPaddingRangeLimit")
    found = []
    units = set()
    for number, each in enumerate(spans):
        values = header.groups[number] if header.groups else header.elements
        slope, intercept, unit = (1.0, 0.0, "1") if table else _rescale(header, values, sop_class)
        if inverted and unit == "1":
            low, high = _stored_range(pixel.bits_stored, signed=pixel.signed)
            # (darkest + brightest) - value, in the same range.
            slope, intercept = -slope, slope * (low + high) + intercept
        units.add(unit)
        found.append(
            Slice(
                source=SliceSource(uid, sop_class, number + 1 if header.shared else None),
                file=header.file,
                head_length=header.head_length,
                shares_file=header.shared,
                spans=each,
                pixel=pixel,
                slope=slope,
                intercept=intercept,
                padding=padding_range(padding, signed=pixel.signed) if header.shorts("PixelPaddingValue") else None,
                padding_as=PADDING_HU if unit == "HU" else None,
                inflated=header.inflated,
                lut=table,
            )
        )
    if len(units) > 1:
        raise Refused("mixed-units", f"{header.name}: the values of its frames are in {', '.join(sorted(units))}")
    return found, units.pop()


def _rescale(header: Header, values: Mapping[str, Values], sop_class: str) -> tuple[float, float, str]:
    """Slope, intercept and unit; without a rescale stored values are what is meant (PS3.3 C.11.1)."""
    modality = SINGLE_FRAME.get(sop_class) or MULTI_FRAME.get(sop_class)
    look = Elements(values, header.name)
    if modality is not None:
        return rescale_of(header, look, modality, header.name)
    if not look.text("RescaleSlope") and not look.text("RescaleIntercept"):
        return 1.0, 0.0, "1"
    slope, intercept = (float(look.numbers(keyword, 1)[0]) for keyword in ("RescaleSlope", "RescaleIntercept"))
    if slope == 0:
        raise Refused("missing-geometry", f"{header.name}: RescaleSlope is 0")
    return slope, intercept, "1"


def _stored_range(bits: int, *, signed: bool) -> tuple[int, int]:
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


def _has_place(header: Header) -> bool:
    needed = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID")
    return all(header.text(keyword) for keyword in needed)


def _place(header: Header) -> NDArray[np.float64]:
    """The affine of a slice that lies in the patient, as thick as it says, else 1 mm."""
    (frame,) = frames_of(header)
    thickness = Elements(header.elements, header.name).numbers("SliceThickness", 1)[0] if _thick(header) else 1.0
    affine = np.eye(4)
    affine[:3, 0] = np.cross(frame.cosines[0], frame.cosines[1]) * thickness
    affine[:3, 1] = frame.cosines[1] * frame.pixel_spacing[0]
    affine[:3, 2] = frame.cosines[0] * frame.pixel_spacing[1]
    affine[:3, 3] = frame.position
    return affine


def _thick(header: Header) -> bool:
    try:
        return float(header.text("SliceThickness") or 0) > 0
    except ValueError:
        return False


def _grid(header: Header) -> tuple[NDArray[np.float64], bool]:
    """An affine within the image, and whether it is in mm: else in pixels, whose width is 1."""
    look = Elements({**header.elements, **(header.groups[0] if header.groups else {})}, header.name)
    stated = next((keyword for keyword in _SPACINGS if look.text(keyword)), None)
    if stated is not None:
        down, along = spacing_of(look.numbers(stated, 2), header.name, stated)
    elif look.text("PixelAspectRatio"):
        vertical, horizontal = spacing_of(look.numbers("PixelAspectRatio", 2), header.name, "PixelAspectRatio")
        down, along = vertical / horizontal, 1.0
    else:
        down, along = 1.0, 1.0
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 1.0, down, along, 1.0
    return affine, stated is not None
