"""A DIMSE message that is being read (PS3.7 section 6.3, PS3.8 annex E)."""

from __future__ import annotations

from typing import Protocol

from node.dicom.negotiate import Context
from node.dicom.wire import AbortReason, Command, ProtocolError
from node.domain.instance import Answer

# Of a command set, and of a data set that is no object to be stored (the longest name many instances).
_MAX_COMMAND, _MAX_DATA_SET = 1 << 16, 1 << 24


class ObjectWriter(Protocol):
    """Takes the data set of one C-STORE. Raises nothing: what goes wrong is in its answer."""

    def write(self, fragment: memoryview) -> None: ...
    def finish(self) -> Answer: ...
    def abandon(self) -> None:
        """The rest will not come: leave nothing."""
        ...


class Message:
    """What came of one message. ``gathered`` is its command set, then its data set unless a writer has it."""

    def __init__(self, context_id: int, context: Context) -> None:
        self.context_id = context_id
        self.context = context
        self.command: Command | None = None
        self.writer: ObjectWriter | None = None
        self.gathered = bytearray()

    def gather_command(self, fragment: memoryview) -> None:
        """A fragment of the command set.

        Raises:
            ProtocolError: no command set is so long.
        """
        self._gather(fragment, _MAX_COMMAND)

    def take(self, fragment: memoryview) -> None:
        """A fragment of the data set.

        Raises:
            ProtocolError: it is too long, and no object that would be stored.
        """
        if self.writer is not None:
            self.writer.write(fragment)
        elif self.context.storage:
            pass  # refused without a look at it
        else:
            self._gather(fragment, _MAX_DATA_SET)

    def _gather(self, fragment: memoryview, limit: int) -> None:
        if len(self.gathered) + len(fragment) > limit:
            raise ProtocolError(AbortReason.NOT_SPECIFIED, f"a message of more than {limit} bytes")
        self.gathered += fragment
