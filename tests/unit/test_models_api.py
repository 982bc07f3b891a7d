"""Models by the admin API: as the command line, with the caller in the audit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from admin_api.app import API_PREFIX
from node.domain.job import Role
from node.services.queries import as_json
from tests.admin import TOKEN, AdminHouse, serving
from tests.house import MODEL
from tests.versions import WHY, ModelHouse, each_named

pytestmark = pytest.mark.usefixtures("threshold_kind")


class Both(ModelHouse, AdminHouse):
    """A house with models and an API."""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Both]:
    house = Both(tmp_path)
    house.rollouts.refresh()
    yield house
    house.close()


@pytest.fixture
def api(house: Both) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with serving(house.app()) as url, httpx.Client(base_url=f"{url}{API_PREFIX}", headers=headers) as client:
        yield client


def test_a_version_is_tried_activated_and_taken_back(house: Both, api: httpx.Client) -> None:
    house.add("2")
    asked = api.post("/models/lung/2/activate", json={"why": WHY})
    assert (asked.status_code, asked.json()["state"]) == (202, "queued")
    assert house.gate().work()
    assert api.get(f"/trials/{asked.json()['id']}").json()["state"] == "passed"
    status = api.get("/models/lung").json()
    assert status == as_json(house.models.show("lung"))
    assert (status["rollout"]["champion"]["version"], status["rollout"]["previous"][0]["version"]) == ("2", "1.0")
    back = api.post("/models/lung/rollback", json={"why": WHY})
    assert (back.status_code, back.json()["champion"]["version"]) == (200, "1.0")
    who = [(e["who"], e["change"], e["why"]) for e in api.get("/audit").json()[:2]]
    assert who == [("api from 127.0.0.1", "rolled back", WHY), ("api from 127.0.0.1", "activated", WHY)]


def test_a_canary_and_its_figures(house: Both, api: httpx.Client) -> None:
    house.add("2")
    order = {"why": WHY, "percent": "100", "after": 3, "disagreement": 0.5}
    asked = api.post("/models/lung/2/canary", json=order).json()
    assert asked["wish"]["share"] == 10_000
    assert asked["wish"]["bounds"] == {"after": 3, "errors": 0.05, "slowdown": 2.0, "disagreement": 0.5}
    house.gate().work()
    house.route("1.2.10")
    house.work_off(each_named)
    (status,) = api.get("/models").json()
    assert status["figures"]["compared"] == 1
    assert status == as_json(house.models.all()[0])
    back = api.post("/models/lung/rollback", json={"why": WHY, "version": "2"}).json()
    assert (back["canary"], back["champion"]["version"]) == (None, "1.0")


def test_verify_shadow_retire_and_replay(house: Both, api: httpx.Client) -> None:
    house.add("2")
    assert api.post("/models/lung/2/verify").json()["state"] == "registered"
    assert api.post("/models/lung/2/shadow", json={"why": WHY}).status_code == 202
    house.gate().work()
    assert [s["version"] for s in api.get("/models/lung").json()["rollout"]["shadows"]] == ["2"]
    house.route("1.2.10")
    house.work_off(each_named)
    job = api.post("/studies/1.2.10/replay", json={"why": WHY, "model": "lung@2"}).json()
    assert (job["role"], job["send_to"], job["model"]["version"]) == ("replay", [], "2")
    held = api.post("/models/lung/2/retire", json={"why": WHY})
    assert held.status_code == 409
    assert "is the shadow; take it back first" in held.json()["error"]["problem"]
    house.rollouts.rollback("lung", model=house.models.find("lung@2").model, who="ann", why=WHY)
    assert api.post("/models/lung/2/retire", json={"why": WHY}).json()["state"] == "retired"


def test_a_version_is_added_from_the_nodes_disk(house: Both, api: httpx.Client, tmp_path: Path) -> None:
    bad = api.post("/models", json={"why": WHY, "source": str(tmp_path / "nothing")})
    assert (bad.status_code, bad.json()["error"]["field"]) == (422, "source")
    (tmp_path / "empty").mkdir()
    refused = api.post("/models", json={"why": WHY, "source": str(tmp_path / "empty"), "version": "1"})
    assert refused.status_code == 422
    unknown = api.post("/models", json={"why": WHY, "source": "x", "colour": "red"})
    assert (unknown.status_code, unknown.json()["error"]["field"]) == (422, "colour")


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/models/lung/9/activate", {"why": WHY}, 404, "no version lung@9 is known"),
        ("/models/lung/1.0/activate", {}, 422, "Field required"),
        ("/models/lung/1.0/activate", {"why": ""}, 422, "at least 1 character"),
        ("/models/lung/1.0/canary", {"why": WHY, "percent": "5"}, 422, "is the champion"),
        ("/models/lung/1.0/canary", {"why": WHY, "percent": "0"}, 422, "cannot be a share"),
        ("/models/lung/1.0/canary", {"why": WHY, "percent": "5", "errors": 2}, 422, "out of range"),
        ("/models/lung/rollback", {"why": WHY}, 422, "nothing was ever activated"),
        ("/studies/1.9/replay", {"why": WHY, "model": "lung@1.0"}, 404, "no study 1.9 is known"),
    ],
)
def test_what_cannot_be_done_is_told(
    api: httpx.Client, path: str, body: dict[str, str], status: int, said: str
) -> None:
    answer = api.post(path, json=body)
    assert answer.status_code == status
    assert said in str(answer.json()["error"])


def test_readiness_tells_of_a_champion_that_fell_back(house: Both) -> None:
    house.give(house.add("2"), Role.CHAMPION)
    with house.database.write() as tx:
        house.rollouts.fail(tx, house.rollout().champion, "bundle/models/model.pt: has changed")
    assert house.models.problems() == [
        f"{house.models.find('lung@2').model.label} failed and {MODEL.label} runs in its place: "
        "bundle/models/model.pt: has changed"
    ]
