"""Logging: stdlib loggers, one per module, written to standard error as text or as JSON lines.

The rule: at info and above no line holds a patient's name, number, birth date or free text of the data set; UIDs, AE
titles, counts and reasons are enough to find a study. Structure goes into ``extra``::

    _log = logging.getLogger(__name__)
    _log.info("study settled", extra={"study_uid": uid, "revision": 2})
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

# What every LogRecord has; all else came by ``extra``.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}

# pynetdicom prints PDUs and data sets at debug; pydicom's messages and warnings quote element values, at any level.
_QUIET = {
    "pynetdicom": logging.WARNING,
    "pydicom": logging.CRITICAL,
    "alembic": logging.WARNING,
    "apscheduler": logging.ERROR,  # a tick that is skipped because the last one still runs is no news
    "highdicom": logging.WARNING,
}


def configure(level: str = "info", format: str = "text") -> None:
    """Replace the root logger's handlers by one on standard error.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``; libraries that would print patient data stay quieter.
        format: ``text`` for people, ``json`` for one object a line with ``at`` (UTC), ``level``, ``logger``,
            ``message``, the ``extra`` fields and, for an exception, ``traceback``.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name, quiet in _QUIET.items():
        logging.getLogger(name).setLevel(quiet)
    # Python warnings of DICOM libraries quote element values too: only for who asked for debug.
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.WARNING if level == "debug" else logging.CRITICAL)


def _at(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


class TextFormatter(logging.Formatter):
    """``time level logger: message key=value``; line breaks in a message are escaped, so nothing can forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it where there is one."""
        words = [record.getMessage(), *(f"{key}={value}" for key, value in _extra(record).items())]
        text = " ".join(words).replace("\r", "\\r").replace("\n", "\\n")
        line = f"{_at(record)} {record.levelname.lower():7} {record.name}: {text}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON; a value that JSON does not know is written as text."""
        fields: dict[str, object] = {
            "at": _at(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str, ensure_ascii=False)
