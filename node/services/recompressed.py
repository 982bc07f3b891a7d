"""Objects that came again in another compression: the same image, of the same patient or of another.

When they come they are conflicts: to decode them would hold up their sender. Here they are decoded, in a process that
does so anyway, and the conflict becomes what it is: nothing new, or a correction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from node.domain.errors import AinodeError
from node.domain.events import Event, Subject
from node.domain.instance import Aside, AsideReason
from node.domain.part10 import HEAD_LIMIT, split
from node.ports import Clock, InstanceFiles, Trash
from node.repositories import Transaction
from node.services.assemble import Assemble
from node.services.correct import Written, changed_identity

log = logging.getLogger(__name__)

_EXPLICIT = "1.2.840.10008.1.2.1"
# Uncompressed, RLE, and what loses nothing of JPEG, JPEG-LS, JPEG 2000 and HTJ2K (PS3.5 annex A.4).
_NATIVE = frozenset({"1.2.840.10008.1.2", _EXPLICIT, "1.2.840.10008.1.2.2"})
_LOSSLESS = (
    _NATIVE
    | {"1.2.840.10008.1.2.5"}
    | {f"1.2.840.10008.1.2.4.{n}" for n in ("57", "70", "80", "90", "92", "201", "202")}
)
_LARGEST = 1 << 27  # bytes of a file: both are held in memory, decoded


class Recompressed:
    """Looks at conflicts, each once in the life of a process.

    Args:
        plain: the data set of a file in Explicit VR Little Endian, uncompressed; raises ``AinodeError`` where it cannot
            be decoded.
    """

    def __init__(
        self,
        write: Transaction,
        read: Transaction,
        clock: Clock,
        files: InstanceFiles,
        trash: Trash,
        assemble: Assemble,
        plain: Callable[[Path], bytes],
    ) -> None:
        self._write = write
        self._read = read
        self._clock = clock
        self._files = files
        self._trash = trash
        self._assemble = assemble
        self._plain = plain
        self._seen = 0

    def look(self) -> int:
        """Judge the conflicts that are new; returns how many are none any more."""
        with self._read() as tx:
            new = tx.instances.asides(limit=1000, after=self._seen)
        settled = 0
        for aside in reversed(new):
            self._seen = aside.id or 0
            if aside.reason is AsideReason.CONFLICT:
                settled += self._judge(aside)
        return settled

    def _judge(self, aside: Aside) -> bool:
        uid = aside.sop_instance_uid or ""
        with self._read() as tx:
            kept, believed = tx.instances.get(uid), tx.instances.correction_of(uid)
        if kept is None or kept.path == aside.path:
            return False
        try:
            if not self._may_be_same(kept.path, aside.path):
                return False
            came = Written(self._plain(self._files.absolute(aside.path)), _EXPLICIT)
            changed = self._changed(kept.path, came)
            as_believed = believed is not None and self._changed(believed.path, came) == ()
        except (AinodeError, OSError) as error:
            log.info("%s in another compression cannot be compared: %s", uid, error)
            return False
        if changed is None:
            return False
        # Who knows of no correction says nothing by sending what came first; who made it takes it back.
        is_news = bool(changed) or (believed is not None and believed.peer == aside.peer)
        self._settle(aside, changed if is_news and not as_believed else None)
        return True

    def _may_be_same(self, kept: str, came: str) -> bool:
        """One is compressed at least, neither with a loss, and both are small enough to be held."""
        paths = [self._files.absolute(path) for path in (kept, came)]
        syntaxes, size = {_syntax(path) for path in paths}, max(path.stat().st_size for path in paths)
        return not syntaxes <= _NATIVE and syntaxes <= _LOSSLESS and size <= _LARGEST

    def _changed(self, path: str, came: Written) -> tuple[str, ...] | None:
        return changed_identity(Written(self._plain(self._files.absolute(path)), _EXPLICIT), came)

    def _settle(self, aside: Aside, changed: tuple[str, ...] | None) -> None:
        """Drop the conflict: for nothing, or for a correction.

        Its row goes first: a file without one is given one by the next start, and is looked at again.
        """
        with self._write() as tx:
            tx.retention.drop_aside(aside.path)
            if changed is None:
                detail = {"peer": aside.peer, "detail": "the same image in another compression: nothing is kept of it"}
                at, uid = self._clock.now(), aside.sop_instance_uid or "-"
                tx.journal.add(Event(Subject.INSTANCE, uid, "duplicate", at, aside.study_uid, detail=detail))
        if changed is None:
            self._trash.remove(aside.path)
        else:
            what = ", ".join(changed) or "SOPInstanceUID"
            said = f"{what}: differs from what is believed, in another compression, and nothing else does"
            self._assemble.index([replace(aside, id=None, reason=AsideReason.CORRECTION, detail=said)])


def _syntax(path: Path) -> str:
    with path.open("rb") as file:
        return split(file.read(HEAD_LIMIT)).transfer_syntax_uid
