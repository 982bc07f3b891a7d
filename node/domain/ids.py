"""Identifiers: checked before they become paths or rows, derived where a retry must give the same."""

from __future__ import annotations

import re
import uuid

from node.domain.errors import InvalidInput, InvalidInstance

# PS3.5 section 9.1: up to 64 characters, components of digits separated by dots. A leading zero in a component is
# against the standard too, but such UIDs are common in the field and harmless as names, so they are kept.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
UID_LENGTH = 64

# Namespace of every UUIDv5 that the node derives; never change it, or retries change their UIDs.
_NAMESPACE = uuid.UUID("5f0c3c1e-6d3a-5b7e-9a52-0b6c2f8d4e11")


def checked_uid(value: object, keyword: str) -> str:
    """Return ``value`` as a UID that is safe as a file name.

    Args:
        value: the element's value; trailing NULs and spaces (padding, PS3.5 section 9.1) are removed.
        keyword: the element's keyword, named in the error.

    Raises:
        InvalidInstance: missing, too long, or with a character other than a digit or a dot.
    """
    text = "" if value is None else str(value).rstrip("\0 ")
    if not text:
        raise InvalidInstance(keyword, "is missing or empty", "Send the object with a valid UID there")
    if len(text) > UID_LENGTH or not _UID.fullmatch(text):
        shown = text if len(text) <= UID_LENGTH else text[:UID_LENGTH] + "…"
        raise InvalidInstance(
            keyword, f"{shown!r} is no valid UID", "A UID has up to 64 characters, digits and dots only (PS3.5 9.1)"
        )
    return text


def derived_uid(*parts: str) -> str:
    """A UID in the ``2.25`` arc (PS3.5 B.2) that depends on ``parts`` alone: the same parts give the same UID."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '|'.join(parts)).int}"


def job_id(
    *, node: str, study_uid: str, revision: int, route: str, pipeline: str, version: str, digest: str, run: int = 1
) -> str:
    """The identity of a job, a function of what it is: dispatching the same decision twice gives the same job.

    Args:
        run: 1 for the first run; a replay on purpose counts up.
    """
    name = "|".join((node, study_uid, str(revision), route, pipeline, version, digest, str(run)))
    return str(uuid.uuid5(_NAMESPACE, name))


def checked_ae_title(value: str, field: str = "ae_title") -> str:
    """Return an AE title without its padding.

    Raises:
        InvalidInput: empty, longer than 16 characters, or with a backslash or control character (PS3.5 6.2, VR AE).
    """
    text = value.strip(" ")
    if not text or len(text) > 16 or "\\" in text or not text.isascii() or not text.isprintable():
        raise InvalidInput(
            field, f"{value!r} is no valid AE title", "Use 1 to 16 printable ASCII characters, no backslash (PS3.5 6.2)"
        )
    return text
