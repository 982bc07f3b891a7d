"""What the services of DIMSE-N have in common: reading attributes, and answering with the status of PS3.7 annex C."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID
from pynetdicom.dsutils import decode

from node.dicom.dimse import Handler, Request
from node.domain.commitment import Reference
from node.domain.errors import InvalidInstance, InvalidRequest
from node.domain.ids import checked_uid
from node.services.receive import comment_of

log = logging.getLogger(__name__)

INVALID_ATTRIBUTE_VALUE, MISSING_ATTRIBUTE, MISSING_ATTRIBUTE_VALUE = 0x0106, 0x0120, 0x0121
_NO_SUCH_SOP_CLASS, _UNRECOGNISED_OPERATION = 0x0118, 0x0211

# What pydicom raises, sooner or later, for bytes that are no data set.
_MALFORMED = (
    *(InvalidDicomError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, NotImplementedError),
    *(EOFError, struct.error),
)

# Serves a request; returns the AffectedSOPInstanceUID of the response, or raises InvalidRequest.
Operation = Callable[[Request], str]


def handler(sop_class_uid: str, operations: Mapping[type, Operation]) -> Handler:
    """A handler of some operations of one SOP class, by their primitive; all others are not recognised (0x0211)."""

    def handle(request: Request) -> Iterable[Any]:
        primitive = request.primitive
        response = type(primitive)()
        response.MessageIDBeingRespondedTo = primitive.MessageID
        try:
            uid = _operation(primitive, sop_class_uid, operations)(request)
            response.AffectedSOPClassUID, response.AffectedSOPInstanceUID = sop_class_uid, uid
            response.Status = 0x0000
        except InvalidRequest as error:
            name = type(primitive).__name__.replace("_", "-")
            log.warning("%s of %r refused (%04X): %s", name, request.calling, error.status, error)
            response.Status = error.status
            response.ErrorComment = comment_of(error)
            if error.error_id is not None:
                response.ErrorID = error.error_id
        yield response

    return handle


def _operation(primitive: Any, sop_class_uid: str, operations: Mapping[type, Operation]) -> Operation:
    operation = operations.get(type(primitive))
    if operation is None:
        raise InvalidRequest(
            "CommandField", "operation not served", "See the conformance statement", _UNRECOGNISED_OPERATION
        )
    keyword = "AffectedSOPClassUID" if primitive.AffectedSOPClassUID else "RequestedSOPClassUID"
    named = getattr(primitive, keyword, None)
    if named != sop_class_uid:
        raise InvalidRequest(
            keyword, "is not that of its presentation context", f"Name {sop_class_uid}", _NO_SUCH_SOP_CLASS
        )
    return operation


def attributes(request: Request, encoded: BytesIO | None, read: Callable[[Dataset], Any]) -> Any:
    """What ``read`` finds in the data set of a request.

    Raises:
        InvalidRequest: it cannot be decoded, or ``read`` raises so.
    """
    syntax = UID(request.context.transfer_syntax)
    try:
        return read(decode(encoded or BytesIO(), syntax.is_implicit_VR, syntax.is_little_endian))
    except _MALFORMED as error:
        raise InvalidRequest(
            "data set",
            f"cannot be read as {syntax.name}",
            "Encode it in the transfer syntax that was negotiated",
            INVALID_ATTRIBUTE_VALUE,
        ) from error


def uid(item: Dataset, keyword: str, at: str = "") -> str:
    """A UID that has to be there; ``at`` is the path of the item, as errors name it."""
    value = _present(item, keyword, at)
    return command_uid(value, f"{at}{keyword}")


def command_uid(value: object, field: str) -> str:
    """A UID of the command set, or of an attribute that is there.

    Raises:
        InvalidRequest: it is none.
    """
    try:
        return checked_uid(value, field)
    except InvalidInstance as error:
        raise InvalidRequest(error.field, error.problem, error.fix, INVALID_ATTRIBUTE_VALUE) from error


def items(item: Dataset, keyword: str, at: str = "", *, required: bool = True) -> Sequence[tuple[str, Dataset]]:
    """The items of a sequence, each with its path (``ReferencedSOPSequence[1].``).

    Raises:
        InvalidRequest: it is missing or empty, where it may not be, or no sequence.
    """
    if not required and not item.get(keyword):
        return []
    value = _present(item, keyword, at)
    if not isinstance(value, Items):
        raise InvalidRequest(f"{at}{keyword}", "is no sequence", "Send it with VR SQ", INVALID_ATTRIBUTE_VALUE)
    return [(f"{at}{keyword}[{number}].", each) for number, each in enumerate(value, 1)]


def references(item: Dataset, keyword: str, at: str = "", *, required: bool = True) -> list[Reference]:
    """The instances of a sequence of SOP Instance References (PS3.3 table 10-11)."""
    return [
        Reference(uid(each, "ReferencedSOPClassUID", path), uid(each, "ReferencedSOPInstanceUID", path))
        for path, each in items(item, keyword, at, required=required)
    ]


def _present(item: Dataset, keyword: str, at: str) -> Any:
    if keyword not in item:
        raise InvalidRequest(f"{at}{keyword}", "is missing", "Send it", MISSING_ATTRIBUTE)
    value = item[keyword].value
    if not value:
        raise InvalidRequest(f"{at}{keyword}", "is empty", "Send it with a value", MISSING_ATTRIBUTE_VALUE)
    return value
