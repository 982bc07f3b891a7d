"""What modalities and archives announce of studies: performed procedure steps and instance availability.

Kept is what evidence needs (PS3.4 annexes F and R): UIDs, the state, who said it. No patient data.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from node.domain.errors import InvalidRequest
from node.domain.manifest import Manifest, ManifestKind, ManifestState
from node.ports import Clock
from node.repositories import Transaction

DUPLICATE_INSTANCE, NO_SUCH_INSTANCE, PROCESSING_FAILURE = 0x0111, 0x0112, 0x0110  # PS3.7 annex C
_NO_LONGER_UPDATED = 0xA710  # ErrorID (0000,0903), PS3.4 F.7.2.2.3

_KEPT = timedelta(days=7)


class Announce:
    """Takes announcements. What a method has returned from is durable."""

    def __init__(self, write: Transaction, clock: Clock) -> None:
        self._write = write
        self._clock = clock

    def step_begun(self, uid: str, peer: str, study_uids: Iterable[str], instances: frozenset[str]) -> None:
        """A modality began to perform a procedure step.

        Raises:
            InvalidRequest: there is a step of this UID (0x0111).
        """
        self._add(ManifestKind.MPPS, uid, peer, study_uids, instances, ManifestState.IN_PROGRESS)

    def step_changed(self, uid: str, state: ManifestState | None, instances: frozenset[str] | None) -> None:
        """It says more of the step. None leaves as it is what was said before.

        Raises:
            InvalidRequest: there is no such step (0x0112), or it has ended (0x0110, ErrorID A710).
        """
        with self._write() as tx:
            now = self._clock.now()
            steps = tx.manifests.get(ManifestKind.MPPS, uid)
            if not steps:
                raise InvalidRequest(
                    "RequestedSOPInstanceUID",
                    "no such procedure step",
                    "Create it by N-CREATE first",
                    NO_SUCH_INSTANCE,
                )
            if steps[0].state is not ManifestState.IN_PROGRESS:
                raise InvalidRequest(
                    "PerformedProcedureStepStatus",
                    f"{steps[0].state.value}, may no longer be updated",
                    "Make a new procedure step (PS3.4 F.7.2.2)",
                    PROCESSING_FAILURE,
                    _NO_LONGER_UPDATED,
                )
            tx.manifests.replace(
                [
                    Manifest(
                        step.kind,
                        uid,
                        step.study_uid,
                        step.peer,
                        now,
                        step.instances if instances is None else instances,
                        state or step.state,
                    )
                    for step in steps
                ]
            )

    def available(self, uid: str, peer: str, study_uid: str, instances: frozenset[str]) -> None:
        """An archive says which instances of a study it holds.

        Raises:
            InvalidRequest: there is a notification of this UID (0x0111).
        """
        self._add(ManifestKind.IAN, uid, peer, (study_uid,), instances, ManifestState.COMPLETED)

    def forget(self) -> int:
        """Forget old announcements of studies that never came here: an archive may announce all that it has."""
        with self._write() as tx:
            return tx.manifests.forget(self._clock.now() - _KEPT)

    def _add(
        self,
        kind: ManifestKind,
        uid: str,
        peer: str,
        study_uids: Iterable[str],
        instances: frozenset[str],
        state: ManifestState,
    ) -> None:
        with self._write() as tx:
            now = self._clock.now()  # when the write lock was had: who looks for what is new looks back a little only
            if tx.manifests.get(kind, uid):
                raise InvalidRequest(
                    "AffectedSOPInstanceUID", "is there already", "Give it a new UID", DUPLICATE_INSTANCE
                )
            tx.manifests.add(Manifest(kind, uid, study, peer, now, instances, state) for study in study_uids)
