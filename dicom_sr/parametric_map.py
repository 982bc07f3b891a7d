"""The Parametric Map: a number for every voxel, as floating point values with their quantity and unit (PS3.3 A.75)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ParametricMapStorage
from pydicom.valuerep import format_number_as_ds

from dicom_sr import codes
from dicom_sr.header import Plane
from dicom_sr.multiframe import Frames, shell
from dicom_sr.provenance import result_uid
from node.domain.finding import Findings, Map
from node.domain.job import Provenance
from node.domain.profile import FULL, Profile


def build(
    provenance: Provenance,
    findings: Findings,
    found: Map,
    headers: Sequence[Dataset],
    places: Sequence[Plane | None],
    *,
    number: int,
    series_number: int,
    profile: Profile = FULL,
) -> Dataset:
    """One map, alone in its series: viewers look at the first instance of a series of maps only.

    Every slice has its frame, and the frames run as the slices of the volume do, along the slice normal: OHIF 3.13 lays
    them onto the source one after the other and does not look at where they say they lie. Values are float32: it
    multiplies them by 100 in the type that they have.

    Args:
        headers: normalised, one per slice of the volume.
        places: where each slice lies.
        number: of the map among those of the findings, from 1.
        series_number: SeriesNumber (0020,0011) of the result.
    """
    values = found.values
    low, high = float(values.min()), float(values.max())
    dataset = shell(
        provenance,
        profile,
        headers[0],
        sop_class_uid=ParametricMapStorage,
        kind="PM",
        number=number,
        series_number=series_number,
    )
    _describe(dataset, found, headers[0])
    frames = Frames(findings, headers, places, codes.CALCULATION)
    for k in range(len(values)):
        frames.add(k)
    frames.finish(dataset, result_uid(provenance, profile, "PM", str(number), "dimension organization"))
    _value_groups(dataset, found, low, high)
    dataset.add(DataElement("FloatPixelData", "OF", np.ascontiguousarray(values, "<f4").tobytes()))
    return dataset


def _describe(dataset: Dataset, found: Map, header: Dataset) -> None:
    """What the image is: Parametric Map Image and Floating Point Image Pixel modules (PS3.3 C.8.32.2, C.7.6.24)."""
    dataset.Modality = "OT"
    dataset.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "QUANTITY"]
    dataset.ContentLabel, dataset.ContentDescription = "AI_MAP", found.label[:64]
    dataset.ContentCreatorName = ""
    dataset.PixelPresentation, dataset.PresentationLUTShape = "MONOCHROME", "IDENTITY"
    dataset.BitsAllocated = 32
    dataset.BurnedInAnnotation, dataset.RecognizableVisualFeatures = "NO", "NO"
    dataset.AcquisitionContextSequence = []
    if header.get("BodyPartExamined"):
        dataset.BodyPartExamined = header.BodyPartExamined
    else:
        dataset.Laterality = ""  # type 2C: nobody knows whether the body part is a paired one (PS3.3 C.7.3.1)


def _value_groups(dataset: Dataset, found: Map, low: float, high: float) -> None:
    """What the numbers mean: shared groups of Parametric Map Functional Groups (PS3.3 A.75.5)."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    window, identity, kind, mapping, quantity = (Dataset() for _ in range(5))
    shown_low, shown_high = found.shown
    window.WindowCenter = format_number_as_ds((shown_low + shown_high) / 2)
    window.WindowWidth = format_number_as_ds(max(shown_high - shown_low, 1e-6))
    window.VOILUTFunction = "LINEAR_EXACT"  # LINEAR is for whole numbers, and widths of 1 and more (PS3.3 C.11.2.1.2)
    shared.FrameVOILUTSequence = [window]
    identity.RescaleIntercept, identity.RescaleSlope, identity.RescaleType = "0", "1", "US"
    shared.PixelValueTransformationSequence = [identity]
    kind.FrameType = dataset.ImageType
    shared.ParametricMapFrameTypeSequence = [kind]
    mapping.LUTExplanation, mapping.LUTLabel = found.label[:64], found.key[:16]
    mapping.RealWorldValueIntercept, mapping.RealWorldValueSlope = 0.0, 1.0
    mapping.DoubleFloatRealWorldValueFirstValueMapped = low
    mapping.DoubleFloatRealWorldValueLastValueMapped = high
    mapping.MeasurementUnitsCodeSequence = [codes.item(found.unit)]
    quantity.ValueType = "CODE"
    quantity.ConceptNameCodeSequence = [codes.item(codes.QUANTITY)]
    quantity.ConceptCodeSequence = [codes.item(found.quantity)]
    mapping.QuantityDefinitionSequence = [quantity]
    shared.RealWorldValueMappingSequence = [mapping]
