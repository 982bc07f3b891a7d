"""Storage Commitment Push Model SCP (PS3.4 annex J): N-ACTION in, N-EVENT-REPORT out. The SCU is beside it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import build_context, build_role
from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT
from pynetdicom.dsutils import encode

from node.dicom.associate import associate, end, name_of
from node.dicom.dimse import Handler, Request
from node.dicom.negotiate import Context
from node.dicom.normalized import Operation, attributes, handler, references, uid
from node.dicom.notice import Notice, Notices
from node.dicom.study_root import UNCOMPRESSED, comment_of
from node.dicom.tls import Certificates
from node.domain.commitment import Commitment, Reference
from node.domain.errors import InvalidRequest, PeerUnreachable
from node.domain.peer import Peer

STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
INSTANCE = "1.2.840.10008.1.20.1.1"  # the well-known one, of which alone there is commitment
REQUEST = 1  # ActionTypeID (PS3.4 table J.3-1)
_ALL_COMMITTED, _FAILURES_EXIST = 1, 2  # EventTypeID (PS3.4 table J.3-2)

_NO_SUCH_INSTANCE, _INVALID_ARGUMENT, _NO_SUCH_ACTION = 0x0112, 0x0115, 0x0123  # PS3.7 annex C

# Takes a TransactionUID, a calling AE title and what is to be committed to; durable when it returns.
Ask = Callable[[str, str, Sequence[Reference]], None]


def commitment(ask: Ask, report: Operation) -> Handler:
    """Serves N-ACTION, which asks us, and by ``report`` N-EVENT-REPORT, which answers what we asked."""

    def request(request: Request) -> str:
        primitive = request.primitive
        if primitive.RequestedSOPInstanceUID != INSTANCE:
            raise InvalidRequest(
                "RequestedSOPInstanceUID", "no such instance", f"Name {INSTANCE} (PS3.4 J.3.5)", _NO_SUCH_INSTANCE
            )
        if primitive.ActionTypeID != REQUEST:
            raise InvalidRequest("ActionTypeID", "no such action", f"Send {REQUEST}", _NO_SUCH_ACTION)
        try:
            transaction_uid, named = attributes(request, primitive.ActionInformation, _asked)
        except InvalidRequest as error:
            raise InvalidRequest(error.field, error.problem, error.fix, _INVALID_ARGUMENT) from error
        ask(transaction_uid, request.calling, named)
        return INSTANCE

    return handler(STORAGE_COMMITMENT, {N_ACTION: request, N_EVENT_REPORT: report})


def _asked(information: Dataset) -> tuple[str, list[Reference]]:
    return uid(information, "TransactionUID"), references(information, "ReferencedSOPSequence")


def reports_here(
    claim: Callable[[str], Commitment | None],
    answered: Callable[[Commitment, int, str], None],
    called: Collection[str],
) -> Notices:
    """Reports to peers that cannot be called, on an association that they opened themselves.

    Args:
        claim: gives what is owed to a calling AE title.
        answered: is told of its answer.
        called: AE titles of peers that are called instead.
    """

    def notice(calling: str, context: Context) -> Notice | None:
        owed = None if calling in called else claim(calling)
        return None if owed is None else Notice(_request(owed, context), lambda *said: answered(owed, *said))

    return notice


def report_there(peer: Peer, owed: Commitment, *, ae_title: str, tls: Certificates | None = None) -> tuple[int, str]:
    """Report on an association of its own, with us in the role of the SCP (PS3.4 J.3.3.1).

    Returns:
        Status and ErrorComment of the answer.

    Raises:
        PeerUnreachable: no association, or no answer.
    """
    contexts = [build_context(STORAGE_COMMITMENT, list(UNCOMPRESSED))]
    roles = [build_role(STORAGE_COMMITMENT, scp_role=True)]
    association = associate(peer, contexts, ae_title=ae_title, tls=tls, roles=roles)
    try:
        if not association.accepted_contexts:
            raise PeerUnreachable(f"{name_of(peer)} does not offer storage commitment to {ae_title} as its SCP")
        status, _ = association.send_n_event_report(_information(owed), _event(owed), STORAGE_COMMITMENT, INSTANCE)
    finally:
        end(association)
    if "Status" not in status:
        raise PeerUnreachable(f"{name_of(peer)} did not answer the N-EVENT-REPORT")
    return int(status.Status), comment_of(status)


def _request(owed: Commitment, context: Context) -> N_EVENT_REPORT:
    syntax = UID(context.transfer_syntax)
    request = N_EVENT_REPORT()
    request.AffectedSOPClassUID = STORAGE_COMMITMENT
    request.AffectedSOPInstanceUID = INSTANCE
    request.EventTypeID = _event(owed)
    encoded = encode(_information(owed), syntax.is_implicit_VR, syntax.is_little_endian)
    request.EventInformation = BytesIO(encoded or b"")
    return request


def _event(owed: Commitment) -> int:
    return _FAILURES_EXIST if owed.failed else _ALL_COMMITTED


def _information(owed: Commitment) -> Dataset:
    """EventInformation (PS3.4 table J.3-2)."""
    information = Dataset()
    information.TransactionUID = owed.transaction_uid
    if owed.committed:
        information.ReferencedSOPSequence = [sop_reference(reference) for reference in owed.committed]
    if owed.failed:
        information.FailedSOPSequence = [sop_reference(reference, reason) for reference, reason in owed.failed]
    return information


def sop_reference(reference: Reference, failure_reason: int | None = None) -> Dataset:
    """An item of a sequence of SOP Instance References (PS3.3 table 10-11)."""
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    if failure_reason is not None:
        item.FailureReason = failure_reason
    return item
