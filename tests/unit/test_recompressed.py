"""An object that comes again in another compression is no conflict where its image is the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from node.domain.instance import AsideReason, Incoming
from node.domain.study import StudyState
from node.files.transcode import EXPLICIT, transcoded
from node.files.trash import DiskTrash
from node.services.receive import read_aside, read_kept
from node.services.recompressed import Recompressed
from node.services.recover import Recover
from tests import objects
from tests.unit.test_corrections import SERIES, STUDY, Ward

SOP = f"{SERIES[0]}.1"


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    made = Ward(tmp_path)
    yield made
    made.house.close()


def image(syntax: UID = ExplicitVRLittleEndian, *, seed: int = 1, peer: str = "CT1", **elements: Any) -> Incoming:
    """The first slice, of smooth noise, in a transfer syntax."""
    pixels = np.random.default_rng(seed).integers(0, 4096, (32, 48), np.uint16)
    size = {"Rows": 32, "Columns": 48, "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0}
    ds: Dataset = objects.dataset(
        SOPInstanceUID=SOP, SeriesInstanceUID=SERIES[0], StudyInstanceUID=STUDY, SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2", PixelData=pixels.tobytes(), **size | elements,
    )  # fmt: skip
    if syntax.is_compressed:
        ds.file_meta = objects.Dataset() if not hasattr(ds, "file_meta") else ds.file_meta
        ds.compress(syntax, pixels, generate_instance_uid=False)
    return Incoming(str(ds.SOPClassUID), SOP, str(syntax), objects.encoded(ds, str(syntax)), peer)


def store(ward: Ward, sent: Incoming) -> None:
    assert ward.receive.store(sent).status == 0
    ward.assemble.index([*ward.batch])
    ward.batch.clear()


def look(ward: Ward) -> int:
    house = ward.house
    return Recompressed(
        house.database.write, house.database.read, house.clock, house.files, DiskTrash(house.files), ward.assemble,
        lambda path: transcoded(path, EXPLICIT).getvalue(),
    ).look()  # fmt: skip


def asides(ward: Ward) -> list[AsideReason]:
    with ward.house.database.read() as tx:
        return [aside.reason for aside in tx.instances.asides()]


def kept(ward: Ward) -> UID:
    row = ward.row(SOP)
    assert row is not None
    return dcmread(ward.house.files.absolute(row.path)).file_meta.TransferSyntaxUID


@pytest.mark.parametrize("first", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless])
@pytest.mark.parametrize("then", [RLELossless, JPEG2000Lossless])
def test_the_same_image_in_another_compression_is_the_same_object(ward: Ward, first: UID, then: UID) -> None:
    store(ward, image(first))
    store(ward, image(then))
    assert asides(ward) == [AsideReason.CONFLICT]
    assert look(ward) == 1
    assert (asides(ward), kept(ward)) == ([], first)
    assert list(ward.house.files.absolute("aside").rglob("*.*")) == []
    assert len(ward.events("duplicate")) == 1
    assert ward.study.revision == 1


def test_what_is_cut_off_before_the_file_is_gone_is_looked_at_again(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(self: DiskTrash, path: str) -> None:
        raise OSError("the power went")

    house = ward.house
    store(ward, image(RLELossless))
    store(ward, image(JPEG2000Lossless))
    with monkeypatch.context() as patch, pytest.raises(OSError, match="the power went"):
        patch.setattr(DiskTrash, "remove", cut)
        look(ward)
    assert asides(ward) == []
    recover = Recover(
        house.database.write, house.database.read, house.clock, house.files,
        read_kept=lambda path: read_kept(house.files, path), read_aside=lambda path: read_aside(house.files, path),
        alive=lambda owner: True, attempts=3,
    )  # fmt: skip
    assert recover.index(ward.assemble) == 1
    assert (asides(ward), look(ward), asides(ward)) == ([AsideReason.CONFLICT], 1, [])
    assert list(house.files.absolute("aside").rglob("*.*")) == []


@pytest.mark.parametrize("change", [{"seed": 2}, {"SliceThickness": 9.0}, {"Manufacturer": "Other"}])
def test_another_image_or_header_stays_a_conflict(ward: Ward, change: dict[str, Any]) -> None:
    store(ward, image())
    store(ward, image(RLELossless, **change))
    assert (look(ward), asides(ward)) == (0, [AsideReason.CONFLICT])


def test_what_lost_something_stays_a_conflict(ward: Ward) -> None:
    store(ward, image())
    sent = image(JPEG2000Lossless)
    store(ward, Incoming(sent.sop_class_uid, SOP, "1.2.840.10008.1.2.4.91", sent.dataset, "CT1"))
    assert (look(ward), asides(ward)) == (0, [AsideReason.CONFLICT])


def test_what_cannot_be_decoded_stays_a_conflict(ward: Ward) -> None:
    store(ward, image())
    sent = image(RLELossless)
    header = sent.dataset.rindex(b"\xfe\xff\x00\xe0") + 8  # of the RLE frame
    broken = sent.dataset[:header] + b"\xff" * 64 + sent.dataset[header + 64 :]
    store(ward, Incoming(sent.sop_class_uid, SOP, str(RLELossless), broken, "CT1"))
    assert (look(ward), asides(ward)) == (0, [AsideReason.CONFLICT])


def test_a_correction_in_another_compression_is_one(ward: Ward) -> None:
    store(ward, image())
    ward.house.clock.tick(11)
    ward.assemble.settle()
    store(ward, image(JPEGLSLossless, peer="PACS", PatientID="R-1"))
    assert look(ward) == 1
    assert asides(ward) == [AsideReason.CORRECTION]
    assert (ward.study.state, ward.study.revision) == (StudyState.RECEIVING, 2)
    ward.house.clock.tick(1)
    store(ward, image(RLELossless, peer="PACS", PatientID="R-1"))
    assert (look(ward), asides(ward), ward.study.revision) == (1, [AsideReason.CORRECTION], 2)
    store(ward, image(RLELossless))
    assert (look(ward), asides(ward), ward.study.revision) == (1, [AsideReason.CORRECTION], 2)
