"""Models from a Hugging Face Hub (``hf://``) and from an MLflow model registry (``models:/``).

Two end points of the one and three of the other list and hand out files, which is all that is needed: neither client
library is. Nothing that is fetched is opened here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import quote, urlencode, urlsplit

from pydantic import BaseModel, Field

from node.domain.errors import InvalidInput
from node.domain.model import Acquired
from node.files.https import Https
from pipelines.weights import FileDigest, digest_of_files

_HUB = re.compile(r"hf://(?P<repository>\w[\w.-]*/(?P<name>\w[\w.-]*))@(?P<revision>\w[\w.-]*)", re.ASCII)
_MLFLOW = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>[0-9]+)(?:/(?P<path>.+))?")
_COMMIT = r"^[0-9a-f]{40}$"
_PROXIED = "/api/2.0/mlflow-artifacts/artifacts"
_MOST_FILES = 10_000


@dataclass(frozen=True)
class Server:
    """An HTTPS server: its address without a last ``/``, and the value of the header Authorization that it wants."""

    address: str
    authorization: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Registries:
    """Where ``hf://`` and ``models:/`` lead. No registry of MLflow is known by itself."""

    hub: Server = Server("https://huggingface.co")
    mlflow: Server | None = None


@dataclass(frozen=True)
class Listing:
    """What a server has of one version: the address of every file, by its path below the model."""

    acquired: Acquired
    server: Server
    files: Mapping[str, str]


def is_registered(source: str) -> bool:
    """Whether it names a model in a registry."""
    return source.startswith(("hf://", "models:/"))


def look_up(source: str, registries: Registries, https: Https) -> Listing:
    """Find the files of a model.

    Args:
        source: ``hf://ORG/REPOSITORY@REVISION`` or ``models:/NAME/VERSION``, the latter with ``/FOLDER`` where the
            model does not lie at the top.

    Returns:
        The listing; a revision of the Hub that may move, a branch for instance, is the commit by then.

    Raises:
        InvalidInput: it is not written so, the server refuses, or has it where it cannot be fetched.
        PeerUnreachable: the server does not answer.
    """
    if source.startswith("hf://"):
        return _look_up_hub(source, registries.hub, https)
    if registries.mlflow is None:
        fix = "Set models.mlflow_uri, for instance to https://mlflow.hospital.example"
        raise InvalidInput("source", f"{source} is in an MLflow registry, and none is set", fix)
    return _look_up_mlflow(source, registries.mlflow, https)


def fetch(listing: Listing, into: Path, https: Https, *, max_bytes: int) -> str:
    """Fetch all files to ``into``, a directory that is not there yet.

    Returns:
        The digest over all: SHA-256 over ``path NUL sha256 LF`` of every file, in order of path.

    Raises:
        InvalidInput: a file has no plain path.
        PeerUnreachable, StorageFull: see `Https.save`; ``max_bytes`` is for all files together.
    """
    into.mkdir()
    fetched: dict[str, FileDigest] = {}
    for name, address in sorted(listing.files.items()):
        left = max_bytes - sum(file.size for file in fetched.values())
        target = into / _plain(name, listing.acquired.source)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            fetched[name] = https.save(address, target, most=left, authorization=listing.server.authorization)
        except (FileExistsError, NotADirectoryError):
            raise _no_plain_path(name, listing.acquired.source) from None
    return digest_of_files(fetched)


def _plain(name: str, source: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name or not name.isprintable():
        raise _no_plain_path(name, source)
    return path


def _no_plain_path(name: str, source: str) -> InvalidInput:
    return InvalidInput("source", f"{source}: {name!r} is no path of a file below it", "Do not use this model")


class _HubFile(BaseModel):
    rfilename: str


class _HubRevision(BaseModel):
    sha: Annotated[str, Field(pattern=_COMMIT)]
    siblings: Annotated[list[_HubFile], Field(min_length=1, max_length=_MOST_FILES)]


def _look_up_hub(source: str, hub: Server, https: Https) -> Listing:
    wanted = _HUB.fullmatch(source)
    if wanted is None:
        raise InvalidInput("source", f"{source} names no revision of a model", "Write hf://ORG/REPOSITORY@COMMIT")
    repository, revision = wanted["repository"], wanted["revision"]
    address = f"{hub.address}/api/models/{repository}/revision/{revision}"
    found = https.read(address, _HubRevision, authorization=hub.authorization)
    if re.match(_COMMIT, revision) and found.sha != revision:
        raise InvalidInput("source", f"{address} is commit {found.sha}", "Check models.hub; it hands out another")
    files = {
        name: f"{hub.address}/{repository}/resolve/{found.sha}/{quote(name)}"
        for name in (file.rfilename for file in found.siblings)
    }
    return Listing(Acquired(f"hf://{repository}@{found.sha}", wanted["name"]), hub, files)


class _MlflowPlace(BaseModel):
    artifact_uri: str


class _MlflowFile(BaseModel):
    """``path`` is relative to the folder that was listed."""

    path: Annotated[str, Field(pattern=r"^[^/]+$")]
    is_dir: bool = False


class _MlflowFolder(BaseModel):
    """An empty folder has no key at all."""

    files: list[_MlflowFile] = []


def _look_up_mlflow(source: str, mlflow: Server, https: Https) -> Listing:
    wanted = _MLFLOW.fullmatch(source)
    if wanted is None:
        fix = "Write models:/NAME/VERSION with the number of the version; an alias may move"
        raise InvalidInput("source", f"{source} names no version of a model", fix)
    query = urlencode({"name": wanted["name"], "version": wanted["version"]})
    address = f"{mlflow.address}/api/2.0/mlflow/model-versions/get-download-uri?{query}"
    place = https.read(address, _MlflowPlace, authorization=mlflow.authorization).artifact_uri
    root = _proxied_path(place, mlflow, source)
    if wanted["path"]:
        root = f"{root}/{wanted['path'].strip('/')}"

    def listed(folder: str) -> _MlflowFolder:
        query = urlencode({"path": f"{root}/{folder}".rstrip("/")})
        return https.read(f"{mlflow.address}{_PROXIED}?{query}", _MlflowFolder, authorization=mlflow.authorization)

    files = {name: f"{mlflow.address}{_PROXIED}/{quote(f'{root}/{name}')}" for name in _walk(listed, source)}
    if not files:
        raise InvalidInput("source", f"{source} has no files in {place}", "Check its version and folder")
    return Listing(Acquired(source, wanted["name"]), mlflow, files)


def _walk(listed: Callable[[str], _MlflowFolder], source: str) -> Iterator[str]:
    """Every file below the model, folder by folder."""
    folders, seen = [""], 0
    while folders:
        folder = folders.pop()
        for entry in listed(folder).files:
            seen += 1
            if seen > _MOST_FILES:
                raise InvalidInput("source", f"{source} has more than {_MOST_FILES} files", "Do not use this model")
            path = f"{folder}/{entry.path}".lstrip("/")
            if entry.is_dir:
                folders.append(path)
            else:
                yield path


def _proxied_path(place: str, mlflow: Server, source: str) -> str:
    """Where the server hands out what lies at ``place``, relative to the root of its artifacts."""
    if place.startswith(f"{mlflow.address}{_PROXIED}/"):
        return place.removeprefix(f"{mlflow.address}{_PROXIED}/").strip("/")
    parts = urlsplit(place)
    if parts.scheme == "mlflow-artifacts" and parts.netloc in ("", urlsplit(mlflow.address).netloc):
        return parts.path.strip("/")
    fix = "Let the MLflow server of models.mlflow_uri hand out its artifacts, or download the folder and add that"
    raise InvalidInput("source", f"{source} lies at {place}, which is not fetched", fix)
