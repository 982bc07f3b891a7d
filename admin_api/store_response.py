"""The answer to a store transaction: HTTP status (PS3.18 table 10.5.3-1) and Store Instances Response Module (annex I).

RetrieveURL (0008,1190) is left out everywhere: the node serves no retrieval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from node.services.stow import Stored

OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0xA700, 0xC000

_REFERENCED_SOP_SEQUENCE, _FAILED_SOP_SEQUENCE, _OTHER_FAILURES_SEQUENCE = "00081199", "00081198", "0008119A"
_REFERENCED_SOP_CLASS_UID, _REFERENCED_SOP_INSTANCE_UID = "00081150", "00081155"
_FAILURE_REASON, _ERROR_COMMENT = "00081197", "00000902"


def status_of(answers: Sequence[Stored], *, complete: bool) -> int:
    """The HTTP status.

    Args:
        complete: whether the body came to its end; there is at least one answer, or it did not.
    """
    failed = [stored.answer for stored in answers if not stored.success]
    if len(failed) < len(answers):
        return 200 if complete and not failed else 202
    if not complete:
        return 400
    if all(answer.retry for answer in failed):
        return 503
    if all(answer.status == OUT_OF_RESOURCES for answer in failed):
        return 413
    return 409


def dataset_of(answers: Sequence[Stored], *, broken: str | None = None) -> dict[str, Any]:
    """The Store Instances Response Module (PS3.18 table I.1-1) in the DICOM JSON model (PS3.18 annex F).

    FailureReason (0008,1197) is the status that C-STORE would answer, ErrorComment (0000,0902) its text. What has no
    file meta to tell its UIDs is in the OtherFailuresSequence.

    Args:
        broken: why the rest of the body could not be read.
    """
    others = [_failure(s.answer.status, s.answer.comment) for s in answers if s.sop_instance_uid is None]
    if broken is not None:
        others.append(_failure(CANNOT_UNDERSTAND, broken))
    sequences = {
        _REFERENCED_SOP_SEQUENCE: [_reference(s) for s in answers if s.success],
        _FAILED_SOP_SEQUENCE: [
            _reference(s) | _failure(s.answer.status, s.answer.comment)
            for s in answers
            if not s.success and s.sop_instance_uid is not None
        ],
        _OTHER_FAILURES_SEQUENCE: others,
    }
    return {tag: {"vr": "SQ", "Value": items} for tag, items in sorted(sequences.items()) if items}


def _reference(stored: Stored) -> dict[str, Any]:
    return {
        _REFERENCED_SOP_CLASS_UID: {"vr": "UI", "Value": [stored.sop_class_uid]},
        _REFERENCED_SOP_INSTANCE_UID: {"vr": "UI", "Value": [stored.sop_instance_uid]},
    }


def _failure(status: int, comment: str) -> dict[str, Any]:
    return {
        _FAILURE_REASON: {"vr": "US", "Value": [status]},
        _ERROR_COMMENT: {"vr": "LO", "Value": [comment]},
    }
