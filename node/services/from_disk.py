"""A study from DICOM files that no node has received."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from node.domain.errors import InvalidInput
from node.domain.part10 import HEAD_LIMIT, split
from node.domain.study import InstanceFile, SeriesContent, StudyContent


def study_of_files(paths: Iterable[Path], where: Path) -> StudyContent:
    """The one study in these files; what is no DICOM file is left out.

    Args:
        where: the folder that they come from, named in the error.

    Raises:
        InvalidInput: no DICOM files, or more than one study.
    """
    studies: dict[str, dict[str, list[InstanceFile]]] = {}
    for path in paths:
        found = _instance(path)
        if found is not None:
            study_uid, series_uid, instance = found
            studies.setdefault(study_uid, {}).setdefault(series_uid, []).append(instance)
    if len(studies) != 1:
        problem = f"{where} holds {len(studies)} studies"
        raise InvalidInput("folder", problem, "Give a folder with the DICOM files of one study")
    ((study_uid, series),) = studies.items()
    return StudyContent(study_uid, 1, tuple(SeriesContent(uid, tuple(found)) for uid, found in series.items()))


def _instance(path: Path) -> tuple[str, str, InstanceFile] | None:
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=["StudyInstanceUID", "SeriesInstanceUID"])
        study_uid, series_uid = str(header.StudyInstanceUID), str(header.SeriesInstanceUID)
    except (InvalidDicomError, AttributeError, ValueError):
        return None  # what the receiver would have kept aside
    content = path.read_bytes()
    meta = split(content[:HEAD_LIMIT])
    digest = hashlib.sha256(content[meta.offset :]).hexdigest()
    file = InstanceFile(meta.sop_instance_uid, meta.sop_class_uid, meta.transfer_syntax_uid, digest, path.absolute())
    return study_uid, series_uid, file
