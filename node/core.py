"""What every stage shares."""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from config.profiles import profiles
from config.settings import ModelSettings, Settings, Sync, database_url, peers, routes
from config.values import authorization
from node import __version__, owner
from node.clock import SystemClock
from node.dicom.tls import Certificates
from node.domain.job import Job, Provenance
from node.domain.model import ModelVersion
from node.domain.peer import Verify
from node.domain.retention import Keep
from node.domain.trial import Trial
from node.files.disk import DiskFiles
from node.files.models import ModelFiles
from node.files.registries import Registries, Server
from node.files.trash import DiskTrash
from node.observe.metrics import Metrics
from node.services.assemble import Assemble
from node.services.evidence import Evidence
from node.services.locate import Locate
from node.services.models import Models
from node.services.notices import Notices
from node.services.prune import Prune
from node.services.queries import NodeFacts, Queries
from node.services.receive import read_aside, read_kept
from node.services.recompressed import Recompressed
from node.services.recover import Recover
from node.services.register import Register
from node.services.replay import Replay
from node.services.rollout import Rollouts
from node.store.database import Database
from pipelines.registry import available, model_version

_MIB = 1 << 20


def certificates(settings: Settings) -> Certificates | None:
    """What the settings name for DICOM over TLS; None where they name none."""
    tls = settings.tls
    if tls.cert is None or tls.key is None or tls.ca is None:
        return None
    return Certificates(tls.cert, tls.key, tls.ca, require_client_certificate=tls.require_client_certificate)


def registries(models: ModelSettings) -> Registries:
    """Where models come from by name, with the credentials for each server."""
    hub, mlflow = Server(models.hub, authorization(None, models.hub_token)), None
    if models.mlflow_uri is not None:
        mlflow = Server(models.mlflow_uri, authorization(models.mlflow_user, models.mlflow_token))
    return Registries(hub, mlflow)


def _days(number: float | None) -> timedelta | None:
    return None if number is None else timedelta(days=number)


class Core:
    """What every stage shares: settings, files, store, clock, and who this node is."""

    def __init__(self, settings: Settings, config: Path | None) -> None:
        self.settings = settings
        self.config = config
        self.started_at = datetime.now(UTC)
        self.clock = SystemClock()
        self.data_dir = settings.node.data_dir.absolute()
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o750)  # it holds patients' images
        self.files = DiskFiles(
            self.data_dir,
            min_free_bytes=settings.node.min_free_mb * _MIB,
            sync=settings.node.sync is Sync.INSTANCE,
        )
        self.database = Database(database_url(settings))
        self.database.prepare(apart=True)
        self.peers = peers(settings)
        named = profiles(settings)
        self.profiles = {name: named[peer.profile] for name, peer in self.peers.items()}
        self.routes = routes(settings)
        self.tls = certificates(settings)
        self.owner = owner.me()
        # Each stage that runs in this process adds a check of its own: what is wrong with it, None when nothing is.
        self.checks: list[Callable[[], str | None]] = [self._space]

    def problems(self) -> list[str]:
        """Why the node is not ready; empty when it is."""
        return [problem for check in self.checks if (problem := check()) is not None]

    def has_room(self) -> bool:
        """Whether free space is above the watermark."""
        return self._space() is None

    def _space(self) -> str | None:
        free, wanted = self.files.free_bytes() // _MIB, max(self.settings.node.min_free_mb, 1)
        return None if free >= wanted else f"{free} MiB are free on the data directory, {wanted} have to stay free"

    @property
    def node_uid(self) -> str:
        """The UID of this installation, made once and kept in the data directory."""
        return self._once("node.uid", lambda: f"2.25.{uuid.uuid4().int}")

    @property
    def token(self) -> str:
        """The API token: as configured, else made once and kept in the data directory, readable by its owner alone."""
        if self.settings.api.token is not None:
            return self.settings.api.token.get_secret_value()
        return self._once("api.token", lambda: secrets.token_urlsafe(32))

    def rotate_token(self) -> None:
        """Forget the token in the data directory; the next use makes a new one."""
        (self.data_dir / "api.token").unlink(missing_ok=True)

    def _once(self, name: str, make: Callable[[], str]) -> str:
        """A secret of the data directory; of several processes that make it at once, one wins and all read that one."""
        path = self.data_dir / name
        if not path.exists():
            mine = self.data_dir / f".{name}.{uuid.uuid4().hex}"
            mine.touch(mode=0o600)
            mine.write_text(make() + "\n")
            with suppress(FileExistsError):
                os.link(mine, path)
            mine.unlink()
        return path.read_text().strip()

    def provenance(self, job: Job, started_at: datetime) -> Provenance:
        """Who makes the results of a job."""
        return self._provenance(job.id, job.model, started_at, revision=job.revision)

    def trial_provenance(self, trial: Trial, started_at: datetime) -> Provenance:
        """Who makes the results of a golden case."""
        return self._provenance(trial.id, trial.model, started_at, revision=1)

    def _provenance(self, identity: str, model: ModelVersion, started_at: datetime, *, revision: int) -> Provenance:
        return Provenance(
            job_id=identity,
            model=model,
            qualification=self.settings.results.qualification,
            started_at=started_at,
            node_name=self.settings.node.name,
            node_uid=self.node_uid,
            node_version=__version__,
            revision=revision,
        )

    def rollouts(self) -> Rollouts:
        """The service that changes who runs."""
        return Rollouts(self.database.write, self.clock, model_version, available, node=self.node_uid)

    def models(self) -> Models:
        """The service that knows the model versions."""
        return Models(
            self.database.write,
            self.database.read,
            self.clock,
            self.files,
            self.rollouts(),
            model_version,
            self.locate(),
        )

    def register(self) -> Register:
        """The service that adds model versions."""
        models = self.settings.models
        files = ModelFiles(
            self.data_dir,
            max_bytes=models.max_mb * _MIB,
            registries=registries(models),
            timeout_seconds=models.download_timeout_seconds,
        )
        return Register(self.clock, files, self.models(), available)

    def replay(self) -> Replay:
        """The service that queues replays."""
        return Replay(self.database.write, self.clock, node=self.node_uid)

    def notices(self) -> Notices:
        """The service that tells peers that a job had no results."""
        database = self.database
        return Notices(database.write, database.read, self.clock, self.files, self.provenance, self.profiles)

    def locate(self) -> Locate:
        """Where the files of a version lie, and what they may do."""
        models = self.settings.models
        return Locate(self.database.read, self.files, models.public_keys, require_signature=models.require_signature)

    def queries(self) -> Queries:
        """The read side, for the API, the metrics and the command line."""
        facts = NodeFacts(
            version=__version__,
            ae_title=self.settings.node.ae_title,
            started_at=self.started_at,
            peers=list(self.peers.values()),
            free_bytes=self.files.free_bytes,
            problems=self.problems,
        )
        return Queries(self.database.read, self.clock, facts)

    def metrics(self) -> Metrics:
        """The metrics of this process."""
        return Metrics(__version__, self.peers.values(), self.queries().snapshot)

    def recover(self) -> Recover:
        """The service that cleans up after crashes."""
        return Recover(
            self.database.write,
            self.database.read,
            self.clock,
            self.files,
            read_kept=partial(read_kept, self.files),
            read_aside=partial(read_aside, self.files),
            alive=owner.alive,
            attempts=self.settings.work.attempts,
        )

    def assemble(self, evidence: Evidence | None = None) -> Assemble:
        """The service that gives rows to what was kept, and settles studies."""
        settings, database = self.settings, self.database
        quiet = {p.ae_title: timedelta(seconds=p.quiet_seconds) for p in self.peers.values() if p.quiet_seconds}
        default = timedelta(seconds=settings.assemble.quiet_seconds)
        return Assemble(database.write, database.read, self.clock, default=default, quiet=quiet, evidence=evidence)

    def prune(self, being_sent: Callable[[str], bool] = lambda study_uid: False) -> Prune:
        """The service that removes what is old enough."""
        kept = self.settings.retention
        return Prune(
            self.database.write,
            self.database.read,
            self.clock,
            self.files,
            DiskTrash(self.files),
            Keep(
                studies=_days(kept.study_days),
                aside=_days(kept.aside_days),
                quarantine=_days(kept.quarantine_days),
                history=_days(kept.history_days),
            ),
            verified=[p.name for p in self.peers.values() if p.send and p.verify is not Verify.NONE],
            index=self.assemble().index,
            read_kept=partial(read_kept, self.files),
            being_sent=being_sent,
        )

    def recompressed(self) -> Recompressed:
        """The service that looks at objects that came again in another compression."""
        from node.files.transcode import EXPLICIT, transcoded

        return Recompressed(
            self.database.write,
            self.database.read,
            self.clock,
            self.files,
            DiskTrash(self.files),
            self.assemble(),
            lambda path: transcoded(path, EXPLICIT).getvalue(),
        )

    def close(self) -> None:
        """Close the store."""
        self.database.close()
