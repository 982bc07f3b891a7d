"""DIMSE services other than C-STORE, by pynetdicom's message classes: a table of abstract syntax -> handler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeAlias

from pynetdicom import dimse_messages
from pynetdicom.dimse_primitives import C_ECHO
from pynetdicom.dsutils import encode
from pynetdicom.pdu_primitives import P_DATA

from node.dicom import wire
from node.dicom.negotiate import Context
from node.dicom.wire import AbortReason, ProtocolError

VERIFICATION = "1.2.840.10008.1.1"


@dataclass(frozen=True)
class Request:
    """A DIMSE request: pynetdicom's primitive, the context that it came in, and the calling AE title."""

    primitive: Any
    context: Context
    calling: str


# Gives the response primitives one after the other, each with MessageIDBeingRespondedTo and Status.
Handler: TypeAlias = Callable[[Request], Iterable[Any]]


def verify(request: Request) -> Iterable[Any]:
    """C-ECHO (PS3.4 annex A)."""
    answer = C_ECHO()
    answer.MessageIDBeingRespondedTo = request.primitive.MessageID
    answer.AffectedSOPClassUID = VERIFICATION
    answer.Status = 0x0000
    yield answer


SERVICES: Mapping[str, Handler] = {VERIFICATION: verify}


def decoded(context_id: int, command: bytes, data_set: bytes) -> Any:
    """The primitive of a whole request.

    Raises:
        ProtocolError: it is none.
    """
    fragments = P_DATA()
    fragments.presentation_data_value_list.append((context_id, bytes((wire.LAST_COMMAND,)) + command))
    if data_set:
        fragments.presentation_data_value_list.append((context_id, bytes((wire.LAST_DATA,)) + data_set))
    message = dimse_messages.DIMSEMessage()
    try:
        message.decode_msg(fragments)
        return message.message_to_primitive()
    except Exception as error:
        # As in negotiation: the decoder raises whatever the bytes lead it to.
        raise ProtocolError(AbortReason.INVALID_PARAMETER, f"no DIMSE request: {error!r}") from error


def encoded(context_id: int, primitive: Any, max_pdu: int) -> bytes:
    """A request or response primitive as P-DATA-TF PDUs."""
    direction = "RQ" if primitive.MessageIDBeingRespondedTo is None else "RSP"
    message = getattr(dimse_messages, f"{type(primitive).__name__}_{direction}")()
    message.primitive_to_message(primitive)
    data_set = message.data_set.getvalue() if isinstance(message.data_set, BytesIO) else b""
    return wire.messages(context_id, encode(message.command_set, True, True) or b"", data_set, max_pdu)
