"""STOW-RS of a ``House``: what is stored lies on a real disk; rows, time and free space are as a test says."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from admin_api.deps import Dicomweb
from node.domain.instance import Answer, Aside, AsideReason, Incoming, Instance
from node.domain.part10 import head
from node.domain.peer import Peer
from node.files.disk import DiskFiles
from node.services.origins import Origins
from node.services.receive import Receive
from node.services.stow import Stow
from tests.admin import AdminHouse

BOUNDARY = "0f3cf5c0-70e0"
CONTENT_TYPE = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'
PEER_TOKEN, FAR_TOKEN = "a-token-of-the-scanner", "a-token-of-somebody-far-away"
CT1 = Peer("CT1", "SCANNER1", "localhost", max_associations=2)
FAR = Peer("FAR", "FAR", "192.0.2.1")  # TEST-NET-1: nobody calls from there

WATERMARK = 1 << 20
REFERENCED, FAILED, OTHERS = "00081199", "00081198", "0008119A"


class StowHouse(AdminHouse):
    """``room``: objects that the disk holds. ``told``, ``released``, ``answers``: what the receiver said."""

    def __init__(self, root: Path, *, max_bytes: int = 1 << 32) -> None:
        super().__init__(root)
        self.room = 1 << 20
        self.told: list[Instance | Aside] = []
        self.released: list[tuple[str, frozenset[str]]] = []
        self.answers: list[tuple[str, Answer]] = []
        files = _Disk(root, self)
        self.receive = Receive(
            files,
            lambda uid: None,
            lambda uid: False,
            self.told.append,
            self.clock,
            on_answered=lambda peer, answer, size: self.answers.append((peer, answer)),
            max_bytes=max_bytes,
        )
        self.stow = Stow(
            self.receive.begin,
            lambda *told: self.released.append(told),
            lambda: files.free_bytes() >= WATERMARK,
            max_open=3,
        )
        self.dicomweb = Dicomweb(self.stow, Origins(), {PEER_TOKEN: CT1, FAR_TOKEN: FAR})

    def kept(self) -> dict[str, bytes]:
        """The bytes of every received instance, by SOPInstanceUID."""
        return {Path(p).stem: self.files.absolute(p).read_bytes() for p in self.files.all_instances()}

    def asides(self, reason: AsideReason) -> list[Aside]:
        return [thing for thing in self.told if isinstance(thing, Aside) and thing.reason is reason]

    def unfinished(self) -> list[Path]:
        """What lies half-written."""
        return list(self.files.absolute("tmp").iterdir())


class _Disk(DiskFiles):
    def __init__(self, root: Path, house: StowHouse) -> None:
        super().__init__(root, min_free_bytes=WATERMARK)
        self._house = house

    def free_bytes(self) -> int:
        return WATERMARK if len(self._house.told) < self._house.room else 0


def file_of(object_: Incoming) -> bytes:
    """The object as a DICOM file."""
    return head(object_) + object_.dataset


def body_of(parts: Iterable[bytes], *, headers: str = "Content-Type: application/dicom\r\n", end: bool = True) -> bytes:
    """A multipart body; without its end it breaks off behind the last part."""
    whole = b"".join(f"\r\n--{BOUNDARY}\r\n{headers}\r\n".encode() + part for part in parts)
    return whole + (f"\r\n--{BOUNDARY}--\r\n".encode() if end else b"")
