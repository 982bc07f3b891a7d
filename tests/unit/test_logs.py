"""Log lines: their form, and what they never hold."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator

import pytest

from node.observe.logs import configure


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    names = [None, "pynetdicom", "pydicom", "alembic", "apscheduler", "py.warnings"]
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(False)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def test_text_is_one_line_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "text")
    logging.getLogger("node.services.assemble").info("study settled", extra={"study_uid": "1.2.3", "revision": 2})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("info    node.services.assemble: study settled study_uid=1.2.3 revision=2")


def test_text_cannot_be_forged_by_line_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "text")
    logging.getLogger("node").warning("peer %s", "X\n2026-01-01T00:00:00Z info node: all is well")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    try:
        raise ValueError("bad slope")
    except ValueError:
        logging.getLogger("node.work").exception("job %s failed", "j1", extra={"attempt": 3})
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert (record["level"], record["logger"], record["message"]) == ("error", "node.work", "job j1 failed")
    assert record["attempt"] == 3
    assert record["at"].endswith("Z")
    assert "ValueError: bad slope" in record["traceback"]


def test_the_level_holds(capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning", "text")
    logging.getLogger("node").info("not shown")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("logger", ["pynetdicom.acse", "pydicom.config"])
def test_libraries_that_print_data_sets_stay_quiet_even_at_debug(
    capsys: pytest.CaptureFixture[str], logger: str
) -> None:
    configure("debug", "text")
    logging.getLogger(logger).debug("(0010,0010) PN Doe^Jane")
    assert capsys.readouterr().err == ""


def test_python_warnings_are_shown_at_debug_only(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure("info", "text")
        warnings.warn("Invalid value for VR PN: 'Doe^Jane'", stacklevel=1)
        assert capsys.readouterr().err == ""
        configure("debug", "text")
        warnings.warn("Invalid value for VR PN: 'Doe^Jane'", stacklevel=1)
        assert "py.warnings" in capsys.readouterr().err
        logging.captureWarnings(False)
