"""Negotiation of an association as its acceptor (PS3.8 section 7.1.1, PS3.7 annex D.3), by pynetdicom's PDU classes."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context, build_role, negotiate_unrestricted

from node.dicom import wire
from node.dicom.admission import Rejection
from node.dicom.wire import AbortReason, ProtocolError
from node.domain.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

log = logging.getLogger(__name__)

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"  # PS3.7 annex A.2.1
_ACCEPTED, _REFUSED = 0, 1  # PS3.8 table 9-18
# Of services other than storage. Not deflated: what a few bytes inflate to would have to be held in memory.
_UNCOMPRESSED = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"]

# Where either side may be the SCP. Storage commitment: an archive that opens an association to report is (PS3.4 J.3.3).
_EITHER_ROLE = ("1.2.840.10008.1.20.1",)
_TO_REPORT = (*_EITHER_ROLE, "1.2.840.10008.1.1")

# PS3.8 table 9-21: permanent, by the service user and by the service provider (ACSE); transient, by the provider
# (presentation).
_NO_APPLICATION_CONTEXT = Rejection(1, 1, 2, "application context name not supported")
_NO_PROTOCOL_VERSION = Rejection(1, 2, 2, "protocol version not supported")
LOCAL_LIMIT_EXCEEDED = Rejection(2, 3, 2, "local limit exceeded")


@dataclass(frozen=True)
class Context:
    """An accepted presentation context. ``storage`` is whether C-STORE is what it is for."""

    abstract_syntax: str
    transfer_syntax: str
    storage: bool


@dataclass(frozen=True)
class Proposal:
    """An A-ASSOCIATE-RQ (PS3.8 9.3.2); AE titles without padding."""

    calling: str
    called: str
    pdu: Any


@dataclass(frozen=True)
class Agreement:
    """What was negotiated: accepted contexts by ID, the peer's maximum PDU length (0 is none) and the answer."""

    contexts: Mapping[int, Context]
    max_pdu: int
    accept: bytes


def proposal(body: memoryview) -> Proposal:
    """Decode an A-ASSOCIATE-RQ.

    Raises:
        ProtocolError: it is none.
    """
    pdu = A_ASSOCIATE_RQ()
    try:
        pdu.decode(bytes((1, 0)) + body.nbytes.to_bytes(4, "big") + bytes(body))
        return Proposal(pdu.calling_ae_title.strip(), pdu.called_ae_title.strip(), pdu)
    except Exception as error:
        # pynetdicom's decoders raise whatever the bytes lead them to: no list of errors would be complete.
        raise ProtocolError(AbortReason.INVALID_PARAMETER, f"A-ASSOCIATE-RQ: {error!r}") from error


def refusal(asked: Proposal) -> Rejection | None:
    """Why no association of this kind is ours to accept, whoever asks."""
    if not asked.pdu.protocol_version & 1:
        return _NO_PROTOCOL_VERSION
    if str(asked.pdu.application_context_name) != APPLICATION_CONTEXT:
        return _NO_APPLICATION_CONTEXT
    return None


def agree(asked: Proposal, services: Collection[str], *, may_store: bool = True) -> Agreement:
    """Accept every storage SOP class, known, private or of a later edition, in the first transfer syntax proposed.

    Args:
        services: abstract syntaxes that are served beside storage, in the uncompressed transfer syntaxes.
        may_store: without it, the peer is here to report, and is offered what it needs for that alone.

    Raises:
        ProtocolError: what is proposed contradicts itself.
    """
    if not may_store:
        services = [uid for uid in services if uid in _TO_REPORT]
    try:
        request = asked.pdu.to_primitive()
        user = asked.pdu.user_information
        roles = {uid: (role.scu_role, role.scp_role) for uid, role in user.role_selection.items()}
        results, replies = negotiate_unrestricted(
            request.presentation_context_definition_list, [build_context(uid, _UNCOMPRESSED) for uid in services], roles
        )
        for context in results:
            if not may_store and context.abstract_syntax not in services and context.result == _ACCEPTED:
                context.result = _REFUSED
        user_information = [*ourselves(wire.MAX_PDU), *_window(user), *replies, *_either_role(roles)]
        answer = _accept(request, results, user_information)
        accepted: dict[int, Context] = {
            context.context_id or 0: Context(
                abstract_syntax=str(context.abstract_syntax),
                transfer_syntax=str(context.transfer_syntax[0]),
                storage=context.abstract_syntax not in services,
            )
            for context in results
            if context.result == _ACCEPTED
        }
        return Agreement(accepted, int(user.maximum_length or 0), answer)
    except Exception as error:
        raise ProtocolError(AbortReason.INVALID_PARAMETER, f"A-ASSOCIATE-RQ: {error!r}") from error


def _either_role(roles: Mapping[str, tuple[int, int]]) -> list[Any]:
    """What is proposed where either role will do (PS3.7 D.3.3.4); pynetdicom answers for storage alone."""
    return [
        build_role(uid, scu_role=bool(scu), scp_role=bool(scp))
        for uid, (scu, scp) in roles.items()
        if uid in _EITHER_ROLE
    ]


def ourselves(max_pdu: int) -> list[Any]:
    """The user information that every association of ours has; ``max_pdu`` is the longest PDU that we take."""
    length = MaximumLengthNotification()
    length.maximum_length_received = max_pdu
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return [length, implementation, version]


def _window(user: Any) -> list[Any]:
    """One operation at a time, said where the peer proposes a window (PS3.7 D.3.3.3)."""
    if user.async_ops_window is None:
        return []
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 1
    window.maximum_number_operations_performed = 1
    return [window]


def _accept(request: Any, results: list[Any], user_information: list[Any]) -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = APPLICATION_CONTEXT
    primitive.calling_ae_title = request.calling_ae_title
    primitive.called_ae_title = request.called_ae_title
    primitive.result = _ACCEPTED
    primitive.result_source = 1
    primitive.presentation_context_definition_results_list = results
    primitive.user_information = user_information
    return bytes(A_ASSOCIATE_AC(primitive).encode())
