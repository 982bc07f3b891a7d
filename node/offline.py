"""A study from a folder, without a running node: run a pipeline on it, or explain what the routes would do with it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from config.settings import Settings, routes
from node import __version__
from node.dicom.send_dir import collect
from node.domain.errors import InvalidInput
from node.domain.finding import Findings
from node.domain.ids import derived_uid
from node.domain.job import JobInput, JobOutput, Provenance
from node.domain.part10 import HEAD_LIMIT, split
from node.domain.route import SeriesVerdict, decide, judge
from node.domain.study import InstanceFile, SeriesContent, StudyContent
from node.services.dispatch import attributes, keywords
from node.services.run_job import run_job
from pipelines.read.volume import read_volume
from pipelines.registry import create


def study_of(folder: Path) -> StudyContent:
    """The one study in a folder.

    Raises:
        InvalidInput: no DICOM files, or more than one study.
    """
    studies: dict[str, dict[str, list[InstanceFile]]] = {}
    for path in collect(folder).files:
        found = _instance(path)
        if found is not None:
            study_uid, series_uid, instance = found
            studies.setdefault(study_uid, {}).setdefault(series_uid, []).append(instance)
    if len(studies) != 1:
        problem = f"{folder} holds {len(studies)} studies"
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


def run_on(
    pipeline: str, folder: Path, out: Path, *, device: str, settings: Settings
) -> tuple[JobOutput, Findings | None]:
    """Run a pipeline on the study in a folder; the result objects are written to ``out``, checked.

    Raises:
        InvalidInput: the folder does not hold one study.
        NotFound, Unavailable: no such pipeline, or it cannot be loaded.
    """
    study = study_of(folder)
    chosen = create(pipeline)
    out.mkdir(parents=True, exist_ok=True)
    provenance = Provenance(
        job_id=str(uuid.uuid4()),
        model=chosen.model,
        qualification=settings.results.qualification,
        started_at=datetime.now(UTC),
        node_name=settings.node.name,
        node_uid=derived_uid("offline", settings.node.name),
        node_version=__version__,
    )
    return run_job(JobInput(provenance, study, device, out), chosen, read_volume)


@dataclass(frozen=True)
class Explained:
    """What one route says of a study."""

    route: str
    pipeline: str
    send_to: tuple[str, ...]
    matched: bool
    reason: str
    series: tuple[SeriesVerdict, ...]


def explain(folder: Path, settings: Settings) -> list[Explained]:
    """Ask every configured route about the study in a folder, as the node would.

    Raises:
        InvalidInput: the folder does not hold one study.
    """
    configured = routes(settings)
    wanted = keywords(configured)
    series: dict[str, Mapping[str, Sequence[str]]] = {}
    for content in study_of(folder).series:
        first = min(content.instances, key=lambda i: i.sop_instance_uid)
        series[content.series_uid] = attributes(first.path, wanted)
    explained = []
    for route in configured:
        matched, reason = decide(route, series)
        verdicts = tuple(judge(route, found, uid) for uid, found in series.items())
        explained.append(Explained(route.name, route.pipeline, route.send_to, matched, reason, verdicts))
    return explained
