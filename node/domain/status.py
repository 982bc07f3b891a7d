"""C-STORE statuses, one table: what each says, whether the peer keeps the object, and whether it is sent again.

STOW-RS uses the same words (PS3.18 annex I.2.2): FailureReason and WarningReason are read by the same table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

# So often an object is sent that is answered in a way that seldom passes: with the pauses between, for some 40 minutes.
FEW: Final = 10

DATA_SET_MISMATCH: Final = 0xA900
INVALID_SOP_INSTANCE: Final = 0x0117
SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
TRANSFER_SYNTAX_NOT_SUPPORTED: Final = 0xC122


class Verdict(StrEnum):
    """What a C-STORE status means for a delivery."""

    ACK = "ack"
    RETRY = "retry"
    REJECT = "reject"


@dataclass(frozen=True)
class Meaning:
    """A status in words. ``tries``: after so many such answers the object is dead; None is as long as any is tried."""

    verdict: Verdict
    says: str
    source: str
    tries: int | None = None


def _ack(says: str, source: str) -> Meaning:
    return Meaning(Verdict.ACK, says, source)


def _retry(says: str, source: str) -> Meaning:
    return Meaning(Verdict.RETRY, says, source)


def _few(says: str, source: str) -> Meaning:
    return Meaning(Verdict.RETRY, says, source, FEW)


def _reject(says: str, source: str) -> Meaning:
    return Meaning(Verdict.REJECT, says, source)


# ACK: the peer keeps the object. RETRY: it may pass. REJECT: the same bytes get the same answer.
_SINGLE: Final[Mapping[int, Meaning]] = {
    0x0000: _ack("success", "PS3.4 B.2.3"),
    0x0001: _ack("requested optional attributes are not supported", "PS3.7 annex C"),
    0x0107: _ack("attribute list error", "PS3.7 annex C"),
    0x0116: _ack("attribute value out of range", "PS3.7 annex C"),
    0xB000: _ack("coercion of data elements", "PS3.4 B.2.3"),
    0xB006: _ack("elements discarded", "PS3.4 B.2.3"),
    0xB007: _ack("data set does not match SOP class", "PS3.4 B.2.3"),
    0x0111: _ack("duplicate SOP instance: it has the object already", "PS3.7 annex C"),
    0x0105: _reject("no such attribute", "PS3.7 annex C"),
    0x0106: _reject("invalid attribute value", "PS3.7 annex C"),
    0x0110: _retry("processing failure", "PS3.7 annex C"),
    0x0112: _reject("no such SOP instance", "PS3.7 annex C"),
    0x0115: _reject("invalid argument value", "PS3.7 annex C"),
    INVALID_SOP_INSTANCE: _reject("invalid SOP instance", "PS3.7 annex C"),
    0x0118: _reject("no such SOP class", "PS3.7 annex C"),
    0x0119: _reject("class-instance conflict", "PS3.7 annex C"),
    0x0120: _reject("missing attribute", "PS3.7 annex C"),
    0x0121: _reject("missing attribute value", "PS3.7 annex C"),
    SOP_CLASS_NOT_SUPPORTED: _reject("SOP class not supported", "PS3.7 annex C, PS3.8 9.3.3.2"),
    0x0123: _reject("no such action type", "PS3.7 annex C"),
    # Often a peer that is being configured.
    0x0124: _retry("not authorised", "PS3.7 annex C"),
    # Of the MessageID, not of the object: another association numbers anew.
    0x0210: _retry("duplicate invocation", "PS3.7 annex C"),
    0x0211: _reject("unrecognised operation", "PS3.7 annex C"),
    0x0212: _reject("mistyped argument", "PS3.7 annex C"),
    0x0213: _retry("resource limitation", "PS3.7 annex C"),
    0xC122: _reject("transfer syntax not supported", "PS3.18 I.2.2"),
    0xFE00: _retry("cancelled", "PS3.7 annex C"),
}

# Archives answer C000 also where their database or their disk failed, so what "cannot be understood" is tried again,
# a few times; A900 is about SOP class and data set alone, which another try does not change.
_RANGES: Final[tuple[tuple[int, int, Meaning], ...]] = (
    (0xA700, 0xA7FF, _retry("refused: out of resources", "PS3.4 B.2.3")),
    (DATA_SET_MISMATCH, 0xA9FF, _reject("error: data set does not match SOP class", "PS3.4 B.2.3")),
    (0xA000, 0xAFFF, _few("failure", "PS3.7 annex C")),
    (0xB000, 0xBFFF, _ack("warning", "PS3.7 annex C")),
    (0xC000, 0xCFFF, _few("error: cannot understand", "PS3.4 B.2.3")),
    (0x0100, 0x02FF, _few("failure", "PS3.7 annex C")),
)

_UNKNOWN: Final = _few("a status that the standard does not have", "PS3.7 annex C")


def meaning(status: int) -> Meaning:
    """Read a C-STORE response status (PS3.4 B.2.3, PS3.7 annex C), or a FailureReason of STOW-RS (PS3.18 I.2.2)."""
    if status in _SINGLE:
        return _SINGLE[status]
    return next((found for first, last, found in _RANGES if first <= status <= last), _UNKNOWN)


def verdict(status: int) -> Verdict:
    """What a status means for a delivery."""
    return meaning(status).verdict


def in_words(status: int, comment: str = "") -> str:
    """A status as people read it, for instance ``A700 (refused: out of resources) disk full``."""
    return f"{status:04X} ({meaning(status).says}) {comment}".strip()
