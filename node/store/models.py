"""Model versions, rollouts, trials, comparisons and the audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, func, select, update

from node.domain.audit import AuditEntry, Change
from node.domain.comparison import Comparison, Difference
from node.domain.errors import IllegalStep, LostLease
from node.domain.job import JobState, Role
from node.domain.model import KnownVersion, ModelVersion, VersionState
from node.domain.rollout import Bounds, Canary, Rollout
from node.domain.trial import Trial, TrialState, Wish
from node.store.rows import build, claim, run, values
from node.store.tables import AuditRow, ComparisonRow, RolloutRow, TrialRow, VersionRow


def _named(model: ModelVersion) -> dict[str, Any]:
    return {"name": model.name, "version": model.version, "digest": model.digest, "title": model.title}


def _version(row: VersionRow) -> KnownVersion:
    model = ModelVersion(row.name, row.version, row.digest, row.title)
    return build(KnownVersion, row, model=model, state=VersionState(row.state))


class VersionRepository:
    """Implements ``node.repositories.Versions``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, version: KnownVersion) -> None:
        """Insert."""
        self._session.add(VersionRow(**_named(version.model), **values(version, without=("model",))))
        self._session.flush()

    def get(self, model: ModelVersion) -> KnownVersion | None:
        """The row of one version, by its name and digest."""
        row = self._session.get(VersionRow, (model.name, model.digest), populate_existing=True)
        return None if row is None else _version(row)

    def update(self, before: KnownVersion, after: KnownVersion) -> None:
        """Compare and set on the state.

        Raises:
            IllegalStep: somebody else moved the version meanwhile.
        """
        statement = (
            update(VersionRow)
            .where(
                col(VersionRow.name) == before.model.name,
                col(VersionRow.digest) == before.model.digest,
                col(VersionRow.state) == before.state.value,
            )
            .values(**values(after, without=("model",)))
        )
        if run(self._session, statement) != 1:
            raise IllegalStep(f"{before.model.label} is no longer {before.state.value}")

    def all(self, *, name: str | None = None) -> list[KnownVersion]:
        """Every version, or those of one name; the latest first."""
        chosen = select(VersionRow).order_by(col(VersionRow.name), col(VersionRow.added_at).desc())
        if name is not None:
            chosen = chosen.where(VersionRow.name == name)
        return [_version(row) for row in self._session.exec(chosen)]


def _rollout(row: RolloutRow) -> Rollout:
    return build(
        Rollout,
        row,
        champion=ModelVersion(**row.champion),
        previous=tuple(ModelVersion(**p) for p in row.previous),
        canary=None if row.canary is None else _canary(row.canary),
        shadows=tuple(ModelVersion(**s) for s in row.shadows),
    )


def _canary(held: Mapping[str, Any]) -> Canary:
    since = datetime.fromisoformat(held["since"])
    return Canary(ModelVersion(**held["model"]), held["share"], since, Bounds(**held["bounds"]))


class RolloutRepository:
    """Implements ``node.repositories.Rollouts``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, name: str, *, lock: bool = False) -> Rollout | None:
        """The pointers of a model name; None where none are set. ``lock``: nobody else changes them meanwhile."""
        row = self._session.get(RolloutRow, name, populate_existing=True, with_for_update=lock or None)
        return None if row is None else _rollout(row)

    def all(self) -> list[Rollout]:
        """Every rollout, by name."""
        return [_rollout(row) for row in self._session.exec(select(RolloutRow).order_by(RolloutRow.name))]

    def put(self, rollout: Rollout) -> None:
        """Write what was made from the rollout of this number.

        Raises:
            IllegalStep: somebody else changed it meanwhile.
        """
        held = values(rollout, without=("number",)) | {
            "number": rollout.number + 1,
            "champion": _named(rollout.champion),
            "previous": [_named(p) for p in rollout.previous],
            "shadows": [_named(s) for s in rollout.shadows],
        }
        if rollout.canary is not None:
            held["canary"] = asdict(rollout.canary) | {"since": rollout.canary.since.isoformat()}
        if rollout.number == 0 and self.get(rollout.name) is None:
            self._session.add(RolloutRow(**held))
            self._session.flush()
            return
        same = (col(RolloutRow.name) == rollout.name, col(RolloutRow.number) == rollout.number)
        if run(self._session, update(RolloutRow).where(*same).values(**held)) != 1:
            raise IllegalStep(f"the rollout of {rollout.name} was changed meanwhile")


def _trial(row: TrialRow) -> Trial:
    wish = dict(row.wish)
    role = None if wish.pop("role") is None else Role(row.wish["role"])
    return build(
        Trial,
        row,
        model=ModelVersion(**row.model),
        wish=Wish(**wish | {"role": role, "bounds": Bounds(**wish["bounds"])}),
        state=TrialState(row.state),
    )


class TrialRepository:
    """Implements ``node.repositories.Trials``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, trial: Trial) -> None:
        """Insert."""
        plain = values(trial, without=("model", "wish"))
        self._session.add(TrialRow(**plain, model=_named(trial.model), wish=asdict(trial.wish)))
        self._session.flush()

    def get(self, trial_id: str) -> Trial | None:
        """One trial."""
        row = self._session.get(TrialRow, trial_id, populate_existing=True)
        return None if row is None else _trial(row)

    def claim(self, *, owner: str, now: datetime, lease: timedelta) -> Trial | None:
        """Take the oldest queued trial; the attempt is counted here."""
        chosen = (
            select(TrialRow.id)
            .where(TrialRow.state == TrialState.QUEUED.value)
            .order_by(col(TrialRow.created_at))
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        which = col(TrialRow.id).in_(chosen.scalar_subquery())
        rows = claim(self._session, TrialRow, which, state=TrialState.RUNNING.value, owner=owner, until=now + lease)
        return _trial(rows[0]) if rows else None

    def update(self, before: Trial, after: Trial) -> None:
        """Compare and set on state, attempt and owner.

        Raises:
            LostLease: somebody else moved the trial meanwhile.
        """
        statement = self._same(before).values(**values(after, without=("id", "model", "wish")))
        if run(self._session, statement) != 1:
            raise LostLease(f"trial {before.id} is no longer {before.state.value} in attempt {before.attempt}")

    def heartbeat(self, trial: Trial, *, now: datetime, lease: timedelta) -> None:
        """Prolong the lease.

        Raises:
            LostLease: the trial is not ours any more.
        """
        if run(self._session, self._same(trial).values(lease_until=now + lease)) != 1:
            raise LostLease(f"trial {trial.id} is no longer held by {trial.owner}")

    def _same(self, trial: Trial) -> Any:
        return update(TrialRow).where(
            col(TrialRow.id) == trial.id,
            col(TrialRow.state) == trial.state.value,
            col(TrialRow.attempt) == trial.attempt,
            col(TrialRow.owner).is_not_distinct_from(trial.owner),
        )

    def owned(self) -> list[Trial]:
        """Running trials, whoever runs them."""
        return [
            _trial(r) for r in self._session.exec(select(TrialRow).where(TrialRow.state == TrialState.RUNNING.value))
        ]


class ComparisonRepository:
    """Implements ``node.repositories.Comparisons``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, comparison: Comparison) -> None:
        """Insert; one for every job that is compared."""
        plain = values(comparison, without=("model", "champion", "differences"))
        self._session.add(
            ComparisonRow(
                **plain,
                model=_named(comparison.model),
                champion=_named(comparison.champion),
                model_digest=comparison.model.digest,
                differences=[asdict(d) for d in comparison.differences],
            )
        )
        self._session.flush()

    def lock(self, study_uid: str) -> None:
        """Until the end of the transaction no other one that says so goes on with this study."""
        if self._session.get_bind().dialect.name == "postgresql":
            self._session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(study_uid, 0))))

    def of_job(self, job_id: str) -> Comparison | None:
        """How a job's findings differ from the champion's."""
        row = self._session.get(ComparisonRow, job_id)
        return None if row is None else _comparison(row)

    def of_model(self, model: ModelVersion, *, since: datetime | None = None, limit: int = 1000) -> list[Comparison]:
        """The comparisons of a version with champions, the latest first."""
        chosen = select(ComparisonRow).where(
            ComparisonRow.name == model.name, ComparisonRow.model_digest == model.digest
        )
        if since is not None:
            chosen = chosen.where(ComparisonRow.at >= since)
        return [
            _comparison(row) for row in self._session.exec(chosen.order_by(col(ComparisonRow.at).desc()).limit(limit))
        ]


def _comparison(row: ComparisonRow) -> Comparison:
    return build(
        Comparison,
        row,
        model=ModelVersion(**row.model),
        champion=ModelVersion(**row.champion),
        champion_state=JobState(row.champion_state),
        state=JobState(row.state),
        role=Role(row.role),
        differences=tuple(Difference(**d) for d in row.differences),
    )


class AuditRepository:
    """Implements ``node.repositories.Audit``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, entry: AuditEntry) -> None:
        """Write an entry in the transaction of its change."""
        self._session.add(AuditRow(**_named(entry.model), **values(entry, without=("id", "model"))))

    def latest(self, *, name: str | None = None, limit: int = 100) -> list[AuditEntry]:
        """The latest entries, of one model name or of all, newest first."""
        chosen = select(AuditRow).order_by(col(AuditRow.id).desc()).limit(limit)
        if name is not None:
            chosen = chosen.where(AuditRow.name == name)
        return [
            build(
                AuditEntry,
                row,
                change=Change(row.change),
                model=ModelVersion(row.name, row.version, row.digest, row.title),
            )
            for row in self._session.exec(chosen)
        ]
