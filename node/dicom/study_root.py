"""What C-FIND, C-MOVE and C-GET share: the Study Root model (PS3.4 annex C), its association, its statuses in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import build_context

from node.dicom.associate import associate, end, name_of
from node.dicom.tls import Certificates
from node.domain.errors import PeerUnreachable, Rejected
from node.domain.peer import Peer

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
GET = "1.2.840.10008.5.1.4.1.2.2.3"
UNCOMPRESSED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
SUCCESS = 0x0000

_OPERATION = {FIND: "C-FIND", MOVE: "C-MOVE", GET: "C-GET"}
_PENDING = (0xFF00, 0xFF01)
_MEANING: dict[int, tuple[str, str]] = {
    0x0122: ("SOP class not supported", "Ask its administrator to enable this service"),
    0x0124: ("not authorised", "Ask its administrator to permit {ae_title} to query and retrieve"),
    0x0211: ("unrecognised operation", "Ask its administrator to enable this service"),
    0xA700: ("out of resources", "Try again later"),
    0xA701: ("out of resources: it cannot count the matches", "Try again later"),
    0xA702: (
        "out of resources: it cannot perform the sub-operations",
        "See its log, and that it may send to {ae_title}",
    ),
    0xA801: (
        "move destination unknown",
        "Tell its administrator to add the AE title {destination} with the host and port of this node",
    ),
    0xA900: ("the identifier does not match the SOP class", "Its query model differs: ask its administrator"),
    0xB000: (
        "some sub-operations failed or ended with a warning",
        "See its log, then pull again; what is here already is not stored twice",
    ),
    0xB001: ("it has more matches than it tells", "Ask for less at once"),
    0xFE00: ("cancelled", "Try again"),
}
_UNABLE = ("unable to process", "See its log for the reason")
_UNABLE_TO_MOVE = ("unable to process", "See its log; it may not know the AE title {destination}, or not reach it")
_OTHER = ("a status that the standard does not name", "See its log for the reason")


def open_study_root(
    peer: Peer,
    model: str,
    *,
    ae_title: str,
    tls: Certificates | None = None,
    storage: Sequence[Any] = (),
    roles: Sequence[Any] = (),
    handlers: Sequence[tuple[Any, Any]] = (),
) -> Any:
    """An association on which the peer has accepted ``model``; ``storage`` are further contexts to propose.

    The rest is as for ``associate``.

    Raises:
        PeerUnreachable: no association.
        Rejected: the peer does not offer the model.
    """
    contexts = [build_context(model, list(UNCOMPRESSED)), *storage]
    association = associate(peer, contexts, ae_title=ae_title, tls=tls, roles=roles, handlers=handlers)
    if model in {context.abstract_syntax for context in association.accepted_contexts}:
        return association
    end(association)
    raise Rejected(
        f"{name_of(peer)} does not offer {_OPERATION[model]} in the Study Root model. "
        f"Ask its administrator to permit it to {ae_title}"
    )


def is_pending(status: int) -> bool:
    """Whether more responses follow."""
    return status in _PENDING


def checked(status: Dataset, peer: Peer, model: str, *, ae_title: str, destination: str = "") -> int:
    """The status of a response that is no failure.

    A warning passes for a retrieval, which tells what failed; not for a C-FIND, whose answer would not be whole.

    Raises:
        PeerUnreachable: there was no response.
        Rejected: it is a failure, or the peer cancelled.
    """
    if "Status" not in status:
        raise broken(peer, model)
    code = int(status.Status)
    if is_pending(code) or code == SUCCESS or (model != FIND and code >> 12 == 0xB):
        return code
    words = in_words(code, comment_of(status), ae_title=ae_title, destination=destination)
    raise Rejected(f"{name_of(peer)} answered the {_OPERATION[model]} with {words}")


def broken(peer: Peer, model: str) -> PeerUnreachable:
    """The error of an association that ended before the last response."""
    return PeerUnreachable(f"{name_of(peer)} broke the association in the {_OPERATION[model]}, or fell silent")


def in_words(status: int, comment: str, *, ae_title: str, destination: str = "") -> str:
    """A status by its meaning and what mends it (PS3.4 tables C.4-1 to C.4-3, PS3.7 annex C).

    For instance ``A801, move destination unknown. Tell its administrator to …``.

    Args:
        comment: the peer's ErrorComment (0000,0902), quoted where there is one.
        ae_title: ours, as the peer may have to be told.
        destination: the move destination, where it was a C-MOVE.
    """
    unable = _UNABLE_TO_MOVE if destination else _UNABLE
    meaning, fix = _MEANING.get(status) or (unable if 0xC000 <= status <= 0xCFFF else _OTHER)
    said = f" ({comment})" if comment else ""
    return f"{status:04X}, {meaning}{said}. {fix.format(ae_title=ae_title, destination=destination)}"


def comment_of(status: Dataset) -> str:
    """The ErrorComment (0000,0902) of a response."""
    return str(status.get("ErrorComment") or "").strip()


def text(found: Dataset, keyword: str) -> str:
    """A value as text, without padding; empty where there is none."""
    return str(found.get(keyword) or "").rstrip("\0 ")


def texts(found: Dataset, keyword: str) -> tuple[str, ...]:
    """The values of an element that may have several."""
    value = found.get(keyword) or ()
    return tuple(str(v) for v in ([value] if isinstance(value, str) else value))
