"""Storage Commitment Push Model SCU (PS3.4 annex J): N-ACTION out, N-EVENT-REPORT in.

A report comes on the association of its request, or on one that the peer opens, where it proposes the role of the SCP.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import build_context, evt
from pynetdicom.pdu import P_DATA_TF

from node.dicom.associate import associate, end, name_of
from node.dicom.commitment import INSTANCE, REQUEST, STORAGE_COMMITMENT, sop_reference
from node.dicom.dimse import Request
from node.dicom.normalized import attributes, items, references, uid
from node.dicom.study_root import UNCOMPRESSED, comment_of
from node.dicom.tls import Certificates
from node.domain.commitment import Reference
from node.domain.errors import InvalidRequest, PeerUnreachable, Rejected
from node.domain.peer import Peer
from node.domain.verification import CommitmentReport

log = logging.getLogger(__name__)

# So long a report is waited for on the association of its request. Most archives open one of their own.
_REPORT_SECONDS = 2.0

_ALL_COMMITTED, _FAILURES_EXIST = 1, 2  # EventTypeID (PS3.4 table J.3-2)
_PROCESSING_FAILURE, _NO_SUCH_INSTANCE, _NO_SUCH_EVENT = 0x0110, 0x0112, 0x0113  # PS3.7 annex C

# Takes the AE title of the peer and its report; durable when it returns, raises InvalidRequest for what is not ours.
Take = Callable[[str, CommitmentReport], None]


class StorageCommitmentSCU:
    """Implements ``node.ports.CommitmentRequester``.

    Args:
        ae_title: ours, the calling one.
        tls: for peers that are called by TLS.
        report_seconds: how long the association is held for reports.
    """

    def __init__(
        self, ae_title: str, tls: Certificates | None = None, *, report_seconds: float = _REPORT_SECONDS
    ) -> None:
        self._ae_title = ae_title
        self._tls = tls
        self._report_seconds = report_seconds

    def request(
        self,
        peer: Peer,
        transactions: Mapping[str, Sequence[Reference]],
        answered: Callable[[str, int, str], None],
        reported: Take,
    ) -> None:
        """As ``CommitmentRequester``."""
        awaited, reports, heard = set(transactions), 0, threading.Event()

        def report(event: evt.Event) -> tuple[int, None]:
            # On a thread of its own, also while an answer is awaited.
            nonlocal reports
            status, transaction_uid = _taken(event, peer, reported)
            awaited.discard(transaction_uid)
            reports += 1
            return status, None

        def sent(event: evt.Event) -> None:
            if reports and not awaited and isinstance(event.pdu, P_DATA_TF):
                heard.set()  # the last report was answered, and not only taken

        association = associate(
            peer,
            [build_context(STORAGE_COMMITMENT, list(UNCOMPRESSED))],
            ae_title=self._ae_title,
            tls=self._tls,
            handlers=[(evt.EVT_N_EVENT_REPORT, report), (evt.EVT_PDU_SENT, sent)],
        )
        try:
            if not association.accepted_contexts:
                raise Rejected(f"{name_of(peer)} does not offer storage commitment. Ask its administrator to permit it")
            for number, (transaction_uid, named) in enumerate(transactions.items()):
                status = _ask(association, number % 0xFFFF + 1, transaction_uid, named)
                if "Status" not in status:
                    raise PeerUnreachable(
                        f"{name_of(peer)} gave no answer to the N-ACTION. "
                        f"It has to know {self._ae_title}, its host and port, to report there"
                    )
                if status.Status != 0:
                    awaited.discard(transaction_uid)
                answered(transaction_uid, int(status.Status), comment_of(status))
            if awaited or reports:
                heard.wait(self._report_seconds)
        finally:
            end(association)


def _ask(association: Any, message_id: int, transaction_uid: str, named: Sequence[Reference]) -> Dataset:
    """Send one N-ACTION (PS3.4 table J.3-1); the status that was answered, empty where none was."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = [sop_reference(reference) for reference in named]
    if not association.is_established:
        return Dataset()
    status, _ = association.send_n_action(information, REQUEST, STORAGE_COMMITMENT, INSTANCE, message_id)
    answer: Dataset = status
    return answer


def _taken(event: Any, peer: Peer, take: Take) -> tuple[int, str]:
    """The status to answer a report with, and its TransactionUID where it could be read."""
    try:
        report = _report(event.event_information, event.event_type)
        take(peer.ae_title, report)
        return 0x0000, report.transaction_uid
    except InvalidRequest as error:
        log.warning("N-EVENT-REPORT of %s refused (%04X): %s", name_of(peer), error.status, error)
        return error.status, ""
    except Exception:
        # The edge: what fails here must not be answered with success, nor end the association.
        log.exception("N-EVENT-REPORT of %s failed", name_of(peer))
        return _PROCESSING_FAILURE, ""


def taken(take: Take) -> Callable[[Request], str]:
    """Serves N-EVENT-REPORT on associations that peers open."""

    def event(request: Request) -> str:
        primitive = request.primitive
        if primitive.AffectedSOPInstanceUID != INSTANCE:
            raise InvalidRequest(
                "AffectedSOPInstanceUID", "no such instance", f"Name {INSTANCE} (PS3.4 J.3.5)", _NO_SUCH_INSTANCE
            )
        take(
            request.calling,
            attributes(request, primitive.EventInformation, lambda said: _report(said, primitive.EventTypeID)),
        )
        return INSTANCE

    return event


def _report(information: Dataset, event_type: int) -> CommitmentReport:
    """Read EventInformation (PS3.4 table J.3-2).

    Raises:
        InvalidRequest: something is missing or invalid; names it.
    """
    if event_type not in (_ALL_COMMITTED, _FAILURES_EXIST):
        raise InvalidRequest("EventTypeID", "no such event", "Send 1 or 2 (PS3.4 table J.3-2)", _NO_SUCH_EVENT)
    fails = event_type == _FAILURES_EXIST
    committed = references(information, "ReferencedSOPSequence", required=not fails)
    failed = references(information, "FailedSOPSequence", required=fails)
    reasons = [each.get("FailureReason") for _, each in items(information, "FailedSOPSequence", required=fails)]
    return CommitmentReport(
        uid(information, "TransactionUID"),
        frozenset(committed),
        {reference: int(reason or 0) for reference, reason in zip(failed, reasons, strict=True)},
    )
