"""Requests of ours on an association that its peer opened (N-EVENT-REPORT, PS3.7 10.1.1): one at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from node.dicom.negotiate import Context
from node.dicom.wire import Command

log = logging.getLogger(__name__)

_N_EVENT_REPORT_RSP = 0x8100  # CommandField (PS3.7 annex E)


@dataclass(frozen=True)
class Notice:
    """A request to a peer: ``answered`` is told the Status and the ErrorComment of its response, if one comes."""

    primitive: Any
    answered: Callable[[int, str], None]


# Gives the next notice for a calling AE title, to be sent in a context; None where there is none by now.
Notices: TypeAlias = Callable[[str, Context], Notice | None]


class Notifier:
    """What one association has to tell its peer, and what the peer answers. Raises nothing.

    Args:
        calling: AE title of the peer.
        context: in which it is told.
    """

    def __init__(self, calling: str, context_id: int, context: Context, notices: Notices) -> None:
        self.context_id = context_id
        self._calling = calling
        self._context = context
        self._notices = notices
        self._message_id = 0
        self._sent: Notice | None = None

    def next(self) -> Any | None:
        """The request primitive to send now; None where there is none, or the last one is not answered yet."""
        if self._sent is not None:
            return None
        try:
            self._sent = self._notices(self._calling, self._context)
        except Exception:
            # The edge: the association serves its peer on, whatever keeps us from telling it something.
            log.exception("no notice for %r", self._calling)
        if self._sent is None:
            return None
        self._message_id = self._message_id % 0xFFFF + 1
        self._sent.primitive.MessageID = self._message_id
        return self._sent.primitive

    def is_answered_by(self, context_id: int, command: Command) -> bool:
        """Whether a command is the response to what was sent last."""
        answer = (context_id, command.field, command.responds_to)
        asked = (self.context_id, _N_EVENT_REPORT_RSP, self._message_id)
        return self._sent is not None and answer == asked and command.status is not None

    def take(self, response: Command) -> None:
        """The response has come."""
        sent, self._sent = self._sent, None
        assert sent is not None
        assert response.status is not None
        try:
            sent.answered(response.status, response.comment)
        except Exception:
            log.exception("the answer of %r to a notice is lost", self._calling)


def notifier(calling: str, contexts: Mapping[int, Context], notices: Mapping[str, Notices]) -> Notifier | None:
    """One for the first of the contexts that has notices; None where none has."""
    for context_id, context in contexts.items():
        if (source := notices.get(context.abstract_syntax)) is not None:
            return Notifier(calling, context_id, context, source)
    return None
