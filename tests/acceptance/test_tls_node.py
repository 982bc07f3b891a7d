"""A whole node with TLS and a guarded door, started as a site starts it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from node.dicom.scp import StorageSCP
from node.dicom.tls import Certificates
from node.domain.instance import Answer, Incoming
from tests import objects, peers
from tests.certificates import Authority
from tests.running import RunningNode, eventually

pytestmark = pytest.mark.peer


def test_tls_in_tls_out_and_strangers_told_in_the_log(tmp_path: Path) -> None:
    ca = Authority(tmp_path / "ca")
    ours, ct1, theirs = ca.issue("node"), ca.issue("CT1"), ca.issue("PACS")
    got: list[Incoming] = []

    def keep(incoming: Incoming) -> Answer:
        got.append(incoming)
        return Answer(0)

    pacs_tls = Certificates(theirs.cert, theirs.key, ca.pem)
    pacs = StorageSCP("PACS", "127.0.0.1", 0, keep, lambda calling: True, tls=pacs_tls.server)
    pacs.start()
    host = {"host": "127.0.0.1", "receive": True}
    node = RunningNode(
        tmp_path,
        pacs_port=pacs.port,
        tls={"cert": str(ours.cert), "key": str(ours.key), "ca": str(ca.pem)},
        peers={
            "CT1": {"ae_title": "CT1", "certificate_subjects": ["CN=CT1,O=Hospital"], **host},
            "FAR": {"ae_title": "FAR", "host": "192.0.2.1", "receive": True},
            "PACS": {"ae_title": "PACS", "host": "localhost", "port": pacs.port, "send": True, "tls": True},
        },
        routes=[],
    )
    (tmp_path / "study").mkdir()
    path = objects.write(tmp_path / "study" / "object.dcm", objects.incoming())
    show = ("+tls", ct1.key, ct1.cert, "+cf", ca.pem)

    def storescu(calling: str, *options: str | Path) -> int:
        command = [peers.program("storescu"), *options, "-aet", calling, "-aec", "AINODE", "127.0.0.1"]
        return subprocess.run([*command, str(node.port), path], capture_output=True, timeout=60, check=False).returncode

    try:
        node.start()
        assert storescu("CT1", *show) == 0
        eventually(lambda: len(node.kept()) == 1, "the object has a row")
        assert storescu("CT1") != 0, "plain"
        failed = 'ainode_associations_rejected_total{reason="TLS handshake failed"} 1.0'
        eventually(lambda: failed in node.text("/metrics"), "the failed handshake is counted")
        assert storescu("FAR", *show) != 0
        assert "association of 'FAR' to 'AINODE' from 127.0.0.1 rejected: address not allowed" in node.log
        assert "set peers.FAR.networks to [127.0.0.1]" in node.log
        send = subprocess.run(node.command("send", str(path.parent), "--to", "PACS"), capture_output=True, check=False)
        assert (send.returncode, len(got)) == (0, 1), send.stderr
    finally:
        node.close()
        pacs.stop()
