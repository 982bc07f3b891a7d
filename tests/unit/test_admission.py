"""Who may in, who may not, and what is said about it."""

from __future__ import annotations

import logging
from ipaddress import ip_network

import pytest

from node.dicom.admission import Admission, Caller, Rejection
from node.domain.peer import Peer
from node.services.origins import Names, address_of

CT1 = Peer("CT1", "CT1", "10.0.0.5", receive=True)
PACS = Peer("PACS", "PACS_AE", "pacs.hospital", 104, receive=True, send=True)
ARCHIVE = Peer("ARCHIVE", "ARCHIVE", "10.0.0.9", 104, send=True)
MANY = Peer(
    "MANY",
    "MANY",
    "nowhere",
    receive=True,
    networks=(ip_network("10.1.0.0/16"), ip_network("fd00::/8")),
    certificate_subjects=("CN=MANY,O=Hospital", "CN=SPARE"),
    max_associations=2,
)
NAMES = {"pacs.hospital": ["10.0.0.7", "fd00::7"]}


class Lookup:
    """Names that can be changed, and taken away."""

    def __init__(self) -> None:
        self.names = dict(NAMES)
        self.asked: list[str] = []

    def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        if host not in self.names:
            raise OSError("Name or service not known")
        return self.names[host]


def admission(*, accept_unknown: bool = False, peers: tuple[Peer, ...] = (CT1, PACS, ARCHIVE, MANY)) -> Admission:
    names = Names(lookup=lambda host: [host] if host[0].isdigit() else Lookup()(host))
    return Admission("AINODE", peers, accept_unknown=accept_unknown, addresses_of=names)


def caller(
    calling: str = "CT1", address: str = "10.0.0.5", called: str = "AINODE", subject: str | None = None, held: int = 0
) -> Caller:
    return Caller(calling, called, address, subject, held)


@pytest.mark.parametrize(
    "who",
    [
        caller(),
        caller(address="::ffff:10.0.0.5"),
        caller(subject="CN=anybody that the CA signed"),
        caller(held=100),
        caller("PACS_AE", "10.0.0.7"),
        caller("PACS_AE", "fd00::7%eth0"),
        caller("MANY", "10.1.255.255", subject="CN=MANY,O=Hospital"),
        caller("MANY", "fd12::1", subject="CN=SPARE", held=1),
        caller("MANY", "::ffff:10.1.2.3", subject="CN=SPARE"),
    ],
)
def test_a_known_peer_may_in(who: Caller) -> None:
    assert admission()(who) is None


@pytest.mark.parametrize(
    ("who", "answer", "text", "fix"),
    [
        (caller(called="PACS"), (1, 1, 7), "called AE title not recognised", "call AINODE"),
        (caller(called="ainode"), (1, 1, 7), "called AE title not recognised", "node.ae_title"),
        (caller("EVIL"), (1, 1, 3), "calling AE title not recognised", "under peers, with receive: true"),
        (caller("ct1"), (1, 1, 3), "calling AE title not recognised", "under peers"),
        (
            caller("PACS", "10.0.0.7"),
            (1, 1, 3),
            "calling AE title not recognised",
            "under peers",
        ),  # a name, no AE title
        (caller("ARCHIVE", "10.0.0.9"), (1, 1, 3), "calling AE title not recognised", "peers.ARCHIVE.receive to true"),
        (
            caller(address="10.0.0.6"),
            (1, 1, 3),
            "address not allowed",
            "peers.CT1.host is 10.0.0.5. If this",
        ),
        (
            caller("PACS_AE", "10.0.0.5"),
            (1, 1, 3),
            "address not allowed",
            "peers.PACS.host is pacs.hospital (10.0.0.7 or fd00::7). If",
        ),
        (caller("MANY", "10.2.0.1"), (1, 1, 3), "address not allowed", "add 10.2.0.1 to peers.MANY.networks"),
        (caller("MANY", "10.1.0.1"), (1, 1, 3), "certificate subject not allowed", "it showed none"),
        (
            caller("MANY", "10.1.0.1", subject="CN=EVIL"),
            (1, 1, 3),
            "certificate subject not allowed",
            "it is 'CN=EVIL'. If this is the peer, change peers.MANY.certificate_subjects",
        ),
        (
            caller("MANY", "10.1.0.1", subject="CN=SPARE", held=2),
            (2, 3, 2),
            "local limit exceeded for this peer",
            "raise peers.MANY.max_associations",
        ),
    ],
)
def test_everybody_else_is_rejected_and_the_log_says_what_to_change(
    caplog: pytest.LogCaptureFixture, who: Caller, answer: tuple[int, int, int], text: str, fix: str
) -> None:
    with caplog.at_level(logging.WARNING, "node.dicom.admission"):
        rejection = admission()(who)
    assert rejection == Rejection(*answer, text)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"association of {who.calling!r} to {who.called!r} from {who.address} rejected: {text}. ")
    assert fix in line


def test_strangers_may_in_where_the_settings_say_so_but_not_under_a_known_name() -> None:
    open_node = admission(accept_unknown=True)
    assert open_node(caller("EVIL", "192.0.2.1")) is None
    assert open_node(caller("ARCHIVE", "10.0.0.9")) is None
    assert open_node(caller("EVIL", called="PACS")) is not None
    assert open_node(caller("CT1", "192.0.2.1")) is not None


def test_networks_can_open_a_peer_to_everywhere() -> None:
    anywhere = Peer("A", "A", "nowhere", receive=True, networks=(ip_network("0.0.0.0/0"), ip_network("::/0")))
    doors = admission(peers=(anywhere,))
    assert doors(caller("A", "192.0.2.1")) is None
    assert doors(caller("A", "2001:db8::1")) is None


def test_networks_replace_the_host() -> None:
    elsewhere = Peer("A", "A", "10.0.0.5", receive=True, networks=(ip_network("10.1.0.0/16"),))
    assert admission(peers=(elsewhere,))(caller("A", "10.0.0.5")) is not None


def test_two_peers_may_share_an_ae_title() -> None:
    doors = admission(peers=(Peer("A", "X", "10.0.0.1", receive=True), Peer("B", "X", "10.0.0.2", receive=True)))
    assert doors(caller("X", "10.0.0.1")) is None
    assert doors(caller("X", "10.0.0.2")) is None
    assert doors(caller("X", "10.0.0.3")) is not None


def test_a_hosts_addresses_are_looked_up_again_and_outlive_a_resolver_that_is_down() -> None:
    lookup, now = Lookup(), [0.0]
    names = Names(seconds=60, lookup=lookup, now=lambda: now[0])
    old = frozenset(map(address_of, NAMES["pacs.hospital"]))
    assert names("pacs.hospital") == names("pacs.hospital") == old
    assert lookup.asked == ["pacs.hospital"]
    lookup.names["pacs.hospital"] = ["10.0.0.8"]
    now[0] = 60
    assert names("pacs.hospital") == {address_of("10.0.0.8")}
    del lookup.names["pacs.hospital"]
    now[0] = 120
    assert names("pacs.hospital") == {address_of("10.0.0.8")}


def test_a_name_that_cannot_be_resolved_admits_nobody_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    lost = Peer("LOST", "LOST", "no.such.host", receive=True)
    doors = Admission("AINODE", [lost], addresses_of=Names(lookup=Lookup()))
    assert doors(caller("LOST")) is not None
    said = caplog.text
    assert "'no.such.host' of a peer cannot be resolved" in said
    assert "no address that the resolver knows" in said


def test_localhost_is_known_to_the_real_resolver() -> None:
    doors = Admission("AINODE", [Peer("A", "A", "localhost", receive=True)])
    assert doors(caller("A", "127.0.0.1")) is None
    assert doors(caller("A", "::ffff:127.0.0.1")) is None
    assert doors(caller("A", "127.0.0.2")) is not None


def test_without_room_the_peers_are_told_to_come_back_and_strangers_nothing(caplog: pytest.LogCaptureFixture) -> None:
    room = [False]
    doors = Admission("AINODE", [CT1], addresses_of=Names(lookup=lambda host: [host]), has_room=lambda: room[0])
    with caplog.at_level(logging.WARNING, "node.dicom.admission"):
        assert doors(caller()) == Rejection(2, 3, 1, "temporary congestion")
    assert "node.min_free_mb" in caplog.text
    assert doors(caller("EVIL")) == Rejection(1, 1, 3, "calling AE title not recognised")
    room[0] = True
    assert doors(caller()) is None
