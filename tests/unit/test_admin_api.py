"""The admin API over real HTTP, in front of a real database."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from pydantic import TypeAdapter

from admin_api.app import API_PREFIX, create_app
from admin_api.deps import AdminServices
from admin_api.schemas import JobOut, StatusOut, StudyDetailOut
from node.domain.delivery import DeliveryState
from node.domain.errors import InvalidSettings
from node.domain.job import JobState
from node.domain.retention import Keep
from node.services.queries import as_json
from tests.admin import DONE, FAILED, TOKEN, VERSION, AdminHouse, serving

OPEN = ["/healthz", "/readyz", "/", "/dom.js", "/page.js", "/page.css", "/docs", "/docs.js", "/openapi.json"]
GUARDED = [
    ("GET", "/metrics"),
    ("GET", "/api/v1/status"),
    ("GET", "/api/v1/studies"),
    ("GET", "/api/v1/studies/{study_uid}"),
    ("GET", "/api/v1/jobs"),
    ("GET", "/api/v1/jobs/{job_id}"),
    ("POST", "/api/v1/jobs/{job_id}/requeue"),
    ("POST", "/api/v1/jobs/{job_id}/dismiss"),
    ("GET", "/api/v1/deliveries"),
    ("POST", "/api/v1/deliveries/{delivery_id}/requeue"),
    ("POST", "/api/v1/deliveries/{delivery_id}/dismiss"),
    ("GET", "/api/v1/routes"),
    ("GET", "/api/v1/decisions"),
    ("GET", "/api/v1/pipelines"),
    ("GET", "/api/v1/models"),
    ("POST", "/api/v1/models"),
    ("GET", "/api/v1/models/{name}"),
    ("POST", "/api/v1/models/{name}/rollback"),
    ("POST", "/api/v1/models/{name}/{version}/verify"),
    ("POST", "/api/v1/models/{name}/{version}/activate"),
    ("POST", "/api/v1/models/{name}/{version}/canary"),
    ("POST", "/api/v1/models/{name}/{version}/shadow"),
    ("POST", "/api/v1/models/{name}/{version}/retire"),
    ("GET", "/api/v1/trials/{trial_id}"),
    ("GET", "/api/v1/audit"),
    ("POST", "/api/v1/studies/{study_uid}/replay"),
    ("GET", "/api/v1/aside"),
    ("GET", "/api/v1/events"),
    ("GET", "/api/v1/retention"),
]
STORE = [("POST", "/dicomweb/studies"), ("POST", "/dicomweb/studies/{study_uid}")]
LISTS = [
    p
    for _, p in GUARDED
    if p.rpartition("/")[2] in ("studies", "jobs", "deliveries", "decisions", "aside", "events", "audit")
]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdminHouse]:
    house = AdminHouse(tmp_path_factory.mktemp("house"))
    house.live()
    yield house
    house.close()


@pytest.fixture(scope="module")
def url(house: AdminHouse) -> Iterator[str]:
    with serving(house.app()) as url:
        yield url


@pytest.fixture(scope="module")
def stranger(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url) as client:
        yield client


@pytest.fixture(scope="module")
def api(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize(
    "authorization", [None, "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer", "Bearer täuschend"]
)
def test_without_the_token_nothing_is_told(
    stranger: httpx.Client, method: str, path: str, authorization: str | None
) -> None:
    headers = [] if authorization is None else [(b"Authorization", authorization.encode())]
    answer = stranger.request(method, re.sub(r"\{.*?\}", "1", path), headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.json()["error"]["field"] == "Authorization"
    assert "ainode token" in answer.json()["error"]["fix"]


def test_an_api_without_a_token_is_not_made(house: AdminHouse) -> None:
    services = house.app().state.services
    assert isinstance(services, AdminServices)
    assert TOKEN not in repr(services)
    with pytest.raises(InvalidSettings, match=r"api\.token"):
        create_app(AdminServices(**{**vars(services), "token": ""}))


@pytest.mark.parametrize("path", OPEN)
def test_probes_and_pages_are_open_and_hold_no_data(stranger: httpx.Client, path: str) -> None:
    answer = stranger.get(path)
    assert answer.status_code == 200
    assert DONE not in answer.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_have_no_inline_script_or_style_and_load_nothing_from_elsewhere(
    stranger: httpx.Client, path: str
) -> None:
    html = stranger.get(path).text
    assert not re.search(r"<script(?![^>]*\bsrc=)", html)
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", html)
    assert not re.search(r"https?://|src=\"//|href=\"//", html)
    for name in re.findall(r"(?:src|href)=\"([^\"]+)\"", html):
        assert stranger.get(f"/{name.lstrip('./')}").status_code == 200


@pytest.mark.parametrize("script", ["/dom.js", "/page.js", "/docs.js"])
def test_scripts_never_read_text_as_html(stranger: httpx.Client, script: str) -> None:
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", stranger.get(script).text)


def test_another_origin_is_not_let_in(api: httpx.Client) -> None:
    answer = api.get(f"{API_PREFIX}/status", headers={"Origin": "https://elsewhere.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_readiness_says_why_not(house: AdminHouse, stranger: httpx.Client) -> None:
    assert stranger.get("/readyz").json() == {"ready": True, "problems": []}
    house.problems = ["free space is below 2 GB"]
    answer = stranger.get("/readyz")
    house.problems = []
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "problems": ["free space is below 2 GB"]}


def test_openapi_lists_every_path_with_its_security(stranger: httpx.Client) -> None:
    openapi = stranger.get("/openapi.json").json()
    operations = {(m.upper(), p): o for p, methods in openapi["paths"].items() for m, o in methods.items()}
    assert set(operations) == {*GUARDED, *STORE, ("GET", "/healthz"), ("GET", "/readyz")}
    assert openapi["components"]["securitySchemes"] == {
        "token": {"type": "http", "scheme": "bearer", "description": "The token that `ainode token` prints."},
        "peer": {"type": "http", "scheme": "bearer", "description": "The `dicomweb_token` of a peer."},
    }
    for key, operation in operations.items():
        assert operation["summary"], key
        assert operation["tags"], key
        needed = [{"token": []}] if key in GUARDED else [{"peer": []}] if key in STORE else []
        assert operation.get("security", []) == needed, key
        assert (operation["responses"].get("200") or operation["responses"]["202"])["content"], key
    assert openapi["info"]["version"] == VERSION


def test_what_is_read_agrees_with_the_command_line(house: AdminHouse, api: httpx.Client) -> None:
    """``--json`` prints ``as_json`` of the same read models."""
    assert api.get(f"{API_PREFIX}/status").json() == as_json(house.queries.status())
    assert api.get(f"{API_PREFIX}/studies").json() == as_json(house.queries.studies(limit=9))
    assert api.get(f"{API_PREFIX}/studies/{DONE}").json() == as_json(house.queries.study(DONE))
    assert api.get(f"{API_PREFIX}/jobs").json() == as_json(house.queries.jobs(limit=9))
    assert api.get(f"{API_PREFIX}/deliveries").json() == as_json(house.queries.deliveries(limit=9))
    assert api.get(f"{API_PREFIX}/decisions").json() == as_json(house.queries.decisions(limit=9))
    assert api.get(f"{API_PREFIX}/aside").json() == as_json(house.queries.asides(limit=9))
    assert api.get(f"{API_PREFIX}/events").json() == as_json(house.queries.events(limit=100))


def test_the_schemas_leave_nothing_out(house: AdminHouse) -> None:
    for schema, thing in (
        (StatusOut, house.queries.status()),
        (StudyDetailOut, house.queries.study(DONE)),
        (JobOut, house.queries.jobs(limit=1)[0]),
    ):
        assert TypeAdapter(schema).validate_python(thing).model_dump(mode="json") == as_json(thing)


def test_routes_and_pipelines(api: httpx.Client) -> None:
    (route,) = api.get(f"{API_PREFIX}/routes").json()
    assert route == {
        "name": "chest-ct",
        "when": [{"keyword": "Modality", "operator": "equals", "operands": ["CT"]}],
        "pipeline": "lung",
        "send_to": ["PACS"],
    }
    there, not_there = api.get(f"{API_PREFIX}/pipelines").json()
    assert (there["name"], there["model"]["version"], there["unavailable"]) == ("lung", "1.0", None)
    assert (not_there["name"], not_there["model"], not_there["unavailable"]) == ("nodules", None, "no weights")


def test_states_filter_and_pages_follow_each_other(api: httpx.Client) -> None:
    assert [j["study_uid"] for j in api.get(f"{API_PREFIX}/jobs", params={"state": "dead"}).json()] == [FAILED]
    assert len(api.get(f"{API_PREFIX}/deliveries", params={"state": "delivered"}).json()) == 2
    first = api.get(f"{API_PREFIX}/studies", params={"limit": 2}).json()
    rest = api.get(f"{API_PREFIX}/studies", params={"limit": 2, "before": first[-1]["last_at"]}).json()
    assert [s["study_uid"] for s in rest] == [DONE]


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("limit", ["0", "1001", "-1", "many"])
def test_a_limit_out_of_bounds_is_refused_by_name(api: httpx.Client, path: str, limit: str) -> None:
    answer = api.get(path, params={"limit": limit})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["field"] == "limit"
    assert error["problem"]
    assert error["fix"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("jobs?state=lost", "state"),
        ("deliveries?state=queued", "state"),
        ("studies?before=2026-01-01T00:00:00", "before"),
    ],
)
def test_a_parameter_that_is_not_allowed_is_named(api: httpx.Client, query: str, field: str) -> None:
    answer = api.get(f"{API_PREFIX}/{query}")
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, field)


@pytest.mark.parametrize(
    ("method", "path", "problem"),
    [
        ("GET", "studies/1.2.3", "no study 1.2.3 is known"),
        ("GET", "jobs/nothing", "no job nothing is known"),
        ("POST", "jobs/nothing/requeue", "no job nothing is known"),
        ("POST", "deliveries/99/requeue", "no delivery 99 is known"),
        ("GET", "nothing", "Not Found"),
    ],
)
def test_what_is_not_there_is_404(api: httpx.Client, method: str, path: str, problem: str) -> None:
    answer = api.request(method, f"{API_PREFIX}/{path}")
    assert answer.status_code == 404
    assert answer.json()["error"]["problem"] == problem


def test_an_error_in_the_node_is_500_without_its_traceback(tmp_path: Path) -> None:
    house = AdminHouse(tmp_path)
    house.problems = None  # type: ignore[assignment]
    with serving(house.app()) as url:
        answer = httpx.get(f"{url}/readyz")
    house.close()
    assert answer.status_code == 500
    assert answer.json()["error"]["problem"] == "the node failed: TypeError"


@contextmanager
def client_of(url: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=f"{url}{API_PREFIX}", headers=headers) as client:
        yield client


def test_a_dead_job_and_a_dead_delivery_are_dismissed_once(tmp_path: Path) -> None:
    house = AdminHouse(tmp_path)
    house.live()
    with house.database.write() as tx:
        (job,) = tx.jobs.latest(state=JobState.DEAD)
        (delivery,) = tx.deliveries.latest(state=DeliveryState.DEAD)
        tx.jobs.mark_noticed(job)
    with serving(house.app()) as url, client_of(url) as api:
        for path, state in ((f"jobs/{job.id}", "cancelled"), (f"deliveries/{delivery.id}", "withdrawn")):
            done = api.post(f"/{path}/dismiss")
            assert (done.status_code, done.json()["state"]) == (200, state)
            assert api.post(f"/{path}/dismiss").status_code == 409
        actors = {e["actor"] for e in api.get("/events").json() if e["step"] == "dismiss"}
        assert actors == {"api from 127.0.0.1"}
    house.close()


def test_what_is_kept_and_what_was_removed(tmp_path: Path) -> None:
    house = AdminHouse(tmp_path)
    house.live()
    house.clock.tick(31 * 86400)
    with serving(house.app()) as url, client_of(url) as api:
        before = api.get("/retention").json()
        house.prune(Keep(aside=timedelta(days=30))).prune()
        after = api.get("/retention").json()
    assert before["keep"] == {"studies": "P30D", "aside": None, "quarantine": None, "history": None}
    assert (before["removed"]["aside"]["number"], after["removed"]["aside"]["number"]) == (0, 1)
    assert (before["oldest_study"][:10], before["quarantine"]) == ("2026-01-02", [])
    text = house.metrics.render().decode()
    assert 'ainode_removed_total{kind="aside"} 1.0' in text
    assert 'ainode_removed_bytes_total{kind="studies"} 0.0' in text
    assert "ainode_oldest_study_seconds 2.67" in text
    house.close()


def test_requeue_once_and_then_it_is_not_dead_any_more(tmp_path: Path) -> None:
    house = AdminHouse(tmp_path)
    house.live()
    job = house.queries.jobs(limit=1, state=JobState.DEAD)[0]
    delivery = house.queries.deliveries(limit=1, state=DeliveryState.DEAD)[0]
    with (
        serving(house.app()) as url,
        httpx.Client(base_url=f"{url}{API_PREFIX}", headers={"Authorization": f"Bearer {TOKEN}"}) as api,
    ):
        again = api.post(f"/jobs/{job.id}/requeue")
        assert (again.status_code, again.json()["state"], again.json()["attempt"]) == (200, "queued", 0)
        twice = api.post(f"/jobs/{job.id}/requeue")
        assert twice.status_code == 409
        assert twice.json()["error"]["problem"] == f"job {job.id} is queued; only a dead job can be requeued"
        again = api.post(f"/deliveries/{delivery.id}/requeue")
        assert (again.status_code, again.json()["state"], again.json()["status"]) == (200, "pending", None)
        twice = api.post(f"/deliveries/{delivery.id}/requeue")
        assert twice.status_code == 409
        assert "is pending; only a dead one" in twice.json()["error"]["problem"]
        actors = [e["actor"] for e in api.get("/events", params={"limit": 2}).json()]
    assert actors == ["api from 127.0.0.1"] * 2
    house.close()
