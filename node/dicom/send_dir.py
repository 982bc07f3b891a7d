"""Send the DICOM files of a directory: what ``ainode send`` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from node.domain.errors import InvalidInput, InvalidInstance
from node.domain.part10 import HEAD_LIMIT, split
from node.domain.peer import Peer
from node.domain.status import Verdict, verdict
from node.ports import Sender

_MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"  # a DICOMDIR describes a medium; it is not sent


@dataclass(frozen=True)
class Collected:
    """The DICOM files below a directory, by path; ``skipped`` counts the other files."""

    files: tuple[Path, ...]
    skipped: int


@dataclass(frozen=True)
class Sent:
    """One answered file: the C-STORE status and the peer's comment."""

    path: Path
    status: int
    comment: str

    @property
    def accepted(self) -> bool:
        """Whether the peer keeps the object."""
        return verdict(self.status) is Verdict.ACK


def collect(directory: Path) -> Collected:
    """Find the DICOM files (PS3.10, with file meta) of a directory and those below it. A single file works too.

    Raises:
        InvalidInput: there is no such file or directory.
    """
    if not directory.exists():
        raise InvalidInput("directory", f"{directory} is not there", "Give a file or directory that exists")
    found = directory.rglob("*") if directory.is_dir() else [directory]
    candidates = sorted(path for path in found if path.is_file())
    files = tuple(path for path in candidates if _is_instance(path))
    return Collected(files, len(candidates) - len(files))


def send_files(sender: Sender, peer: Peer, files: tuple[Path, ...], on_sent: Callable[[Sent], None]) -> list[Sent]:
    """Send files in order; ``on_sent`` after each answer, for a progress bar. Returns all answers.

    Raises:
        PeerUnreachable: no association, or it broke; ``on_sent`` was called for what was answered until then.
    """
    answers: list[Sent] = []

    def answered(index: int, status: int, comment: str) -> None:
        answers.append(Sent(files[index], status, comment))
        on_sent(answers[-1])

    sender.send(peer, files, answered)
    return answers


def _is_instance(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return split(file.read(HEAD_LIMIT)).sop_class_uid != _MEDIA_STORAGE_DIRECTORY
    except (OSError, InvalidInstance):
        return False
