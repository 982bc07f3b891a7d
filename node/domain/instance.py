"""One SOP instance on our disk, received or made by us. Immutable."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Origin(StrEnum):
    """Where an instance came from."""

    RECEIVED = "received"
    RESULT = "result"


class AsideReason(StrEnum):
    """Why an object lies aside instead of in its study."""

    CONFLICT = "conflict"  # same SOPInstanceUID, other bytes
    RETURNED = "returned"  # one of our results came back changed
    CORRECTION = "correction"  # same SOPInstanceUID and image, another patient or order: what is believed from then on
    INVALID = "invalid"  # could not be kept as an instance; the sender got a failure status


@dataclass(frozen=True)
class Instance:
    """A kept instance.

    ``digest`` is the SHA-256, in hex, of the encoded data set alone (without preamble and file meta), so that it is the
    same however often the object is sent. ``path`` is relative to the data directory. ``revision`` is the study
    revision that the instance arrived in (0 for results).
    """

    sop_instance_uid: str
    sop_class_uid: str
    study_uid: str
    series_uid: str
    transfer_syntax_uid: str
    digest: str
    size: int
    path: str
    origin: Origin
    at: datetime
    peer: str | None = None
    job_id: str | None = None
    revision: int = 0


@dataclass(frozen=True)
class Aside:
    """An object that was kept aside, with the reason. ``path`` is relative to the data directory.

    ``revision`` is the study revision that a correction came in (0 for all others).
    """

    reason: AsideReason
    detail: str
    path: str
    at: datetime
    peer: str | None = None
    sop_instance_uid: str | None = None
    study_uid: str | None = None
    digest: str | None = None
    id: int | None = None
    revision: int = 0


@dataclass(frozen=True)
class StoreRequest:
    """What is said of an object before it comes, and who sends it: by a C-STORE-RQ (PS3.7 9.1.1), or by file meta.

    ``study_uid`` is the study that the object has to belong to, where the request names one (PS3.18 10.5.1).
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str  # of the presentation context
    peer: str  # the calling AE title
    study_uid: str | None = None


@dataclass(frozen=True)
class Incoming:
    """A whole object: the UIDs of its C-STORE command (PS3.7 9.1.1) and the encoded data set."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    dataset: bytes
    peer: str  # the calling AE title

    @property
    def request(self) -> StoreRequest:
        """All but the data set."""
        return StoreRequest(self.sop_class_uid, self.sop_instance_uid, self.transfer_syntax_uid, self.peer)


@dataclass(frozen=True)
class Answer:
    """A C-STORE response: ``status`` (PS3.4 B.2.3) and an ErrorComment (0000,0902) of at most 64 characters.

    ``study_uid`` names the study that the object was kept in (now or before), ``retry`` says that the same object may
    be taken later; they are no part of the response.
    """

    status: int
    comment: str = ""
    study_uid: str | None = field(default=None, compare=False)
    retry: bool = field(default=False, compare=False)
