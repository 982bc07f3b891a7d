"""What else comes as a series: each is read rightly or refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    JPEGLSLossless,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

from node.domain.errors import InvalidInstance, Refused
from node.domain.ids import derived_uid
from node.domain.study import InstanceFile, SeriesContent
from pipelines.lung_density_ct.selection import select
from pipelines.phantom import SeriesOptions, write_series
from pipelines.read.header import read_header
from pipelines.read.select import summarise
from pipelines.read.slices import PADDING_HU
from pipelines.read.volume import read_volume
from tests.builders import change, instance_file, series_of, study_of, tiny_phantom, tiny_series


def _refused(paths: list[Path]) -> Refused:
    with pytest.raises(Refused) as refused:
        read_volume(series_of(paths))
    return refused.value


def _localizer(path: Path, like: Path) -> Path:
    def edit(ds: Dataset) -> None:
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.98"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        del ds.ImageOrientationPatient

    path.write_bytes(like.read_bytes())
    return change(path, edit)


def test_a_localizer_among_the_slices_is_left_out_and_told(tmp_path: Path) -> None:
    phantom = tiny_phantom()
    paths = write_series(phantom, tmp_path)
    paths.insert(7, _localizer(tmp_path / "scout.dcm", paths[0]))
    volume = read_volume(series_of(paths))
    assert np.array_equal(volume.voxels, phantom.voxels)
    assert "1.2.3.98" not in {source.sop_instance_uid for source in volume.sources}
    assert summarise(series_of(paths)).localizers == 1
    long = tiny_series(tmp_path / "long", spacing=(8.0, 11.0, 9.0))
    long.append(_localizer(tmp_path / "scout.dcm", long[0]))
    assert "1 localizer image(s) of the series left out" in select(study_of(long)).reason


def test_an_unreadable_slice_is_never_left_out(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path)
    series = series_of(paths)
    (tmp_path / "odd.dcm").write_bytes(b"no DICOM at all")
    odd = InstanceFile("1.2.3.97", CTImageStorage, "1.2.840.10008.1.2", "0" * 64, tmp_path / "odd.dcm")
    with pytest.raises(InvalidInstance, match="no DICOM file"):
        read_volume(SeriesContent(series.series_uid, (*series.instances, odd)))
    with pytest.raises(Refused, match=r"odd\.dcm") as refused:
        summarise(SeriesContent(series.series_uid, (*series.instances, odd)))
    assert refused.value.code == "unreadable"


@pytest.mark.parametrize("at", [140, 200, 400, 700])
def test_damage_in_the_header_is_told_as_damage(tmp_path: Path, at: int) -> None:
    paths = tiny_series(tmp_path)
    series = series_of(paths)
    data = bytearray(paths[3].read_bytes())
    data[at : at + 60] = np.random.default_rng(at).bytes(60)
    paths[3].write_bytes(data)
    with pytest.raises(InvalidInstance):
        read_volume(series)


@pytest.mark.parametrize("left", [500, 1500, 2000])
def test_a_file_that_ends_early_is_refused(tmp_path: Path, left: int) -> None:
    paths = tiny_series(tmp_path)
    paths[3].write_bytes(paths[3].read_bytes()[:left])
    assert _refused(paths).code == "truncated-pixel-data"


@pytest.mark.parametrize("multiframe", [False, True])
def test_damage_in_the_pixels_is_found(tmp_path: Path, multiframe: bool) -> None:
    paths = tiny_series(tmp_path, SeriesOptions(multiframe=multiframe))
    series = series_of(paths)
    data = bytearray(paths[0].read_bytes())
    data[-9] ^= 1
    paths[0].write_bytes(data)
    with pytest.raises(InvalidInstance, match="damaged"):
        read_volume(series)


def test_a_private_transfer_syntax_is_refused_by_its_uid(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path)
    change(paths[3], lambda ds: setattr(ds.file_meta, "TransferSyntaxUID", "1.2.840.113619.5.2"))
    refusal = _refused(paths)
    assert refusal.code == "undecodable"
    assert "1.2.840.113619.5.2" in refusal.reason


def test_monochrome1_is_a_matter_of_display(tmp_path: Path) -> None:
    phantom = tiny_phantom()
    header = {"PhotometricInterpretation": "MONOCHROME1", "NumberOfFrames": 1}
    assert np.array_equal(
        read_volume(series_of(write_series(phantom, tmp_path, SeriesOptions(header=header)))).voxels, phantom.voxels
    )


def test_slices_of_other_bits_sign_and_rescale_than_the_first(tmp_path: Path) -> None:
    """A volume that takes the type of its first slice turns -1000 into 64536."""
    phantom = tiny_phantom()
    unsigned = write_series(phantom, tmp_path / "unsigned", SeriesOptions(varying_rescale=True))
    signed = write_series(phantom, tmp_path / "signed", SeriesOptions(signed=True))
    paths = [(signed if k % 3 else unsigned)[k] for k in range(len(unsigned))]

    def wide(ds: Dataset) -> None:
        ds.PixelData = np.frombuffer(ds.PixelData, "<i2").astype("<i4").tobytes()
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 32, 32, 31

    change(paths[4], wide)
    assert np.array_equal(read_volume(series_of(paths)).voxels, phantom.voxels)


def test_a_padding_range_and_one_outside_the_type(tmp_path: Path) -> None:
    phantom = tiny_phantom()
    paths = write_series(
        phantom, tmp_path, SeriesOptions(header={"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 24})
    )
    expected = np.where(phantom.voxels <= -1000, PADDING_HU, phantom.voxels)
    assert np.array_equal(read_volume(series_of(paths)).voxels, expected)


def _fragmented(path: Path, *, has_bot: bool, fragments: int) -> None:
    def edit(ds: Dataset) -> None:
        frames = list(generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames", 1))))
        ds.PixelData = encapsulate(frames, fragments_per_frame=fragments, has_bot=has_bot)

    change(path, edit)


@pytest.mark.parametrize(("multiframe", "has_bot"), [(False, False), (False, True), (True, True)])
def test_frames_in_several_fragments(tmp_path: Path, multiframe: bool, has_bot: bool) -> None:
    phantom = tiny_phantom()
    options = SeriesOptions(transfer_syntax_uid=str(JPEGLSLossless), multiframe=multiframe)
    paths = write_series(phantom, tmp_path, options)
    for path in paths:
        _fragmented(path, has_bot=has_bot, fragments=3)
    assert np.array_equal(read_volume(series_of(paths)).voxels, phantom.voxels)


def test_fragments_that_nothing_assigns_to_frames_are_refused(tmp_path: Path) -> None:
    options = SeriesOptions(transfer_syntax_uid=str(JPEGLSLossless), multiframe=True)
    paths = tiny_series(tmp_path, options)
    _fragmented(paths[0], has_bot=False, fragments=2)
    refusal = _refused(paths)
    assert refusal.code == "undecodable"
    assert "48 fragments" in refusal.reason


def _concatenation(folder: Path) -> tuple[list[Path], np.ndarray]:
    """An enhanced image in three instances of eight frames."""
    phantom = tiny_phantom()
    (whole,) = write_series(phantom, folder, SeriesOptions(multiframe=True))
    parts = []
    for n in range(3):
        ds = dcmread(whole)
        size = ds.Rows * ds.Columns * 2
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = derived_uid("part", str(n))
        ds.ConcatenationUID, ds.InConcatenationNumber, ds.InConcatenationTotalNumber = "1.2.3.96", n + 1, 3
        ds.ConcatenationFrameOffsetNumber, ds.NumberOfFrames = 8 * n, 8
        ds.PerFrameFunctionalGroupsSequence = Sequence(ds.PerFrameFunctionalGroupsSequence[8 * n : 8 * n + 8])
        ds.PixelData = ds.PixelData[8 * n * size : (8 * n + 8) * size]
        parts.append(folder / f"part{n}.dcm")
        ds.save_as(parts[-1])
    return parts, phantom.voxels


def test_the_instances_of_a_concatenation_are_one_stack(tmp_path: Path) -> None:
    parts, voxels = _concatenation(tmp_path)
    volume = read_volume(series_of([parts[2], parts[0], parts[1]]))
    assert np.array_equal(volume.voxels, voxels)
    assert [source.frame_number for source in volume.sources[6:10]] == [7, 8, 1, 2]


def test_a_concatenation_that_lacks_its_end_is_refused(tmp_path: Path) -> None:
    parts, _ = _concatenation(tmp_path)
    refusal = _refused(parts[:2])
    assert refusal.code == "missing-slices"
    assert "2 of the 3" in refusal.reason


def test_an_enhanced_image_without_functional_groups_is_refused(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path, SeriesOptions(multiframe=True))
    change(paths[0], lambda ds: delattr(ds, "PerFrameFunctionalGroupsSequence"))
    assert dcmread(paths[0]).SOPClassUID == EnhancedCTImageStorage
    refusal = _refused(paths)
    assert refusal.code == "missing-geometry"
    assert "0 items for NumberOfFrames 24" in refusal.reason


def _as(sop_class: str, modality: str, paths: list[Path], **header: object) -> list[Path]:
    def edit(ds: Dataset) -> None:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
        ds.Modality = modality
        for keyword, value in header.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)

    return [change(path, edit) for path in paths]


def test_mr_goes_without_rescale_and_has_no_unit(tmp_path: Path) -> None:
    phantom = tiny_phantom()
    paths = write_series(phantom, tmp_path)
    _as(MRImageStorage, "MR", paths, RescaleSlope=None, RescaleIntercept=None, RescaleType=None)
    volume = read_volume(series_of(paths))
    assert volume.unit == "1"
    assert np.array_equal(volume.voxels, phantom.voxels + 1024)
    assert summarise(series_of(paths), "MR").content == series_of(paths)
    with pytest.raises(Refused, match="Modality is MR"):
        summarise(series_of(paths))


@pytest.mark.parametrize("multiframe", [False, True])
def test_the_light_walk_finds_what_pydicom_finds(tmp_path: Path, multiframe: bool) -> None:
    for path in tiny_series(tmp_path, SeriesOptions(multiframe=multiframe))[:3]:
        header, dataset = read_header(instance_file(path)), dcmread(path)
        assert {"Rows", "SOPClassUID", "BitsStored"} < set(header.elements)
        for keyword, values in header.elements.items():
            expected = dataset[keyword].value
            several = expected if isinstance(expected, MultiValue) else [expected]
            assert [str(value) for value in values] == [str(value) for value in several], keyword


def test_every_pet_slice_has_its_own_slope(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path)
    stored = [dcmread(path).pixel_array for path in paths]
    slopes = [1.0 + k / 7 for k in range(len(paths))]
    for path, slope in zip(paths, slopes, strict=True):
        header = {"RescaleSlope": f"{slope:.10f}", "RescaleIntercept": 0, "RescaleType": None, "Units": "BQML"}
        _as(PositronEmissionTomographyImageStorage, "PT", [path], **header)
    volume = read_volume(series_of(paths))
    assert volume.unit == "Bq/ml"
    expected = [values * float(f"{slope:.10f}") for values, slope in zip(stored, slopes, strict=True)]
    assert np.array_equal(volume.voxels, np.array(expected).astype(np.float32))


def test_pet_in_a_unit_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    paths = _as(PositronEmissionTomographyImageStorage, "PT", tiny_series(tmp_path), RescaleType=None, Units="CPS2")
    assert _refused(paths).code == "unknown-units"


def test_slices_of_two_modalities_make_no_volume(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path)
    _as(MRImageStorage, "MR", paths[:5], RescaleType=None)
    assert _refused(paths).code == "mixed-units"


def test_a_deflated_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    paths = tiny_series(tmp_path)

    def deflate(ds: Dataset) -> None:
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        ds._read_little = ds._read_implicit = None  # pydicom would keep the encoding it was read with

    change(paths[3], deflate)
    paths[3].write_bytes(paths[3].read_bytes()[:-200])
    refusal = _refused(paths)
    assert refusal.code == "unreadable"
    assert "deflated" in refusal.reason
