"""Earlier results as they lie here, for the notes that reject them: each note has the identity of what it rejects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import KeyObjectSelectionDocumentStorage

from dicom_sr.header import IDENTITY, identity
from dicom_sr.key_images import is_rejection
from node.domain.job import ResultReference

_OF_WHOM = [keyword for keyword in IDENTITY if keyword != "TimezoneOffsetFromUTC"]


@dataclass(frozen=True, eq=False)
class Earlier:
    """What one run has made, and the patient and study that it names."""

    identity: Dataset
    targets: tuple[ResultReference, ...]


def earlier_runs(supersedes: Sequence[ResultReference], otherwise: Dataset) -> list[Earlier]:
    """The results of ``supersedes`` by the run that made them; notes that reject are left out.

    The objects of one run lie in one folder and carry one identity.

    Args:
        otherwise: patient and study of a run of which no object can be read any more.
    """
    runs: dict[object, list[ResultReference]] = {}
    for target in supersedes:
        runs.setdefault(target.path and target.path.parent, []).append(target)
    found = []
    for targets in runs.values():
        still = tuple(target for target in targets if not _is_note(target))
        if still:
            headers = (header for target in still if (header := _header(target)) is not None)
            header = next(headers, None)
            found.append(Earlier(otherwise if header is None else identity(header), still))
    return found


def same_identity(one: Dataset, other: Dataset) -> bool:
    """Whether two objects name the same patient and study in the same way."""
    return all(str(one.get(keyword) or "") == str(other.get(keyword) or "") for keyword in _OF_WHOM)


def _is_note(target: ResultReference) -> bool:
    """A note rejects nothing any more once it is there; there is nothing to withdraw of it."""
    if target.sop_class_uid != KeyObjectSelectionDocumentStorage:
        return False
    header = _header(target)
    return header is not None and is_rejection(header)


def _header(target: ResultReference) -> Dataset | None:
    if target.path is None:
        return None
    try:
        with disable_value_validation():
            return dcmread(target.path, stop_before_pixels=True)
    except (InvalidDicomError, OSError):
        return None
