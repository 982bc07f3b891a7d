"""Images without a place in the patient: every value and spacing as the header says, or a refusal that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalMammographyXRayImageStorageForPresentation,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from node.domain.errors import InvalidInstance, Refused
from node.domain.volume import Volume
from pipelines.contract import Selection
from pipelines.read.images import read_images
from pipelines.read.selected import read
from tests.builders import change, series_of, tiny_phantom, tiny_series
from tests.radiographs import angiogram, gradient, radiograph


def _read(path: Path) -> Volume:
    (image,) = read_images(series_of([path]))
    return image


def _refusal(path: Path) -> Refused:
    with pytest.raises(Refused) as refused:
        _read(path)
    assert series_of([path]).instances[0].sop_instance_uid in refused.value.reason
    return refused.value


@pytest.mark.parametrize(
    "sop_class",
    [
        ComputedRadiographyImageStorage,
        DigitalMammographyXRayImageStorageForPresentation,
        SecondaryCaptureImageStorage,
    ],
)
def test_a_radiograph_is_one_image_without_a_place(tmp_path: Path, sop_class: str) -> None:
    image = _read(radiograph(tmp_path / "a", gradient(), SOPClassUID=sop_class))
    assert np.array_equal(image.voxels, gradient()[None])
    assert (image.in_patient, image.in_mm, image.frame_of_reference_uid, image.unit) == (False, True, "", "1")
    # Two rows down and three columns along, from the centre of the first pixel: x along the row, y down the column.
    assert np.allclose(image.to_patient(np.array([0.0, 2.0, 3.0])), (0.3, 0.4, 0.0))
    assert image.sources[0].frame_number is None


@pytest.mark.parametrize(
    ("header", "spacing", "in_mm"),
    [
        ({"PixelSpacing": [0.15, 0.14]}, (0.15, 0.14), True),
        ({}, (0.2, 0.1), True),
        ({"ImagerPixelSpacing": None, "NominalScannedPixelSpacing": [0.3, 0.3]}, (0.3, 0.3), True),
        ({"ImagerPixelSpacing": None, "PixelAspectRatio": [4, 3]}, (4 / 3, 1.0), False),
        ({"ImagerPixelSpacing": None}, (1.0, 1.0), False),
    ],
)
def test_which_spacing_holds(tmp_path: Path, header: dict[str, Any], spacing: tuple[float, float], in_mm: bool) -> None:
    image = _read(radiograph(tmp_path / "a", gradient(), **header))
    assert image.spacing[1:] == pytest.approx(spacing)
    assert image.in_mm is in_mm


def test_monochrome1_is_turned_over_within_its_range(tmp_path: Path) -> None:
    pixels = gradient()
    image = _read(radiograph(tmp_path / "a", pixels, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(image.voxels[0], 4095.0 - pixels)
    rescaled = radiograph(
        tmp_path / "b", pixels, PhotometricInterpretation="MONOCHROME1", RescaleSlope=2, RescaleIntercept=-10
    )
    # From -10 to 8180: what was darkest is brightest.
    assert np.array_equal(_read(rescaled).voxels[0], 8180.0 - 2.0 * pixels)


def test_signed_monochrome1(tmp_path: Path) -> None:
    pixels = np.array([[-2048, 0], [5, 2047]], np.int16)
    image = _read(radiograph(tmp_path / "a", pixels, PhotometricInterpretation="MONOCHROME1"))
    assert image.voxels[0].tolist() == [[2047, -1], [-6, -2048]]


@pytest.mark.parametrize("inverted", [False, True])
def test_a_modality_lut_is_applied(tmp_path: Path, inverted: bool) -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4, 10, 12], "US"
    entries = [100, 200, 400, 800]
    if inverted:
        table.add_new("LUTData", "US", entries)
    else:
        table.add_new("LUTData", "OW", np.array(entries, "<u2").tobytes())
    pixels = np.array([[0, 10], [11, 12], [13, 4000]], np.uint16)
    said = {"PhotometricInterpretation": "MONOCHROME1"} if inverted else {}
    image = _read(radiograph(tmp_path / "a", pixels, ModalityLUTSequence=[table], **said))
    expected = np.array([[100, 100], [200, 400], [800, 800]])
    assert np.array_equal(image.voxels[0], 4095 - expected if inverted else expected)


def test_a_modality_lut_that_ends_early_is_refused(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [5, 0, 12], "US"
    table.add_new("LUTData", "US", [1, 2, 3])
    refused = _refusal(radiograph(tmp_path / "a", gradient(), ModalityLUTSequence=[table]))
    assert refused.code == "modality-lut"


@pytest.mark.parametrize("interpretation", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_as_dark_as_the_darkest_pixel(tmp_path: Path, interpretation: str) -> None:
    pixels = np.array([[0, 0, 300], [4000, 500, 65]], np.uint16)
    image = _read(radiograph(tmp_path / "a", pixels, PixelPaddingValue=0, PhotometricInterpretation=interpretation))
    bright = 4095.0 - pixels if interpretation == "MONOCHROME1" else pixels.astype(float)
    assert image.voxels[0, 0, :2].tolist() == [bright[pixels > 0].min()] * 2
    assert np.array_equal(image.voxels[0][pixels > 0], bright[pixels > 0])


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, RLELossless, None])
def test_frames_are_slices(tmp_path: Path, syntax: str | None) -> None:
    path = angiogram(tmp_path / "xa")
    if syntax == RLELossless:
        change(path, lambda dataset: dataset.compress(RLELossless, generate_instance_uid=False))
    elif syntax is not None:
        change(path, lambda dataset: setattr(dataset.file_meta, "TransferSyntaxUID", syntax))
    image = _read(path)
    assert image.shape == (4, 6, 10)
    assert image.voxels[:, 0, 0].tolist() == [10, 20, 30, 40]
    assert [source.frame_number for source in image.sources] == [1, 2, 3, 4]
    assert (image.in_patient, image.in_mm) == (False, False)
    assert image.frame(2).sources == image.sources[2:3]


def test_images_come_in_the_order_of_their_numbers_each_by_itself(tmp_path: Path) -> None:
    lateral = radiograph(tmp_path / "a", gradient(6, 8), InstanceNumber=2)
    frontal = radiograph(tmp_path / "b", gradient(), InstanceNumber=1)
    images = read_images(series_of([lateral, frontal]))
    assert [image.shape for image in images] == [(1, 12, 20), (1, 6, 8)]


def test_a_ct_slice_keeps_its_place_and_its_unit(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path)
    (image,) = read_images(series_of([paths[3]]))
    phantom = tiny_phantom()
    assert np.array_equal(image.voxels[0], phantom.voxels[3])
    assert (image.in_patient, image.unit) == (True, "HU")
    assert np.allclose(image.affine[:3, 3], phantom.affine[:3, 3] + 3 * phantom.affine[:3, 0])
    assert np.allclose(image.affine[:3, 1:3], phantom.affine[:3, 1:3])


def test_a_selection_is_read_as_it_asks_for(tmp_path: Path) -> None:
    series = series_of(tiny_series(tmp_path)[:3])
    assert [volume.shape[0] for volume in read(Selection(series, "all", planar=True))] == [1, 1, 1]
    assert [volume.shape[0] for volume in read(Selection(series, "all"))] == [3]


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "not-monochrome"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "not-monochrome"),
        ({"SOPClassUID": SegmentationStorage}, "not-an-image"),
        ({"SOPClassUID": CTImageStorage, "RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "US"}, "not-hu"),
        ({"ImagerPixelSpacing": [0, 0.1]}, "missing-geometry"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "missing-geometry"),
        ({"SOPClassUID": BreastTomosynthesisImageStorage, "NumberOfFrames": 7}, "truncated-pixel-data"),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "undecodable"),
    ],
)
def test_what_is_no_such_image_is_refused_by_name(tmp_path: Path, header: dict[str, Any], code: str) -> None:
    assert _refusal(radiograph(tmp_path / "a", gradient(), **header)).code == code


@pytest.mark.parametrize("frames", [1, 4])
def test_a_damaged_file_is_told(tmp_path: Path, frames: int) -> None:
    path = angiogram(tmp_path / "xa", frames)
    series = series_of([path])
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(InvalidInstance, match="damaged"):
        read_images(series)
