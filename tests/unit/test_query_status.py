"""What the statuses of C-FIND, C-MOVE and C-GET are told as."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from node.dicom.study_root import FIND, GET, MOVE, checked, in_words
from node.domain.errors import PeerUnreachable, Rejected
from node.domain.peer import Peer

PACS = Peer("PACS", "PACS", "127.0.0.1", 104)


def response(status: int | None, comment: str = "") -> Dataset:
    made = Dataset()
    if status is not None:
        made.Status = status
    if comment:
        made.ErrorComment = comment
    return made


@pytest.mark.parametrize(
    ("status", "meaning", "fix"),
    [
        (0xA801, "A801, move destination unknown", "add the AE title AINODE with the host and port of this node"),
        (0xA701, "A701, out of resources: it cannot count", "Try again later"),
        (0xA702, "A702, out of resources: it cannot perform", "may send to AINODE"),
        (0xA900, "A900, the identifier does not match", "query model"),
        (0xC042, "C042, unable to process", "may not know the AE title AINODE"),
        (0x0122, "0122, SOP class not supported", "enable this service"),
        (0x0124, "0124, not authorised", "permit AINODE"),
        (0xFE00, "FE00, cancelled", "Try again"),
        (0x0110, "0110, a status that the standard does not name", "log"),
    ],
)
def test_a_failed_move_is_told_in_words_with_what_mends_it(status: int, meaning: str, fix: str) -> None:
    with pytest.raises(Rejected) as raised:
        checked(response(status), PACS, MOVE, ae_title="AINODE", destination="AINODE")
    said = str(raised.value)
    assert f"PACS (PACS@127.0.0.1:104) answered the C-MOVE with {meaning}" in said
    assert fix in said


def test_only_a_move_has_a_destination_to_blame() -> None:
    assert "AE title" not in in_words(0xC000, "", ae_title="AINODE")


def test_the_comment_of_the_peer_is_quoted() -> None:
    with pytest.raises(Rejected, match=r"unable to process \(database is down\)\. See its log"):
        checked(response(0xC001, "database is down"), PACS, FIND, ae_title="AINODE")


@pytest.mark.parametrize("status", [0x0000, 0xFF00, 0xFF01])
def test_success_and_pending_pass(status: int) -> None:
    assert checked(response(status), PACS, FIND, ae_title="AINODE") == status


def test_a_warning_passes_for_a_retrieval_but_not_for_a_query_whose_answer_is_cut_short() -> None:
    assert checked(response(0xB000), PACS, GET, ae_title="AINODE") == 0xB000
    with pytest.raises(Rejected, match="B001, it has more matches than it tells"):
        checked(response(0xB001), PACS, FIND, ae_title="AINODE")


def test_no_response_is_a_peer_that_is_not_there() -> None:
    with pytest.raises(PeerUnreachable, match="broke the association in the C-GET"):
        checked(response(None), PACS, GET, ae_title="AINODE")
