"""Real DICOMweb clients store into the receive service: dicomweb-client, and Orthanc's DICOMweb plug-in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from dicomweb_client import DICOMwebClient
from pydicom import Dataset, dcmread
from requests import HTTPError

from node.dicom.send_dir import collect
from node.domain.instance import Instance
from node.domain.part10 import HEAD_LIMIT, split
from tests import objects
from tests.admin import serving
from tests.integration.test_receiving import BROKEN
from tests.orthanc import Orthanc
from tests.stow import PEER_TOKEN, StowHouse


@pytest.fixture
def house(tmp_path: Path) -> Iterator[StowHouse]:
    made = StowHouse(tmp_path)
    yield made
    made.close()


@pytest.fixture
def url(house: StowHouse) -> Iterator[str]:
    with serving(house.app()) as url:
        yield f"{url}/dicomweb"


class Client(DICOMwebClient):
    """dicomweb-client, handing it files as the bytes that they are: it would encode them anew."""

    def __init__(self, url: str, token: str = PEER_TOKEN) -> None:
        super().__init__(url, headers={"Authorization": f"Bearer {token}"}, timeout=60)
        self.set_http_retry_params(retry=False)

    def store_files(self, *files: Path) -> Dataset:
        return self._http_post_multipart_application_dicom(
            f"{self.base_url}/studies", [path.read_bytes() for path in files]
        )


def dataset_digest(path: Path) -> str:
    data = path.read_bytes()
    return hashlib.sha256(data[split(data[:HEAD_LIMIT]).offset :]).hexdigest()


def kept_digests(house: StowHouse) -> list[str]:
    return [told.digest for told in house.told if isinstance(told, Instance)]


def test_one_and_many(house: StowHouse, url: str, shared_data: Path) -> None:
    slices = collect(shared_data / "ct-chest" / "fnndsc-chest-275").files[:40]
    client = Client(url)
    one = client.store_instances([dcmread(slices[0])])
    assert [item.ReferencedSOPInstanceUID for item in one.ReferencedSOPSequence] == [dcmread(slices[0]).SOPInstanceUID]
    study_uid = dcmread(slices[0]).StudyInstanceUID
    many = client.store_instances([dcmread(path) for path in slices], study_instance_uid=study_uid)
    assert len(many.ReferencedSOPSequence) == len(slices)
    assert "FailedSOPSequence" not in many
    assert len(house.kept()) == len(slices)
    assert house.released == [("SCANNER1", frozenset({study_uid}))] * 2


def test_every_transfer_syntax_is_kept_as_the_bytes_that_came(house: StowHouse, url: str, shared_data: Path) -> None:
    files = {split(p.read_bytes()[:HEAD_LIMIT]).sop_instance_uid: p for p in collect(shared_data / "syntaxes").files}
    answer = Client(url).store_files(*files.values())
    assert len(answer.ReferencedSOPSequence) == len(files)
    assert sorted(kept_digests(house)) == sorted(map(dataset_digest, files.values()))
    for uid, kept in house.kept().items():
        assert dcmread(files[uid]).file_meta.TransferSyntaxUID == split(kept[:HEAD_LIMIT]).transfer_syntax_uid


def test_broken_files_get_the_reason_that_c_store_answers(house: StowHouse, url: str, shared_data: Path) -> None:
    files = collect(shared_data / "broken").files
    assert set(BROKEN) <= {path.name for path in files}
    client = Client(url)
    good = objects.write(house.files.absolute("good.dcm"), objects.incoming(SOPInstanceUID="2.25.1"))
    for path in files:
        expected, text = BROKEN.get(path.name, (0, ""))
        # A good one goes with it, so that the answer is one that dicomweb-client hands out.
        answer = client.store_files(good, path)
        failed = answer.get("FailedSOPSequence", [])
        assert [item.FailureReason for item in failed] == ([expected] if expected else []), path.name
        assert all(text in item[0x0000, 0x0902].value for item in failed), path.name
        assert len(answer.ReferencedSOPSequence) == (1 if expected else 2)
        assert "OtherFailuresSequence" not in answer
        # Some of them share a SOPInstanceUID: a conflict is answered with success and lies aside, too.
        assert dataset_digest(path) in {told.digest for told in house.told}, path.name
    assert house.unfinished() == []


@pytest.mark.parametrize("token", ["", "a-token-of-nobody-at-all"])
def test_without_the_token_of_a_peer_nothing_is_stored(house: StowHouse, url: str, token: str) -> None:
    instance = house.files.absolute("instance.dcm")
    objects.write(instance, objects.incoming())
    with pytest.raises(HTTPError, match=r"^401 "):
        Client(url, token).store_files(instance)
    assert house.told == []


def test_another_study_than_that_of_the_path(house: StowHouse, url: str) -> None:
    instance = objects.write(house.files.absolute("instance.dcm"), objects.incoming())
    with pytest.raises(HTTPError, match=r"^409 "):
        Client(url).store_instances([dcmread(instance)], study_instance_uid="1.2.99")
    assert house.kept() == {}


def test_a_full_disk_is_told_as_passing(house: StowHouse, url: str) -> None:
    instance = objects.write(house.files.absolute("instance.dcm"), objects.incoming())
    house.room = 0
    with pytest.raises(HTTPError, match=r"^503 ") as refused:
        Client(url).store_files(instance)
    assert refused.value.response.headers["Retry-After"]
    house.room = 1
    Client(url).store_files(instance)
    assert len(house.kept()) == 1


@pytest.mark.peer
def test_orthanc_stores(house: StowHouse, url: str, shared_data: Path, tmp_path: Path) -> None:
    slices = collect(shared_data / "ct-chest" / "fnndsc-chest-275").files[:12]
    root = tmp_path / "orthanc"
    root.mkdir()
    token = {"Authorization": f"Bearer {PEER_TOKEN}"}
    orthanc = Orthanc(root, stores_at={"node": {"Url": url, "HttpHeaders": token}})
    orthanc.start()
    try:
        ids = [json.loads(orthanc.post("/instances", path.read_bytes()))["ID"] for path in slices]
        orthanc.post("/dicom-web/servers/node/stow", json.dumps({"Resources": ids, "Synchronous": True}).encode())
    finally:
        orthanc.stop()
    assert sorted(kept_digests(house)) == sorted(map(dataset_digest, slices))
    assert {peer for peer, _ in house.answers} == {"SCANNER1"}
