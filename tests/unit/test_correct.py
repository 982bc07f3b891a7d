"""What counts as the same image of another patient or order, and what does not."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.dataset import Dataset

from node.services.correct import Written, changed_identity
from tests import objects

CHANGES: dict[str, Any] = {"PatientName": "Right^Rita", "PatientID": "R-1", "AccessionNumber": "A-2"}


def kept(**elements: Any) -> Dataset:
    values: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 100",
        "PatientName": "Wrong^Wera",
        "AccessionNumber": "A-1",
        "StudyDate": "20260304",
        "SliceThickness": "2.5",
        "SeriesDescription": "Thorax für Kinder",
    }
    ds = objects.dataset(**{**values, **elements})
    inner = Dataset()
    inner.CodeValue, inner.CodeMeaning = "T-1", "Größe"
    ds.AnatomicRegionSequence = [inner]
    return ds


def written(ds: Dataset, syntax: str = objects.EXPLICIT) -> Written:
    return Written(objects.encoded(ds, syntax), syntax)


@pytest.mark.parametrize("syntax", [objects.EXPLICIT, objects.IMPLICIT])
def test_another_patient_and_order(syntax: str) -> None:
    found = changed_identity(written(kept()), written(kept(**CHANGES), syntax))
    assert found == ("PatientName", "PatientID", "AccessionNumber")


def test_the_way_of_writing_does_not_matter() -> None:
    other = kept(SpecificCharacterSet="ISO_IR 192", SliceThickness="2.50", PatientID="R-1", PatientBirthDate="")
    other.InstanceCoercionDateTime = "20260305101500"
    other.OriginalAttributesSequence = [Dataset()]
    other.AnatomicRegionSequence[0].is_undefined_length_sequence_item = True
    other["AnatomicRegionSequence"].is_undefined_length = True
    assert changed_identity(written(kept()), written(other)) == ("PatientID",)


def test_nothing_of_it_changed() -> None:
    assert changed_identity(written(kept()), written(kept(), objects.IMPLICIT)) == ()


@pytest.mark.parametrize(
    "elements",
    [
        {"PixelData": bytes(range(1, 33))},
        {"PixelData": bytes(range(30))},
        {"PixelData": None},
        {"Rows": 8, "Columns": 2},
        {"SliceThickness": "3"},
        {"SeriesDescription": "Thorax"},
        {"BodyPartExamined": "CHEST"},
        {"SliceThickness": None},
    ],
    ids=str,
)
def test_another_image_is_no_correction(elements: dict[str, Any]) -> None:
    assert changed_identity(written(kept()), written(kept(**CHANGES, **elements))) is None


def test_a_private_element_or_one_in_a_sequence_is_no_correction() -> None:
    private, inner = kept(**CHANGES), kept(**CHANGES)
    private.private_block(0x0009, "SITE", create=True).add_new(1, "LO", "x")
    inner.AnatomicRegionSequence[0].CodeMeaning = "Other"
    for other in (private, inner):
        assert changed_identity(written(kept()), written(other)) is None


def test_what_cannot_be_told_is_no_correction() -> None:
    whole = written(kept(**CHANGES)).dataset
    for broken in (whole[:100], b"\xff" * 300, whole[: len(whole) - 10]):
        assert changed_identity(written(kept()), Written(broken, objects.EXPLICIT)) is None
    deflated = Written(whole, objects.DEFLATED)
    assert changed_identity(written(kept()), deflated) is None
    compressed = Written(whole, "1.2.840.10008.1.2.4.80")
    assert changed_identity(written(kept()), compressed) is None


def test_padding_behind_the_pixel_data_does_not_matter() -> None:
    padded = kept(**CHANGES)
    padded.DataSetTrailingPadding = bytes(64)
    assert changed_identity(written(kept()), written(padded)) == ("PatientName", "PatientID", "AccessionNumber")
