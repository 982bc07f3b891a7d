"""Real senders, our SCP, real files: what ``docs/receiving.md`` says."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from node.dicom.scp import StorageSCP
from node.dicom.scu import StorageSender
from node.dicom.send_dir import collect
from node.domain.errors import PeerUnreachable
from node.domain.instance import Answer, Aside, AsideReason, Incoming, Instance
from node.domain.part10 import HEAD_LIMIT, FileMeta, split
from node.domain.peer import Peer
from node.files.disk import DiskFiles
from node.services.receive import Receive
from tests import objects, peers
from tests.fakes import FakeClock

# The files of the pydicom project that are answered with something else than success, sent as the bytes that they are.
BROKEN = {
    "bad_sequence.dcm": (0xC000, "SOPInstanceUID"),
    "JPEGLSNearLossless_08.dcm": (0xC000, "StudyInstanceUID: is missing or empty"),
    "JPEGLSNearLossless_16.dcm": (0xC000, "StudyInstanceUID: is missing or empty"),
    "MR_truncated.dcm": (0xC000, "data set: truncated"),
    "SC_rgb_jls_lossy_line.dcm": (0xC000, "StudyInstanceUID: is missing or empty"),
    "SC_rgb_jls_lossy_sample.dcm": (0xC000, "StudyInstanceUID: is missing or empty"),
    "UN_sequence.dcm": (0xC000, "SOPClassUID: is missing or empty"),
    "badVR.dcm": (0xA900, "SOPInstanceUID"),
    "no_meta_group_length.dcm": (0xC000, "SOPClassUID: is missing or empty"),
    "priv_SQ.dcm": (0xC000, "SOPClassUID: is missing or empty"),
    "rtdose_expb.dcm": (0xA900, "SOPInstanceUID"),
    "rtdose_expb_1frame.dcm": (0xA900, "SOPInstanceUID"),
    "rtplan.dcm": (0xA900, "SOPInstanceUID"),
    "rtplan_truncated.dcm": (0xC000, "data set: truncated"),
}


class Node:
    """A receiver that listens, without an index behind it."""

    def __init__(self, data_dir: Path) -> None:
        self.files = DiskFiles(data_dir, min_free_bytes=0)
        self.told: list[Instance | Aside] = []
        self.answers: list[Answer] = []
        self.rejected: list[tuple[str, str, str]] = []
        receive = Receive(
            self.files,
            lambda uid: None,
            lambda uid: False,
            self.told.append,
            FakeClock(),
            on_answered=lambda peer, answer, size: self.answers.append(answer),
        )
        self.scp = StorageSCP(
            "AINODE",
            "127.0.0.1",
            0,
            receive.store,
            lambda calling: calling in ("CT1", "STORESCU", "ECHOSCU"),
            begin=receive.begin,
            on_reject=lambda *rejected: self.rejected.append(rejected),
        )

    @property
    def peer(self) -> Peer:
        return Peer("NODE", "AINODE", "127.0.0.1", self.scp.port)

    def send(self, *paths: Path) -> list[tuple[int, str]]:
        """Send files as the bytes that they are."""
        statuses: list[tuple[int, str]] = []
        StorageSender("CT1").send(self.peer, paths, lambda index, status, comment: statuses.append((status, comment)))
        return statuses

    def digests(self) -> list[str]:
        return sorted(self.files.digest(path) for path in self.files.all_instances())


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "var")
    node.scp.start()
    yield node
    node.scp.stop(grace=0)


def dcmtk(
    program: str, node: Node, *files: Path, options: tuple[str, ...] = (), called: str = "AINODE"
) -> subprocess.CompletedProcess[str]:
    """Run one of DCMTK's SCUs against the node."""
    command = [peers.program(program), "-v", *options, "-aec", called, "127.0.0.1", str(node.scp.port), *files]
    environment = {**os.environ, "TCP_NODELAY": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)


def meta_of(path: Path) -> FileMeta:
    return split(path.read_bytes()[:HEAD_LIMIT])


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()[meta_of(path).offset :]).hexdigest()


def assert_same_content(sent: Path, kept: Path) -> None:
    """DCMTK writes group and sequence lengths anew, so what it sends is not byte for byte what it read."""
    before, after = pydicom.dcmread(sent), pydicom.dcmread(kept)
    assert after.get("PixelData") == before.get("PixelData"), sent.name
    assert {tag for tag in before.keys() - after.keys() if tag.element and tag != 0xFFFCFFFC} == set(), sent.name
    assert after.keys() <= before.keys(), sent.name


@pytest.mark.peer
def test_slices_of_a_real_ct_are_kept_as_sent_by_four_associations_at_once(node: Node, shared_data: Path) -> None:
    slices = collect(shared_data / "ct-chest" / "fnndsc-chest-275").files[:120]
    runs = [threading.Thread(target=dcmtk, args=("storescu", node, *slices[n::4])) for n in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert node.answers == [Answer(0)] * len(slices)
    kept = {told.sop_instance_uid: told for told in node.told if isinstance(told, Instance)}
    for path in slices:
        assert_same_content(path, node.files.absolute(kept[meta_of(path).sop_instance_uid].path))
    assert {told.peer for told in node.told} == {"STORESCU"}


def test_every_transfer_syntax_is_kept_as_the_bytes_that_came(node: Node, shared_data: Path) -> None:
    files = collect(shared_data / "syntaxes").files
    assert len(files) == sum(path.is_file() for path in (shared_data / "syntaxes").rglob("*"))
    for path in files:
        ((status, comment),) = node.send(path)
        if path.name == "TestPattern_JPEG-Lossless_RGB.dcm":  # published with another UID in its file meta
            assert (status, comment[:14]) == (0xA900, "SOPInstanceUID")
        else:
            assert (status, comment) == (0, ""), path.name
    # Several are one image in several transfer syntaxes, under one SOPInstanceUID: all but the first lie aside.
    lies = [node.files.absolute(path) for path in (*node.files.all_instances(), *node.files.all_asides())]
    assert {(digest_of(path), meta_of(path).transfer_syntax_uid) for path in lies} == {
        (digest_of(path), meta_of(path).transfer_syntax_uid) for path in files
    }
    assert len({meta_of(path).transfer_syntax_uid for path in lies}) >= 14


@pytest.mark.peer
def test_every_transfer_syntax_that_dcmtk_sends_is_kept_in_it(node: Node, shared_data: Path, tmp_path: Path) -> None:
    syntaxes: set[str] = set()
    for path in collect(shared_data / "syntaxes" / "ctimage-all-ts").files:
        meta = meta_of(path)
        profile = tmp_path / "storescu.cfg"
        profile.write_text(
            f"[[TransferSyntaxes]]\n[One]\nTransferSyntax1 = {meta.transfer_syntax_uid}\n"
            f"[[PresentationContexts]]\n[One]\nPresentationContext1 = {meta.sop_class_uid}\\One\n"
            "[[Profiles]]\n[One]\nPresentationContexts = One\n"
        )
        node.told.clear()
        dcmtk("storescu", node, path, options=("-xf", str(profile), "One"))
        for kept in node.told[-1:]:  # none where DCMTK does not know the transfer syntax
            assert_same_content(path, node.files.absolute(kept.path))
            assert meta_of(node.files.absolute(kept.path)).transfer_syntax_uid == meta.transfer_syntax_uid
            syntaxes.add(meta.transfer_syntax_uid)
    assert len(syntaxes) >= 8


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI", "ignore:The value length")
def test_broken_files_get_the_answer_that_is_documented(node: Node, shared_data: Path) -> None:
    files = collect(shared_data / "broken").files
    assert set(BROKEN) <= {path.name for path in files}
    for path in files:
        ((status, comment),) = node.send(path)
        expected, text = BROKEN.get(path.name, (0, ""))
        assert (status, comment[: len(text)]) == (expected, text), path.name
        # Some of them share a SOPInstanceUID: a conflict is answered with success and lies aside, too.
        lies = [*node.files.all_asides(), *(() if expected else node.files.all_instances())]
        assert digest_of(path) in {node.files.digest(kept) for kept in lies}, path.name
    assert node.send(files[-1]) == [(0, "")], "the node goes on"


# Those that ``ainode send`` skips, and the transfer syntax that their encoding is.
WITHOUT_META = {
    "OT-PAL-8-face.dcm": objects.IMPLICIT,
    "rtstruct.dcm": objects.IMPLICIT,
    "ExplVR_BigEndNoMeta.dcm": objects.BIG_ENDIAN,
    "ExplVR_LitEndNoMeta.dcm": objects.EXPLICIT,
    "empty_charset_LEI.dcm": objects.IMPLICIT,
    "nested_priv_SQ.dcm": objects.IMPLICIT,
    "meta_missing_tsyntax.dcm": objects.IMPLICIT,
    "no_meta.dcm": objects.EXPLICIT,
}


def test_files_without_whole_file_meta_are_kept_as_the_bytes_that_came(
    node: Node, shared_data: Path, tmp_path: Path
) -> None:
    broken = {path.name: path for path in (shared_data / "broken").rglob("*.dcm")}
    assert set(WITHOUT_META) == set(broken) - {path.name for path in collect(shared_data / "broken").files}
    digests = set()
    for name, transfer_syntax in WITHOUT_META.items():
        content = broken[name].read_bytes()
        start = 144 + int.from_bytes(content[140:144], "little") if content[128:132] == b"DICM" else 0
        header = pydicom.dcmread(broken[name], force=True)
        uid = str(header.get("SOPInstanceUID") or f"1.2.{len(digests) + 1}")
        sop_class = str(header.get("SOPClassUID") or objects.CT)
        sent = Incoming(sop_class, uid, transfer_syntax, content[start:], "CT1")
        node.send(objects.write(tmp_path / "sent.dcm", sent))
        digests.add(hashlib.sha256(content[start:]).hexdigest())
    assert {node.files.digest(lies) for lies in (*node.files.all_instances(), *node.files.all_asides())} == digests
    assert len(list(node.files.all_instances())) == 3


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize(
    ("sent", "status", "comment"),
    [
        pytest.param(replace(objects.incoming(), dataset=b"Dear colleague, " * 9), 0xC000, "data set", id="text"),
        pytest.param(
            replace(objects.incoming(), dataset=objects.incoming().dataset[:-9]), 0xC000, "data set: trunc", id="cut"
        ),
        pytest.param(objects.incoming(StudyInstanceUID=None), 0xC000, "StudyInstanceUID: is missing", id="no study"),
        pytest.param(objects.incoming(StudyInstanceUID="../../x"), 0xC000, "StudyInstanceUID: '../", id="bad study"),
        pytest.param(objects.incoming(SOPInstanceUID="../../x"), 0xC000, "SOPInstanceUID: '../", id="bad instance"),
        pytest.param(objects.incoming(SOPClassUID="1.2.276.0.99.1"), 0, "", id="private SOP class"),
        pytest.param(objects.incoming(PixelData=None), 0, "", id="no pixel data"),
        pytest.param(objects.incoming(SamplesPerPixel=3, PhotometricInterpretation="RGB"), 0, "", id="RGB"),
    ],
)
def test_hand_made_objects(node: Node, tmp_path: Path, sent: Incoming, status: int, comment: str) -> None:
    ((got, said),) = node.send(objects.write(tmp_path / "sent.dcm", sent))
    assert (got, said[: len(comment)]) == (status, comment)
    (lies,) = node.files.all_asides() if status else node.files.all_instances()
    assert node.files.digest(lies) == hashlib.sha256(sent.dataset).hexdigest()
    assert {path.name for path in tmp_path.iterdir()} == {"var", "sent.dcm"}


@pytest.mark.peer
def test_twice_the_same_is_stored_once_and_other_bytes_lie_aside(node: Node, tmp_path: Path) -> None:
    first = objects.write(tmp_path / "1.dcm", objects.incoming())
    other = objects.write(tmp_path / "2.dcm", objects.incoming(SliceThickness="3"))
    for path in (first, first, other, other):
        assert "Received Store Response (Success)" in dcmtk("storescu", node, path).stderr
    assert node.digests() == [digest_of(first)]
    assert [node.files.digest(path) for path in node.files.all_asides()] == [digest_of(other)]
    assert {told.reason for told in node.told if isinstance(told, Aside)} == {AsideReason.CONFLICT}


@pytest.mark.peer
def test_a_published_series_with_one_uid_for_all_is_refused_without_sop_class(node: Node, shared_data: Path) -> None:
    slices = collect(shared_data / "ct-abdomen" / "totalsegmentator" / "example_ct_dicom").files[:3]
    assert node.send(*slices) == [(0xC000, "SOPClassUID: is missing or empty")] * 3
    assert len(list(node.files.all_asides())) == 3


@pytest.mark.peer
def test_echo(node: Node) -> None:
    assert dcmtk("echoscu", node).returncode == 0


@pytest.mark.peer
@pytest.mark.parametrize(
    ("calling", "called", "reason"),
    [
        ("STRANGER", "AINODE", "Calling AE Title Not Recognized"),
        ("ECHOSCU", "ELSEWHERE", "Called AE Title Not Recognized"),
    ],
)
def test_strangers_and_the_misdirected_are_rejected(node: Node, calling: str, called: str, reason: str) -> None:
    done = dcmtk("echoscu", node, options=("-aet", calling), called=called)
    assert done.returncode != 0
    assert f"Reason: {reason}" in done.stdout + done.stderr
    ((told_calling, told_called, told_reason),) = node.rejected
    assert (told_calling, told_called) == (calling, called)
    assert told_reason.split()[0] == reason.split(maxsplit=1)[0].lower()


def test_more_associations_than_allowed_are_told_to_come_back(tmp_path: Path) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def receive(incoming: Incoming) -> Answer:
        arrived.set()
        go_on.wait(10)
        return Answer(0)

    scp = StorageSCP("AINODE", "127.0.0.1", 0, receive, lambda calling: True, max_associations=1)
    scp.start()
    peer = Peer("NODE", "AINODE", "127.0.0.1", scp.port)
    path = objects.write(tmp_path / "1.dcm", objects.incoming())
    statuses: list[int] = []
    first = threading.Thread(
        target=StorageSender("CT1").send, args=(peer, [path], lambda index, status, comment: statuses.append(status))
    )
    first.start()
    assert arrived.wait(10)
    with pytest.raises(PeerUnreachable, match=r"Local limit exceeded \(Rejected Transient\)"):
        StorageSender("CT1").echo(peer)
    go_on.set()
    first.join()
    assert statuses == [0]
    scp.stop()


@pytest.mark.parametrize(("grace", "answered"), [(10.0, True), (0.0, False)])
def test_stopping_waits_for_what_runs_and_then_aborts(tmp_path: Path, grace: float, answered: bool) -> None:
    arrived = threading.Event()

    def receive(incoming: Incoming) -> Answer:
        arrived.set()
        time.sleep(0.5)
        return Answer(0)

    scp = StorageSCP("AINODE", "127.0.0.1", 0, receive, lambda calling: True)
    scp.start()
    peer = Peer("NODE", "AINODE", "127.0.0.1", scp.port)
    path = objects.write(tmp_path / "1.dcm", objects.incoming())
    outcome: list[int | PeerUnreachable] = []

    def send() -> None:
        try:
            StorageSender("CT1").send(peer, [path], lambda index, status, comment: outcome.append(status))
        except PeerUnreachable as error:
            outcome.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    assert arrived.wait(10)
    scp.stop(grace=grace)
    sender.join()
    assert (outcome == [0]) is answered
    with pytest.raises(PeerUnreachable):
        StorageSender("CT1").echo(peer)
