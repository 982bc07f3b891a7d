"""An archive, by pynetdicom, that keeps what it is sent, lists it, and commits to it as it is told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt

from tests.manifests import COMMITMENT_INSTANCE, STORAGE_COMMITMENT, made

FIND = "1.2.840.10008.5.1.4.1.2.2.1"


class Archive:
    """``holds`` are data sets by SOPInstanceUID; what is in ``loses`` is answered with success and not kept.

    ``asked`` are the N-ACTIONs as they came. ``reasons`` are FailureReasons by SOPInstanceUID of what is held and not
    committed to all the same; ``action_status`` is its answer to a request. ``reports_here``: a report comes on the
    association of the request, after the answer or, with ``reports_first``, before it. ``lists`` is how many instances
    of a series it names at most, and ``asked_for`` the queries that came; with ``ignores_keys`` it names all it has.
    Without ``is_relational`` it wants the unique keys of the levels above (PS3.4 C.4.1.2.1).
    """

    def __init__(self, *, ae_title: str = "PACS", sop_classes: tuple[str, ...] = (), commits: bool = True) -> None:
        self.holds: dict[str, Dataset] = {}
        self.loses: set[str] = set()
        self.asked: list[Dataset] = []
        self.reasons: dict[str, int] = {}
        self.action_status = 0x0000
        self.reports_here = self.reports_first = False
        self.lists = 1000
        self.ignores_keys = False
        self.is_relational = True
        self.asked_for: list[Dataset] = []
        self.statuses: list[int] = []
        self.stored: list[str] = []
        self._ae = AE(ae_title)
        self._ae.add_supported_context(FIND)
        self._ae.add_supported_context("1.2.840.10008.1.1")
        if commits:
            self._ae.add_supported_context(STORAGE_COMMITMENT)
        for sop_class_uid in sop_classes:
            self._ae.add_supported_context(sop_class_uid)
        self._server: Any = None
        self.port = 0

    def start(self) -> Archive:
        """Listen; again on the same port after ``stop``."""
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_N_ACTION, self._action),
        ]
        self._server = self._ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        self.port = self._server.server_address[1]
        return self

    def stop(self) -> None:
        """Listen no more."""
        self._server.shutdown()

    def keep(self, ds: Dataset) -> None:
        """Hold an instance that nobody sent."""
        self.holds[str(ds.SOPInstanceUID)] = ds

    def _store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.stored.append(uid)
        if uid not in self.loses:
            self.keep(event.dataset)
        return 0x0000

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        self.asked_for.append(query)
        keys = {
            k: query[k].value for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID") if query[k].value
        }
        if len(keys) < 2 and not self.is_relational:
            yield 0xA900, None
            return
        found = [ds for ds in self.holds.values() if self.ignores_keys or all(ds.get(k) == v for k, v in keys.items())]
        for ds in found[: self.lists]:
            levels = {k: ds.get(k) for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
            yield 0xFF00, made(QueryRetrieveLevel="IMAGE", **levels)
        yield 0x0000, None

    def _action(self, event: Any) -> tuple[int, None]:
        asked = event.action_information
        self.asked.append(asked)
        if self.reports_first:
            self._report_on(event.assoc, asked)
        elif self.reports_here and self.action_status == 0:
            # Not from the thread that answers the request: the answer has to go first.
            threading.Timer(0.05, self._report_on, (event.assoc, asked)).start()
        return self.action_status, None

    def _report_on(self, association: Any, asked: Dataset) -> None:
        information = self.information(asked)
        self.statuses.append(_sent(association, information))

    def information(self, asked: Dataset) -> Dataset:
        """What it has to say of a request, by what it holds now."""
        held, failed = [], []
        for each in asked.ReferencedSOPSequence:
            uid = str(each.ReferencedSOPInstanceUID)
            reason = self.reasons.get(uid, None if uid in self.holds else 0x0112)
            if reason is None:
                held.append(each)
            else:
                failed.append(
                    made(
                        ReferencedSOPClassUID=each.ReferencedSOPClassUID,
                        ReferencedSOPInstanceUID=uid,
                        FailureReason=reason,
                    )
                )
        return made(
            TransactionUID=asked.TransactionUID,
            ReferencedSOPSequence=held or None,
            FailedSOPSequence=failed or None,
        )

    def report(self, port: int, *informations: Dataset, called: str = "AINODE", roles: bool = True) -> list[int]:
        """Report on an association of its own, as its SCP; the statuses of the answers."""
        self._ae.requested_contexts = []
        self._ae.add_requested_context(STORAGE_COMMITMENT)
        asked_roles = [build_role(STORAGE_COMMITMENT, scp_role=True)] if roles else []
        association = self._ae.associate("127.0.0.1", port, ae_title=called, ext_neg=asked_roles)
        assert association.is_established
        assert [c.as_scp for c in association.accepted_contexts] == [roles]
        try:
            return [_sent(association, information) for information in informations]
        finally:
            association.release()


def _sent(association: Any, information: Dataset) -> int:
    send: Callable[..., Any] = association.send_n_event_report
    event_type = 2 if "FailedSOPSequence" in information else 1
    status, _ = send(information, event_type, STORAGE_COMMITMENT, COMMITMENT_INSTANCE)
    return int(status.Status)
