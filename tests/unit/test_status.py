"""The table of C-STORE statuses."""

from __future__ import annotations

import pytest

from node.domain.status import FEW, Verdict, in_words, meaning, verdict

ACKNOWLEDGED = (0x0000, 0x0001, 0x0107, 0x0111, 0x0116, 0xB000, 0xB006, 0xB007, 0xB00A)
TRIED_FOR_DAYS = (0x0110, 0x0124, 0x0210, 0x0213, 0xA700, 0xA7FF, 0xFE00)
TRIED_A_FEW_TIMES = (0xC000, 0xC123, 0xCFFF, 0x0199, 0xA801, 0xFF00, 0x5555)
DEAD_AT_ONCE = (
    0x0105, 0x0106, 0x0112, 0x0115, 0x0117, 0x0118, 0x0119, 0x0120, 0x0121, 0x0122, 0x0123, 0x0211, 0x0212,
    0xA900, 0xA9FF, 0xC122,
)  # fmt: skip


@pytest.mark.parametrize(
    ("statuses", "expected", "tries"),
    [
        (ACKNOWLEDGED, Verdict.ACK, None),
        (TRIED_FOR_DAYS, Verdict.RETRY, None),
        (TRIED_A_FEW_TIMES, Verdict.RETRY, FEW),
        (DEAD_AT_ONCE, Verdict.REJECT, None),
    ],
)
def test_every_status_has_its_verdict(statuses: tuple[int, ...], expected: Verdict, tries: int | None) -> None:
    found = {f"{status:04X}": (verdict(status), meaning(status).tries) for status in statuses}
    assert found == dict.fromkeys(found, (expected, tries))


def test_the_warnings_are_told_apart_in_words() -> None:
    said = [in_words(status) for status in (0xB000, 0xB006, 0xB007)]
    assert said == [
        "B000 (coercion of data elements)",
        "B006 (elements discarded)",
        "B007 (data set does not match SOP class)",
    ]


def test_the_comment_of_the_peer_follows_the_words() -> None:
    assert in_words(0xA700, "disk full") == "A700 (refused: out of resources) disk full"


def test_every_meaning_names_its_source() -> None:
    assert all(meaning(status).source.startswith("PS3.") for status in range(0x10000))
