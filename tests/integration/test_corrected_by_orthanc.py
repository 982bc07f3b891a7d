"""What a real PACS makes of an instance whose patient it corrects is taken for a correction, however it writes it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, RLELossless, generate_uid

from node.domain.part10 import HEAD_LIMIT, split
from node.services.correct import Written, changed_identity
from tests import peers
from tests.builders import tiny_series
from tests.orthanc import Orthanc

pytestmark = pytest.mark.peer

NEW = {"PatientName": "Right^Rita", "PatientID": "R-1", "AccessionNumber": "A-2"}


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    server = Orthanc(tmp_path_factory.mktemp("orthanc"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A slice as scanners write it: a character set, a sequence, a private block."""
    dataset = dcmread(tiny_series(tmp_path_factory.mktemp("series"))[0])
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName, dataset.SeriesDescription = "Müller^Jörg", "Thorax für Ärzte"
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "51185008", "SCT", "Thorax"
    dataset.AnatomicRegionSequence = [region]
    dataset.private_block(0x0009, "SCANNER WORKS", create=True).add_new(1, "LO", "private")
    return dataset


def written(content: bytes) -> Written:
    meta = split(content[:HEAD_LIMIT])
    return Written(content[meta.offset :], meta.transfer_syntax_uid)


@pytest.mark.parametrize("compressed", [None, RLELossless, JPEGLSLossless], ids=["explicit", "RLE", "JPEG-LS"])
def test_a_corrected_patient(orthanc: Orthanc, image: Dataset, compressed: str | None) -> None:
    sent = BytesIO()
    dataset = dcmread(BytesIO(_file(image)))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    if compressed:
        dataset.compress(compressed, generate_instance_uid=False)
    dataset.save_as(sent)
    stored = json.loads(orthanc.post("/instances", sent.getvalue()))
    wanted = {"Replace": NEW, "Keep": ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"], "Force": True}
    corrected = orthanc.post(f"/instances/{stored['ID']}/modify", json.dumps(wanted).encode())
    assert dcmread(BytesIO(corrected)).SOPInstanceUID == dataset.SOPInstanceUID
    found = changed_identity(written(sent.getvalue()), written(corrected))
    assert found == ("PatientName", "PatientID", "AccessionNumber")


@pytest.mark.parametrize("option", ["+te", "+ti", "-e", "+e", "+g"], ids=str)
def test_written_again_by_dcmtk(image: Dataset, tmp_path: Path, option: str) -> None:
    """Explicit and implicit VR, sequences of defined and undefined length, group lengths."""
    sent, again = tmp_path / "sent.dcm", tmp_path / "again.dcm"
    sent.write_bytes(_file(image))
    changes = [word for keyword, value in NEW.items() for word in ("-i", f"{keyword}={value}")]
    subprocess.run([peers.program("dcmconv"), option, sent, again], check=True, capture_output=True)
    subprocess.run([peers.program("dcmodify"), "-nb", *changes, again], check=True, capture_output=True)
    found = changed_identity(written(sent.read_bytes()), written(again.read_bytes()))
    assert found == ("PatientName", "PatientID", "AccessionNumber")


def _file(image: Dataset) -> bytes:
    buffer = BytesIO()
    image.save_as(buffer)
    return buffer.getvalue()
