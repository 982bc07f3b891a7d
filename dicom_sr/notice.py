"""The notice that a model gave no result, so that silence is never taken for a negative finding."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage

from dicom_sr import codes
from dicom_sr.header import identity, stamp
from node.domain.finding import Code
from node.domain.ids import derived_uid
from node.domain.job import Provenance
from node.domain.profile import Profile

_TITLE = Code("18748-4", "LN", "Diagnostic imaging report")
_COMMENT = Code("121106", "DCM", "Comment")


class NotRun(StrEnum):
    """Why there is no result."""

    REFUSED = "refused"  # the study is not one for the model
    FAILED = "failed"
    TIMED_OUT = "timed-out"


_SAID = {
    NotRun.REFUSED: "It is not for studies like this one",
    NotRun.FAILED: "It failed",
    NotRun.TIMED_OUT: "The analysis took longer than it may",
}


def build(
    provenance: Provenance,
    why: NotRun,
    detail: str,
    headers: Sequence[Dataset],
    *,
    profile: Profile,
) -> Dataset:
    """A Basic Text SR (PS3.3 A.35.1) with one sentence. Its UIDs derive from the job and the profile.

    Args:
        detail: the reason as the node tells it, without patient data.
        headers: of instances of the study; the first gives patient and study.
    """
    notice = Dataset()
    notice.SOPClassUID = BasicTextSRStorage
    notice.SOPInstanceUID = derived_uid(provenance.job_id, profile.name, "NOTICE", "1")
    notice.SeriesInstanceUID = derived_uid(provenance.job_id, profile.name, "NOTICE", "series")
    notice.Modality, notice.SeriesNumber, notice.InstanceNumber = "SR", profile.series_number, 1
    notice.ReferencedPerformedProcedureStepSequence = []
    notice.PerformedProcedureCodeSequence = []
    notice.CompletionFlag, notice.VerificationFlag = "COMPLETE", "UNVERIFIED"
    notice.ValueType, notice.ContinuityOfContent = "CONTAINER", "SEPARATE"
    notice.ConceptNameCodeSequence = [codes.item(_TITLE)]
    said = Dataset()
    said.RelationshipType, said.ValueType = "CONTAINS", "TEXT"
    said.ConceptNameCodeSequence = [codes.item(_COMMENT)]
    name = provenance.model.title or provenance.model.name
    said.TextValue = f"{name} did not run on this study. {_SAID[why]}: {detail}"
    notice.ContentSequence = [said]
    stamp(notice, identity(headers[0]), provenance, what="not run")
    return notice
