"""A model from a Hugging Face Hub or an MLflow registry: with its digest, and the credentials where they belong."""

from __future__ import annotations

import hashlib
import re
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import ModelSettings, NodeSettings, Settings
from node.core import Core
from node.core import registries as known_registries
from node.domain.errors import InvalidInput, PeerUnreachable, StorageFull
from node.files.models import ModelFiles
from node.services.register import Source
from tests.bundles import segmentation_config, write_version
from tests.certificates import Authority
from tests.registries import COMMIT, HUB_TOKEN, PLACE, REPOSITORY, Served, hub, mlflow, store
from tests.tls_server import serving

pytestmark = pytest.mark.peer

FILES = {"configs/metadata.json": b"{}", "models/model.pt": b"weights" * 100, "docs/read me.md": b"Hello"}
SOURCE = f"hf://{REPOSITORY}@{COMMIT}"


def digest_of(files: dict[str, bytes]) -> str:
    lines = "".join(f"{name}\0{hashlib.sha256(files[name]).hexdigest()}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def content(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


class Place:
    """Both servers, what they serve, and a node's model files that know them."""

    def __init__(self, served: Served, data_dir: Path, settings: ModelSettings) -> None:
        self.served = served
        self.settings = settings
        self._data_dir = data_dir

    def add(self, source: str, *, sha256: str | None = None, most: int = 1 << 20) -> tuple[str, str, dict[str, bytes]]:
        """Source and name as they are recorded, and the files."""
        files = ModelFiles(self._data_dir, max_bytes=most, registries=known_registries(self.settings))
        with files.staging() as staging:
            acquired = files.acquire(source, staging / "ours", sha256=sha256)
            return acquired.source, acquired.name, content(staging / "ours")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def place(tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    pair = authority.issue("server")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.pem))
    served = Served(dict(FILES))
    with (
        serving(hub(served), pair) as at,
        serving(store(served), pair) as served.store,
        serving(mlflow(served), pair) as m,
    ):
        settings = ModelSettings.model_validate(
            {
                "hub": at,
                "hub_token": HUB_TOKEN,
                "mlflow_uri": f"{m}/mlflow/",
                "mlflow_user": "node",
                "mlflow_token": "hunter2",
            }
        )
        yield Place(served, tmp_path / "var", settings)


@pytest.mark.parametrize("revision", [COMMIT, "main"])
def test_a_revision_of_the_hub_is_recorded_as_its_commit(place: Place, revision: str) -> None:
    source, name, files = place.add(f"hf://{REPOSITORY}@{revision}", sha256=digest_of(FILES))
    assert (source, name, files) == (SOURCE, "ball_segmentation", FILES)


def test_a_registered_version_of_mlflow(place: Place) -> None:
    source, name, files = place.add("models:/ball/3", sha256=digest_of(FILES))
    assert (source, name, files) == ("models:/ball/3", "ball", FILES)


def test_a_folder_of_a_registered_version(place: Place) -> None:
    place.served.files = {"MLmodel": b"flavors: {}"} | {f"artifacts/ball/{name}": FILES[name] for name in FILES}
    source, _, files = place.add("models:/ball/3/artifacts/ball", sha256=digest_of(FILES))
    assert (source, files) == ("models:/ball/3/artifacts/ball", FILES)


def test_the_artifacts_may_be_named_by_the_servers_own_address(place: Place) -> None:
    root = PLACE.removeprefix("mlflow-artifacts:/")
    place.served.place = f"{place.settings.mlflow_uri}/api/2.0/mlflow-artifacts/artifacts/{root}"
    assert place.add("models:/ball/3", sha256=digest_of(FILES))[2] == FILES


@pytest.mark.parametrize(
    ("source", "exact"), [(f"hf://{REPOSITORY}@main", SOURCE), ("models:/ball/3", "models:/ball/3")]
)
def test_without_a_digest_it_is_refused_and_named(place: Place, source: str, exact: str) -> None:
    with pytest.raises(InvalidInput, match=f"the files of {exact} have {digest_of(FILES)}"):
        place.add(source)


@pytest.mark.parametrize("source", [SOURCE, "models:/ball/3"])
@pytest.mark.parametrize("change", [{"models/model.pt": b"other"}, {"added.py": b"import os"}])
def test_what_is_not_what_the_digest_says_is_refused(place: Place, source: str, change: dict[str, bytes]) -> None:
    place.served.files |= change
    with pytest.raises(InvalidInput, match="has the digest"):
        place.add(source, sha256=digest_of(FILES))


@pytest.mark.parametrize("source", [SOURCE, "models:/ball/3"])
def test_all_files_together_have_a_largest_size(place: Place, source: str) -> None:
    size = sum(len(file) for file in FILES.values())
    assert place.add(source, sha256=digest_of(FILES), most=size)[2] == FILES
    with pytest.raises(StorageFull, match=r"models\.max_mb"):
        place.add(source, sha256=digest_of(FILES), most=size - 1)


@pytest.mark.parametrize("names", [["../x"], ["/x"], ["a/../../x"], ["", "a"], ["a\nb"], ["a", "a/b"], ["a/b", "a"]])
def test_a_path_outside_of_the_model_is_refused(place: Place, tmp_path: Path, names: list[str]) -> None:
    place.served.announced = names
    place.served.files = dict.fromkeys(("a", "a/b"), b"planted")
    with pytest.raises(InvalidInput, match="is no path of a file below it"):
        place.add(SOURCE, sha256="0" * 64)
    assert not list((tmp_path / "var").rglob("x"))


def test_a_folder_of_mlflow_lists_its_own_names_alone(place: Place) -> None:
    place.served.announced = [".."]
    with pytest.raises(InvalidInput, match="is no path of a file below it"):
        place.add("models:/ball/3", sha256="0" * 64)


def test_the_token_of_the_hub_stays_with_the_hub(place: Place) -> None:
    place.add(SOURCE, sha256=digest_of(FILES))
    tokens = dict(place.served.requests)
    assert tokens["/models/model.pt"] is None
    assert tokens["/api/resolve-cache/docs/read%20me.md"] == f"Bearer {HUB_TOKEN}"


def test_a_hub_that_hands_out_another_commit_is_told(place: Place) -> None:
    place.served.commit = "f" * 40
    with pytest.raises(InvalidInput, match=r"is commit f{40}\. Check models\.hub"):
        place.add(SOURCE, sha256=digest_of(FILES))


@pytest.mark.parametrize("source", [SOURCE, "models:/ball/3"])
def test_a_file_that_ends_early_is_told(place: Place, source: str) -> None:
    place.served.cut_short = True
    with pytest.raises(PeerUnreachable, match="ended 1 bytes early"):
        place.add(source, sha256=digest_of(FILES))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (f"hf://{REPOSITORY}", "names no revision of a model. Write hf://ORG/REPOSITORY@COMMIT"),
        (f"hf://{REPOSITORY}@v9", "404 Not Found. Check name and version"),
        ("models:/ball@champion", "names no version of a model. Write models:/NAME/VERSION"),
        ("models:/ball/Production", "names no version of a model. Write models:/NAME/VERSION"),
        ("models:/ball/4", "404 Not Found. Check name and version"),
        ("models:/ball/3/nowhere", "has no files in mlflow-artifacts:/1/models"),
    ],
)
def test_what_is_not_there_is_told(place: Place, source: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(said)):
        place.add(source, sha256=digest_of(FILES))


@pytest.mark.parametrize("elsewhere", ["s3://bucket/1/model", "mlflow-artifacts://other.example/1/model", "/mlruns/1"])
def test_files_that_mlflow_does_not_hand_out_are_told(place: Place, elsewhere: str) -> None:
    place.served.place = elsewhere
    with pytest.raises(InvalidInput, match=f"lies at {elsewhere}, which is not fetched"):
        place.add("models:/ball/3", sha256=digest_of(FILES))


def test_a_wrong_setting_is_told(place: Place) -> None:
    right = place.settings
    for change, source, said in (
        ({"hub_token": None}, SOURCE, r"401 .*models\.hub_token"),
        ({"mlflow_user": None}, "models:/ball/3", r"401 .*mlflow_token"),
        ({"mlflow_uri": None}, "models:/ball/3", r"none is set\. Set models\.mlflow_uri"),
        ({"hub": f"{place.served.store}/none"}, SOURCE, r"400 .*models\.hub "),
        ({"hub": "https://localhost:1"}, SOURCE, r"cannot be read: .*refused\. Check the address, the proxy"),
    ):
        place.settings = right.model_copy(update=change)
        with pytest.raises((InvalidInput, PeerUnreachable), match=said):
            place.add(source, sha256=digest_of(FILES))


@pytest.mark.parametrize("source", [SOURCE, "models:/ball/3"])
@pytest.mark.parametrize("page", [b"<html>Sign in</html>", b"{}", b"[]"])
def test_a_server_of_another_kind_is_told(place: Place, source: str, page: bytes) -> None:
    place.served.page = page
    with pytest.raises(InvalidInput, match="is not what this kind of server answers"):
        place.add(source, sha256=digest_of(FILES))


def test_the_proxy_of_the_environment_is_used(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        asked: list[str] = []
        threading.Thread(target=tunnel, args=(listening, asked), daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "")
        with pytest.raises(InvalidInput, match="the files of"):
            place.add("models:/ball/3")
    assert asked[0].startswith(f"CONNECT {str(place.settings.mlflow_uri).split('/')[2]} ")


def tunnel(listening: socket.socket, asked: list[str]) -> None:
    """A proxy: one connection after the other, each to where CONNECT (RFC 9110, 9.3.6) says."""
    while True:
        try:
            client, _ = listening.accept()
        except OSError:
            return
        with client:
            head = client.recv(4096).decode()
            asked.append(head)
            host, _, port = head.split()[1].partition(":")
            with socket.create_connection((host, int(port))) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                ways = {client: server, server: client}
                while chunk := (ready := select.select(list(ways), [], [])[0][0]).recv(1 << 16):
                    ways[ready].sendall(chunk)


def test_a_bundle_of_the_hub_becomes_a_version(place: Place, tmp_path: Path) -> None:
    place.served.files = content(write_version(tmp_path / "made", segmentation_config()) / "bundle")
    node = NodeSettings(data_dir=tmp_path / "var", min_free_mb=0)
    core = Core(Settings(node=node, models=place.settings), None)
    with pytest.raises(InvalidInput) as refused:
        core.register().add(Source(f"hf://{REPOSITORY}@main"), who="ann", why="a test")
    exact, digest = re.findall(r"(hf://\S+) have (\w{64})", refused.value.problem)[0]
    side_file = tmp_path / "made" / "ainode.yaml"
    added = core.register().add(
        Source(exact, version="1.0", sha256=digest, side_file=side_file), who="ann", why="a test"
    )
    assert (added.model.name, added.model.version, added.source) == ("ball_segmentation", "1.0", SOURCE)
    assert core.models().verify("ball_segmentation@1.0").source == SOURCE
