"""What a peer holds: C-FIND SCU in the Study Root information model (PS3.4 annex C).

Queries are hierarchical, so that every SCP understands them: the unique keys of the levels above are always given
(PS3.4 C.4.1.2.1). What a peer leaves empty is optional, and the functions below say what they do without it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydicom.dataset import Dataset

from node.dicom.associate import end
from node.dicom.study_root import FIND, broken, checked, is_pending, open_study_root, text, texts
from node.dicom.tls import Certificates
from node.domain.errors import Rejected
from node.domain.peer import Peer

log = logging.getLogger(__name__)

Find = Callable[..., list[Dataset]]


@dataclass(frozen=True)
class FoundStudy:
    """A study that a peer holds; ``instances`` is its own count, None where it does not give one."""

    study_uid: str
    date: str
    modalities: tuple[str, ...]
    description: str
    instances: int | None


@dataclass(frozen=True)
class FoundInstance:
    """An instance that a peer holds; ``sop_class_uid`` is empty where it does not tell it."""

    series_uid: str
    sop_instance_uid: str
    sop_class_uid: str


def related_instances(peer: Peer, study_uid: str, *, ae_title: str, tls: Certificates | None = None) -> int | None:
    """How many instances a peer says a study has.

    That is NumberOfStudyRelatedInstances (0020,1208); where it is empty, the sum of NumberOfSeriesRelatedInstances
    (0020,1209); where that is empty too, the instances of the series counted one by one.

    Returns:
        None where the peer does not know the study or refuses the query.

    Raises:
        PeerUnreachable: no association, or it broke.
    """
    try:
        with finding(peer, ae_title, tls) as find:
            return _count(find, study_uid)
    except Rejected as error:
        log.warning("no count of a study: %s", error)
        return None


def find_studies(peer: Peer, *, ae_title: str, tls: Certificates | None = None, **keys: str) -> list[FoundStudy]:
    """The studies that match, by C-FIND at STUDY level.

    Args:
        keys: what has to match, by keyword, for instance ``StudyInstanceUID`` or ``PatientID``.

    Raises:
        PeerUnreachable: no association, or it broke.
        Rejected: the peer refuses the query; says why.
    """
    wanted = dict.fromkeys(
        ("StudyInstanceUID", "StudyDate", "ModalitiesInStudy", "StudyDescription", "NumberOfStudyRelatedInstances"), ""
    )
    with finding(peer, ae_title, tls) as find:
        return [
            FoundStudy(
                study_uid=uid,
                date=text(match, "StudyDate"),
                modalities=texts(match, "ModalitiesInStudy"),
                description=text(match, "StudyDescription"),
                instances=_number(match, "NumberOfStudyRelatedInstances"),
            )
            for match in find("STUDY", **wanted | keys)
            if (uid := text(match, "StudyInstanceUID"))
        ]


def find_instances(
    peer: Peer, study_uid: str, *, ae_title: str, tls: Certificates | None = None
) -> list[FoundInstance]:
    """The instances of a study, by C-FIND at SERIES level and, for each series, at IMAGE level.

    Raises:
        PeerUnreachable: no association, or it broke.
        Rejected: the peer refuses the query; says why.
    """
    with finding(peer, ae_title, tls) as find:
        return [
            FoundInstance(series_uid, uid, text(match, "SOPClassUID"))
            for series_uid, _ in _series(find, study_uid)
            for match in _images(find, study_uid, series_uid)
            if (uid := text(match, "SOPInstanceUID"))
        ]


@contextmanager
def finding(peer: Peer, ae_title: str, tls: Certificates | None) -> Iterator[Find]:
    """One association for several queries: ``find(level, keyword=value, …)`` gives the matches."""
    association = open_study_root(peer, FIND, ae_title=ae_title, tls=tls)

    def find(level: str, **keys: str) -> list[Dataset]:
        identifier = Dataset()
        identifier.QueryRetrieveLevel = level
        for keyword, value in keys.items():
            setattr(identifier, keyword, value)
        if not association.is_established:
            raise broken(peer, FIND)
        matches = []
        for status, match in association.send_c_find(identifier, FIND):
            code = checked(status, peer, FIND, ae_title=ae_title)
            if is_pending(code) and match is not None:
                matches.append(match)
        return matches

    try:
        yield find
    finally:
        end(association)


def _count(find: Find, study_uid: str) -> int | None:
    matches = find("STUDY", StudyInstanceUID=study_uid, NumberOfStudyRelatedInstances="")
    # Some peers answer with every study they have where they do not match the key.
    known = [match for match in matches if text(match, "StudyInstanceUID") == study_uid]
    if not known:
        return None
    told = _number(known[0], "NumberOfStudyRelatedInstances")
    if told:
        return told
    series = _series(find, study_uid)
    return sum(count or len(_images(find, study_uid, uid)) for uid, count in series) or None


def _series(find: Find, study_uid: str) -> list[tuple[str, int | None]]:
    """(SeriesInstanceUID, NumberOfSeriesRelatedInstances) of every series."""
    matches = find("SERIES", StudyInstanceUID=study_uid, SeriesInstanceUID="", NumberOfSeriesRelatedInstances="")
    return [
        (uid, _number(match, "NumberOfSeriesRelatedInstances"))
        for match in matches
        if (uid := text(match, "SeriesInstanceUID"))
    ]


def listed(find: Find, study_uid: str, series_uid: str, sop_instance_uid: str = "") -> dict[str, tuple[str, str]]:
    """What the peer names of a series, or of one of its instances: StudyInstanceUID and SeriesInstanceUID by
    SOPInstanceUID. Those asked for stand where it does not tell them.

    Raises:
        PeerUnreachable: the association broke.
        Rejected: the peer refuses the query; says why.
    """
    keys = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid, "SOPInstanceUID": sop_instance_uid}
    return {
        text(match, "SOPInstanceUID"): (
            text(match, "StudyInstanceUID") or study_uid,
            text(match, "SeriesInstanceUID") or series_uid,
        )
        for match in find("IMAGE", **keys)
    }


def _images(find: Find, study_uid: str, series_uid: str) -> list[Dataset]:
    return find("IMAGE", StudyInstanceUID=study_uid, SeriesInstanceUID=series_uid, SOPInstanceUID="", SOPClassUID="")


def _number(match: Dataset, keyword: str) -> int | None:
    try:
        return int(str(match.get(keyword)))
    except (TypeError, ValueError):
        return None  # empty, absent, or no number
