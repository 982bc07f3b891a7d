"""Series to Volume: every trap gets its answer, and what is read is what was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from node.domain.errors import InvalidInstance, Refused
from node.domain.volume import Volume
from pipelines.phantom import SeriesOptions, write_series
from pipelines.phantom_anatomy import oblique
from pipelines.read.volume import PADDING_HU, read_volume
from tests.builders import change, instance_file, series_of, tiny_phantom, tiny_series


def _read(paths: list[Path]) -> Volume:
    return read_volume(series_of(paths))


def _refusal(paths: list[Path]) -> Refused:
    with pytest.raises(Refused) as refused:
        _read(paths)
    return refused.value


@pytest.mark.parametrize("order", ["position", "reversed", "shuffled"])
@pytest.mark.parametrize("multiframe", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_voxels_and_places_are_those_of_the_phantom(tmp_path: Path, order: str, multiframe: bool, signed: bool) -> None:
    phantom = tiny_phantom(**oblique(20))
    options = SeriesOptions(order=order, multiframe=multiframe, signed=signed, varying_rescale=True)
    volume = _read(write_series(phantom, tmp_path, options))
    assert np.array_equal(volume.voxels, phantom.voxels)
    assert volume.voxels.dtype == np.float32
    assert np.allclose(volume.affine, phantom.affine, atol=1e-6)
    assert volume.frame_of_reference_uid


def test_sources_name_the_instance_behind_each_slice(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path, SeriesOptions(order="reversed"))
    volume = _read(paths)
    assert [s.sop_instance_uid for s in volume.sources] == [
        instance_file(path).sop_instance_uid for path in reversed(paths)
    ]
    assert {s.frame_number for s in volume.sources} == {None}


def test_sources_of_a_multiframe_name_the_frame_from_1(tmp_path: Path) -> None:
    volume = _read(tiny_series(tmp_path, SeriesOptions(multiframe=True, order="reversed")))
    assert [s.frame_number for s in volume.sources] == list(range(24, 0, -1))


def test_slices_run_along_the_normal_of_a_flipped_orientation(tmp_path: Path) -> None:
    phantom = tiny_phantom(row_cosines=(-1.0, 0.0, 0.0))
    volume = _read(write_series(phantom, tmp_path))
    assert volume.affine[2, 0] < 0
    assert np.array_equal(volume.voxels, phantom.voxels)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("multiframe", [False, True])
def test_lossless_syntaxes_give_the_same_volume(tmp_path: Path, syntax: str, multiframe: bool) -> None:
    phantom = tiny_phantom()
    options = SeriesOptions(transfer_syntax_uid=syntax, multiframe=multiframe, signed=True)
    assert np.array_equal(_read(write_series(phantom, tmp_path, options)).voxels, phantom.voxels)


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("multiframe", [False, True])
def test_big_endian_and_deflated(tmp_path: Path, syntax: str, multiframe: bool) -> None:
    phantom = tiny_phantom()
    paths = write_series(phantom, tmp_path, SeriesOptions(signed=True, multiframe=multiframe))

    def encode(ds: Dataset) -> None:
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<i2").astype(">i2").tobytes()
        ds.file_meta.TransferSyntaxUID = syntax
        ds._read_little = ds._read_implicit = None  # pydicom would keep the encoding it was read with

    for path in paths:
        change(path, encode)
    assert np.array_equal(_read(paths).voxels, phantom.voxels)


def test_a_missing_slice_is_refused_with_its_place(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path)
    refusal = _refusal(paths[:9] + paths[10:])
    assert refusal.code == "missing-slices"
    z = tiny_phantom().affine[2, 3] + 12.0 * np.array([8, 10])
    assert f"1 between {z[0]:.2f} and {z[1]:.2f} mm" in refusal.reason


def test_several_gaps_are_counted_together(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path)
    assert _refusal(paths[:5] + paths[7:12] + paths[13:]).reason.startswith("3 slice(s) are missing")


def test_a_slice_sent_twice_under_another_uid_is_refused(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path)

    def rename(ds: Dataset) -> None:
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.99"

    twin = tmp_path / "twin.dcm"
    twin.write_bytes(paths[4].read_bytes())
    assert _refusal([*paths, change(twin, rename)]).code == "duplicate-slices"


def test_two_files_of_one_uid_are_refused(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path)
    assert _refusal([*paths, paths[3]]).code == "duplicate-slices"


def test_unequal_spacing_is_refused(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path)

    def shift(ds: Dataset) -> None:
        x, y, z = ds.ImagePositionPatient
        ds.ImagePositionPatient = [x, y, float(z) + 4]

    change(paths[7], shift)
    assert _refusal(paths).code == "unequal-spacing"


def test_a_slice_shifted_within_its_plane_is_refused(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path)

    def shift(ds: Dataset) -> None:
        x, y, z = ds.ImagePositionPatient
        ds.ImagePositionPatient = [float(x) + 2, y, z]

    change(paths[7], shift)
    assert _refusal(paths).code == "not-in-line"


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("ImageOrientationPatient", [1, 0, 0, 0, 0, -1], "mixed-orientations"),
        ("PixelSpacing", [11, 8], "mixed-grids"),
        ("RescaleType", "US", "not-hu"),
        ("RescaleSlope", 0, "missing-geometry"),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], "missing-geometry"),
        ("PixelSpacing", [0, 1], "missing-geometry"),
        ("PhotometricInterpretation", "PALETTE COLOR", "not-monochrome"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7", "not-ct"),
        ("BitsAllocated", 1, "undecodable"),
        ("BitsAllocated", 12, "undecodable"),  # packed: two samples in three bytes, retired in 2001
        ("HighBit", 3, "undecodable"),
        ("NumberOfFrames", 2, "missing-geometry"),
        ("ModalityLUTSequence", [Dataset()], "modality-lut"),
        ("ImagePositionPatient", ["1", "2"], "missing-geometry"),
        ("Rows", 0, "mixed-grids"),
    ],
)
def test_one_odd_slice_is_refused(tmp_path: Path, keyword: str, value: object, code: str) -> None:
    paths = tiny_series(tmp_path)
    change(paths[3], lambda ds: setattr(ds, keyword, value))
    assert _refusal(paths).code == code


@pytest.mark.parametrize(
    "keyword",
    [
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
        "FrameOfReferenceUID",
        "Rows",
    ],
)
def test_a_missing_element_is_named(tmp_path: Path, keyword: str) -> None:
    paths = tiny_series(tmp_path)
    change(paths[3], lambda ds: delattr(ds, keyword))
    refusal = _refusal(paths)
    assert refusal.code == "missing-geometry"
    assert keyword in refusal.reason
    assert instance_file(paths[3]).sop_instance_uid in refusal.reason


def test_a_missing_functional_group_is_named(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path, SeriesOptions(multiframe=True))
    change(paths[0], lambda ds: ds.PerFrameFunctionalGroupsSequence[5].pop("PlanePositionSequence"))
    refusal = _refusal(paths)
    assert "ImagePositionPatient" in refusal.reason
    assert "frame 6" in refusal.reason


def test_rgb_among_ct_is_refused(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path)

    def colour(ds: Dataset) -> None:
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
        ds.BitsAllocated = ds.BitsStored = 8
        ds.HighBit = 7
        ds.PixelData = bytes(ds.Rows * ds.Columns * 3)

    change(paths[3], colour)
    assert _refusal(paths).code == "not-monochrome"


def test_other_rows_are_refused(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path)

    def crop(ds: Dataset) -> None:
        ds.Rows = 30
        ds.PixelData = ds.PixelData[: 30 * 40 * 2]

    change(paths[3], crop)
    assert _refusal(paths).code == "mixed-grids"


def test_truncated_pixel_data_names_the_instance(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path)
    change(paths[3], lambda ds: setattr(ds, "PixelData", ds.PixelData[:-100]))
    refusal = _refusal(paths)
    assert refusal.code == "truncated-pixel-data"
    assert instance_file(paths[3]).sop_instance_uid in refusal.reason


def test_a_truncated_compressed_frame_is_refused(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path, SeriesOptions(transfer_syntax_uid=RLELossless))
    change(paths[3], lambda ds: setattr(ds, "PixelData", ds.PixelData[:120]))
    assert _refusal(paths).code == "undecodable"


def test_no_pixel_data_is_refused(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path)
    change(paths[3], lambda ds: delattr(ds, "PixelData"))
    assert _refusal(paths).code == "no-pixel-data"


def test_a_damaged_file_is_found_by_its_digest(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path)
    series = series_of(paths)
    data = bytearray(paths[3].read_bytes())
    data[-1] ^= 1
    paths[3].write_bytes(data)
    with pytest.raises(InvalidInstance, match="damaged"):
        read_volume(series)


def test_a_tilted_stack_keeps_its_grid_and_its_volume(tmp_path: Path) -> None:
    phantom = tiny_phantom(tilt_degrees=20)
    volume = _read(write_series(phantom, tmp_path))
    assert np.allclose(volume.affine, phantom.affine, atol=1e-6)
    assert volume.voxel_ml == pytest.approx(12 * 11 * 9 / 1000)
    assert volume.spacing == pytest.approx((12, 11, 9))


def test_too_much_tilt_is_refused(tmp_path: Path) -> None:
    refusal = _refusal(tiny_series(tmp_path, tilt_degrees=35))
    assert refusal.code == "gantry-tilt"
    assert "35.0°" in refusal.reason


def test_one_slice_is_no_volume(tmp_path: Path) -> None:
    assert _refusal(tiny_series(tmp_path)[:1]).code == "too-few-slices"


@pytest.mark.parametrize("signed", [False, True])
def test_padding_is_below_air_whatever_its_vr(tmp_path: Path, signed: bool) -> None:
    paths = tiny_series(tmp_path, SeriesOptions(signed=signed))
    padding = -2000 % 65536  # as US, as scanners write it; signed pixels hold it as -2000

    def pad(ds: Dataset) -> None:
        ds.add_new("PixelPaddingValue", "US", padding)
        ds.PixelData = np.full(4, padding, "<u2").tobytes() + ds.PixelData[8:]

    for path in paths:
        change(path, pad)
    volume = _read(paths)
    assert (volume.voxels[:, 0, :4] == PADDING_HU).all()
    assert (volume.voxels[:, 0, 4:] > PADDING_HU).all()


def test_bits_beyond_bits_stored_are_no_part_of_the_value(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path)
    clean = _read(paths)

    def overlay(ds: Dataset) -> None:
        ds.BitsStored, ds.HighBit = 12, 11
        ds.PixelData = (np.frombuffer(ds.PixelData, "<u2") | 0x8000).astype("<u2").tobytes()

    for path in paths:
        change(path, overlay)
    assert np.array_equal(_read(paths).voxels, clean.voxels)


def test_signed_values_of_12_bits_are_extended(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path, SeriesOptions(signed=True))
    clean = _read(paths)

    def strip(ds: Dataset) -> None:
        ds.BitsStored, ds.HighBit = 12, 11
        ds.PixelData = (np.frombuffer(ds.PixelData, "<u2") & 0x0FFF).tobytes()

    for path in paths:
        change(path, strip)
    assert np.array_equal(_read(paths).voxels, clean.voxels)
