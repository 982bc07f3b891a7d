"""What a STOW-RS answer says of each instance."""

from __future__ import annotations

from typing import Any

import pytest

from node.dicomweb.answers import is_of_the_request, is_of_the_server, statuses
from node.dicomweb.server import Answer

UIDS = ("1.1", "1.2", "1.3")


def one(uid: str, **numbers: int) -> dict[str, Any]:
    tags = {"failure": "00081197", "warning": "00081196"}
    return {"00081155": {"vr": "UI", "Value": [uid]}} | {
        tags[name]: {"vr": "US", "Value": [number]} for name, number in numbers.items()
    }


def body(stored: list[Any], failed: list[Any]) -> dict[str, Any]:
    return {"00081199": {"vr": "SQ", "Value": stored}, "00081198": {"vr": "SQ", "Value": failed}}


def test_each_instance_has_its_own_reason() -> None:
    answer = Answer(202, "Accepted", body([one("1.1"), one("1.2", warning=0xB006)], [one("1.3", failure=0xA700)]))
    assert statuses(answer, UIDS) == {"1.1": (0, ""), "1.2": (0xB006, ""), "1.3": (0xA700, "")}


def test_what_failed_failed_even_if_it_is_named_as_stored_too() -> None:
    answer = Answer(200, "OK", body([one("1.1")], [one("1.1", failure=0xC122)]))
    assert statuses(answer, ["1.1"]) == {"1.1": (0xC122, "")}


@pytest.mark.parametrize("said", [None, [], {}, {"00081199": 5}, {"00081199": {"Value": [7, {"00081155": {}}]}}])
def test_what_is_not_named_was_stored_only_where_all_were(said: Any) -> None:
    assert statuses(Answer(200, "OK", said), ["1.1"]) == {"1.1": (0, "")}
    assert statuses(Answer(202, "Accepted", said), ["1.1"])["1.1"][0] == 0x0110


def test_a_failure_without_a_reason_is_a_failure() -> None:
    assert statuses(Answer(202, "Accepted", body([], [one("1.1")])), ["1.1"])["1.1"][0] == 0x0110


@pytest.mark.parametrize(
    ("http", "status"), [(400, 0xC000), (413, 0xA700), (415, 0xC122), (406, 0xC122), (422, 0xC000)]
)
def test_an_answer_to_the_whole_request_is_of_what_it_carried(http: int, status: int) -> None:
    answer = Answer(http, "No", None)
    assert is_of_the_request(answer) and not is_of_the_server(answer)
    assert statuses(answer, ["1.1"]) == {"1.1": (status, f"HTTP {http} No")}


@pytest.mark.parametrize("http", [301, 401, 403, 404, 405, 408, 429, 500, 502, 503, 504, 507])
def test_what_is_wrong_with_the_server_is_no_fault_of_an_instance(http: int) -> None:
    assert is_of_the_server(Answer(http, "No", None))


def test_a_conflict_that_tells_nothing_may_be_about_any_of_them() -> None:
    assert is_of_the_request(Answer(409, "Conflict", None))
    assert not is_of_the_request(Answer(409, "Conflict", body([], [one("1.1", failure=0xC000)])))
