"""The error tree. The branch says whether to try again.

AinodeError
├── Permanent                 the same input gives the same error: never retried
│   ├── InvalidInput          names the field and the fix
│   │   ├── InvalidInstance   a SOP instance that cannot be kept as one; carries its DIMSE status
│   │   ├── InvalidRequest    a DIMSE-N request that cannot be granted; carries its DIMSE status
│   │   ├── InvalidSettings   the configuration file or environment
│   │   └── InvalidModel      a model version: its files, configuration, side file or signature
│   ├── Refused               "not for this model": an answer with a reason, shown and not retried
│   ├── CheckFailed           a result object that did not pass the check; nothing of its set is sent
│   ├── Rejected              a peer understood us and said no
│   ├── Unavailable           an optional part cannot be loaded; says exactly why
│   └── NotFound              no such study, job, delivery or model version
├── Transient                 may pass by itself: retried with backoff
│   ├── PeerUnreachable       no association, or it broke
│   │   └── PeerDeclines      it is there, and takes nothing from us now, whatever it is
│   ├── StorageFull           below the free-space watermark
│   ├── OutOfMemory           the device or the host had too little memory
│   ├── TimedOut              a job ran past its limit
│   ├── ChildLost             the process that ran the job died
│   ├── Busy                  as much is under way as the node or the peer may have at once
│   └── Interrupted           the node is being stopped
└── Fault                     a mistake in the node itself
    ├── IllegalStep           a state cannot take that step
    └── LostLease             somebody else holds the job or the delivery by now
"""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")


class AinodeError(Exception):
    """Root of every error that the node raises on purpose."""

    retry = False


class Permanent(AinodeError):
    """The same input gives the same error."""


class InvalidInput(Permanent):
    """Bad input: names the field that is wrong and what would mend it.

    Args:
        field: the DICOM keyword or the settings path, for instance ``StudyInstanceUID``.
        problem: what is wrong with it.
        fix: what the sender or administrator can do.
    """

    def __init__(self, field: str, problem: str, fix: str) -> None:
        super().__init__(f"{field}: {problem}. {fix}")
        self.field = field
        self.problem = problem
        self.fix = fix


class InvalidInstance(InvalidInput):
    """An object that cannot be kept as a SOP instance; ``status`` is the C-STORE answer (PS3.4 B.2.3)."""

    def __init__(self, field: str, problem: str, fix: str, status: int = 0xC000) -> None:
        super().__init__(field, problem, fix)
        self.status = status


class InvalidRequest(InvalidInput):
    """A DIMSE-N request that cannot be granted; ``status`` is its answer (PS3.7 annex C), ``error_id`` its ErrorID."""

    def __init__(self, field: str, problem: str, fix: str, status: int, error_id: int | None = None) -> None:
        super().__init__(field, problem, fix)
        self.status = status
        self.error_id = error_id


class InvalidSettings(InvalidInput):
    """The settings are wrong; ``field`` is their path, with the line where it is known."""


class InvalidModel(InvalidInput):
    """A model version cannot be used; ``field`` is the file and the key in it, for instance ``ainode.yaml: labels``."""


class Refused(Permanent):
    """This study is not for this model.

    Args:
        code: a short stable word, for instance ``missing-slices``.
        reason: one sentence for a person.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class CheckFailed(Permanent):
    """A result object failed the check before sending; ``problems`` says how."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Rejected(Permanent):
    """A peer answered with a failure that a retry cannot mend."""


class Unavailable(Permanent):
    """An optional part cannot be loaded; the text says exactly why."""


class NotFound(Permanent):
    """No such study, job, delivery or model version."""


def required(found: T | None, what: str) -> T:
    """What was found.

    Raises:
        NotFound: nothing was.
    """
    if found is None:
        raise NotFound(f"no {what} is known")
    return found


class Transient(AinodeError):
    """May pass by itself."""

    retry = True


class PeerUnreachable(Transient):
    """No association with the peer, or it broke."""


class PeerDeclines(PeerUnreachable):
    """The peer is there, and takes nothing from us now, whatever it is.

    Args:
        retry_after: for how long it asks to be left alone; None where it does not say.
    """

    def __init__(self, problem: str, retry_after: timedelta | None = None) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class StorageFull(Transient):
    """Free space is below the watermark; nothing acknowledged is deleted to make room."""


class OutOfMemory(Transient):
    """The device or the host had too little memory."""


class TimedOut(Transient):
    """A job ran past its limit."""


class ChildLost(Transient):
    """The process that ran the job died."""


class Busy(Transient):
    """As much is under way as the node or the peer may have at once."""


class Interrupted(Transient):
    """The node is being stopped; the job goes back to the queue and the attempt does not count."""


class Fault(AinodeError):
    """A mistake in the node itself."""


class IllegalStep(Fault):
    """A state cannot take that step."""


class LostLease(Fault):
    """Somebody else holds the job, the delivery or the report by now."""
