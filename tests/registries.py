"""A Hugging Face Hub and an MLflow registry that answer as the real ones do, each over one folder in memory."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.tls_server import Quiet

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB_TOKEN = "hf_abcdefghijklmnop"
REPOSITORY = "MONAI/ball_segmentation"
PLACE = "mlflow-artifacts:/1/models/m-12/artifacts"


@dataclass
class Served:
    """``files`` of the model, and whatever a test wants said instead. ``requests`` are those that came."""

    files: dict[str, bytes]
    commit: str = COMMIT
    store: str = ""
    place: str = PLACE
    announced: list[str] = field(default_factory=list)
    cut_short: bool = False
    page: bytes | None = None
    requests: list[tuple[str, str | None]] = field(default_factory=list)


class _Registry(Quiet):
    def __init__(self, served: Served, *arguments: Any) -> None:
        self.served = served
        super().__init__(*arguments)

    def json(self, status: int, value: object) -> None:
        self.answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def file(self, name: str) -> None:
        if name not in self.served.files:
            self.json(404, {"error": "Entry not found"})
            return
        body = self.served.files[name]
        self.answer(200, body, **({"Content-Length": len(body) + 1} if self.served.cut_short else {}))

    def do_GET(self) -> None:
        self.served.requests.append((self.path, self.headers["Authorization"]))
        if self.served.page is not None:
            self.answer(200, self.served.page)
            return
        parts = urlsplit(self.path)
        self.get(unquote(parts.path), {key: values[0] for key, values in parse_qs(parts.query).items()})

    def get(self, path: str, query: dict[str, str]) -> None:
        raise NotImplementedError


class _Hub(_Registry):
    """Knows one gated repository; weights lie in a store elsewhere, small files are moved on this server."""

    def get(self, path: str, query: dict[str, str]) -> None:
        if self.headers["Authorization"] != f"Bearer {HUB_TOKEN}":
            self.json(401, {"error": "Invalid username or password."})
        elif path in (f"/api/models/{REPOSITORY}/revision/{revision}" for revision in (COMMIT, "main")):
            names = self.served.announced or list(self.served.files)
            siblings = [{"rfilename": name} for name in names]
            self.json(200, {"id": REPOSITORY, "sha": self.served.commit, "gated": "auto", "siblings": siblings})
        elif path.startswith(resolved := f"/{REPOSITORY}/resolve/{COMMIT}/"):
            name = path.removeprefix(resolved)
            if name.startswith("models/"):
                self.answer(302, Location=f"{self.served.store}/{name}")
            else:
                self.answer(307, Location=f"/api/resolve-cache/{self.path.removeprefix(resolved)}")
        elif path.startswith("/api/resolve-cache/"):
            self.file(path.removeprefix("/api/resolve-cache/"))
        else:
            self.json(404, {"error": "Repository not found"})


class _Store(_Registry):
    """Where the Hub keeps large files; as S3 does, it refuses a token that is not its own."""

    def get(self, path: str, query: dict[str, str]) -> None:
        if self.headers["Authorization"] is not None:
            self.answer(400)
        else:
            self.file(path.removeprefix("/"))


class _Mlflow(_Registry):
    """Knows version 3 of ``ball``; mounted below ``/mlflow``, with basic authentication (``node``, ``hunter2``)."""

    def get(self, path: str, query: dict[str, str]) -> None:
        api = "/mlflow/api/2.0"
        root = PLACE.removeprefix("mlflow-artifacts:/")
        if self.headers["Authorization"] != "Basic bm9kZTpodW50ZXIy":
            self.answer(401, b"You are not authenticated.")
        elif path == f"{api}/mlflow/model-versions/get-download-uri":
            if query == {"name": "ball", "version": "3"}:
                self.json(200, {"artifact_uri": self.served.place})
            else:
                self.json(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Model Version not found"})
        elif path == f"{api}/mlflow-artifacts/artifacts":
            self.json(200, self.listed(query["path"].removeprefix(root).strip("/")))
        else:
            self.file(path.removeprefix(f"{api}/mlflow-artifacts/artifacts/{root}/"))

    def listed(self, folder: str) -> dict[str, Any]:
        """Names relative to the folder; int64 as text, and no key for an empty list, as protobuf has it in JSON."""
        entries: dict[str, dict[str, Any]] = {}
        for name in self.served.announced or list(self.served.files):
            if name.startswith(below := f"{folder}/".lstrip("/")):
                first, _, rest = name.removeprefix(below).partition("/")
                size = {} if rest else {"file_size": str(len(self.served.files.get(name, b"")))}
                entries[first] = {"path": first, "is_dir": bool(rest), **size}
        return {"files": list(entries.values())} if entries else {}


def hub(served: Served) -> partial[_Hub]:
    """The handler of a Hub."""
    return partial(_Hub, served)


def store(served: Served) -> partial[_Store]:
    """The handler of the store that a Hub redirects to."""
    return partial(_Store, served)


def mlflow(served: Served) -> partial[_Mlflow]:
    """The handler of an MLflow server."""
    return partial(_Mlflow, served)
