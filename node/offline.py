"""A study from a folder, without a running node: run a pipeline on it, or explain what the routes would do with it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from config.settings import Settings, routes
from node import __version__
from node.dicom.send_dir import collect
from node.domain.finding import Findings
from node.domain.ids import derived_uid
from node.domain.job import JobInput, JobOutput, Provenance
from node.domain.profile import FULL, Profile
from node.domain.route import SeriesVerdict, decide, judge
from node.domain.study import StudyContent
from node.services.dispatch import attributes, keywords
from node.services.from_disk import study_of_files
from node.services.run_job import run_job
from pipelines.contract import Pipeline
from pipelines.read.selected import read


def study_of(folder: Path) -> StudyContent:
    """The one study in a folder.

    Raises:
        InvalidInput: no DICOM files, or more than one study.
    """
    return study_of_files(collect(folder).files, folder)


def run_on(
    chosen: Pipeline, folder: Path, out: Path, *, device: str, settings: Settings, profile: Profile = FULL
) -> tuple[JobOutput, Findings | None]:
    """Run a pipeline on the study in a folder; the result objects are written to ``out``, checked.

    Raises:
        InvalidInput: the folder does not hold one study.
    """
    study = study_of(folder)
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
    return run_job(JobInput(provenance, study, device, out, profiles=(profile,)), chosen, read)


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
