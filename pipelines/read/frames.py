"""What the header of an instance says of its frames: place, pixel geometry and rescale, each checked.

A CT, MR or PET Image instance is one frame. An enhanced one holds many, described by functional groups, per frame or
shared (PS3.3 C.7.6.16).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.domain.errors import Refused
from node.domain.volume import SliceSource
from pipelines.read.groups import Values
from pipelines.read.header import Header

_CT, _MR, _PET = "CT", "MR", "PT"
# The storage SOP classes of slices (PS3.4 B.5), and what they are slices of. Those with functional groups come second.
SINGLE_FRAME = {
    "1.2.840.10008.5.1.4.1.1.2": _CT,
    "1.2.840.10008.5.1.4.1.1.4": _MR,
    "1.2.840.10008.5.1.4.1.1.128": _PET,
}
MULTI_FRAME = {
    "1.2.840.10008.5.1.4.1.1.2.1": _CT,
    "1.2.840.10008.5.1.4.1.1.2.2": _CT,
    "1.2.840.10008.5.1.4.1.1.4.1": _MR,
    "1.2.840.10008.5.1.4.1.1.4.4": _MR,
    "1.2.840.10008.5.1.4.1.1.130": _PET,
    "1.2.840.10008.5.1.4.1.1.128.1": _PET,
}
# UCUM of Units (0054,1001), PS3.3 C.8.9.1.1.3, and of RescaleType, C.11.1.1.2.
_UCUM = {
    "": "1",
    "BQML": "Bq/ml",
    "CNTS": "{counts}",
    "GML": "g/ml",
    "NONE": "1",
    "PROPCNTS": "{propcounts}",
    "US": "1",
}


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame as its header describes it.

    ``position`` (3,) and the rows of ``cosines`` (2, 3: row, then column direction) are LPS, in mm and unit length;
    ``pixel_spacing`` is (between rows, between columns) in mm. Values in ``unit`` (HU, else UCUM; ``1`` where the
    numbers mean nothing by themselves, as in MR) are ``stored * slope + intercept``.
    """

    source: SliceSource
    series_uid: str
    frame_of_reference_uid: str
    shape: tuple[int, int]
    position: NDArray[np.float64]
    cosines: NDArray[np.float64]
    pixel_spacing: tuple[float, float]
    slope: float
    intercept: float
    unit: str
    image_type: tuple[str, ...]

    @property
    def index(self) -> int:
        """Of the frame within its instance, from 0."""
        return (self.source.frame_number or 1) - 1


def frames_of(header: Header) -> list[Frame]:
    """The frames of one instance.

    Raises:
        Refused: no slices, more than one sample a pixel, or an element that is missing or makes no sense, by name.
    """
    name = header.name
    sop_class = header.text("SOPClassUID")
    modality = SINGLE_FRAME.get(sop_class) or MULTI_FRAME.get(sop_class)
    if modality is None:
        raise Refused("not-ct", f"{name} is no CT, MR or PET image but {class_name(sop_class)}")
    samples, interpretation = header.text("SamplesPerPixel"), header.text("PhotometricInterpretation")
    # MONOCHROME1 and 2 differ in how they are shown, not in what the values mean.
    if samples != "1" or not interpretation.startswith("MONO"):
        raise Refused(
            "not-monochrome",
            f"{name} has PhotometricInterpretation {interpretation or '(missing)'} and {samples or 'no'} samples per "
            f"pixel; a volume needs one monochrome sample",
        )
    count = header.number("NumberOfFrames") if header.elements.get("NumberOfFrames") else 1
    if sop_class in SINGLE_FRAME and not header.groups and count == 1:
        return [_frame(header, header.elements, None, modality, name)]
    if len(header.groups) != count:
        raise Refused(
            "missing-geometry",
            f"{name}: PerFrameFunctionalGroupsSequence has {len(header.groups)} items for NumberOfFrames {count}",
        )
    return [
        _frame(header, group, number, modality, f"{name}, frame {number}")
        for number, group in enumerate(header.groups, start=1)
    ]


def _frame(header: Header, values: Mapping[str, Values], number: int | None, modality: str, name: str) -> Frame:
    look = Elements(values, name)
    slope, intercept, unit = rescale_of(header, look, modality, name)
    whole = Elements(header.elements, name)
    return Frame(
        source=SliceSource(whole.required("SOPInstanceUID"), whole.required("SOPClassUID"), number),
        series_uid=whole.required("SeriesInstanceUID"),
        frame_of_reference_uid=whole.required("FrameOfReferenceUID"),
        shape=(int(whole.numbers("Rows", 1)[0]), int(whole.numbers("Columns", 1)[0])),
        position=look.numbers("ImagePositionPatient", 3),
        cosines=cosines_of(look.numbers("ImageOrientationPatient", 6), name),
        pixel_spacing=spacing_of(look.numbers("PixelSpacing", 2), name),
        slope=slope,
        intercept=intercept,
        unit=unit,
        image_type=tuple(str(v).upper() for v in values.get("FrameType") or header.elements.get("ImageType") or ()),
    )


def rescale_of(header: Header, look: Elements, modality: str, name: str) -> tuple[float, float, str]:
    """Slope, intercept and unit (PS3.3 C.11.1). MR may go without: its numbers have no unit."""
    if "ModalityLUTSequence" in header.elements:
        raise Refused("modality-lut", f"{name} has a ModalityLUTSequence; linear rescale is read")
    rescale_type = look.text("RescaleType")
    if modality == _CT and rescale_type not in ("", "HU"):
        raise Refused("not-hu", f"{name} has RescaleType {rescale_type}; its values are no Hounsfield units")
    if modality == _MR and not look.text("RescaleSlope") and not look.text("RescaleIntercept"):
        return 1.0, 0.0, "1"
    slope, intercept = float(look.numbers("RescaleSlope", 1)[0]), float(look.numbers("RescaleIntercept", 1)[0])
    if slope == 0:
        raise Refused("missing-geometry", f"{name}: RescaleSlope is 0")
    if modality == _CT:
        return slope, intercept, "HU"
    stated = header.text("Units") or rescale_type
    if modality == _PET and stated not in _UCUM:
        raise Refused("unknown-units", f"{name} has Units {stated}; {', '.join(filter(None, _UCUM))} are read")
    return slope, intercept, _UCUM.get(stated, "1") if modality == _PET else "1"


class Elements:
    """Looks an element up in what describes a frame, and names what is wrong with it."""

    def __init__(self, values: Mapping[str, Values], name: str) -> None:
        self._values = values
        self._name = name

    def text(self, keyword: str) -> str:
        return "\\".join(map(str, self._values.get(keyword, ())))

    def required(self, keyword: str) -> str:
        text = self.text(keyword)
        if not text:
            raise Refused("missing-geometry", f"{self._name}: {keyword} is missing or empty")
        return text

    def numbers(self, keyword: str, count: int) -> NDArray[np.float64]:
        text = self.required(keyword)
        try:
            numbers = np.array([float(value) for value in self._values[keyword]])
        except ValueError:
            numbers = np.array([])
        if numbers.size != count or not np.isfinite(numbers).all():
            raise Refused("missing-geometry", f"{self._name}: {keyword} is {text!r}, not {count} finite number(s)")
        return numbers


def cosines_of(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    cosines = values.reshape(2, 3)
    lengths = np.linalg.norm(cosines, axis=1)
    # Decimal strings of 16 bytes hold more digits than this, but some writers round to four.
    if np.abs(lengths - 1).max() > 1e-3 or abs(cosines[0] @ cosines[1]) > 1e-3:
        raise Refused("missing-geometry", f"{name}: ImageOrientationPatient holds no two perpendicular unit vectors")
    return np.asarray(cosines / lengths[:, None])


def spacing_of(values: NDArray[np.float64], name: str, keyword: str = "PixelSpacing") -> tuple[float, float]:
    if values.min() <= 0:
        raise Refused("missing-geometry", f"{name}: {keyword} is not positive")
    return float(values[0]), float(values[1])


def class_name(sop_class_uid: str) -> str:
    from pydicom.config import IGNORE
    from pydicom.uid import UID

    return UID(sop_class_uid, IGNORE).name if sop_class_uid else "an object without SOPClassUID"
