"""Results that withdraw earlier ones: a note has the identity of what it rejects, and goes after all that is new."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_sr.check import check
from dicom_sr.compose import compose, write
from node.domain.job import ResultFile, ResultReference
from node.domain.profile import Captures, Profile
from tests import builders_results as build

PROFILE = Profile("rejects", captures=Captures.KEY, key_images=True, reject_earlier=True, timezone="+0100")


@dataclass(frozen=True)
class Revision:
    """The results of one revision, as they lie on disk."""

    results: list[ResultFile]
    problems: list[str]

    @property
    def references(self) -> list[ResultReference]:
        return [
            ResultReference(r.study_uid, r.series_uid, r.sop_class_uid, r.sop_instance_uid, r.path)
            for r in self.results
        ]

    @property
    def notes(self) -> list[Dataset]:
        return [dcmread(r.path) for r in self.results if r.rejects]


def named(note: Dataset) -> set[str]:
    (study,) = note.CurrentRequestedProcedureEvidenceSequence
    return {str(i.ReferencedSOPInstanceUID) for s in study.ReferencedSeriesSequence for i in s.ReferencedSOPSequence}


def revision(folder: Path, number: int, patient: str | None, supersedes: list[ResultReference]) -> Revision:
    """The results of a revision whose study was corrected to that patient; None is how it came first."""
    case = build.case()
    identified = None
    if patient is not None:
        identified = deepcopy(case.headers[0])
        identified.PatientID, identified.PatientName = patient, f"Name^{patient}"
    provenance = replace(build.PROVENANCE, job_id=f"job {number}", revision=number)
    folder.mkdir()
    composed = compose(provenance, case.findings, case.headers, PROFILE, supersedes=supersedes, identified=identified)
    results = write(composed, folder)
    problems = check(
        [r.path for r in results], case.headers, case.findings, profile=PROFILE, supersedes=supersedes,
        identified=identified,
    )  # fmt: skip
    return Revision(results, problems)


def test_each_note_of_a_chain_has_the_identity_of_the_revision_that_it_rejects(tmp_path: Path) -> None:
    first = revision(tmp_path / "1", 1, None, [])
    second = revision(tmp_path / "2", 2, "B", first.references)
    third = revision(tmp_path / "3", 3, "C", second.references)
    fourth = revision(tmp_path / "4", 4, "C", third.references)
    assert [made.problems for made in (first, second, third, fourth)] == [[]] * 4
    assert first.notes == []
    ((b,), (c,), (d,)) = (made.notes for made in (second, third, fourth))
    assert [(n.PatientID, str(n.PatientName).split("^")[0]) for n in (b, c, d)] == [
        ("T-4711", str(dcmread(first.results[0].path).PatientName).split("^")[0]), ("B", "Name"), ("C", "Name")
    ]  # fmt: skip
    assert {n.TimezoneOffsetFromUTC for n in (b, c, d)} == {"+0100"}
    assert named(c) == {r.sop_instance_uid for r in second.results if not r.rejects}, "and not the note before"
    # Worklist entry, worklist entry, quality (CID 7011): the last correction changed nothing of the patient.
    assert [n.ConceptNameCodeSequence[0].CodeValue for n in (b, c, d)] == ["113038", "113038", "113001"]


def test_the_note_is_the_last_and_the_report_before_it(tmp_path: Path) -> None:
    first = revision(tmp_path / "1", 1, None, [])
    second = revision(tmp_path / "2", 2, "B", first.references)
    assert [dcmread(r.path).Modality for r in second.results][-2:] == ["SR", "KO"]
    assert [r.rejects for r in second.results][-2:] == [False, True]
    moved = [second.results[-1], *second.results[:-1]]
    problems = check(
        [r.path for r in moved], build.case().headers, profile=PROFILE, supersedes=first.references,
        identified=dcmread(second.results[-2].path),
    )  # fmt: skip
    assert "set order: something goes after what rejects earlier results" in problems


def test_what_two_runs_have_made_is_rejected_by_a_note_each(tmp_path: Path) -> None:
    """Two peers of one profile may have the results of different revisions."""
    first = revision(tmp_path / "1", 1, None, [])
    second = revision(tmp_path / "2", 2, "B", [])
    third = revision(tmp_path / "3", 3, "C", [*first.references, *second.references])
    assert third.problems == []
    assert [n.PatientID for n in third.notes] == ["T-4711", "B"]
    assert len({n.SeriesInstanceUID for n in third.notes} | {n.SeriesNumber for n in third.notes}) == 4


def test_a_note_of_another_patient_than_what_it_rejects_fails_the_check(tmp_path: Path) -> None:
    first = revision(tmp_path / "1", 1, None, [])
    second = revision(tmp_path / "2", 2, "B", first.references)
    path = second.results[-1].path
    note = dcmread(path)
    note.PatientID = "B"
    note.save_as(path)
    problems = check(
        [r.path for r in second.results], build.case().headers, profile=PROFILE, supersedes=first.references,
        identified=dcmread(second.results[-2].path),
    )  # fmt: skip
    assert "KO identity: PatientID differs from what it rejects" in problems


def test_what_is_not_here_any_more_is_rejected_as_it_came_first(tmp_path: Path) -> None:
    first = revision(tmp_path / "1", 1, None, [])
    gone = [replace(r, path=tmp_path / "gone" / "x.dcm") for r in first.references]
    second = revision(tmp_path / "2", 2, "B", gone)
    assert (second.problems, [n.PatientID for n in second.notes]) == ([], ["T-4711"])
