"""Which object a data set is: the four UIDs that place it, checked."""

from __future__ import annotations

from dataclasses import dataclass

from node.domain.encoded import Encoded, Truncated, values
from node.domain.errors import InvalidInstance
from node.domain.ids import checked_uid
from node.domain.instance import StoreRequest

DOES_NOT_MATCH = 0xA900

_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_UIDS = {
    _SOP_CLASS: "SOPClassUID",
    _SOP_INSTANCE: "SOPInstanceUID",
    _STUDY: "StudyInstanceUID",
    _SERIES: "SeriesInstanceUID",
}


@dataclass(frozen=True)
class Identity:
    """The UIDs of a data set, checked."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str


def identify(request: StoreRequest, dataset: Encoded) -> Identity:
    """The checked UIDs of an object that is whole and is what its C-STORE command says (PS3.4 B.2.3).

    Raises:
        InvalidInstance: with the status to answer.
    """
    found, fault = values(dataset, request.transfer_syntax_uid, _UIDS)
    if fault is not None and len(found) < len(_UIDS):
        raise InvalidInstance(
            "data set",
            f"cannot be read as {request.transfer_syntax_uid}: {fault}",
            "Send the object in the transfer syntax that was negotiated",
        )
    if isinstance(fault, Truncated):
        raise InvalidInstance("data set", f"truncated: {fault}", "Send the whole object")
    uid = {tag: checked_uid(_text(found.get(tag)), keyword) for tag, keyword in _UIDS.items()}
    for tag, commanded in ((_SOP_CLASS, request.sop_class_uid), (_SOP_INSTANCE, request.sop_instance_uid)):
        if uid[tag] != commanded.rstrip("\0 "):
            raise InvalidInstance(
                _UIDS[tag],
                f"{uid[tag]} is not that of the C-STORE command",
                "Send command and data set with the same UIDs",
                status=DOES_NOT_MATCH,
            )
    return Identity(uid[_SOP_CLASS], uid[_SOP_INSTANCE], uid[_STUDY], uid[_SERIES])


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("latin-1")
