"""The status page in a real browser."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import peers
from tests.admin import DONE, TOKEN, AdminHouse, serving

pytestmark = [pytest.mark.peer, pytest.mark.slow]

_SCRIPT = Path(__file__).with_name("status_page.js")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the browser saw; the screenshots lie beside the house."""
    viewer = peers.viewer()
    root = tmp_path_factory.mktemp("page")
    house = AdminHouse(root)
    house.live()
    with serving(house.app()) as url:
        run = subprocess.run(
            [viewer.node, _SCRIPT, viewer.chromium, url, TOKEN, root],
            env={**os.environ, "NODE_PATH": str(viewer.modules)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    house.close()
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def test_no_error_and_nothing_from_elsewhere(seen: dict[str, Any]) -> None:
    assert seen["errors"] == []
    assert seen["foreign"] == []


def test_a_wrong_token_shows_nothing(seen: dict[str, Any]) -> None:
    assert seen["refused"] == "The token is wrong."
    assert seen["hiddenBefore"]
    assert all("401" in error for error in seen["errorsOfWrongToken"])


def test_the_node_and_its_counts(seen: dict[str, Any]) -> None:
    assert "AINODE" in seen["node"]
    assert "ready · version 0.1.0" in seen["node"]
    assert "5.0 GB free" in seen["node"]
    assert [" ".join(tile.split()) for tile in seen["counts"]] == [
        "Studies 3 3 routed",
        "Jobs 3 1 succeeded, 1 refused, 1 dead",
        "Deliveries 3 2 delivered, 1 dead",
        "Instances kept 10",
        "Objects aside 1",
    ]


def test_the_tables(seen: dict[str, Any]) -> None:
    assert len(seen["studies"]) == len(seen["jobs"]) == len(seen["decisions"]) == 3
    assert "refused" in seen["jobs"][0]
    assert "no series has enough slices" in seen["jobs"][0]
    assert "lung@1.0" in seen["jobs"][0]
    assert [row.split() for row in seen["models"]] == [["lung", "1.0", "–", "–"]]
    assert seen["peers"][1].split()[0] == "PACS"
    assert "chest-ct" in seen["decisions"][0]
    assert "conflict: other bytes" in seen["asides"][0]


def test_text_is_shown_as_text(seen: dict[str, Any]) -> None:
    """The reason of the dead job has markup in it."""
    assert any("<b>CheckFailed</b>: Rows is 0" in row for row in seen["dead"])


def test_a_study_opens_its_timeline(seen: dict[str, Any]) -> None:
    assert seen["studyUid"] == DONE
    assert "study open" in seen["timeline"][0]
    assert any("job succeed" in line and "running → succeeded" in line for line in seen["timeline"])
    assert any("delivery ack × 2 sending → delivered" in line for line in seen["timeline"])
    assert any("delivery reject" in line and "the peer answered A900" in line for line in seen["timeline"])


def test_requeue_takes_a_dead_letter_away(seen: dict[str, Any]) -> None:
    assert len(seen["dead"]) == 2
    assert len(seen["deadAfter"]) == 1
    assert "delivery to PACS" in seen["deadAfter"][0]


def test_dismiss_takes_the_other_away(seen: dict[str, Any]) -> None:
    assert "will not be tried again" in seen["asked"]
    assert "1 withdrawn" in seen["countsAfter"]


def test_signing_out_leaves_nothing_on_the_page(seen: dict[str, Any]) -> None:
    assert "chest-ct" not in seen["afterSignOut"]
    assert DONE not in seen["afterSignOut"]


def test_the_page_fits_its_window(seen: dict[str, Any]) -> None:
    assert seen["overflow"] == {"light": 0, "dark": 0, "phone": 0}


def test_the_description_of_the_api_is_drawn_without_the_internet(seen: dict[str, Any]) -> None:
    assert "POST /api/v1/jobs/{job_id}/requeue" in seen["operations"]
    assert len(seen["operations"]) == 33
