"""What a result inherits from its source: identity, time zone and place. Nothing else is copied.

Copying by name is what keeps private elements, odd character sets and missing type 2 attributes of the source out of
the results.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.valuerep import PersonName

from dicom_sr import codes
from dicom_sr.provenance import add_equipment
from node.domain.errors import InvalidInput
from node.domain.job import Provenance
from node.domain.model import Qualification
from node.domain.volume import SliceSource, Volume

CHARACTER_SET = "ISO_IR 192"

# Type 2 of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1): always present, if need be empty.
IDENTITY_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
)
IDENTITY = (
    *IDENTITY_TYPE_2,
    "StudyInstanceUID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "IssuerOfAccessionNumberSequence",
    "StudyDescription",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
    "TimezoneOffsetFromUTC",
)
_IMAGE = (
    "StudyInstanceUID",
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "Modality",
    "BodyPartExamined",
    "PatientPosition",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
_PLACE = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceThickness",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
)
_PLANE_GROUPS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
# Decimal strings of positions are rounded. Beyond this share of a voxel the mask would lie beside its image.
_PLACE_TOLERANCE = 0.1


@dataclass(frozen=True)
class Plane:
    """Where a slice lies, in mm, LPS: the Image Plane module (PS3.3 C.7.6.2), or its functional groups."""

    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float, float, float]
    pixel_spacing: tuple[float, float]


def _clean(value: Any, vr: str) -> Any:
    """``value`` without private elements and without the source's encoding, which pydicom keeps on a PersonName."""
    if vr == "PN":
        return PersonName(str(value)) if value else ""
    if vr == "SQ":
        return [copied(item, (e.keyword for e in item if e.keyword)) for item in value]
    return value


def copied(source: Dataset, keywords: Iterable[str]) -> Dataset:
    """A data set with those elements of ``source`` that are present, text decoded, no private elements."""
    copy = Dataset()
    # What the source says is passed on as it is; pydicom's warnings would put a patient's values into the log.
    with disable_value_validation():
        for keyword in keywords:
            if keyword in source:
                setattr(copy, keyword, _clean(source[keyword].value, source[keyword].VR))
    return copy


def identity(header: Dataset, timezone: str | None = None) -> Dataset:
    """Patient and study of ``header`` as a result carries them, type 2 attributes complete.

    Args:
        timezone: TimezoneOffsetFromUTC for a header that names none.
    """
    result = copied(header, IDENTITY)
    for keyword in IDENTITY_TYPE_2:
        if keyword not in result or result[keyword].value is None:
            setattr(result, keyword, "")
    if timezone is not None and not result.get("TimezoneOffsetFromUTC"):
        result.TimezoneOffsetFromUTC = timezone
    return result


def normalised(header: Dataset, volume: Volume) -> Dataset:
    """A copy of ``header`` that highdicom's constructors take, without pixel data and without the patient.

    They refuse what real headers hold (an unknown sex, half a birth date) or lack; ``stamp`` writes patient and study.
    Missing SliceThickness and FrameOfReferenceUID come from ``volume``, but where it has no place in the patient.
    """
    result = copied(header, _IMAGE)
    for keyword in IDENTITY_TYPE_2:
        setattr(result, keyword, "")
    result.SpecificCharacterSet = CHARACTER_SET
    result.Modality = result.get("Modality") or "OT"
    result.LossyImageCompression = "01" if result.get("LossyImageCompression") in ("01", "1") else "00"
    if not volume.in_patient:
        for keyword in _PLACE:
            result.pop(keyword, None)
        return result
    if not result.get("SliceThickness"):
        result.SliceThickness = round(volume.spacing[0], 6)
    if not result.get("FrameOfReferenceUID"):
        result.FrameOfReferenceUID = volume.frame_of_reference_uid
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        if keyword in header:
            setattr(result, keyword, [copied(group, _PLANE_GROUPS) for group in header[keyword].value])
    return result


def plane(header: Dataset, source: SliceSource) -> Plane:
    """The plane of the slice behind ``source``.

    Raises:
        InvalidInput: an attribute of the Image Plane module is missing.
    """
    if source.frame_number is None:
        groups = [header]
    else:
        shared, frame = header.SharedFunctionalGroupsSequence[0], header.PerFrameFunctionalGroupsSequence
        both = (frame[source.frame_number - 1], shared)
        groups = [group[name].value[0] for group in both for name in _PLANE_GROUPS if name in group]

    def values(keyword: str) -> tuple[float, ...]:
        for group in groups:
            if group.get(keyword):
                return tuple(float(v) for v in group[keyword].value)
        raise InvalidInput(keyword, "is missing", "Give headers with the Image Plane module")

    position, orientation, spacing = map(values, ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))
    return Plane(position, orientation, spacing)  # type: ignore[arg-type]  # lengths: PS3.3 C.7.6.2


def planes(volume: Volume, headers: list[Dataset]) -> list[Plane | None]:
    """The plane of every slice of ``volume``, proven to be where the volume says it is; None where it has no place.

    Raises:
        InvalidInput: another number of headers than slices, a header of another instance, another grid or place.
    """
    slices, rows, columns = volume.shape
    if len(headers) != slices:
        raise InvalidInput(
            "headers", f"{len(headers)} for {slices} slices", "Give one header per slice, in their order"
        )
    found: list[Plane | None] = []
    origins: NDArray[np.float64] = volume.affine[:3, 3] + np.outer(np.arange(slices), volume.affine[:3, 0])
    for header, source, origin in zip(headers, volume.sources, origins, strict=True):
        if header.SOPInstanceUID != source.sop_instance_uid:
            raise InvalidInput("headers", "do not follow volume.sources", "Give one header per slice, in their order")
        here = plane(header, source) if volume.in_patient else None
        elsewhere = here is not None and not np.allclose(
            here.position, origin, rtol=0, atol=_PLACE_TOLERANCE * min(volume.spacing)
        )
        if (header.Rows, header.Columns) != (rows, columns) or elsewhere:
            raise InvalidInput(
                "volume", "does not lie on the grid of its source images", "Give the findings on the source grid"
            )
        found.append(here)
    return found


def drop_broken_numbers(header: Dataset) -> None:
    """A number that is none says nothing; where it matters, reading has refused it before."""
    for keyword in ("SeriesNumber", "InstanceNumber"):
        try:
            int(header.get(keyword) or 0)
        except ValueError:
            del header[keyword]


def free_series_numbers(datasets: Iterable[Dataset], first: int) -> Iterator[int]:
    """Series numbers (0020,0011) from ``first`` on that none of ``datasets`` has."""
    taken = {int(each.SeriesNumber) for each in datasets if each.get("SeriesNumber") is not None}
    return (number for number in count(first) if number not in taken)


def zone(header: Dataset) -> timezone | None:
    """The time zone of ``header`` (TimezoneOffsetFromUTC, PS3.3 C.12.1.1.8), None where it does not say."""
    text = str(header.get("TimezoneOffsetFromUTC") or "").strip()
    if len(text) != 5 or text[0] not in "+-" or not text[1:].isdigit():
        return None
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:5]))
    return timezone(-offset if text[0] == "-" else offset)


def local(moment: datetime, header: Dataset) -> datetime:
    """``moment`` in the zone of ``header``; in the node's own where the source names none."""
    return moment.astimezone(zone(header))


def series_description(text: str, qualification: Qualification) -> str:
    """``AI <text> RESEARCH``, at most 64 characters (VR LO); viewers cut it early, so the meaning comes first."""
    suffix = "" if qualification is Qualification.PRODUCT else f" {qualification}"
    return f"AI {text.removeprefix('AI ')}"[: 64 - len(suffix)].rstrip() + suffix


def stamp(
    dataset: Dataset, who: Dataset, provenance: Provenance, *, what: str, character_set: str = CHARACTER_SET
) -> None:
    """Write what every result object carries in the same way, over whatever its constructor wrote.

    Args:
        who: the patient and study that the result belongs to, from ``identity``.
        what: the meaning of the series, for SeriesDescription.
        character_set: SpecificCharacterSet; several values are parted by backslashes.
    """
    dataset.SpecificCharacterSet = character_set.split("\\") if "\\" in character_set else character_set
    for element in who:
        # As the source says it, right or wrong: a PACS compares identity value by value.
        dataset[element.tag] = element
    at = local(provenance.started_at, who)
    date, time = at.strftime("%Y%m%d"), at.strftime("%H%M%S")
    for kind in ("InstanceCreation", "Series", "Content"):
        setattr(dataset, f"{kind}Date", date)
        setattr(dataset, f"{kind}Time", time)
    dataset.SeriesDescription = series_description(what, provenance.qualification)
    dataset.ContentQualification = provenance.qualification.value
    add_equipment(dataset, provenance)
    codes.declare_private_schemes(dataset)
