"""Model versions: added from files, found by name, signed, held against their digests."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from node.domain.audit import AuditEntry, Change
from node.domain.comparison import Comparison
from node.domain.errors import IllegalStep, InvalidInput, InvalidModel, NotFound, required
from node.domain.model import KnownVersion, ModelVersion, Qualification, VersionState, VersionStep
from node.domain.rollout import Figures, Rollout
from node.domain.trial import Trial
from node.ports import Clock, InstanceFiles
from node.repositories import Transaction, UnitOfWork
from node.services.enqueue import Installed
from node.services.locate import Locate
from node.services.oversight import figures
from node.services.rollout import Rollouts, move_version, rollout_of, unready
from pipelines import weights
from pipelines.registry import kind

BUNDLE, SIDE_FILE, GOLDEN = "bundle", "ainode.yaml", "golden"
_DIGEST_SHOWN = 8


class VersionFiles(Protocol):
    """A place for the files of a version."""

    def place(self, staged: Path, name: str, digest: str) -> str: ...


@dataclass(frozen=True)
class ModelStatus:
    """All that is known of one model name; ``rollout`` is None where no version of it runs."""

    name: str
    rollout: Rollout | None
    versions: tuple[KnownVersion, ...]
    figures: Figures | None
    comparisons: tuple[Comparison, ...]
    audit: tuple[AuditEntry, ...]


class Models:
    """Knows the versions, and adds to them."""

    def __init__(
        self,
        write: Transaction,
        read: Transaction,
        clock: Clock,
        files: InstanceFiles,
        rollouts: Rollouts,
        installed: Installed,
        locate: Locate,
    ) -> None:
        self._write = write
        self._read = read
        self._clock = clock
        self._files = files
        self._rollouts = rollouts
        self._installed = installed
        self._locate = locate

    def add(self, staged: Path, store: VersionFiles, *, source: str, trusted: bool, who: str, why: str) -> KnownVersion:
        """Register what lies in a staging directory, complete with its manifest. Nothing runs it yet.

        Raises:
            InvalidModel: it cannot run; lists every problem by file and key.
            InvalidInput: the version is taken by other files, or the files by another version; or no reason was given.
            IllegalStep: it is there already, and sound.
        """
        manifest = weights.verify(staged)
        may_run_code = trusted or self._locate.is_signed(staged)
        problems = kind(manifest.kind).problems(staged, trust_code=may_run_code)
        if problems:
            raise InvalidModel(manifest.name, "; ".join(problems), "Mend these and add it again")
        if not why.strip():
            raise InvalidInput("why", "is empty", "Say why: it is kept in the audit")
        now, model = self._clock.now(), manifest.model
        with self._read() as tx:
            _label_is_free(tx, model)
        path = store.place(staged, model.name, model.digest)
        with self._write() as tx:
            _label_is_free(tx, model)
            known = tx.versions.get(model)
            if known is None:
                known = KnownVersion(model, manifest.kind, VersionState.REGISTERED, source, now, path, trusted)
                tx.versions.add(known)
            else:
                known = move_version(
                    tx, known, VersionStep.ADD, source=source, trusted=trusted, added_at=now, reason=None
                )
            detail = {"source": source, "files": len(manifest.files), "trusted": trusted}
            tx.audit.add(AuditEntry(now, who, Change.ADDED, model, why, detail))
        return known

    def find(self, reference: str) -> KnownVersion:
        """One version by ``name@version`` or ``name@digest`` (its first 8 characters or more).

        Raises:
            InvalidInput: of another form, or more than one version has this name.
            NotFound: there is none.
        """
        name, at, wanted = reference.partition("@")
        if not (name and at and wanted):
            raise InvalidInput("version", f"{reference!r} names no version", "Write NAME@VERSION or NAME@DIGEST")
        with self._read() as tx:
            known = [v for v in tx.versions.all(name=name) if _is_called(v.model, wanted)]
        current = [v for v in known if v.state is not VersionState.RETIRED] or known
        if not current:
            raise NotFound(f"no version {reference} is known; `ainode models list` shows those there are")
        if len(current) > 1:
            digests = ", ".join(v.model.digest[:16] for v in current)
            raise InvalidInput("version", f"{reference} is not one version", f"Write {name}@DIGEST: {digests}")
        return current[0]

    def champion(self, name: str) -> KnownVersion:
        """The version that leads.

        Raises:
            NotFound: none does.
        """
        with self._read() as tx:
            rollout = rollout_of(tx, name, self._installed)
            known = tx.versions.get(rollout.champion)
        if known is None:
            raise NotFound(f"{rollout.champion.label} is not known")
        return known

    def verify(self, reference: str) -> KnownVersion:
        """Hold the files of a version against their digests, now. One that fails is out of use from here on.

        Raises:
            InvalidModel: a file is not what was registered.
            NotFound, InvalidInput: as `find`.
        """
        known = self.find(reference)
        if known.path is None:
            return known
        try:
            weights.verify(self._files.absolute(known.path))
        except InvalidModel as error:
            with self._write() as tx:
                if not self._rollouts.fail(tx, known.model, str(error)):
                    unready(tx, known.model, str(error))
            raise
        return known

    def sign(self, reference: str, private_key: bytes, *, who: str, why: str) -> str:
        """Sign a version with an Ed25519 key (PEM); returns the id of the key.

        Raises:
            InvalidModel: its files do not verify, or the key is none.
        """
        known = self.find(reference)
        if known.path is None:
            raise InvalidInput("version", f"{known.model.label} is installed with the node", "Sign a registered one")
        signature = weights.sign(self._files.absolute(known.path), private_key).signature
        assert signature is not None
        now = self._clock.now()
        with self._write() as tx:
            tx.audit.add(AuditEntry(now, who, Change.SIGNED, known.model, why, {"key": signature.key_id}))
        return signature.key_id

    def all(self) -> list[ModelStatus]:
        """Every model name with its versions."""
        with self._read() as tx:
            names = sorted({v.model.name for v in tx.versions.all()})
            return [self._status(tx, name, entries=0) for name in names]

    def show(self, name: str, *, entries: int = 20) -> ModelStatus:
        """One model name, with what was last done to it and how versions compared.

        Raises:
            NotFound: no version of this name is known.
        """
        with self._read() as tx:
            if not tx.versions.all(name=name):
                raise NotFound(f"no model is named {name}; `ainode models list` shows those there are")
            return self._status(tx, name, entries=entries)

    def _status(self, tx: UnitOfWork, name: str, *, entries: int) -> ModelStatus:
        try:
            rollout = tx.rollouts.get(name) or Rollout(name, self._installed(name))
        except (NotFound, InvalidModel):
            rollout = None
        versions = tuple(tx.versions.all(name=name))
        found, beside = None, []
        if rollout is not None:
            if rollout.canary is not None:
                found = figures(tx, rollout, rollout.canary)
                beside = [rollout.canary.model]
            beside += rollout.shadows
        compared = [c for model in beside for c in tx.comparisons.of_model(model, limit=entries)] if entries else []
        audit = tx.audit.latest(name=name, limit=entries) if entries else []
        return ModelStatus(name, rollout, versions, found, tuple(compared), tuple(audit))

    def audit(self, *, limit: int, name: str | None = None) -> list[AuditEntry]:
        """What was last changed about the models, the latest first."""
        with self._read() as tx:
            return tx.audit.latest(name=name, limit=limit)

    def trial(self, trial_id: str) -> Trial:
        """How a trial stands.

        Raises:
            NotFound: there is none with this id.
        """
        with self._read() as tx:
            return required(tx.trials.get(trial_id), f"trial {trial_id}")

    def problems(self) -> list[str]:
        """What a person has to look at: where the node fell back by itself."""
        with self._read() as tx:
            return [rollout.problem for rollout in tx.rollouts.all() if rollout.problem is not None]


def compose(
    staged: Path,
    *,
    name: str,
    version: str,
    title: str,
    source: str,
    created_at: str,
    qualification: Qualification,
    side_file: Path | None,
    golden: Path | None,
    kind_of: str,
) -> None:
    """Add what a site adds to a bundle in a staging directory, and write the manifest over all of it.

    Args:
        golden: a folder with ``input`` (DICOM files of one study) and ``expected.json``.

    Raises:
        InvalidInput: a file is not there.
    """
    if side_file is not None:
        if not side_file.is_file():
            raise InvalidInput("side file", f"{side_file} is no file", "Give an ainode.yaml")
        shutil.copyfile(side_file, staged / SIDE_FILE)
    if golden is not None:
        if not ((golden / "input").is_dir() and (golden / "expected.json").is_file()):
            raise InvalidInput("golden", f"{golden} is no golden case", "Put input/ and expected.json there")
        shutil.copytree(golden, staged / GOLDEN)
    files = weights.describe(staged)
    weights.write_manifest(
        staged,
        weights.Manifest(
            name=name,
            version=version,
            title=title,
            kind=kind_of,
            qualification=qualification.value,
            source=source,
            created_at=created_at,
            files=files,
            digest=weights.digest_of_files(files),
        ),
    )


def _is_called(model: ModelVersion, wanted: str) -> bool:
    by_digest = len(wanted) >= _DIGEST_SHOWN and model.digest.startswith(wanted)
    return model.version == wanted or by_digest


def _label_is_free(tx: UnitOfWork, model: ModelVersion) -> None:
    for other in tx.versions.all(name=model.name):
        same_files, same_version = other.model.digest == model.digest, other.model.version == model.version
        if same_files and not same_version:
            fix = f"Use {other.model.name}@{other.model.version}"
            raise InvalidInput("version", f"{other.model.label} has these very files", fix)
        if same_files and other.state in (VersionState.REGISTERED, VersionState.READY):
            raise IllegalStep(f"{model.label} is there already, and is {other.state.value}")
        if same_version and not same_files and other.state is not VersionState.RETIRED:
            fix = "Give another --version, or retire that one"
            raise InvalidInput("version", f"{other.model.label} has this name and other files", fix)
