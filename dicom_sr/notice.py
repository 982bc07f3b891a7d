"""The AI did not run: a small report that says so, and why, so that silence is never taken for a negative."""

from __future__ import annotations

from collections.abc import Sequence

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


def build(provenance: Provenance, reason: str, headers: Sequence[Dataset], profile: Profile) -> Dataset:
    """A Basic Text SR (PS3.3 A.35.1) with one sentence. Its UIDs derive from the job and the profile.

    Args:
        reason: why not, in words that name no patient.
        headers: of the study; whose patient and study the notice carries is said by the first.
    """
    notice = Dataset()
    notice.SOPClassUID = BasicTextSRStorage
    notice.SOPInstanceUID = derived_uid(provenance.job_id, "notice", profile.name)
    notice.SeriesInstanceUID = derived_uid(provenance.job_id, "notice", profile.name, "series")
    notice.Modality, notice.SeriesNumber, notice.InstanceNumber = "SR", profile.series_number, 1
    notice.ReferencedPerformedProcedureStepSequence = []
    notice.PerformedProcedureCodeSequence = []
    notice.CompletionFlag, notice.VerificationFlag = "COMPLETE", "UNVERIFIED"
    notice.ValueType, notice.ContinuityOfContent = "CONTAINER", "SEPARATE"
    notice.ConceptNameCodeSequence = [codes.item(_TITLE)]
    said = Dataset()
    said.RelationshipType, said.ValueType = "CONTAINS", "TEXT"
    said.ConceptNameCodeSequence = [codes.item(_COMMENT)]
    said.TextValue = f"{provenance.model.title or provenance.model.name} did not run on this study. {reason}"
    notice.ContentSequence = [said]
    stamp(notice, identity(headers[0]), provenance, what="not run")
    return notice
