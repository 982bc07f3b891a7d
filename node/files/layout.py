"""Where things lie, relative to the data directory. Pure.

::

    instances/<StudyInstanceUID>/<SeriesInstanceUID>/<SOPInstanceUID>.dcm    received, exactly as sent
    results/<job>/<attempt>/<SOPInstanceUID>.dcm                            made by the node
    aside/<reason>/<day>/<name>.dcm and <name>.json                         kept, but not as an instance
    quarantine/<job>/<attempt>/                                             results that failed the check; reason.json
    models/<name>/<digest>/                                                 registered model versions
    work/<job>/<attempt>/                                                   scratch space of one run
    tmp/                                                                    files that are being written
    trash/<study>-<revision>/                                               of a removed study, each below its own path

Every part that comes from outside is checked here before it becomes a path.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from node.domain.errors import InvalidInput
from node.domain.ids import checked_uid

INSTANCES, RESULTS, ASIDE, MODELS, WORK, TMP = "instances", "results", "aside", "models", "work", "tmp"
QUARANTINE, REASON, TRASH = "quarantine", "reason.json", "trash"

_PART = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}")


def instance_path(study_uid: str, series_uid: str, sop_instance_uid: str) -> str:
    """The path of a received instance.

    Raises:
        InvalidInstance: one of the UIDs is not valid.
    """
    return str(
        PurePosixPath(
            INSTANCES,
            checked_uid(study_uid, "StudyInstanceUID"),
            checked_uid(series_uid, "SeriesInstanceUID"),
            checked_uid(sop_instance_uid, "SOPInstanceUID") + ".dcm",
        )
    )


def study_path(study_uid: str) -> str:
    """The directory of the received instances of a study."""
    return str(PurePosixPath(INSTANCES, checked_uid(study_uid, "StudyInstanceUID")))


def results_path(job_id: str) -> str:
    """The directory of what a job has made, in all its attempts."""
    return str(PurePosixPath(RESULTS, _part(job_id, "job")))


def result_path(job_id: str, attempt: int, sop_instance_uid: str) -> str:
    """The path of a result instance."""
    name = checked_uid(sop_instance_uid, "SOPInstanceUID") + ".dcm"
    return str(PurePosixPath(RESULTS, _part(job_id, "job"), str(attempt), name))


def aside_path(folder: str, name: str) -> str:
    """The path of an object aside; ``folder`` is ``<reason>/<day>``."""
    parts = [_part(part, "folder") for part in folder.split("/")]
    return str(PurePosixPath(ASIDE, *parts, _part(name, "name") + ".dcm"))


def note_path(aside: str) -> str:
    """The path of the note that lies beside an object aside."""
    return str(PurePosixPath(aside).with_suffix(".json"))


def work_path(job_id: str, attempt: int | None = None) -> str:
    """The scratch directory of one attempt, or of all attempts of a job."""
    parts = () if attempt is None else (str(attempt),)
    return str(PurePosixPath(WORK, _part(job_id, "job"), *parts))


def quarantine_path(job_id: str, attempt: int, again: int = 1) -> str:
    """The directory of what a run made and may not be sent; ``again`` counts what is there of that attempt already."""
    name = str(attempt) if again == 1 else f"{attempt}-{again}"
    return str(PurePosixPath(QUARANTINE, _part(job_id, "job"), name))


def model_path(name: str, digest: str) -> str:
    """The directory of a model version; 16 characters of its digest tell it from every other."""
    return str(PurePosixPath(MODELS, _part(name, "name"), _part(digest[:16], "digest")))


def _part(text: str, field: str) -> str:
    if not _PART.fullmatch(text):
        raise InvalidInput(field, f"{text!r} cannot be a path", "Use letters, digits, dot, dash and underscore only")
    return text
