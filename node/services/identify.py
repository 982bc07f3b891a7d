"""Which object a data set is: the four UIDs that place it, checked."""

from __future__ import annotations

from dataclasses import dataclass

from node.domain.encoded import Encoded, Truncated, values
from node.domain.errors import InvalidInstance
from node.domain.ids import checked_uid
from node.domain.instance import StoreRequest

DOES_NOT_MATCH = 0xA900
# Of the same family, PS3.18 table I.2-2: a Store transaction names a study, and the object belongs to another.
OTHER_STUDY = 0xA901

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
    """The checked UIDs of an object that is whole and is what its request says (PS3.4 B.2.3).

    Raises:
        InvalidInstance: with the status to answer.
    """
    found, fault = values(dataset, request.transfer_syntax_uid, _UIDS)
    if fault is not None and len(found) < len(_UIDS):
        raise InvalidInstance(
            "data set",
            f"cannot be read as {request.transfer_syntax_uid}: {fault}",
            "Send the object in the transfer syntax that was negotiated, or that its file meta names",
        )
    if isinstance(fault, Truncated):
        raise InvalidInstance("data set", f"truncated: {fault}", "Send the whole object")
    uid = {tag: checked_uid(_text(found.get(tag)), keyword) for tag, keyword in _UIDS.items()}
    for tag, commanded in ((_SOP_CLASS, request.sop_class_uid), (_SOP_INSTANCE, request.sop_instance_uid)):
        if uid[tag] != commanded.rstrip("\0 "):
            raise InvalidInstance(
                _UIDS[tag],
                f"{uid[tag]} is not that of the command or the file meta",
                "Send command, or file meta, and data set with the same UIDs",
                status=DOES_NOT_MATCH,
            )
    if request.study_uid not in (None, uid[_STUDY]):
        raise InvalidInstance(
            _UIDS[_STUDY],
            "is not that of the request",
            f"Store it under /studies/{uid[_STUDY]}, or under /studies",
            status=OTHER_STUDY,
        )
    return Identity(uid[_SOP_CLASS], uid[_SOP_INSTANCE], uid[_STUDY], uid[_SERIES])


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("latin-1")
