"""A modality, by pynetdicom: stores, asks for commitment, announces; takes reports on associations old and new."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt

from tests import objects
from tests.manifests import COMMITMENT_INSTANCE, INSTANCE_AVAILABILITY, PROCEDURE_STEP, STORAGE_COMMITMENT, commitment
from tests.running import eventually


class Modality:
    """``reports`` are the event types and EventInformation that came; ``status`` is what it answers them with."""

    def __init__(self, port: int, *, ae_title: str = "CT1") -> None:
        self.port = port
        self.reports: list[tuple[int, Dataset]] = []
        self.status = 0x0000
        self.ae = AE(ae_title)
        self.ae.dimse_timeout = self.ae.acse_timeout = self.ae.network_timeout = 60
        for sop_class_uid in (objects.CT, STORAGE_COMMITMENT, PROCEDURE_STEP, INSTANCE_AVAILABILITY):
            self.ae.add_requested_context(sop_class_uid, [objects.EXPLICIT, objects.IMPLICIT])

    def _reported(self, event: Any) -> tuple[int, None]:
        self.reports.append((event.event_type, event.event_information))
        return self.status, None

    @contextmanager
    def association(self, *, roles: Sequence[Any] = ()) -> Iterator[Any]:
        """One association, released at the end."""
        handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, self._reported)]
        assoc = self.ae.associate("127.0.0.1", self.port, ae_title="AINODE", evt_handlers=handlers, ext_neg=list(roles))
        assert assoc.is_established
        try:
            yield assoc
        finally:
            assoc.release()

    @contextmanager
    def listening(self, port: int, tls: ssl.SSLContext | None = None) -> Iterator[None]:
        """Take reports on associations of the node, in the role of the SCU."""
        ae = AE(self.ae.ae_title)
        ae.add_supported_context(STORAGE_COMMITMENT, scu_role=True, scp_role=True)
        server = ae.start_server(
            ("127.0.0.1", port),
            block=False,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._reported)],
            ssl_context=tls,
        )
        assert server is not None
        try:
            yield
        finally:
            server.shutdown()

    def ask(self, assoc: Any, transaction_uid: str, uids: Iterable[str]) -> int:
        """N-ACTION; returns the status."""
        status, _ = assoc.send_n_action(commitment(transaction_uid, uids), 1, STORAGE_COMMITMENT, COMMITMENT_INSTANCE)
        return int(status.Status)

    def report(self) -> tuple[int, Dataset]:
        """The first report, once it has come."""
        eventually(lambda: self.reports, "a report")
        return self.reports[0]


def store(assoc: Any, files: Iterable[Path]) -> None:
    """C-STORE of files; each has to be taken."""
    for file in files:
        assert assoc.send_c_store(dcmread(file)).Status == 0


def failed(information: Dataset) -> dict[str, int]:
    """FailureReasons by ReferencedSOPInstanceUID."""
    return {i.ReferencedSOPInstanceUID: int(i.FailureReason) for i in information.get("FailedSOPSequence", [])}


def committed(information: Dataset) -> set[str]:
    """ReferencedSOPInstanceUIDs that are committed to."""
    return {str(i.ReferencedSOPInstanceUID) for i in information.get("ReferencedSOPSequence", [])}


SCP_ROLE = build_role(STORAGE_COMMITMENT, scu_role=True, scp_role=True)
