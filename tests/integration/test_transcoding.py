"""Objects in transfer syntaxes that a peer refuses: it gets them in one that it takes, and ours stay as they are."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_sr import compose
from dicom_sr.recode import recoded
from node.dicom.scu import StorageSender
from node.domain.errors import Rejected
from node.domain.mask import LabelMap
from node.domain.peer import Peer
from node.domain.profile import Captures, Profile, Report, Segments
from node.ports import every
from tests import builders_results as build
from tests import objects, peers
from tests.running import eventually, free_port

pytestmark = pytest.mark.peer

COMPRESSED = (RLELossless, JPEGLSLossless, JPEG2000Lossless)
SENDER = StorageSender("AINODE")
Start = Callable[..., tuple[Peer, Path]]


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[Start]:
    """Starts DCMTK's storescp with the given options; gives the peer and the folder that it writes to."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> tuple[Peer, Path]:
        folder, port = tmp_path / f"pacs{len(running)}", free_port()
        folder.mkdir()
        command = [peers.program("storescp"), *options, "-aet", "PACS", "-od", str(folder), str(port)]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        peer = Peer("PACS", "PACS", "127.0.0.1", port, send=True, timeout_seconds=10)
        eventually(lambda: _answers(peer), "storescp answers")
        return peer, folder

    yield start
    for process in running:
        process.terminate()
        process.wait()


def _answers(peer: Peer) -> bool:
    try:
        SENDER.echo(peer)
    except Exception:  # noqa: BLE001 - it starts
        return False
    return True


def picture(number: int) -> Dataset:
    """A colour capture with a name that is not ASCII and a private element."""
    rows, columns = np.mgrid[0:64, 0:64]
    pixels = np.stack([rows * 4, columns * 4, (rows + columns) * 2], axis=-1).astype(np.uint8)
    made = objects.dataset(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.7", SOPInstanceUID=f"1.2.3.{number}", Modality="OT", Rows=64, Columns=64,
        SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation="RGB", BitsAllocated=8, BitsStored=8,
        HighBit=7, PixelRepresentation=0, PixelData=pixels.tobytes(), SpecificCharacterSet="ISO_IR 192",
        PatientName="Müller^Jörg",
    )  # fmt: skip
    made["PixelData"].VR = "OB"
    made.private_block(0x0009, "AINODE TEST", create=True).add_new(0x01, "LO", "kept")
    return made


def write(path: Path, number: int, syntax: UID) -> Path:
    made = picture(number)
    made.file_meta = Dataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax in COMPRESSED else syntax
    if syntax in COMPRESSED:
        made.compress(syntax, generate_instance_uid=False)
    made.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(("options", "expected"), [((), ExplicitVRLittleEndian), (("+xi",), ImplicitVRLittleEndian)])
def test_what_a_peer_refuses_it_gets_uncompressed(
    storescp: Start, tmp_path: Path, options: tuple[str, ...], expected: UID
) -> None:
    peer, folder = storescp(*options)
    syntaxes = (*COMPRESSED, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    files = [write(tmp_path / f"{n}.dcm", n, syntax) for n, syntax in enumerate(syntaxes)]
    before = [path.read_bytes() for path in files]
    statuses: list[tuple[int, int, str]] = []
    SENDER.send(peer, files, lambda *answer: statuses.append(answer))
    assert statuses == [(n, 0, "") for n in range(len(files))]
    assert [path.read_bytes() for path in files] == before
    arrived = {d.SOPInstanceUID: d for path in folder.iterdir() if (d := dcmread(path))}
    for number, syntax in enumerate(syntaxes):
        got = arrived[f"1.2.3.{number}"]
        kept = syntax in (ImplicitVRLittleEndian, expected)
        assert got.file_meta.TransferSyntaxUID == (syntax if kept else expected)
        assert got.PixelData == picture(number).PixelData
        assert (got.PatientName, got.PhotometricInterpretation) == ("Müller^Jörg", "RGB")
        assert got.private_block(0x0009, "AINODE TEST")[0x01].value in ("kept", b"kept")


def test_a_compressed_label_map_comes_to_a_peer_that_takes_none_with_the_same_masks(
    storescp: Start, tmp_path: Path
) -> None:
    peer, folder = storescp("-pm")  # DCMTK 3.6.7 does not know the SOP class, which is of 2024
    case = build.case()
    labels = LabelMap(
        np.asarray(case.findings.regions[1].mask).astype(np.uint8) + np.asarray(case.findings.regions[2].mask)
    )
    one, two = (replace(r, mask=labels.mask(n)) for n, r in enumerate(case.findings.regions[1:], 1))
    profile = Profile("map", Report.NONE, Segments.LABELMAP, Captures.NONE, summary=False, maps=False)
    made = compose.compose(build.PROVENANCE, case.with_regions(one, two).findings, case.headers, profile)
    (kept,) = (recoded(file, str(JPEGLSLossless)) for file in compose.write(made, tmp_path))
    statuses: list[tuple[int, int, str]] = []
    SENDER.send(peer, [kept.path], lambda *answer: statuses.append(answer))
    assert (kept.transfer_syntax_uid, statuses) == (str(JPEGLSLossless), [(0, 0, "")])
    (arrived,) = map(dcmread, folder.iterdir())
    assert arrived.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    on = labels.labels.any(axis=(1, 2))
    assert np.array_equal(arrived.pixel_array, labels.labels[on])
    assert arrived.PixelData == made[0].PixelData


def test_what_cannot_be_decoded_is_refused_with_the_reason_and_the_others_go_out(
    storescp: Start, tmp_path: Path
) -> None:
    peer, _folder = storescp("+xi")
    files = [write(tmp_path / "0.dcm", 0, RLELossless), write(tmp_path / "1.dcm", 1, ExplicitVRLittleEndian)]
    broken = dcmread(files[0])
    broken.PixelData = broken.PixelData[:40]
    broken.save_as(files[0])
    files.append(objects.write(tmp_path / "2.dcm", objects.incoming(str(ExplicitVRBigEndian))))
    statuses: list[tuple[int, int, str]] = []
    SENDER.send(peer, files, lambda *answer: statuses.append(answer))
    assert [(index, status) for index, status, _ in statuses] == [(0, 0x0122), (1, 0), (2, 0x0122)]
    assert "cannot be decoded" in statuses[0][2]
    assert "big endian" in statuses[2][2]


def test_what_is_not_wanted_is_left_out(storescp: Start, tmp_path: Path) -> None:
    peer, _folder = storescp()
    files = [write(tmp_path / f"{n}.dcm", n, ExplicitVRLittleEndian) for n in range(3)]
    statuses: list[int] = []
    beats: list[bool] = []
    SENDER.send(
        peer,
        files,
        lambda index, status, comment: statuses.append(index),
        wanted=lambda index: index != 1 and every(index),
        beat=lambda: beats.append(True),
    )
    assert statuses == [0, 2]
    assert len(beats) == 2


def test_a_peer_without_the_verification_service_is_there(tmp_path: Path) -> None:
    from pynetdicom import AE

    ae = AE("PACS")
    ae.add_supported_context("1.2.840.10008.5.1.4.1.1.7")
    server = ae.start_server(("127.0.0.1", 0), block=False)
    try:
        with pytest.raises(Rejected, match="does not offer the Verification service"):
            SENDER.echo(Peer("PACS", "PACS", "127.0.0.1", server.server_address[1]))
    finally:
        server.shutdown()
