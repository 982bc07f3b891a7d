"""DCMTK by TLS, calling and called: who gets in, whom we call, and certificates that change while we run."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from node.dicom.admission import Admission
from node.dicom.scp import NO_TLS, StorageSCP
from node.dicom.scu import StorageSender
from node.dicom.tls import Certificates
from node.domain.errors import InvalidInput, PeerUnreachable
from node.domain.instance import Answer, Incoming
from node.domain.peer import Peer
from tests import objects, peers
from tests.certificates import Authority, Pair
from tests.running import eventually, free_port

pytestmark = pytest.mark.peer

LOCAL = Peer("CT1", "CT1", "localhost", receive=True)


@dataclass(frozen=True)
class Site:
    """A CA with certificates for the node and for CT1, and the CA of somebody else."""

    ca: Authority
    node: Pair
    ct1: Pair
    stranger: Authority


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    root = tmp_path_factory.mktemp("site")
    ca = Authority(root / "ca")
    return Site(ca, ca.issue("node", key="rsa"), ca.issue("CT1", key="rsa"), Authority(root / "stranger"))


class Node:
    """A receiver by TLS that counts what it is given and whom it rejects."""

    def __init__(self, certificates: Certificates, *known: Peer, artim: float = 10.0) -> None:
        self.received: list[Incoming] = []
        self.rejected: list[str] = []
        self.scp = StorageSCP(
            "AINODE",
            "127.0.0.1",
            0,
            self._store,
            lambda calling: False,
            on_reject=lambda calling, called, reason: self.rejected.append(reason),
            admit=Admission("AINODE", known),
            tls=certificates.server,
            artim=artim,
        )

    def _store(self, incoming: Incoming) -> Answer:
        self.received.append(incoming)
        return Answer(0)

    def storescu(self, path: Path, *options: str | Path) -> str:
        """Send by DCMTK as CT1; empty on success, else what it printed."""
        at = ["-aet", "CT1", "-aec", "AINODE", "127.0.0.1", str(self.scp.port)]
        command = [peers.program("storescu"), "-v", *options, *at, path]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.fixture
def listen(site: Site) -> Iterator[Callable[..., Node]]:
    """Starts a node."""
    running: list[Node] = []

    def start(*known: Peer, certificates: Certificates | None = None, artim: float = 10.0) -> Node:
        ours = Certificates(site.node.cert, site.node.key, site.ca.pem)
        running.append(Node(certificates or ours, *known, artim=artim))
        running[-1].scp.start()
        return running[-1]

    yield start
    for node in running:
        node.scp.stop(grace=0)


@pytest.fixture
def object_(tmp_path: Path) -> Path:
    return objects.write(tmp_path / "object.dcm", objects.incoming())


def shown(pair: Pair, ca: Authority) -> tuple[str | Path, ...]:
    """DCMTK's options for showing a certificate and trusting a CA."""
    return "+tls", pair.key, pair.cert, "+cf", ca.pem


@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
def test_storescu_stores_by_every_profile_of_bcp_195(
    site: Site, listen: Callable[..., Node], object_: Path, profile: str
) -> None:
    node = listen(LOCAL)
    assert node.storescu(object_, profile, *shown(site.ct1, site.ca)) == ""
    assert len(node.received) == 1


def test_without_a_certificate_of_our_ca_nothing_comes_in(
    site: Site, listen: Callable[..., Node], object_: Path
) -> None:
    node = listen(LOCAL)
    refused: dict[str, tuple[str | Path, ...]] = {
        "plain": (),
        "no certificate": ("+tla", "+cf", site.ca.pem),
        "wrong CA": shown(site.stranger.issue("CT1", key="rsa"), site.ca),
        "expired": shown(site.ca.issue("expired", key="rsa", days=-1), site.ca),
        "retired profile": ("+pa", "+cs", "TLS_RSA_WITH_AES_128_CBC_SHA", *shown(site.ct1, site.ca)),
        "does not trust us": shown(site.ct1, site.stranger),
    }
    for why, options in refused.items():
        assert node.storescu(object_, *options), why
    eventually(lambda: node.rejected == [NO_TLS] * len(refused), "each counts as a failed handshake", seconds=10)
    assert node.received == []
    assert node.storescu(object_, *shown(site.ct1, site.ca)) == "", "the others go on"


@pytest.mark.parametrize("more", [b"", b"\0"], ids=["stalls", "dribbles"])
def test_a_handshake_that_does_not_end_is_ended_by_artim(
    site: Site, listen: Callable[..., Node], object_: Path, more: bytes
) -> None:
    node = listen(LOCAL, artim=2.0)
    with socket.create_connection(("127.0.0.1", node.scp.port)) as silent:
        silent.sendall(b"\x16\x03\x01\x10\x00")  # a TLS record of 4 KiB
        assert node.storescu(object_, *shown(site.ct1, site.ca)) == "", "the others go on"
        silent.settimeout(0.1)

        def is_closed() -> bool:
            try:
                silent.sendall(more)
                return silent.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        eventually(is_closed, "the node closes it")
    eventually(lambda: node.rejected == [NO_TLS], "it counts as a failed handshake", seconds=10)


def test_the_subject_decides_whose_certificate_it_is(site: Site, listen: Callable[..., Node], object_: Path) -> None:
    node = listen(replace(LOCAL, certificate_subjects=("CN=CT1,O=Hospital",)))
    colleague = site.ca.issue("CT2", key="rsa")
    assert "Calling AE Title Not Recognized" in node.storescu(object_, *shown(colleague, site.ca))
    assert node.rejected == ["certificate subject not allowed"]
    assert node.storescu(object_, *shown(site.ct1, site.ca)) == ""


def test_another_address_is_rejected(site: Site, listen: Callable[..., Node], object_: Path) -> None:
    node = listen(replace(LOCAL, networks=(ip_network("10.0.0.0/8"),)))
    assert "Calling AE Title Not Recognized" in node.storescu(object_, *shown(site.ct1, site.ca))
    assert node.rejected == ["address not allowed"]


def test_certificates_change_without_a_restart(
    site: Site, listen: Callable[..., Node], object_: Path, tmp_path: Path
) -> None:
    live = tmp_path / "live.pem"
    live.write_bytes(site.ca.pem.read_bytes())
    node = listen(LOCAL, certificates=Certificates(site.node.cert, site.node.key, live))
    assert node.storescu(object_, *shown(site.ct1, site.ca)) == ""
    fresh = tmp_path / "fresh.pem"
    fresh.write_bytes(site.stranger.pem.read_bytes())
    os.replace(fresh, live)
    assert node.storescu(object_, *shown(site.ct1, site.ca))
    assert node.storescu(object_, *shown(site.stranger.issue("CT1", key="rsa"), site.ca)) == ""


@pytest.fixture
def storescp(site: Site, tmp_path: Path) -> Iterator[Callable[[Pair], Peer]]:
    """Starts DCMTK's storescp, which wants a certificate of our CA and shows the given one."""
    running: list[subprocess.Popen[bytes]] = []

    def start(pair: Pair) -> Peer:
        (tmp_path / "out").mkdir()
        peer = Peer("PACS", "PACS", "localhost", free_port(), send=True, tls=True, timeout_seconds=5)
        command = [peers.program("storescp"), *shown(pair, site.ca), "-od", tmp_path / "out", str(peer.port)]
        log = (tmp_path / "storescp.log").open("wb")
        with log:
            running.append(subprocess.Popen(command, stdout=log, stderr=log))
        eventually(lambda: listening(peer), "storescp listens", seconds=10)
        return peer

    yield start
    for process in running:
        process.terminate()
        process.wait()


def listening(peer: Peer) -> bool:
    try:
        socket.create_connection(("127.0.0.1", peer.port or 0), timeout=1).close()
    except OSError:
        return False
    return True


def test_we_call_by_tls(site: Site, storescp: Callable[[Pair], Peer], object_: Path, tmp_path: Path) -> None:
    peer = storescp(site.ca.issue("PACS", key="rsa"))
    sender = StorageSender("AINODE", Certificates(site.node.cert, site.node.key, site.ca.pem))
    statuses: list[int] = []
    sender.send(peer, [object_], lambda index, status, comment: statuses.append(status))
    assert statuses == [0]
    assert len(list((tmp_path / "out").iterdir())) == 1
    sender.echo(replace(peer, certificate_subjects=("CN=OTHER", "CN=PACS,O=Hospital")))
    with pytest.raises(
        PeerUnreachable, match=r"of 'CN=PACS,O=Hospital', which peers\.PACS\.certificate_subjects lacks"
    ):
        sender.echo(replace(peer, certificate_subjects=("CN=OTHER",)))
    with pytest.raises(PeerUnreachable):
        StorageSender("AINODE").echo(replace(peer, tls=False))
    with pytest.raises(InvalidInput, match=r"peers\.PACS\.tls"):
        StorageSender("AINODE").echo(peer)


def test_whom_we_do_not_trust_is_not_sent_to(site: Site, storescp: Callable[[Pair], Peer]) -> None:
    peer = storescp(site.ca.issue("PACS", key="rsa"))
    with pytest.raises(PeerUnreachable, match=r"no connection: .*CERTIFICATE_VERIFY_FAILED"):
        StorageSender("AINODE", Certificates(site.node.cert, site.node.key, site.stranger.pem)).echo(peer)
    with pytest.raises(PeerUnreachable, match="refused our certificate, aborted the association"):
        stranger = site.stranger.issue("AINODE", key="rsa")
        StorageSender("AINODE", Certificates(stranger.cert, stranger.key, site.ca.pem)).echo(peer)


def test_a_certificate_for_another_host_needs_its_subject_named(site: Site, storescp: Callable[[Pair], Peer]) -> None:
    peer = storescp(site.ca.issue("PACS", key="rsa", host="pacs.hospital"))
    sender = StorageSender("AINODE", Certificates(site.node.cert, site.node.key, site.ca.pem))
    with pytest.raises(PeerUnreachable, match=r"Hostname mismatch|not valid for 'localhost'"):
        sender.echo(peer)
    sender.echo(replace(peer, certificate_subjects=("CN=PACS,O=Hospital",)))
