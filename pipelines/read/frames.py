"""What the header of a CT instance says of its frames: place, pixel geometry and rescale, each checked.

A CT Image instance is one frame. An Enhanced CT instance holds many, described by functional groups, per frame or
shared (PS3.3 C.7.6.16).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from node.domain.errors import Refused
from node.domain.volume import SliceSource

CT_SOP_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame as its header describes it.

    ``position`` (3,) and the rows of ``cosines`` (2, 3: row, then column direction) are LPS, in mm and unit length;
    ``pixel_spacing`` is (between rows, between columns) in mm. HU are ``stored * slope + intercept``.
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
    image_type: tuple[str, ...]

    @property
    def index(self) -> int:
        """Of the frame within its instance, from 0."""
        return (self.source.frame_number or 1) - 1


def frames_of(dataset: Dataset) -> list[Frame]:
    """The frames of one instance; ``dataset`` may have been read without its pixel data.

    Raises:
        Refused: no CT image, more than one sample a pixel, or an element that is missing or makes no sense, by name.
    """
    name = f"instance {dataset.get('SOPInstanceUID', '(no SOPInstanceUID)')}"
    if dataset.get("SOPClassUID") not in CT_SOP_CLASSES:
        raise Refused("not-ct", f"{name} is no CT image but {_class_name(dataset)}")
    if dataset.get("SamplesPerPixel") != 1 or not str(dataset.get("PhotometricInterpretation")).startswith("MONO"):
        raise Refused(
            "not-monochrome",
            f"{name} has PhotometricInterpretation {dataset.get('PhotometricInterpretation', '(missing)')} and "
            f"{dataset.get('SamplesPerPixel', 'no')} samples per pixel; CT numbers need one monochrome sample",
        )
    if "NumberOfFrames" not in dataset:
        return [_frame(dataset, [dataset], None, name)]
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    count = int(dataset.NumberOfFrames)
    if len(per_frame) != count:
        raise Refused(
            "missing-geometry",
            f"{name}: PerFrameFunctionalGroupsSequence has {len(per_frame)} items for NumberOfFrames {count}",
        )
    return [
        _frame(dataset, _groups(shared[0], item), number, f"{name}, frame {number}")
        for number, item in enumerate(per_frame, start=1)
    ]


_MACROS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "CTImageFrameTypeSequence",
)


def _groups(shared: Dataset, per_frame: Dataset) -> list[Dataset]:
    """The items of the macros that describe a frame; a macro is per frame or shared, never both (C.7.6.16.1.1)."""
    return [item for macro in _MACROS for item in (per_frame.get(macro) or shared.get(macro) or ())]


def _frame(dataset: Dataset, groups: Sequence[Dataset], number: int | None, name: str) -> Frame:
    look = _Elements(groups, name)
    rescale_type = look.text("RescaleType")
    if rescale_type not in ("", "HU"):
        raise Refused("not-hu", f"{name} has RescaleType {rescale_type}; its values are no Hounsfield units")
    slope = look.numbers("RescaleSlope", 1)[0]
    if slope == 0:
        raise Refused("missing-geometry", f"{name}: RescaleSlope is 0")
    whole = _Elements([dataset], name)
    return Frame(
        source=SliceSource(whole.required("SOPInstanceUID"), whole.required("SOPClassUID"), number),
        series_uid=whole.required("SeriesInstanceUID"),
        frame_of_reference_uid=whole.required("FrameOfReferenceUID"),
        shape=(int(whole.numbers("Rows", 1)[0]), int(whole.numbers("Columns", 1)[0])),
        position=look.numbers("ImagePositionPatient", 3),
        cosines=_cosines(look.numbers("ImageOrientationPatient", 6), name),
        pixel_spacing=_spacing(look.numbers("PixelSpacing", 2), name),
        slope=slope,
        intercept=look.numbers("RescaleIntercept", 1)[0],
        image_type=tuple(str(v).upper() for v in (look.value("FrameType") or dataset.get("ImageType") or ())),
    )


class _Elements:
    """Looks an element up in the items that describe a frame, and names what is wrong with it."""

    def __init__(self, items: Sequence[Dataset], name: str) -> None:
        self._items = items
        self._name = name

    def value(self, keyword: str) -> Any:
        try:
            return next((item[keyword].value for item in self._items if keyword in item), None)
        except (ValueError, TypeError, NotImplementedError) as error:  # pydicom converts on first access
            raise Refused("missing-geometry", f"{self._name}: {keyword} cannot be read: {error}") from error

    def text(self, keyword: str) -> str:
        value = self.value(keyword)
        return "" if value is None else str(value).strip()

    def required(self, keyword: str) -> str:
        text = self.text(keyword)
        if not text:
            raise Refused("missing-geometry", f"{self._name}: {keyword} is missing or empty")
        return text

    def numbers(self, keyword: str, count: int) -> NDArray[np.float64]:
        self.required(keyword)
        try:
            numbers = np.array(self.value(keyword), np.float64).reshape(-1)
        except (TypeError, ValueError):
            numbers = np.array([])
        if numbers.size != count or not np.isfinite(numbers).all():
            raise Refused(
                "missing-geometry", f"{self._name}: {keyword} is {self.text(keyword)!r}, not {count} finite number(s)"
            )
        return numbers


def _cosines(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    cosines = values.reshape(2, 3)
    lengths = np.linalg.norm(cosines, axis=1)
    # Decimal strings of 16 bytes hold more digits than this, but some writers round to four.
    if np.abs(lengths - 1).max() > 1e-3 or abs(cosines[0] @ cosines[1]) > 1e-3:
        raise Refused("missing-geometry", f"{name}: ImageOrientationPatient holds no two perpendicular unit vectors")
    return np.asarray(cosines / lengths[:, None])


def _spacing(values: NDArray[np.float64], name: str) -> tuple[float, float]:
    if values.min() <= 0:
        raise Refused("missing-geometry", f"{name}: PixelSpacing is not positive")
    return float(values[0]), float(values[1])


def _class_name(dataset: Dataset) -> str:
    uid = dataset.get("SOPClassUID")
    return uid.name if uid else "an object without SOPClassUID"
