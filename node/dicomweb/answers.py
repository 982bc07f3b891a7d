"""What a STOW-RS answer says of each instance (PS3.18 section 10.5.3 and annex I), in the statuses of C-STORE."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from node.dicomweb.server import Answer
from node.domain.status import TRANSFER_SYNTAX_NOT_SUPPORTED

_SUCCESS, _OUT_OF_RESOURCES, _PROCESSING_FAILURE, _CANNOT_UNDERSTAND = 0x0000, 0xA700, 0x0110, 0xC000

_REFERENCED, _FAILED = "00081199", "00081198"
_INSTANCE, _WARNING, _FAILURE, _COMMENT = "00081155", "00081196", "00081197", "00000902"

# PS3.18 table 10.5.3-1: the answers that tell of each instance.
_TELLING: Final = (200, 202, 409)
# Of a whole request, by what they mean for its instances where it has one alone. What is in neither table is about the
# server, its address or our credentials, not about what was sent.
_OF_THE_CONTENT: Final[Mapping[int, int]] = {
    400: _CANNOT_UNDERSTAND,
    406: TRANSFER_SYNTAX_NOT_SUPPORTED,
    410: _CANNOT_UNDERSTAND,
    411: _CANNOT_UNDERSTAND,
    413: _OUT_OF_RESOURCES,
    415: TRANSFER_SYNTAX_NOT_SUPPORTED,
    422: _CANNOT_UNDERSTAND,
}


def is_of_the_server(answer: Answer) -> bool:
    """Whether an answer says nothing of what was sent: credentials, address, overload, a fault of the server."""
    return answer.status not in _TELLING and answer.status not in _OF_THE_CONTENT


def is_of_the_request(answer: Answer) -> bool:
    """Whether it may be true of one of several instances, and does not say of which."""
    return answer.status in _OF_THE_CONTENT or (answer.status == 409 and not isinstance(answer.body, dict))


def statuses(answer: Answer, uids: Collection[str]) -> dict[str, tuple[int, str]]:
    """Status and comment by SOPInstanceUID: FailureReason, WarningReason, or success where that is what is said.

    An instance that the answer does not name was stored where the answer says that all were (200), else it was not.
    """
    if is_of_the_request(answer):
        status = _OF_THE_CONTENT.get(answer.status, _CANNOT_UNDERSTAND)
        return dict.fromkeys(uids, (status, f"HTTP {answer.status} {answer.reason}"))
    said = {uid: (_number(one, _WARNING, _SUCCESS), "") for uid, one in _named(answer.body, _REFERENCED)}
    said |= {
        uid: (_number(one, _FAILURE, _PROCESSING_FAILURE), _text(one, _COMMENT))
        for uid, one in _named(answer.body, _FAILED)
    }
    unnamed = (_SUCCESS, "")
    if answer.status != 200:
        unnamed = (_PROCESSING_FAILURE, f"HTTP {answer.status}, and the answer does not name the instance")
    return {uid: said.get(uid, unnamed) for uid in uids}


def _named(body: Any, tag: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The items of a sequence of the DICOM JSON model (PS3.18 annex F), by their ReferencedSOPInstanceUID."""
    for one in _values(body, tag):
        if isinstance(one, dict) and (uid := _text(one, _INSTANCE)):
            yield uid, one


def _values(body: Any, tag: str) -> list[Any]:
    element = body.get(tag) if isinstance(body, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _number(one: Any, tag: str, otherwise: int) -> int:
    values = _values(one, tag)
    return values[0] if values and isinstance(values[0], int) and 0 < values[0] <= 0xFFFF else otherwise


def _text(one: Any, tag: str) -> str:
    values = _values(one, tag)
    return values[0] if values and isinstance(values[0], str) else ""
