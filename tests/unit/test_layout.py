"""Paths: where things lie, and what never becomes a path."""

from __future__ import annotations

import pytest

from node.domain.errors import InvalidInput, InvalidInstance
from node.files import layout


def test_paths() -> None:
    assert layout.instance_path("1.2", "1.3", "1.4\0") == "instances/1.2/1.3/1.4.dcm"
    assert layout.result_path("0a-b", 2, "1.4") == "results/0a-b/2/1.4.dcm"
    assert layout.aside_path("conflict/2026-01-02", "1.4-ab") == "aside/conflict/2026-01-02/1.4-ab.dcm"
    assert layout.note_path("aside/conflict/2026-01-02/1.4-ab.dcm") == "aside/conflict/2026-01-02/1.4-ab.json"
    assert layout.work_path("0a-b", 2) == "work/0a-b/2"
    assert layout.work_path("0a-b") == "work/0a-b"


@pytest.mark.parametrize("uid", ["../../x", "/etc/passwd", "", "..", "1.2/3", "1" * 65, "1.2\n", "1..2", "a.b"])
def test_what_is_no_uid_never_becomes_a_path(uid: str) -> None:
    for uids in ((uid, "1.3", "1.4"), ("1.2", uid, "1.4"), ("1.2", "1.3", uid)):
        with pytest.raises(InvalidInstance):
            layout.instance_path(*uids)


@pytest.mark.parametrize("part", ["..", "../x", "a/b", "", ".hidden", "a\0b"])
def test_other_parts_are_checked_too(part: str) -> None:
    with pytest.raises(InvalidInput):
        layout.aside_path("conflict/2026-01-02", part)
    with pytest.raises(InvalidInput):
        layout.work_path(part)
