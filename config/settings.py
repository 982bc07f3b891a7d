"""The settings tree, as pydantic models, and how its peers and routes become the domain's.

Every number carries its unit in its name. Every key is explained, with its default, in ``node.example.yaml`` beside
this module. A model that exists is valid: also across sections (``send_to`` names peers that we may send to).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from config import certificates
from config import profiles as output
from config.neighbours import PeerSettings
from config.profiles import ProfileSettings
from config.section import Section
from config.values import (
    CIDR,
    AETitle,
    Count,
    DatabaseURL,
    Device,
    HttpsURL,
    Keyword,
    ListenPort,
    Name,
    Number,
    OneOrMore,
    Pattern,
    Positive,
    Problem,
    ProfileName,
    Secret,
    Text,
    Token,
    Words,
    did_you_mean,
    refuse,
)
from node.domain.model import Qualification
from node.domain.peer import Peer
from node.domain.priority import Priority
from node.domain.route import Condition, Operator, Route


class Sync(StrEnum):
    """When what is received is durable."""

    INSTANCE = "instance"  # before it is answered
    NONE = "none"  # when the kernel has written it


class WhenFull(StrEnum):
    """What is refused while free space is below the watermark."""

    OBJECTS = "refuse_objects"  # each C-STORE is answered with A700
    ASSOCIATIONS = "refuse_associations"  # A-ASSOCIATE-RJ, transient, temporary congestion


class NodeSettings(Section):
    """The node as a DICOM application entity, and where its data lie.

    ``name`` fits StationName (0008,1010). ``min_free_mb`` is the watermark, in MiB, below which nothing is taken.
    """

    ae_title: AETitle = "AINODE"
    host: Text = "0.0.0.0"  # noqa: S104 - a storage SCP listens to the hospital's network
    port: ListenPort = 11112
    data_dir: Path = Path("var")
    name: Annotated[str, Field(pattern=r"^[^\\\x00-\x1f]+$", max_length=16)] = "ainode"
    min_free_mb: Annotated[int, Field(ge=0)] = 2048
    when_full: WhenFull = WhenFull.OBJECTS
    max_object_mb: Count = 4096
    sync: Sync = Sync.INSTANCE
    receivers: Annotated[int, Field(ge=1, le=64)] = 1
    max_associations: Count = 16
    accept_unknown_peers: bool = False


class TlsSettings(Section):
    """DICOM over TLS (PS3.15 annex B.12), for what comes in and for peers with ``tls: true``. PEM files; all or none.

    With them the DICOM port speaks TLS alone.
    """

    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    require_client_certificate: bool = True

    @model_validator(mode="after")
    def _files_are_good(self) -> Self:
        if self.cert is None and self.key is None and self.ca is None:
            return self
        problems = [
            Problem((name,), "is not set, and other files of the section are", "Set cert, key and ca, or none of them")
            for name, path in (("cert", self.cert), ("key", self.key), ("ca", self.ca))
            if path is None
        ]
        if self.cert is not None and self.key is not None and self.ca is not None:
            problems = [
                Problem((key,), said, fix) for key, said, fix in certificates.problems(self.cert, self.key, self.ca)
            ]
        if problems:
            raise refuse(*problems)
        return self


class ApiSettings(Section):
    """The admin API and DICOMweb. Without ``token`` the node makes one and keeps it in ``data_dir/api.token``.

    ``proxies`` are believed when they say in X-Forwarded-For from where a request comes.
    """

    host: Text = "127.0.0.1"
    port: ListenPort = 8080
    token: Token | None = None
    proxies: OneOrMore[CIDR] = ()


class AssembleSettings(Section):
    """When a study settles: by evidence as soon as there is some, else by quiet time."""

    quiet_seconds: Positive = 10
    evidence: bool = True


class DatabaseSettings(Section):
    """An SQLAlchemy URL, or None for SQLite in the data directory (see ``database_url``)."""

    url: DatabaseURL | None = None


class ConditionSettings(Section):
    """What one attribute must be: a plain value means ``equals``, a list ``in``; several operators must all hold."""

    equals: str | None = None
    in_: Annotated[Words | None, Field(alias="in")] = None
    not_in: Words | None = None
    matches: Pattern | None = None
    exists: bool | None = None
    min: Number | None = None
    max: Number | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"equals": value}
        if isinstance(value, list | tuple):
            return {"in": value}
        return value

    @model_validator(mode="after")
    def _wants_something(self) -> Self:
        if not self.operands():
            fix = "Write a value, a list, or one of " + ", ".join(o.value for o in Operator)
            raise refuse(Problem((), "the condition is empty", fix))
        return self

    def operands(self) -> dict[Operator, tuple[str, ...]]:
        """The operators that are set, each with its operands as text, the way ``node.domain.route`` compares them."""
        operands: dict[Operator, tuple[str, ...]] = {}
        for operator, value in self.model_dump(by_alias=True, exclude_none=True).items():
            if isinstance(value, bool):
                operands[Operator(operator)] = (str(value).lower(),)
            else:
                operands[Operator(operator)] = value if isinstance(value, tuple) else (value,)
        return operands


class Urgency(StrEnum):
    """The names of `Priority`."""

    ROUTINE = "routine"
    HIGH = "high"
    STAT = "stat"


class RouteSettings(Section):
    """Which studies go to which pipeline, and its results to which peers. An empty ``when`` takes every study."""

    name: Name
    when: Mapping[Keyword, ConditionSettings] = Field(default_factory=dict)
    pipeline: Text
    send_to: tuple[str, ...] = ()
    priority: Urgency = Urgency.ROUTINE


class WorkSettings(Section):
    """How jobs run. ``retry_seconds`` is the base of the backoff, doubled after each attempt.

    A worker for each ``device``, that runs ``beside`` jobs at once: one uses the device, others are read or written.
    Each keeps registered versions loaded, the latest used, up to ``warm_mb`` MiB of model files. Up to ``batch`` jobs
    of one version of images run together; none waits longer than ``batch_wait_seconds`` for others.
    """

    device: Annotated[OneOrMore[Device], Field(min_length=1)] = ("auto",)
    beside: Annotated[int, Field(ge=1, le=4)] = 2
    warm_mb: Annotated[int, Field(ge=0)] = 4096
    batch: Annotated[int, Field(ge=1, le=64)] = 8
    batch_wait_seconds: Annotated[float, Field(ge=0, le=10)] = 0.2
    timeout_seconds: Positive = 900
    attempts: Count = 3
    lease_seconds: Positive = 60
    retry_seconds: Positive = 30


class ModelSettings(Section):
    """Registered model versions. ``public_keys``: Ed25519, PEM files, of those who may sign versions.

    ``hub`` is where ``hf://`` leads, ``mlflow_uri`` where ``models:/`` does. With ``mlflow_user`` the token is a
    password, without a bearer token. ``download_timeout_seconds``: how long a server may be silent.
    """

    max_mb: Count = 20480
    require_signature: bool = False
    public_keys: tuple[Path, ...] = ()
    hub: HttpsURL = "https://huggingface.co"
    hub_token: Secret | None = None
    mlflow_uri: HttpsURL | None = None
    mlflow_user: Annotated[str, Field(pattern=r"^[^:]+$")] | None = None
    mlflow_token: Secret | None = None
    download_timeout_seconds: Positive = 60

    @model_validator(mode="after")
    def _keys_and_token_are_there(self) -> Self:
        problems = [
            Problem(("public_keys", index), f"{path} is no file", "Name a PEM file with an Ed25519 public key")
            for index, path in enumerate(self.public_keys)
            if not path.is_file()
        ]
        if self.mlflow_user is not None and self.mlflow_token is None:
            problems.append(Problem(("mlflow_token",), "is not set, and mlflow_user is", "Set it to the password"))
        if problems:
            raise refuse(*problems)
        return self


class DeliverSettings(Section):
    """How results are sent. The backoff doubles from ``retry_seconds`` up to ``retry_max_seconds``."""

    give_up_days: Positive = 7
    retry_seconds: Positive = 10
    retry_max_seconds: Positive = 600
    lease_seconds: Positive = 60

    @model_validator(mode="after")
    def _cap_is_above_base(self) -> Self:
        if self.retry_max_seconds < self.retry_seconds:
            fix = "Raise retry_max_seconds or lower retry_seconds"
            raise refuse(Problem(("retry_max_seconds",), "is less than retry_seconds", fix))
        return self


class RetentionSettings(Section):
    """For how many days what the node holds is kept; None is for ever.

    ``study_days`` run from when a study is done with: its last instance came, its jobs ended, its results were
    delivered, and verified where they are to be. ``history_days`` are for rows of what is over.
    """

    study_days: Positive | None = None
    aside_days: Positive | None = None
    quarantine_days: Positive | None = None
    history_days: Annotated[float, Field(ge=30)] | None = 365


class ResultSettings(Section):
    """ContentQualification (0018,9004) of every result: RESEARCH until the site itself says PRODUCT."""

    qualification: Literal[Qualification.RESEARCH, Qualification.PRODUCT] = Qualification.RESEARCH


class LogSettings(Section):
    """What is logged, and in which form."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Settings(Section):
    """The whole tree."""

    node: NodeSettings = NodeSettings()
    tls: TlsSettings = TlsSettings()
    api: ApiSettings = ApiSettings()
    assemble: AssembleSettings = AssembleSettings()
    database: DatabaseSettings = DatabaseSettings()
    peers: Mapping[Name, PeerSettings] = Field(default_factory=dict)
    profiles: Mapping[ProfileName, ProfileSettings] = Field(default_factory=dict)
    routes: tuple[RouteSettings, ...] = ()
    work: WorkSettings = WorkSettings()
    models: ModelSettings = ModelSettings()
    deliver: DeliverSettings = DeliverSettings()
    retention: RetentionSettings = RetentionSettings()
    results: ResultSettings = ResultSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        problems = [
            *_repeated_routes(self.routes),
            *_bad_destinations(self.routes, self.peers),
            *_shared_tokens(self.api, self.peers),
            *output.problems(self.profiles, {name: peer.profile for name, peer in self.peers.items()}),
        ]
        if self.tls.cert is None:
            problems += _wants_tls(self.peers)
        if problems:
            raise refuse(*problems)
        return self


def _repeated_routes(routes: tuple[RouteSettings, ...]) -> Iterable[Problem]:
    names = [route.name for route in routes]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Problem(("routes", index, "name"), f"a second route {name}", "Give every route a name of its own")


def _bad_destinations(routes: tuple[RouteSettings, ...], peers: Mapping[str, PeerSettings]) -> Iterable[Problem]:
    for index, route in enumerate(routes):
        for position, name in enumerate(route.send_to):
            path = ("routes", index, "send_to", position)
            if name not in peers:
                known = f"The peers are {', '.join(peers)}" if peers else "Describe it under peers, with send: true"
                yield Problem(path, f"no peer is named {name}", did_you_mean(name, peers) or known)
            elif not peers[name].send:
                yield Problem(path, f"peer {name} is not one that we send to", f"Set peers.{name}.send to true")


def _shared_tokens(api: ApiSettings, peers: Mapping[str, PeerSettings]) -> Iterable[Problem]:
    """A token says who sends, so no two peers may have the same, and none that of the admin API."""
    owners = {} if api.token is None else {api.token.get_secret_value(): "api.token"}
    for name, peer in peers.items():
        if peer.dicomweb_token is not None:
            owner = owners.setdefault(peer.dicomweb_token.get_secret_value(), f"peers.{name}.dicomweb_token")
            if owner != f"peers.{name}.dicomweb_token":
                yield Problem(("peers", name, "dicomweb_token"), f"is the same as {owner}", "Give each its own")


def _wants_tls(peers: Mapping[str, PeerSettings]) -> Iterable[Problem]:
    for name, peer in peers.items():
        for key, wanted in (("tls", peer.tls), ("certificate_subjects", peer.certificate_subjects)):
            if wanted:
                yield Problem(("peers", name, key), "there are no certificates", "Set tls.cert, tls.key and tls.ca")


def database_url(settings: Settings) -> str:
    """The SQLAlchemy URL: as configured, else SQLite in the data directory. It may hold a password: never log it."""
    if settings.database.url is not None:
        return settings.database.url.get_secret_value()
    return f"sqlite:///{settings.node.data_dir.absolute() / 'ainode.db'}"


def peers(settings: Settings) -> dict[str, Peer]:
    """The neighbours by name."""
    return {
        name: Peer(
            name=name,
            **peer.model_dump(exclude={"dicomweb_token", "stow"}),
            stow=peer.stow.url if peer.stow is not None else None,
        )
        for name, peer in settings.peers.items()
    }


def dicomweb_tokens(settings: Settings) -> dict[str, str]:
    """The tokens of the peers that may store by DICOMweb, by the peer's name. Secret: never log them."""
    return {
        name: peer.dicomweb_token.get_secret_value()
        for name, peer in settings.peers.items()
        if peer.dicomweb_token is not None
    }


def routes(settings: Settings) -> tuple[Route, ...]:
    """The routes, in their order."""
    return tuple(
        Route(
            name=route.name,
            when=tuple(
                Condition(keyword, operator, operands)
                for keyword, condition in route.when.items()
                for operator, operands in condition.operands().items()
            ),
            pipeline=route.pipeline,
            send_to=route.send_to,
            priority=Priority[route.priority.name],
        )
        for route in settings.routes
    )
