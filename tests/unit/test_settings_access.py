"""The settings of who may in: networks, certificates, caps."""

from __future__ import annotations

import subprocess
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from config.load import load
from config.settings import WhenFull, dicomweb_tokens, peers
from node.app import servers
from node.core import certificates
from node.domain.errors import InvalidInput, InvalidSettings
from tests import peers as programs
from tests.certificates import Authority, Pair


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def pair(ca: Authority) -> Pair:
    return ca.issue("node")


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def _write(text: str) -> Path:
        path = tmp_path / "node.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def tls(cert: object, key: object, ca: object) -> str:
    return f"tls:\n  cert: {cert}\n  key: {key}\n  ca: {ca}\n"


def refusal(path: Path) -> str:
    with pytest.raises(InvalidInput) as caught:
        load(path, {})
    return str(caught.value)


def test_a_peer_with_everything(write: Any, ca: Authority, pair: Pair) -> None:
    peer = (
        "peers:\n  CT1: {ae_title: CT1, host: ct1, receive: true, networks: [10.0.0.0/24, '::1', 10.1.0.5/16],\n"
        "    certificate_subjects: ['CN=CT1,O=Hospital'], max_associations: 4, tls: true}\n"
    )
    settings = load(write(tls(pair.cert, pair.key, ca.pem) + peer), {})
    (found,) = peers(settings).values()
    assert found.networks == tuple(map(ip_network, ("10.0.0.0/24", "::1/128", "10.1.0.0/16")))
    assert found.certificate_subjects == ("CN=CT1,O=Hospital",)
    assert (found.max_associations, found.tls) == (4, True)
    assert certificates(settings) is not None


def test_no_certificates_is_no_tls(write: Any) -> None:
    assert certificates(load(write("tls: {cert: null}"), {})) is None


def test_one_alone_needs_no_list_and_can_come_from_the_environment(write: Any) -> None:
    path = write("peers:\n  CT1: {ae_title: CT1, host: ct1, networks: 10.0.0.0/24}\n")
    assert peers(load(path, {}))["CT1"].networks == (ip_network("10.0.0.0/24"),)
    environ = {"AINODE_PEERS__CT1__NETWORKS": "10.2.0.0/16"}
    assert peers(load(path, environ))["CT1"].networks == (ip_network("10.2.0.0/16"),)


@pytest.mark.parametrize(
    ("keys", "key", "said"),
    [
        ("networks: [10.0.0.0/33]", ".networks[0]", "'10.0.0.0/33' is no network. Write an address or a network"),
        ("networks: [any]", ".networks[0]", "0.0.0.0/0 and ::/0 are everywhere"),
        ("networks: []\n    max_associations: 0", ".max_associations", "greater than or equal to 1"),
        ("certificate_subjects: [CT1]", ".certificate_subjects[0]", "'CT1' is no certificate subject. Write it in quo"),
        ("certificate_subjects: ['']", ".certificate_subjects[0]", "is no certificate subject"),
        ("certificate_subjects: ['subject=CN=CT1']", ".certificate_subjects[0]", "'CN=CT1,O=Hospital'"),
        ("certificate_subjects: ['CN=CT1']", ".certificate_subjects", "no certificates. Set tls.cert, tls.key and"),
        ("tls: true", ".tls", "there are no certificates. Set tls.cert, tls.key and tls.ca"),
    ],
)
def test_what_a_peer_cannot_have(write: Any, keys: str, key: str, said: str) -> None:
    message = refusal(write(f"peers:\n  CT1:\n    ae_title: CT1\n    host: ct1\n    {keys}\n"))
    assert f": peers.CT1{key}: " in message
    assert said in message


def test_files_are_looked_at(write: Any, tmp_path: Path, ca: Authority, pair: Pair) -> None:
    text, locked = tmp_path / "text.pem", tmp_path / "locked.key"
    text.write_text("text")
    encrypt = ["pkey", "-in", pair.key, "-aes256", "-passout", "pass:secret", "-out", locked]
    subprocess.run([programs.program("openssl"), *encrypt], check=True)
    other = ca.issue("other")
    cases = [
        ((tmp_path / "none.pem", pair.key, ca.pem), 2, "cert", "none.pem cannot be read: No such file or directory"),
        ((tmp_path, pair.key, ca.pem), 2, "cert", "cannot be read: Is a directory"),
        ((text, pair.key, ca.pem), 2, "cert", "text.pem holds no certificate"),
        ((pair.cert, text, ca.pem), 3, "key", f"text.pem is not the key of {pair.cert}"),
        ((pair.cert, other.key, ca.pem), 3, "key", f"other.key is not the key of {pair.cert}"),
        ((pair.cert, locked, ca.pem), 3, "key", "or is encrypted. Give the certificate's own key, unencrypted PEM"),
        ((pair.cert, pair.key, text), 4, "ca", "text.pem holds no certificate"),
        ((pair.cert, pair.key, "null"), 4, "ca", "is not set"),
    ]
    for files, line, key, said in cases:
        message = refusal(write(tls(*files)))
        assert f"node.yaml line {line}: tls.{key}: " in message
        assert said in message


def test_all_unreadable_files_are_named_at_once(write: Any) -> None:
    with pytest.raises(InvalidSettings, match="3 problems"):
        load(write(tls("a.pem", "b.pem", "c.pem")), {})


TOKENS = "peers:\n  CT1: {ae_title: CT1, host: ct1, dicomweb_token: SECRET-of-the-scanner}\n"


def test_a_token_of_a_peer_is_no_part_of_it(write: Any) -> None:
    settings = load(write(TOKENS), {"AINODE_PEERS__CT1__DICOMWEB_TOKEN": "SECRET-from-elsewhere"})
    assert dicomweb_tokens(settings) == {"CT1": "SECRET-from-elsewhere"}
    assert "SECRET" not in repr(settings)
    assert "SECRET" not in repr(peers(settings))
    assert dicomweb_tokens(load(None, {})) == {}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "  CT2: {ae_title: CT2, host: ct2, dicomweb_token: SECRET-of-the-scanner}\n",
            "peers.CT2.dicomweb_token: is the same as peers.CT1.dicomweb_token. Give each its own",
        ),
        (
            "api: {token: SECRET-of-the-scanner}\n",
            "peers.CT1.dicomweb_token: is the same as api.token. Give each its own",
        ),
        ("  CT2: {ae_title: CT2, host: ct2, dicomweb_token: SECRET}\n", "should have at least 16 items"),
    ],
)
def test_tokens_that_tell_nobody_apart_are_refused_without_showing_them(write: Any, more: str, said: str) -> None:
    told = refusal(write(TOKENS + more))
    assert said in told
    assert "SECRET" not in told


def test_what_is_refused_when_the_disk_is_full(write: Any) -> None:
    assert load(write("node: {when_full: refuse_associations}\n"), {}).node.when_full is WhenFull.ASSOCIATIONS
    assert "refuse_objects" in refusal(write("node: {when_full: nothing}\n"))


STOW = "peers:\n  WEB: {ae_title: WEB, host: web, send: true, stow: {url: '%s', %s}}\n"


def test_a_peer_by_dicomweb_needs_no_port_and_its_token_is_no_part_of_it(write: Any) -> None:
    settings = load(write(STOW % ("https://web/dicom-web/", "token: SECRET")), {})
    assert peers(settings)["WEB"].stow == "https://web/dicom-web"
    assert servers(settings)["WEB"].token == "SECRET"
    assert "SECRET" not in repr(settings) + repr(peers(settings)) + repr(servers(settings))
    elsewhere = load(write(STOW % ("https://web", "")), {"AINODE_PEERS__WEB__STOW__TOKEN": "from-elsewhere"})
    assert servers(elsewhere)["WEB"].token == "from-elsewhere"


def test_certificates_for_dicomweb_are_checked(write: Any, pair: Pair, ca: Authority) -> None:
    settings = load(write(STOW % ("https://web", f"cert: {pair.cert}, key: {pair.key}, ca: {ca.pem}")), {})
    assert servers(settings)["WEB"].cert == pair.cert


@pytest.mark.parametrize(
    ("url", "more", "said"),
    [
        ("ftp://web", "", "is no address of a DICOMweb service"),
        ("https://user:SECRET@web", "", "is no address of a DICOMweb service"),
        ("http://web", "token: SECRET", "stow.token: would be sent without TLS"),
        ("https://web", "cert: a.pem", "stow.key: is not set"),
        ("https://web", "cert: a.pem, key: b.pem", "a.pem cannot be read"),
    ],
)
def test_what_is_wrong_with_a_dicomweb_service_is_told_without_secrets(
    write: Any, url: str, more: str, said: str
) -> None:
    told = refusal(write(STOW % (url, more)))
    assert said in told
    assert "SECRET" not in told
