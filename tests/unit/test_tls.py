"""TLS between our own contexts and those of peers with good, bad and no certificates."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import ssl
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.dicom.tls import Certificates, certificate_subject
from tests import peers
from tests.certificates import Authority, Pair


@dataclass(frozen=True)
class Site:
    """A hospital's CA, the node's certificate and that of a peer; and a CA of somebody else."""

    ca: Authority
    node: Pair
    peer: Pair
    stranger: Authority


@dataclass
class Seen:
    """What the server saw: the protocol and the caller's subject, or why it refused."""

    version: str | None = None
    subject: str | None = None
    refused: str = ""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    root = tmp_path_factory.mktemp("site")
    ca = Authority(root / "ca")
    return Site(ca, ca.issue("node"), ca.issue("CT1"), Authority(root / "stranger"))


@pytest.fixture
def certificates(site: Site) -> Certificates:
    return Certificates(site.node.cert, site.node.key, site.ca.pem)


def client(ca: Path, pair: Pair | None) -> ssl.SSLContext:
    """A peer's context, as lax as Python makes it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca)
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    return context


def connect(server: ssl.SSLContext, caller: ssl.SSLContext, *, host: str = "localhost") -> Seen:
    """One connection, over which the server says one byte. Raises ``OSError`` where the caller is not served."""
    seen = Seen()
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with ours:
            try:
                with server.wrap_socket(ours, server_side=True) as connection:
                    seen.version, seen.subject = connection.version(), certificate_subject(connection)
                    connection.sendall(b"1")
            except OSError as error:
                seen.refused = str(error)

    thread = threading.Thread(target=serve)
    thread.start()
    problem = ""
    try:
        with theirs, caller.wrap_socket(theirs, server_hostname=host) as connection:
            problem = "" if connection.recv(1) == b"1" else "closed"
    except OSError as error:
        problem = str(error)
    thread.join()
    if problem or seen.refused:
        raise ConnectionError(f"server: {seen.refused}; caller: {problem}")
    return seen


def test_a_peer_of_the_ca_gets_in_by_tls_1_3_and_is_known_by_name(site: Site, certificates: Certificates) -> None:
    seen = connect(certificates.server(), client(site.ca.pem, site.peer))
    assert (seen.version, seen.subject) == ("TLSv1.3", "CN=CT1,O=Hospital")


@pytest.mark.parametrize("key", ["ec", "rsa"])
@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "AES256-GCM-SHA384"])
def test_tls_1_2_with_the_suites_of_the_profile(site: Site, key: str, cipher: str) -> None:
    pair = site.ca.issue(f"node-{key}", key=key)
    caller = client(site.ca.pem, site.peer)
    caller.maximum_version = ssl.TLSVersion.TLSv1_2
    caller.set_ciphers(f"ECDHE-{'ECDSA' if key == 'ec' else 'RSA'}-{cipher}")
    assert connect(Certificates(pair.cert, pair.key, site.ca.pem).server(), caller).version == "TLSv1.2"


@pytest.mark.parametrize("cipher", ["AES256-GCM-SHA384", "ECDHE-RSA-AES256-SHA384", "DHE-RSA-AES256-GCM-SHA384"])
def test_tls_1_2_with_other_suites_is_refused(site: Site, cipher: str) -> None:
    pair = site.ca.issue("node-rsa", key="rsa")
    caller = client(site.ca.pem, site.peer)
    caller.maximum_version = ssl.TLSVersion.TLSv1_2
    caller.set_ciphers(cipher)
    with pytest.raises(ConnectionError, match="no shared cipher"):
        connect(Certificates(pair.cert, pair.key, site.ca.pem).server(), caller)


def test_our_own_contexts_speak_to_each_other(certificates: Certificates) -> None:
    assert connect(certificates.server(), certificates.client()).subject == "CN=node,O=Hospital"


def test_callers_without_a_certificate_of_the_ca_are_refused(site: Site, certificates: Certificates) -> None:
    bad = {
        "did not return a certificate": None,
        "unable to get local issuer|self.signed": site.stranger.issue("CT1"),
        "certificate has expired": site.ca.issue("expired", days=-1),
    }
    for said, pair in bad.items():
        with pytest.raises(ConnectionError, match=rf"server: .*({said})"):
            connect(certificates.server(), client(site.ca.pem, pair))


def test_a_certificate_may_be_optional_but_not_wrong(site: Site) -> None:
    lenient = Certificates(site.node.cert, site.node.key, site.ca.pem, require_client_certificate=False)
    assert connect(lenient.server(), client(site.ca.pem, None)).subject is None
    assert connect(lenient.server(), client(site.ca.pem, site.peer)).subject == "CN=CT1,O=Hospital"
    with pytest.raises(ConnectionError, match=r"server: .*verify failed"):
        connect(lenient.server(), client(site.ca.pem, site.stranger.issue("CT1")))


@pytest.mark.peer
@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_old_tls_is_refused(site: Site, certificates: Certificates, version: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [peers.program("openssl"), "s_client", "-connect", f"127.0.0.1:{listener.getsockname()[1]}", version]
        command += ["-cipher", "DEFAULT@SECLEVEL=0", "-cert", site.peer.cert, "-key", site.peer.key]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, stdout=subprocess.PIPE
        ) as peer:
            connection, _ = listener.accept()
            with connection, pytest.raises(ssl.SSLError, match="unsupported protocol"):
                certificates.server().wrap_socket(connection, server_side=True)
            said = peer.communicate(timeout=10)[1]
    assert b"alert protocol version" in said


def test_as_a_caller_we_verify_ca_date_and_host(site: Site, certificates: Certificates) -> None:
    good = certificates.server()
    assert connect(good, certificates.client(), host="127.0.0.1").version
    with pytest.raises(ConnectionError, match="Hostname mismatch"):
        connect(good, certificates.client(), host="pacs.hospital")
    assert connect(good, certificates.client(check_host=False), host="pacs.hospital").version
    for pair, said in ((site.stranger.issue("pacs"), "verify failed"), (site.ca.issue("old", days=-1), "has expired")):
        for check_host in (True, False):
            wrong = Certificates(pair.cert, pair.key, site.ca.pem).server()
            with pytest.raises(ConnectionError, match=said):
                connect(wrong, certificates.client(check_host=check_host))


@pytest.mark.parametrize("subject", ["/C=DE/O=Hospital, Inc./OU=CT + MR/CN=#1", "/DC=local/DC=hospital/CN=Köln"])
def test_a_subject_reads_as_openssl_prints_it(site: Site, certificates: Certificates, subject: str) -> None:
    pair = site.ca.issue("odd", subject=subject)
    command = [peers.program("openssl"), "x509", "-noout", "-subject", "-nameopt", "RFC2253,-esc_msb", "-in", pair.cert]
    printed = subprocess.run(command, check=True, capture_output=True).stdout.decode().strip()
    assert f"subject={connect(certificates.server(), client(site.ca.pem, pair)).subject}" == printed


def replace(old: Path, new: Path) -> None:
    """Renew a file the way an administrator does."""
    fresh = old.with_suffix(".new")
    shutil.copyfile(new, fresh)
    os.replace(fresh, old)


def test_files_are_read_again_when_they_change(site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    live = Pair(tmp_path / "cert.pem", tmp_path / "key.pem")
    ca = tmp_path / "ca.pem"
    for path, source in ((live.cert, site.node.cert), (live.key, site.node.key), (ca, site.ca.pem)):
        shutil.copyfile(source, path)
    certificates = Certificates(live.cert, live.key, ca)
    before = certificates.server()
    assert certificates.server() is before

    renewed = site.ca.issue("renewed")
    replace(live.cert, renewed.cert)
    with caplog.at_level(logging.INFO, "node.dicom.tls"):
        assert certificates.server() is certificates.server() is before, "certificate and key do not match yet"
    (line,) = caplog.records
    assert line.levelno == logging.ERROR
    assert "the old ones stay" in line.getMessage()

    replace(live.key, renewed.key)
    assert certificates.server() is not before
    assert connect(certificates.server(), certificates.client()).subject == "CN=renewed,O=Hospital"

    replace(ca, site.stranger.pem)
    assert (
        connect(certificates.server(), client(site.ca.pem, site.stranger.issue("CT1"))).subject == "CN=CT1,O=Hospital"
    )
    with pytest.raises(ConnectionError, match=r"server: .*verify failed"):
        connect(certificates.server(), client(site.ca.pem, site.peer))


@pytest.mark.parametrize("broken", ["", "text", None])
def test_a_broken_new_file_keeps_the_old_ones(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str | None
) -> None:
    ca = tmp_path / "ca.pem"
    shutil.copyfile(site.ca.pem, ca)
    certificates = Certificates(site.node.cert, site.node.key, ca)
    ca.unlink() if broken is None else ca.write_text(broken)
    assert connect(certificates.server(), client(site.ca.pem, site.peer)).subject == "CN=CT1,O=Hospital"
    assert "the old ones stay" in caplog.text


def test_an_encrypted_key_is_an_error_and_no_question(site: Site, tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    command = ["pkey", "-in", site.node.key, "-aes256", "-passout", "pass:secret", "-out", locked]
    subprocess.run([peers.program("openssl"), *command], check=True)
    with pytest.raises(ssl.SSLError):
        Certificates(site.node.cert, locked, site.ca.pem)
