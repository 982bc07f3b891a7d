"""Data sets of storage commitment, procedure step and instance availability requests."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.dataset import Dataset

from tests import objects

STORAGE_COMMITMENT, COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
PROCEDURE_STEP = "1.2.840.10008.3.1.2.3.3"
INSTANCE_AVAILABILITY = "1.2.840.10008.5.1.4.33"


def made(**elements: object) -> Dataset:
    """A data set; an element given as None is left out."""
    ds = Dataset()
    for keyword, value in elements.items():
        if value is not None:
            setattr(ds, keyword, value)
    return ds


def references(uids: Iterable[str], sop_class_uid: str = objects.CT) -> list[Dataset]:
    """SOP Instance References."""
    return [made(ReferencedSOPClassUID=sop_class_uid, ReferencedSOPInstanceUID=uid) for uid in uids]


def commitment(transaction_uid: str, uids: Iterable[str], **elements: object) -> Dataset:
    """ActionInformation of a storage commitment request."""
    asked: dict[str, object] = {"TransactionUID": transaction_uid, "ReferencedSOPSequence": references(uids)}
    return made(**asked | elements)


def step_begun(study_uid: str, **elements: object) -> Dataset:
    """AttributeList of the N-CREATE of a performed procedure step, as a CT sends it."""
    step: dict[str, object] = {
        "ScheduledStepAttributesSequence": [made(StudyInstanceUID=study_uid, AccessionNumber="A1")],
        "PatientName": "Doe^Jane",
        "PatientID": "P1",
        "PerformedProcedureStepID": "S1",
        "PerformedStationAETitle": "CT1",
        "PerformedProcedureStepStartDate": "20260102",
        "PerformedProcedureStepStartTime": "030405",
        "PerformedProcedureStepStatus": "IN PROGRESS",
        "Modality": "CT",
    }
    return made(**step | elements)


def step_ended(uids: Iterable[str], *, status: str = "COMPLETED", documents: Iterable[str] = ()) -> Dataset:
    """ModificationList of the N-SET that ends it."""
    series = made(
        SeriesInstanceUID="1.2.3.1",
        ReferencedImageSequence=references(uids),
        ReferencedNonImageCompositeSOPInstanceSequence=references(documents),
    )
    return made(PerformedProcedureStepStatus=status, PerformedSeriesSequence=[series])


def available(study_uid: str, uids: Iterable[str], **elements: object) -> Dataset:
    """AttributeList of an instance availability notification."""
    instances = references(uids)
    for instance in instances:
        instance.InstanceAvailability = "ONLINE"
        instance.RetrieveAETitle = "PACS"
    series = made(SeriesInstanceUID="1.2.3.1", ReferencedSOPSequence=instances)
    told: dict[str, object] = {
        "ReferencedPerformedProcedureStepSequence": [],
        "StudyInstanceUID": study_uid,
        "ReferencedSeriesSequence": [series],
    }
    return made(**told | elements)
